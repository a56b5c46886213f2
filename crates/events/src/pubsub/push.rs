//! Push: a subscription's messages, each sent as one request to a service or to the world outside.
//!
//! A message is acknowledged by the statuses 102, 200, 201, 202 and 204; anything else, and no answer within the ack deadline, is a
//! nack, a redirect too, which is not followed. How many are under way at a time begins with one, grows with each that is acknowledged and is halved by each that is not.
//! Without a retry policy, failures in a row let the whole subscription wait, 100 ms doubled up to 60 s; with one, each message waits
//! for itself. A trigger's messages are sent as events (`crate::eventarc`). Source: cloud.google.com/pubsub/docs/push and /payload-unwrapping.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use model::Status;
use serde_json::{Value as Json, json};

use super::{
    Inner,
    live::{Live, Received},
    record::{Push, Subscription, Wrapper},
};
use crate::{
    busy::Guard,
    deliver::{Call, Failure, Target, Token},
    eventarc::cloud_event::{self, Arrived},
    history::About,
};

/// Requests under way at a time, at most.
const WINDOW_MAX: usize = 3000;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Lets messages be sent, when the subscription has an endpoint.
pub(super) fn start(owner: &Arc<Inner>, live: &Arc<Live>) {
    if live.record().push.is_some() && live.push_begins() {
        tokio::spawn(run(owner.outside.clone(), live.clone()));
    }
}

async fn run(outside: Arc<dyn super::Outside>, live: Arc<Live>) {
    let (mut window, mut changed, mut sent) = (Window::new(), live.changed(), FuturesUnordered::new());
    // When pushes begin again, after a failure.
    let mut resumes = None;
    // What is under way until this task waits.
    let mut guards = Vec::new();
    loop {
        changed.borrow_and_update();
        guards.extend(live.roused());
        let record = live.record();
        let Some(push) = record.push.clone() else {
            live.push_ends();
            // An endpoint that was set meanwhile has found this task still here.
            if live.record().push.is_none() || !live.push_begins() {
                return;
            }
            continue;
        };
        let push = Arc::new(push);
        let waits_until = resumes.filter(|_| record.settings.retry.is_none());
        while waits_until.is_none() && sent.len() < window.size {
            // Each request is a subscriber of its own, so that of one ordering key one is under way.
            match live.take(live.subscriber_new(), 1, usize::MAX, None).await {
                Ok(received) if received.is_empty() => break,
                Ok(received) => sent.extend(received.into_iter().map(|received| send(outside.clone(), live.clone(), record.clone(), push.clone(), received))),
                Err(status) => {
                    if live.closed().is_cancelled() {
                        live.push_ends();
                        return;
                    }
                    tracing::warn!(subscription = %record.name, %status, "nothing can be pushed now");
                    break;
                }
            }
        }
        let pause = async {
            match waits_until {
                Some(time) => live.until(time).await,
                None => std::future::pending().await,
            }
        };
        guards.clear();
        tokio::select! {
            Some((is_acked, guard)) = sent.next() => {
                guards.push(guard);
                window.note(is_acked);
                resumes = window.wait.map(|wait| live.after(wait));
            }
            () = pause => resumes = None,
            _ = changed.changed() => {}
            () = live.closed().cancelled() => {
                live.push_ends();
                return;
            }
        }
    }
}

/// How many requests may be under way, and how long none may begin.
struct Window {
    size: usize,
    failures: u32,
    wait: Option<Duration>,
}

impl Window {
    fn new() -> Self {
        Self { size: 1, failures: 0, wait: None }
    }

    fn note(&mut self, is_acked: bool) {
        if is_acked {
            *self = Self { size: (self.size + 1).min(WINDOW_MAX), failures: 0, wait: None };
        } else {
            self.wait = Some(BACKOFF_MIN.saturating_mul(2_u32.saturating_pow(self.failures)).min(BACKOFF_MAX));
            self.failures = self.failures.saturating_add(1);
            self.size = (self.size / 2).max(1);
        }
    }
}

/// Sends one message and acknowledges or nacks it; whether it was acknowledged.
async fn send(outside: Arc<dyn super::Outside>, live: Arc<Live>, record: Arc<Subscription>, push: Arc<Push>, received: Received) -> (bool, Guard) {
    let under_way = live.begin();
    let ids = [received.ack_id.clone()];
    let about = match &push.trigger {
        Some(trigger) => About { sender: "eventarc", from: trigger.name.clone(), key: received.message_id.clone() },
        None => About { sender: "pubsub", from: record.name.to_string(), key: received.message_id.clone() },
    };
    let (mut is_seen, mut is_stopped) = (false, false);
    let is_acked = match call_of(&record, &push, &received) {
        Ok(call) => match outside.deliver(about, call).await.inspect(|answer| is_seen = !answer.is_before_function()) {
            Ok(answer) if matches!(answer.status.as_u16(), 102 | 200 | 201 | 202 | 204) => true,
            Ok(answer) => {
                tracing::info!(subscription = %record.name, message = received.message_id, status = answer.status.as_u16(), "a push was not acknowledged");
                false
            }
            Err(failure) => {
                is_seen = matches!(failure, Failure::TimedOut(_) | Failure::Broken(_));
                // It goes to the dead-letter topic, where there is one, and from there into no second one.
                is_stopped = matches!(&failure, Failure::Loop { hops, max } if record.dead_letter_topic.is_none() || hops.count > max + 1);
                tracing::warn!(subscription = %record.name, message = received.message_id, %failure, "a push was not answered");
                false
            }
        },
        Err(status) => {
            tracing::warn!(subscription = %record.name, message = received.message_id, %status, "a message cannot be pushed");
            false
        }
    };
    // What the function has not seen was no attempt of it: it comes again.
    let is_tried_out = is_seen && !is_acked && push.trigger.as_ref().is_some_and(|trigger| trigger.is_tried_once);
    if is_tried_out {
        tracing::warn!(subscription = %record.name, message = received.message_id, "an event is dropped: its trigger makes one attempt");
    }
    let done = if is_acked || is_tried_out || is_stopped { live.ack(&ids).await } else { live.modify_ack_deadline(&ids, 0).await };
    if let Err(status) = done
        && !live.closed().is_cancelled()
    {
        tracing::warn!(subscription = %record.name, %status, "what became of a push was not stored");
    }
    (is_acked, under_way)
}

/// The request of one message.
///
/// # Errors
/// `INVALID_ARGUMENT` for an attribute that is to be a header and cannot be one.
fn call_of(record: &Subscription, push: &Push, received: &Received) -> Result<Call, Status> {
    let url: Uri = push.endpoint.parse().map_err(|_| Status::invalid_field("push_config.push_endpoint", "is no URL"))?;
    let (headers, body) = match &push.trigger {
        Some(trigger) => {
            let wrapped = || wrapped(record, received).to_string();
            let arrived = Arrived { message: &received.message, message_id: &received.message_id, topic: record.topic.to_string(), wrapped: &wrapped };
            cloud_event::request(trigger.mode, &arrived)?
        }
        None => message_request(record, push.wrapper, received)?,
    };
    let token = push
        .oidc
        .as_ref()
        .map(|oidc| Token::Id { account: oidc.email.clone(), audience: if oidc.audience.is_empty() { push.endpoint.clone() } else { oidc.audience.clone() } });
    let timeout = Duration::from_secs(record.settings.ack_deadline_s.into());
    let (project, hops) = (record.name.project.clone(), received.message.hops());
    Ok(Call { project, target: Target::Url(url), method: Method::POST, headers, body, token, redirects_max: 0, timeout, hops })
}

/// Headers and body of a message that is no event.
fn message_request(record: &Subscription, wrapper: Wrapper, received: &Received) -> Result<(HeaderMap, Bytes), Status> {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static("CloudPubSub-Google"));
    headers.insert(header::FROM, HeaderValue::from_static("noreply@google.com"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let body = match wrapper {
        Wrapper::Unset | Wrapper::Wrapped => {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Bytes::from(wrapped(record, received).to_string())
        }
        Wrapper::Unwrapped { write_metadata } => {
            if write_metadata {
                metadata_write(record, received, &mut headers)?;
            }
            received.message.data.clone()
        }
    };
    Ok((headers, body))
}

/// The JSON of a wrapped message, with both spellings of two names, as Google sends them.
fn wrapped(record: &Subscription, received: &Received) -> Json {
    let (message, published) = (&received.message, received.message.published().to_string());
    let mut inner = json!({
        "messageId": received.message_id,
        "message_id": received.message_id,
        "publishTime": published,
        "publish_time": published,
    });
    if !message.attributes.is_empty() {
        inner["attributes"] = json!(message.attributes);
    }
    if !message.data.is_empty() {
        inner["data"] = STANDARD.encode(&message.data).into();
    }
    if !message.ordering_key.is_empty() {
        inner["orderingKey"] = message.ordering_key.as_str().into();
    }
    let mut outer = json!({ "message": inner, "subscription": record.name.to_string() });
    if record.dead_letter_topic.is_some() {
        outer["deliveryAttempt"] = received.attempt.into();
    }
    outer
}

fn metadata_write(record: &Subscription, received: &Received, headers: &mut HeaderMap) -> Result<(), Status> {
    let message = &received.message;
    let own = [
        ("x-goog-pubsub-subscription-name", record.name.to_string()),
        ("x-goog-pubsub-message-id", received.message_id.clone()),
        ("x-goog-pubsub-publish-time", message.published().to_string()),
        ("x-goog-pubsub-ordering-key", message.ordering_key.clone()),
    ];
    let own = own.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (*name, value.as_str()));
    for (name, value) in message.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(own) {
        let bad = || Status::invalid(format!("the attribute {name:?} cannot be a header"));
        headers.insert(HeaderName::try_from(name).map_err(|_| bad())?, HeaderValue::try_from(value).map_err(|_| bad())?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::{ProjectId, Timestamp};

    use super::{
        super::{
            message::Message,
            name::{Kind, Name},
            record::{Oidc, uid_new},
        },
        *,
    };
    use crate::subscription::{AckId, Settings};

    fn subscription() -> Subscription {
        let name = |kind, id| Name::new(kind, ProjectId::parse("local-project").unwrap(), id).unwrap();
        Subscription {
            name: name(Kind::Subscriptions, "sub"),
            uid: uid_new(),
            topic: name(Kind::Topics, "top"),
            topic_uid: uid_new(),
            began_after: 0,
            settings: Settings::default(),
            filter: String::new(),
            push: None,
            dead_letter_topic: None,
            ttl: None,
            labels: BTreeMap::new(),
            is_detached: false,
            created: Timestamp::UNIX_EPOCH,
        }
    }

    fn received(attributes: &[(&str, &str)]) -> Received {
        let message = Message {
            data: Bytes::from_static(b"hello"),
            attributes: attributes.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            ordering_key: "k".to_owned(),
            published_us: 1_500_000,
            ..Message::default()
        };
        Received { ack_id: "a".to_owned(), message: Arc::new(message), message_id: "7".to_owned(), attempt: 2, id: AckId { sequence: 1, epoch: 1, lease: 1 } }
    }

    #[test]
    fn a_wrapped_message_is_googles_json() {
        let push = Push { endpoint: "https://f.run.app/in".to_owned(), oidc: None, wrapper: Wrapper::Unset, trigger: None };
        let mut record = subscription();
        let body = |record: &Subscription| serde_json::from_slice::<Json>(&call_of(record, &push, &received(&[("a", "b")])).unwrap().body).unwrap();
        let time = "1970-01-01T00:00:01.5Z";
        let mut expect = json!({
            "subscription": "projects/local-project/subscriptions/sub",
            "message": {
                "data": "aGVsbG8=", "attributes": { "a": "b" }, "orderingKey": "k",
                "messageId": "7", "message_id": "7", "publishTime": time, "publish_time": time,
            },
        });
        assert_eq!(body(&record), expect);
        record.dead_letter_topic = Some(record.topic.clone());
        expect["deliveryAttempt"] = 2.into();
        assert_eq!(body(&record), expect);
    }

    #[test]
    fn an_unwrapped_message_is_its_data() {
        let push = |write_metadata| Push {
            endpoint: "https://f.run.app/in".to_owned(),
            oidc: Some(Oidc { email: "a@b".to_owned(), audience: String::new() }),
            wrapper: Wrapper::Unwrapped { write_metadata },
            trigger: None,
        };
        let call = call_of(&subscription(), &push(false), &received(&[("a", "b")])).unwrap();
        assert_eq!((&*call.body, call.headers.get("a"), call.headers.get(header::CONTENT_TYPE)), (&b"hello"[..], None, None));
        assert_eq!(call.token, Some(Token::Id { account: "a@b".to_owned(), audience: "https://f.run.app/in".to_owned() }));
        let call = call_of(&subscription(), &push(true), &received(&[("Content-Type", "text/plain")])).unwrap();
        let check = |name: &str, expect: &str| assert_eq!(call.headers[name], expect, "{name}");
        check("content-type", "text/plain");
        check("x-goog-pubsub-subscription-name", "projects/local-project/subscriptions/sub");
        check("x-goog-pubsub-message-id", "7");
        check("x-goog-pubsub-publish-time", "1970-01-01T00:00:01.5Z");
        check("x-goog-pubsub-ordering-key", "k");
        assert!(call_of(&subscription(), &push(true), &received(&[("a b", "c")])).is_err());
        assert!(call_of(&subscription(), &push(false), &received(&[("a b", "c")])).is_ok());
    }

    #[test]
    fn the_window_grows_and_shrinks() {
        let mut window = Window::new();
        let mut check = |is_acked: bool, size: usize, wait_ms: u64| {
            window.note(is_acked);
            assert_eq!((window.size, window.wait), (size, Some(Duration::from_millis(wait_ms)).filter(|wait| !wait.is_zero())));
        };
        check(true, 2, 0);
        check(true, 3, 0);
        check(true, 4, 0);
        check(false, 2, 100);
        check(false, 1, 200);
        for wait_ms in [400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000] {
            check(false, 1, wait_ms);
        }
        check(true, 2, 0);
        for size in (3..=WINDOW_MAX).chain([WINDOW_MAX; 2]) {
            check(true, size, 0);
        }
    }
}
