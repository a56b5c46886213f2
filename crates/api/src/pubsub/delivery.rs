//! The methods that take messages and give them back: pull, streaming pull, acknowledge, modifyAckDeadline, seek.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use events::{
    pubsub::{Kind, Name, Outcome, PubSub, Received},
    subscription::{ACK_DEADLINE_MAX_S, ACK_DEADLINE_MIN_S, Refusal, Settings},
};
use futures_util::{Stream, StreamExt as _};
use model::{Code, Status, Timestamp, status::ErrorInfo};
use proto::google::pubsub::v1::{self as pb, streaming_pull_response as response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{may, message_write, name_read};
use crate::{
    app::App,
    grpc::{Context, Requests},
};

/// How long a pull waits for a first message.
const PULL_WAIT: Duration = Duration::from_secs(30);
/// After so long without an answer a stream says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(20);

#[expect(deprecated, reason = "Google's own command line sets return_immediately")]
pub(super) async fn pull(app: App, context: Context, request: pb::PullRequest) -> Result<pb::PullResponse, Status> {
    let name = context.event_name(Kind::Subscriptions)?;
    let wait = if request.return_immediately { Duration::ZERO } else { PULL_WAIT };
    let received = app.pubsub.pull(&name, request.max_messages, wait).await?;
    let settings = app.pubsub.subscription_get(&name)?.record.settings.clone();
    Ok(pb::PullResponse { received_messages: received.into_iter().map(|one| received_write(one, &settings)).collect() })
}

pub(super) async fn acknowledge(app: App, context: Context, request: pb::AcknowledgeRequest) -> Result<(), Status> {
    refused(app.pubsub.ack(&context.event_name(Kind::Subscriptions)?, &request.ack_ids).await?)
}

pub(super) async fn modify_ack_deadline(app: App, context: Context, request: pb::ModifyAckDeadlineRequest) -> Result<(), Status> {
    let name = context.event_name(Kind::Subscriptions)?;
    refused(app.pubsub.modify_ack_deadline(&name, &request.ack_ids, request.ack_deadline_seconds).await?)
}

pub(super) async fn seek(app: App, context: Context, request: pb::SeekRequest) -> Result<pb::SeekResponse, Status> {
    let name = context.event_name(Kind::Subscriptions)?;
    match request.target {
        Some(pb::seek_request::Target::Time(time)) => {
            let time = Timestamp::new(time.seconds, time.nanos).map_err(|_| Status::invalid_field("time", "it is no time"))?;
            app.pubsub.seek_time(&name, time).await?;
        }
        Some(pb::seek_request::Target::Snapshot(snapshot)) => {
            let snapshot = name_read(&app, "snapshot", Kind::Snapshots, &snapshot)?;
            may(&app, &context, "pubsub.snapshots.seek", &snapshot)?;
            app.pubsub.seek_snapshot(&name, &snapshot).await?;
        }
        None => return Err(Status::invalid("The seek request must have a time or a snapshot.")),
    }
    Ok(pb::SeekResponse {})
}

/// What exactly-once delivery says of ids that it refuses. Source: the official clients, which read it.
fn refused(outcome: Outcome) -> Result<(), Status> {
    if outcome.refused.is_empty() {
        return Ok(());
    }
    let mut status = Status::new(
        Code::FailedPrecondition,
        "Some acknowledgement ids in the request were invalid. This could be because the acknowledgement ids have expired or the acknowledgement ids were malformed.",
    );
    let metadata: BTreeMap<String, String> = outcome.refused.into_iter().map(|(id, refusal)| (id, refusal.reason().to_owned())).collect();
    status.info = Some(Box::new(ErrorInfo { reason: "EXACTLY_ONCE_ACKID_FAILURE".to_owned(), domain: "pubsub.googleapis.com".to_owned(), metadata }));
    Err(status)
}

/// Two tasks: one reads acks and changes of deadlines, the other sends messages; the stream ends when either does.
pub(super) async fn streaming_pull(
    app: App,
    context: Context,
    first: pb::StreamingPullRequest,
    requests: Requests<pb::StreamingPullRequest>,
) -> Result<impl Stream<Item = Result<pb::StreamingPullResponse, Status>> + Send + use<>, Status> {
    let name = context.event_name(Kind::Subscriptions)?;
    let mut puller = app.pubsub.puller(&name)?;
    let limit = |value: i64| usize::try_from(value).ok().filter(|value| *value > 0);
    (puller.messages_max, puller.bytes_max) = (limit(first.max_outstanding_messages), limit(first.max_outstanding_bytes));
    let deadline_s = puller.ack_deadline_s();
    if first.stream_ack_deadline_seconds == 0 {
        return Err(Status::invalid_field("stream_ack_deadline_seconds", "the first request of a stream must set it"));
    }
    let has_heartbeats = first.protocol_version > 0;
    let (answers, stream) = mpsc::channel(1);
    let named = name.clone();
    let reading = Reading { pubsub: app.pubsub.clone(), name, deadline_s, answers: answers.clone() };
    tokio::spawn(async move {
        let sending = async {
            loop {
                let received = {
                    let mut next = std::pin::pin!(puller.next());
                    loop {
                        tokio::select! {
                            received = &mut next => break received,
                            () = tokio::time::sleep(HEARTBEAT), if has_heartbeats => {
                                if answers.send(Ok(pb::StreamingPullResponse::default())).await.is_err() {
                                    return;
                                }
                            }
                        }
                    }
                };
                // Who may not receive any more does not, however old the stream is.
                let received = may(&app, &context, "pubsub.subscriptions.consume", &named).and(received);
                let answer = match received {
                    Ok(received) => answer(&puller.settings(), received),
                    Err(status) => {
                        let _ = answers.send(Err(status)).await;
                        return;
                    }
                };
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = sending => {}
            () = reading.run(first, requests) => {}
            () = answers.closed() => {}
        }
    });
    Ok(ReceiverStream::new(stream))
}

fn answer(settings: &Settings, received: Vec<Received>) -> pb::StreamingPullResponse {
    pb::StreamingPullResponse {
        received_messages: received.into_iter().map(|one| received_write(one, settings)).collect(),
        subscription_properties: Some(response::SubscriptionProperties {
            exactly_once_delivery_enabled: settings.is_exactly_once,
            message_ordering_enabled: settings.is_ordered,
        }),
        ..Default::default()
    }
}

/// The requests of a stream.
struct Reading {
    pubsub: PubSub,
    name: Name,
    deadline_s: Arc<AtomicU32>,
    answers: mpsc::Sender<Result<pb::StreamingPullResponse, Status>>,
}

impl Reading {
    /// Until the client sends no more, or what cannot be.
    async fn run(&self, first: pb::StreamingPullRequest, mut requests: Requests<pb::StreamingPullRequest>) {
        let mut next = Some(Ok(first));
        let mut is_first = true;
        while let Some(request) = next {
            let done = match request {
                Ok(request) => self.one(request, is_first).await,
                // The connection is gone: there is nobody to tell.
                Err(_) => return,
            };
            if let Err(status) = done {
                let _ = self.answers.send(Err(status)).await;
                return;
            }
            is_first = false;
            next = requests.next().await;
        }
    }

    async fn one(&self, request: pb::StreamingPullRequest, is_first: bool) -> Result<(), Status> {
        if !is_first && (!request.subscription.is_empty() || request.max_outstanding_messages != 0 || request.max_outstanding_bytes != 0) {
            return Err(Status::invalid("subscription, max_outstanding_messages and max_outstanding_bytes can be set in the first request of a stream only."));
        }
        let range = ACK_DEADLINE_MIN_S..=ACK_DEADLINE_MAX_S;
        match u32::try_from(request.stream_ack_deadline_seconds) {
            Ok(0) => {}
            Ok(seconds) if range.contains(&seconds) => self.deadline_s.store(seconds, Ordering::Relaxed),
            _ => {
                let why = format!("must be from {ACK_DEADLINE_MIN_S} to {ACK_DEADLINE_MAX_S}, and is {}", request.stream_ack_deadline_seconds);
                return Err(Status::invalid_field("stream_ack_deadline_seconds", why));
            }
        }
        if request.modify_deadline_seconds.len() != request.modify_deadline_ack_ids.len() {
            return Err(Status::invalid("modify_deadline_seconds and modify_deadline_ack_ids must have the same length."));
        }
        let settings = self.pubsub.subscription_get(&self.name)?.record.settings.clone();
        if !request.ack_ids.is_empty() {
            let refused = lenient(self.pubsub.ack(&self.name, &request.ack_ids).await)?;
            if settings.is_exactly_once {
                self.confirm(&settings, acked(request.ack_ids, refused)).await;
            }
        }
        let mut by_seconds: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        for (id, seconds) in request.modify_deadline_ack_ids.into_iter().zip(request.modify_deadline_seconds) {
            by_seconds.entry(seconds).or_default().push(id);
        }
        for (seconds, ids) in by_seconds {
            let refused = lenient(self.pubsub.modify_ack_deadline(&self.name, &ids, seconds).await)?;
            if settings.is_exactly_once {
                self.confirm(&settings, modified(ids, refused)).await;
            }
        }
        Ok(())
    }

    async fn confirm(&self, settings: &Settings, confirmation: pb::StreamingPullResponse) {
        let subscription_properties = answer(settings, Vec::new()).subscription_properties;
        let _ = self.answers.send(Ok(pb::StreamingPullResponse { subscription_properties, ..confirmation })).await;
    }
}

/// On a stream, an id that is none is passed over, as at Google.
fn lenient(outcome: Result<Outcome, Status>) -> Result<Vec<(String, Refusal)>, Status> {
    match outcome {
        Ok(outcome) => Ok(outcome.refused),
        Err(status) if status.code == Code::InvalidArgument => Ok(Vec::new()),
        Err(status) => Err(status),
    }
}

/// The ids that were not refused, and those that were, by how.
fn parted(ids: Vec<String>, refused: Vec<(String, Refusal)>) -> (Vec<String>, Vec<String>, Vec<String>) {
    let of = |kind: Refusal| refused.iter().filter(|(_, refusal)| *refusal == kind).map(|(id, _)| id.clone()).collect::<Vec<_>>();
    let (invalid, unordered) = (of(Refusal::InvalidAckId), of(Refusal::UnorderedAckId));
    let all: HashSet<&String> = invalid.iter().chain(&unordered).collect();
    let good = ids.into_iter().filter(|id| !all.contains(id)).collect();
    (good, invalid, unordered)
}

fn acked(ids: Vec<String>, refused: Vec<(String, Refusal)>) -> pb::StreamingPullResponse {
    let (ack_ids, invalid_ack_ids, unordered_ack_ids) = parted(ids, refused);
    let confirmation = response::AcknowledgeConfirmation { ack_ids, invalid_ack_ids, unordered_ack_ids, ..Default::default() };
    pb::StreamingPullResponse { acknowledge_confirmation: Some(confirmation), ..Default::default() }
}

fn modified(ids: Vec<String>, refused: Vec<(String, Refusal)>) -> pb::StreamingPullResponse {
    let (ack_ids, invalid_ack_ids, _) = parted(ids, refused);
    let confirmation = response::ModifyAckDeadlineConfirmation { ack_ids, invalid_ack_ids, ..Default::default() };
    pb::StreamingPullResponse { modify_ack_deadline_confirmation: Some(confirmation), ..Default::default() }
}

/// The attempt is told only where it counts, as at Google.
fn received_write(received: Received, settings: &Settings) -> pb::ReceivedMessage {
    pb::ReceivedMessage {
        ack_id: received.ack_id,
        message: Some(message_write(&received.message, received.message_id)),
        delivery_attempt: settings.delivery_attempts_max.map_or(0, |_| i32::try_from(received.attempt).unwrap_or(i32::MAX)),
    }
}
