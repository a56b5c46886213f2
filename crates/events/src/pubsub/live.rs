//! A subscription that runs: the state machine of [`crate::subscription`] over its topic's messages and a log of its own.
//!
//! One lock around the machine. Entries are handed to the journal under it, so that they lie in the log in the order of the changes;
//! whoever asked is answered when they lie on disk. When they do not, the machine is made again from the log. A task
//! ([`Live::drive`]) feeds it when its topic grows and lets its timers end; it waits by the clock.
//!
//! Who may call is not known here.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use model::{Clock, Code, Status, Timestamp};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use store::Store;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Inner, ack_id,
    journal::{AfterFailure, Journal},
    message::Message,
    record,
    stream::Stream,
};
use crate::busy::{Busy, Guard};
use crate::subscription::{Acked, Checkpoint, DeadLetter, Done, Entry, Facts, Filter, Refusal, Subscriber, Subscription};

/// So many messages are fed at a time, and so many of their bytes are read; then others get the lock.
const FEED_MAX: usize = 2_000;
const FEED_MAX_BYTES: usize = 8 << 20;
/// After so many entries a checkpoint stands for them.
const CHECKPOINT_AFTER: usize = 1_000;
/// How exactly the log knows when a subscriber was last there.
const ACTIVE_STEP: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);
/// Between attempts to make the machine again.
const RESTORE_AGAIN: Duration = Duration::from_secs(1);

/// A message that is out to a subscriber.
#[derive(Clone, Debug)]
pub struct Received {
    pub ack_id: String,
    pub message: Arc<Message>,
    pub message_id: String,
    /// 1 and how often it was delivered in vain.
    pub attempt: u32,
    pub(crate) id: crate::subscription::AckId,
}

/// What became of the ack ids of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// By ack id. Empty unless exactly-once delivery is on.
    pub refused: Vec<(String, Refusal)>,
}

/// A line of the subscription's log.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Entry(Entry),
    /// Stands for all lines before it.
    Checkpoint {
        state: Checkpoint,
        active: Timestamp,
    },
    /// A subscriber was there.
    Active(Timestamp),
}

/// A running subscription.
pub(crate) struct Live {
    pub(crate) uid: String,
    pub(crate) stream: Arc<Stream>,
    record: RwLock<Arc<record::Subscription>>,
    filter: Filter,
    owner: Weak<Inner>,
    clock: Arc<dyn Clock>,
    store: Store,
    journal: Journal,
    state: Mutex<State>,
    /// Counts: something may be ready, or room for it.
    changed: watch::Sender<u64>,
    /// The task is to look again.
    poke: Notify,
    closed: CancellationToken,
    /// Of all of them, at the end of the process.
    stop: CancellationToken,
    subscriber_last: AtomicU64,
    /// Whether a task sends its messages.
    is_pushing: AtomicBool,
    /// Held from when something may have to be pushed until the task that pushes has looked.
    roused: Mutex<Option<Guard>>,
    busy: Busy,
    /// How many streams are open.
    pub(super) streams: AtomicUsize,
}

struct State {
    machine: Subscription,
    /// An entry was not stored: the machine knows more than the log, and does nothing until it is made again.
    is_broken: bool,
    /// Entries since the last checkpoint.
    entries: usize,
    /// The cursor of the last checkpoint.
    cursor: u64,
    active: Timestamp,
    /// What the task waits for.
    armed: Option<Timestamp>,
}

/// The log of a subscription.
pub(crate) fn log_name(uid: &str) -> String {
    format!("sub/{uid}")
}

/// Makes the log of a subscription that begins after the sequence `cursor`.
///
/// # Errors
/// `UNAVAILABLE` when the store does not take it.
pub(crate) async fn log_make(store: &Store, uid: &str, cursor: u64, now: Timestamp) -> Result<(), Status> {
    let line = encode(&Line::Checkpoint { state: Checkpoint::new(cursor), active: now });
    store.logs().append(&log_name(uid), vec![line]).await.map(drop).map_err(Status::internal)
}

impl Live {
    /// Reads the log and starts the task.
    ///
    /// # Errors
    /// `INTERNAL` when the log cannot be read or takes no entry.
    pub(crate) async fn open(owner: &Arc<Inner>, record: record::Subscription, stream: Arc<Stream>) -> Result<Arc<Self>, Status> {
        let filter = Filter::parse(&record.filter)?;
        let journal = Journal::start(owner.store.clone(), log_name(&record.uid), AfterFailure::Fail);
        let (state, opened) = restore(&owner.store, &record, &filter)?;
        journal.append(vec![opened]).await?;
        let live = Arc::new(Self {
            uid: record.uid.clone(),
            stream,
            record: RwLock::new(Arc::new(record)),
            filter,
            owner: Arc::downgrade(owner),
            clock: owner.clock.clone(),
            store: owner.store.clone(),
            journal,
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            poke: Notify::new(),
            closed: owner.stop.child_token(),
            stop: owner.stop.clone(),
            subscriber_last: AtomicU64::new(0),
            is_pushing: AtomicBool::new(false),
            roused: Mutex::default(),
            busy: owner.outside.busy(),
            streams: AtomicUsize::new(0),
        });
        tokio::spawn(live.clone().drive());
        Ok(live)
    }

    pub(crate) fn record(&self) -> Arc<record::Subscription> {
        self.record.read().clone()
    }

    /// Takes over what its owner set; `record` was checked.
    pub(crate) fn configure(&self, record: record::Subscription) -> Result<(), Status> {
        let mut state = self.state.lock();
        state.machine.configure(record.settings.clone())?;
        *self.record.write() = Arc::new(record);
        drop(state);
        self.poke.notify_one();
        Ok(())
    }

    /// Ends it: whoever waits for messages is told. Its log is left alone.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// What is said to who asks for messages once it is closed.
    pub(crate) fn gone(&self) -> Status {
        if self.stop.is_cancelled() { Status::unavailable("The server is shutting down.") } else { self.record.read().name.missing() }
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// The instant so far from now.
    pub(crate) fn after(&self, duration: Duration) -> Timestamp {
        self.clock.now().checked_add(duration).unwrap_or(Timestamp::MAX)
    }

    /// Waits by the clock.
    pub(crate) async fn until(&self, time: Timestamp) {
        self.clock.until(time).await;
    }

    /// Whether a stream of it is open.
    pub(crate) fn is_streamed(&self) -> bool {
        self.streams.load(Ordering::Relaxed) > 0
    }

    /// Something of it begins.
    pub(crate) fn begin(&self) -> Guard {
        self.busy.begin()
    }

    /// Something may have to be pushed: it is under way until [`Live::roused`] is asked, which follows since the caller sees to it that
    /// [`Live::changed`] is told afterwards.
    pub(crate) fn rouse(&self) {
        let mut roused = self.roused.lock();
        if self.is_pushing.load(Ordering::Acquire) && roused.is_none() && !self.closed.is_cancelled() {
            *roused = Some(self.busy.begin());
        }
    }

    /// Asked by the task that pushes, before it looks and after it has taken note of [`Live::changed`].
    pub(crate) fn roused(&self) -> Option<Guard> {
        self.roused.lock().take()
    }

    /// A task is to push; `false` when one does already.
    pub(crate) fn push_begins(self: &Arc<Self>) -> bool {
        let is_first = !self.is_pushing.swap(true, Ordering::AcqRel);
        if is_first {
            self.stream.pushes(self);
            self.rouse();
        }
        is_first
    }

    /// The task that pushed ends.
    pub(crate) fn push_ends(&self) {
        let mut roused = self.roused.lock();
        self.is_pushing.store(false, Ordering::Release);
        *roused = None;
    }

    /// A number for a stream or a request.
    pub(crate) fn subscriber_new(&self) -> Subscriber {
        Subscriber(self.subscriber_last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Told when something may be ready.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Leases what is ready: up to `messages_max`, and no more once they have `bytes_max`; one at least, when there is one.
    /// `ack_deadline_s` is the subscription's when it is `None`.
    pub(crate) async fn take(
        self: &Arc<Self>,
        subscriber: Subscriber,
        messages_max: usize,
        bytes_max: usize,
        ack_deadline_s: Option<u32>,
    ) -> Result<Vec<Received>, Status> {
        let (received, stored) = {
            let mut state = self.state.lock();
            let now = self.ready(&mut state)?;
            let deadline_s = ack_deadline_s.unwrap_or_else(|| self.record.read().settings.ack_deadline_s);
            let (mut bodies, mut bytes): (Vec<Option<Arc<Message>>>, _) = (Vec::new(), 0);
            let (deliveries, mut done) = state.machine.pull_while(subscriber, deadline_s, now, |sequence| {
                if bodies.len() >= messages_max || (bytes >= bytes_max && !bodies.is_empty()) {
                    return false;
                }
                let body = self.stream.get(sequence).ok().flatten();
                bytes += body.as_ref().map_or(0, |message| message.bytes());
                bodies.push(body);
                true
            });
            let (mut received, mut lost) = (Vec::new(), Vec::new());
            for (delivery, body) in deliveries.into_iter().zip(bodies) {
                let id = delivery.ack_id;
                match body {
                    Some(message) => received.push(Received {
                        ack_id: ack_id::write(&self.uid, id),
                        message,
                        message_id: self.stream.message_id(id.sequence),
                        attempt: delivery.attempt,
                        id,
                    }),
                    None => lost.push(id),
                }
            }
            if !lost.is_empty() {
                // Or it would stand in the way of all behind it for ever.
                tracing::error!(subscription = %self.record.read().name, messages = lost.len(), "messages are damaged on disk and cannot be delivered");
                let dropped = state.machine.ack(&lost, now);
                done.entries.extend(dropped.entries);
            }
            if !received.is_empty() {
                self.note_active(&mut state, now);
            }
            let (_, stored) = self.settle(&mut state, done);
            (received, stored)
        };
        stored.await?;
        Ok(received)
    }

    /// Acknowledges; answered when it lies on disk.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a text that is no ack id of this subscription.
    pub(crate) async fn ack(self: &Arc<Self>, texts: &[String]) -> Result<Outcome, Status> {
        self.by_id(texts, |machine, ids, now| Ok(machine.ack(ids, now))).await
    }

    /// Lets leases end `deadline_s` seconds from now; 0 is a nack.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a text that is no ack id of this subscription, or a deadline above 600.
    pub(crate) async fn modify_ack_deadline(self: &Arc<Self>, texts: &[String], deadline_s: u32) -> Result<Outcome, Status> {
        self.by_id(texts, |machine, ids, now| machine.modify_ack_deadline(ids, deadline_s, now)).await
    }

    async fn by_id(
        self: &Arc<Self>,
        texts: &[String],
        act: impl FnOnce(&mut Subscription, &[crate::subscription::AckId], Timestamp) -> Result<Done, Status>,
    ) -> Result<Outcome, Status> {
        let (mut ids, mut refused) = (Vec::with_capacity(texts.len()), Vec::new());
        for text in texts {
            match ack_id::read(&self.uid, text) {
                Some(id) => ids.push(id),
                None if self.record.read().settings.is_exactly_once => refused.push((text.clone(), Refusal::InvalidAckId)),
                None => return Err(Status::invalid(format!("You have passed an invalid ack ID to the service (ack_id={text})."))),
            }
        }
        let (more, stored) = {
            let mut state = self.state.lock();
            let now = self.ready(&mut state)?;
            let done = act(&mut state.machine, &ids, now)?;
            self.note_active(&mut state, now);
            self.settle(&mut state, done)
        };
        refused.extend(more.into_iter().map(|(id, refusal)| (ack_id::write(&self.uid, id), refusal)));
        stored.await?;
        self.changed.send_modify(|count| *count += 1);
        Ok(Outcome { refused })
    }

    /// Whether the lease still runs.
    pub(crate) fn is_out(&self, id: crate::subscription::AckId) -> bool {
        self.state.lock().machine.is_current(id)
    }

    /// Sets anew what is acknowledged.
    pub(crate) async fn seek(self: &Arc<Self>, act: impl FnOnce(&mut Subscription) -> Done) -> Result<(), Status> {
        let stored = {
            let mut state = self.state.lock();
            let now = self.ready(&mut state)?;
            let done = act(&mut state.machine);
            self.note_active(&mut state, now);
            self.settle(&mut state, done).1
        };
        stored.await?;
        self.poke.notify_one();
        Ok(())
    }

    /// What a snapshot keeps; all of it lies on disk.
    pub(crate) async fn snapshot(self: &Arc<Self>) -> Result<Acked, Status> {
        let (acked, stored) = {
            let mut state = self.state.lock();
            let now = self.ready(&mut state)?;
            let done = state.machine.advance(now);
            let acked = state.machine.snapshot().clone();
            (acked, self.settle(&mut state, done).1)
        };
        stored.await?;
        // Behind everything that the machine knew.
        self.journal.append(Vec::new()).await?;
        Ok(acked)
    }

    /// A subscriber is there, with or without messages for it.
    pub(crate) fn touch(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if !state.is_broken {
            self.note_active(&mut state, self.clock.now());
        }
    }

    /// Drops what is too old, and makes a checkpoint when many messages went by since the last one.
    pub(crate) fn look_after(self: &Arc<Self>) {
        if self.streams.load(Ordering::Relaxed) > 0 {
            self.touch();
        }
        let mut state = self.state.lock();
        if let Ok(now) = self.ready(&mut state) {
            let done = state.machine.advance(now);
            drop(self.settle(&mut state, done));
            if state.machine.snapshot().cursor() >= state.cursor + CHECKPOINT_AFTER as u64 {
                self.checkpoint(&mut state);
            }
        }
    }

    /// When a subscriber was last there.
    pub(crate) fn active(&self) -> Timestamp {
        self.state.lock().active
    }

    /// The first sequence of its topic that it still needs.
    ///
    /// # Errors
    /// `INTERNAL` when what must be looked at is damaged on disk.
    pub(crate) fn needed_from(&self) -> Result<u64, Status> {
        let state = self.state.lock();
        if state.is_broken {
            return Err(Status::unavailable("the subscription's state is read anew"));
        }
        let mut failure = None;
        let from = state.machine.needed_from(self.clock.now(), |time| {
            self.stream.first_since(time).unwrap_or_else(|status| {
                failure = Some(status);
                1
            })
        });
        match failure {
            Some(status) => Err(status),
            None => Ok(from),
        }
    }

    /// The oldest message that is not acknowledged, if there is one.
    pub(crate) fn oldest_unacked(&self) -> Result<Option<Arc<Message>>, Status> {
        let sequence = self.state.lock().machine.snapshot().cursor() + 1;
        Ok(self.stream.read_after(sequence - 1, 1, usize::MAX)?.pop().map(|(_, message)| message))
    }

    /// Feeds what there is room for, and says what time it is.
    ///
    /// # Errors
    /// `UNAVAILABLE` while the machine is made again, `NOT_FOUND` when the subscription is gone.
    fn ready(&self, state: &mut State) -> Result<Timestamp, Status> {
        if self.closed.is_cancelled() {
            return Err(self.gone());
        }
        if state.is_broken {
            return Err(Status::unavailable("The service was unable to fulfill your request. Please try again."));
        }
        let head = self.stream.head();
        let room = state.machine.room().min(FEED_MAX);
        if room > 0 && state.machine.next_sequence() <= head {
            let messages = self.stream.read_after(state.machine.next_sequence() - 1, room, FEED_MAX_BYTES).inspect_err(|status| {
                tracing::error!(subscription = %self.record.read().name, %status, "messages cannot be read");
            })?;
            for (sequence, message) in messages {
                let attribute = |key: &str| message.attributes.get(key).map(String::as_str);
                state.machine.feed(Facts { sequence, published: message.published(), ordering_key: &message.ordering_key, attribute: &attribute });
            }
            if state.machine.room() > 0 && state.machine.next_sequence() <= head {
                self.poke.notify_one();
            }
        }
        Ok(self.clock.now())
    }

    /// Hands in what a call leaves to store, sends dead letters off, and sees to it that the task wakes in time.
    /// What is returned resolves when it lies on disk.
    fn settle(
        self: &Arc<Self>,
        state: &mut State,
        done: Done,
    ) -> (Vec<(crate::subscription::AckId, Refusal)>, impl Future<Output = Result<(), Status>> + Send + use<>) {
        let Done { entries, dead_letters, refused } = done;
        let stored = (!entries.is_empty()).then(|| {
            state.entries += entries.len();
            self.hand_in(entries.into_iter().map(|entry| encode(&Line::Entry(entry))).collect())
        });
        if state.entries >= CHECKPOINT_AFTER {
            self.checkpoint(state);
        }
        for letter in dead_letters {
            self.dead_letter(letter);
        }
        let timer = state.machine.next_timer();
        if timer.is_some_and(|timer| state.armed.is_none_or(|armed| timer < armed)) {
            self.poke.notify_one();
        }
        (refused, async move {
            match stored {
                Some(stored) => stored.await.unwrap_or_else(|_| Err(Status::unavailable("The service is shutting down."))),
                None => Ok(()),
            }
        })
    }

    fn hand_in(self: &Arc<Self>, lines: Vec<Vec<u8>>) -> tokio::sync::oneshot::Receiver<Result<(), Status>> {
        let (done, answer) = tokio::sync::oneshot::channel();
        let live = Arc::downgrade(self);
        self.journal.append_then(lines, move |appended| {
            if appended.is_err()
                && let Some(live) = live.upgrade()
            {
                live.state.lock().is_broken = true;
                live.poke.notify_one();
            }
            let _ = done.send(appended.map(drop));
        });
        answer
    }

    fn note_active(self: &Arc<Self>, state: &mut State, now: Timestamp) {
        if now.duration_since(state.active) >= ACTIVE_STEP {
            state.active = now;
            drop(self.hand_in(vec![encode(&Line::Active(now))]));
        }
    }

    fn checkpoint(self: &Arc<Self>, state: &mut State) {
        state.entries = 0;
        state.cursor = state.machine.snapshot().cursor();
        let line = encode(&Line::Checkpoint { state: state.machine.checkpoint().clone(), active: state.active });
        let (live, store, log) = (Arc::downgrade(self), self.store.clone(), log_name(&self.uid));
        self.journal.append_then(vec![line], move |appended| match appended {
            Ok(number) => {
                tokio::spawn(async move {
                    if let Err(error) = store.logs().trim(&log, number - 1).await {
                        tracing::error!(log, %error, "a log was not trimmed");
                    }
                });
            }
            Err(_) => {
                if let Some(live) = live.upgrade() {
                    live.state.lock().is_broken = true;
                    live.poke.notify_one();
                }
            }
        });
    }

    /// Publishes a message whose attempts are used up to the dead-letter topic.
    fn dead_letter(self: &Arc<Self>, letter: DeadLetter) {
        let (live, under_way) = (self.clone(), self.busy.begin());
        tokio::spawn(async move {
            let _under_way = under_way;
            let forwarded = match live.owner.upgrade() {
                Some(owner) => super::dead_letter::forward(&owner, &live, letter).await,
                None => return,
            };
            let stored = {
                let mut state = live.state.lock();
                let Ok(now) = live.ready(&mut state) else { return };
                let done = match forwarded {
                    Ok(()) => state.machine.dead_lettered(letter.sequence),
                    Err(status) => {
                        tracing::warn!(subscription = %live.record.read().name, %status, "the dead-letter topic did not take a message; it is delivered again");
                        state.machine.dead_letter_failed(letter.sequence, now);
                        Done::default()
                    }
                };
                live.settle(&mut state, done).1
            };
            // When it is not stored, the machine is made again and the message forwarded once more.
            let _ = stored.await;
            live.changed.send_modify(|count| *count += 1);
        });
    }

    /// Feeds and lets timers end, until it is closed.
    async fn drive(self: Arc<Self>) {
        let mut head = self.stream.head_watch();
        loop {
            head.borrow_and_update();
            let next = {
                let mut state = self.state.lock();
                if state.is_broken {
                    None
                } else {
                    if let Ok(now) = self.ready(&mut state) {
                        let done = state.machine.advance(now);
                        drop(self.settle(&mut state, done));
                    }
                    state.armed = state.machine.next_timer();
                    Some(state.armed)
                }
            };
            let Some(armed) = next else {
                if self.restore_again().await.is_err() {
                    tokio::select! {
                        () = tokio::time::sleep(RESTORE_AGAIN) => {}
                        () = self.closed.cancelled() => return,
                    }
                }
                continue;
            };
            self.rouse();
            self.changed.send_modify(|count| *count += 1);
            let timer = async {
                match armed {
                    Some(at) => self.clock.until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer => {}
                _ = head.changed() => {}
                () = self.poke.notified() => {}
                () = self.closed.cancelled() => return,
            }
        }
    }

    /// Makes the machine again from what lies on disk.
    async fn restore_again(&self) -> Result<(), Status> {
        self.journal.reset().await;
        let record = self.record();
        let (state, opened) = restore(&self.store, &record, &self.filter)?;
        self.journal.append(vec![opened]).await?;
        *self.state.lock() = state;
        tracing::info!(subscription = %record.name, "the state of a subscription was restored");
        Ok(())
    }
}

/// The state that the log holds, and the line that begins its epoch.
fn restore(store: &Store, record: &record::Subscription, filter: &Filter) -> Result<(State, Vec<u8>), Status> {
    let log = log_name(&record.uid);
    let (mut checkpoint, mut active, mut entries, mut after) = (None, record.created, Vec::new(), 0);
    loop {
        let lines = store.logs().read(&log, after, CHECKPOINT_AFTER, FEED_MAX_BYTES).map_err(Status::internal)?;
        let Some(last) = lines.last() else { break };
        after = last.number;
        for line in lines {
            match serde_json::from_slice(&line.value).map_err(Status::internal)? {
                Line::Entry(entry) => entries.push(entry),
                Line::Active(at) => active = at,
                Line::Checkpoint { state, active: at } => {
                    entries.clear();
                    (checkpoint, active) = (Some(state), at);
                }
            }
        }
    }
    // Never without one: it is written before the record.
    let checkpoint = checkpoint.ok_or_else(|| Status::new(Code::DataLoss, format!("The log of {} is not there.", record.name)))?;
    let (machine, opened) = Subscription::restore(record.settings.clone(), filter.clone(), checkpoint, &entries)?;
    let cursor = machine.snapshot().cursor();
    Ok((State { machine, is_broken: false, entries: entries.len(), cursor, active, armed: None }, encode(&Line::Entry(opened))))
}

fn encode(line: &Line) -> Vec<u8> {
    serde_json::to_vec(line).expect("a line is made of structs, lists and maps with numbers as keys")
}
