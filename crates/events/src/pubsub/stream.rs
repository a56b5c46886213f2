//! The messages of one topic: published in order, kept in its log, the newest in memory too.
//!
//! It outlives its topic for as long as a subscription or a snapshot needs its messages.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use model::{Status, Timestamp};
use parking_lot::Mutex;
use store::Store;
use tokio::sync::watch;

use super::{
    journal::{AfterFailure, Journal},
    live::Live,
    message::Message,
    record::uid_half,
};

/// What of the newest messages is kept in memory, so that who follows reads nothing from disk.
const RECENT_MAX_BYTES: usize = 4 << 20;
const RECENT_MAX: usize = 10_000;
/// Of all topics together: what a daemon may take of a small machine for what it could read from disk. Beyond it, the topics that were
/// published to longest ago give theirs up, down to three quarters, so that not every publish looks for one.
const ALL_RECENT_MAX_BYTES: usize = 256 << 20;
/// What of a message's size in memory its bytes do not say.
const MESSAGE_OVERHEAD_BYTES: usize = 256;
/// Message ids have 16 digits, as Google's.
const ID_FIRST: u64 = 1_000_000_000_000_000;
const ID_SPAN: u64 = 8_000_000_000_000_000;

/// A topic's messages.
pub(crate) struct Stream {
    pub(crate) uid: String,
    store: Store,
    journal: Journal,
    /// The publish time that was given out last: none after it is earlier.
    last: Mutex<Timestamp>,
    shared: Arc<Shared>,
}

struct Shared {
    /// The last message that lies on disk.
    head: watch::Sender<u64>,
    recent: Mutex<Recent>,
    memory: Arc<Memory>,
    /// When it was published to last, by the count of [`Memory`].
    used: AtomicU64,
    /// Those that push its messages: they are under way from the moment in which a message is there.
    pushing: Mutex<Vec<Weak<Live>>>,
}

/// What all topics have in memory.
#[derive(Default)]
pub(crate) struct Memory {
    bytes: AtomicUsize,
    uses: AtomicU64,
    topics: Mutex<Vec<Weak<Shared>>>,
}

/// A run of messages that ends with the head.
#[derive(Default)]
struct Recent {
    messages: VecDeque<Arc<Message>>,
    first: u64,
    bytes: usize,
}

/// The log of a topic's messages.
pub(crate) fn log_name(uid: &str) -> String {
    format!("topic/{uid}")
}

impl Stream {
    /// # Errors
    /// `INTERNAL` when its log cannot be read.
    pub(crate) fn open(store: Store, uid: &str, memory: &Arc<Memory>) -> Result<Arc<Self>, Status> {
        let log = log_name(uid);
        let head = store.logs().extent(&log).map_err(Status::internal)?.head;
        let newest = store.logs().read(&log, head.saturating_sub(1), 1, usize::MAX).map(|mut entries| entries.pop());
        let last = match newest.map_err(Status::internal).and_then(|entry| entry.map(|entry| Message::decode_entry(entry.value)).transpose()) {
            Ok(message) => message.map_or(Timestamp::UNIX_EPOCH, |message| message.published()),
            // Damaged: the clock alone orders what comes.
            Err(status) => {
                tracing::error!(log, %status, "the newest message cannot be read");
                Timestamp::UNIX_EPOCH
            }
        };
        let recent = Recent { first: head + 1, ..Recent::default() };
        let shared = Arc::new(Shared {
            head: watch::Sender::new(head),
            recent: Mutex::new(recent),
            memory: memory.clone(),
            used: AtomicU64::new(0),
            pushing: Mutex::default(),
        });
        memory.add(&shared);
        let journal = Journal::start(store.clone(), log, AfterFailure::GoOn);
        Ok(Arc::new(Self { uid: uid.to_owned(), store, journal, last: Mutex::new(last), shared }))
    }

    /// Publishes a batch that was checked; the sequence of its first message, once all lie on disk.
    pub(crate) async fn publish(&self, mut messages: Vec<Message>, now: Timestamp) -> Result<u64, Status> {
        let answer = {
            // The order of times is that of the log.
            let mut last = self.last.lock();
            *last = now.max(*last);
            for message in &mut messages {
                message.published_us = last.as_microsecond();
            }
            let entries = messages.iter().map(Message::encode_entry).collect();
            let (shared, messages): (_, Vec<_>) = (self.shared.clone(), messages.into_iter().map(Arc::new).collect());
            let (done, answer) = tokio::sync::oneshot::channel();
            self.journal.append_then(entries, move |appended| {
                if let Ok(first) = appended {
                    shared.add(first, messages);
                }
                let _ = done.send(appended);
            });
            answer
        };
        answer.await.unwrap_or_else(|_| Err(Status::unavailable("The service is shutting down.")))
    }

    /// The id of a message.
    pub(crate) fn message_id(&self, sequence: u64) -> String {
        (ID_FIRST + uid_half(&self.uid) % ID_SPAN + sequence).to_string()
    }

    /// The last message that lies on disk.
    pub(crate) fn head(&self) -> u64 {
        *self.shared.head.borrow()
    }

    /// Told of each new head.
    pub(crate) fn head_watch(&self) -> watch::Receiver<u64> {
        self.shared.head.subscribe()
    }

    /// Whether its log holds anything.
    pub(crate) fn has_messages(&self) -> bool {
        self.store.logs().extent(&log_name(&self.uid)).is_ok_and(|extent| !extent.is_empty())
    }

    /// `live` is told of each message before its publisher is.
    pub(crate) fn pushes(&self, live: &Arc<Live>) {
        let mut pushing = self.shared.pushing.lock();
        pushing.retain(|known| known.strong_count() > 0 && !known.ptr_eq(&Arc::downgrade(live)));
        pushing.push(Arc::downgrade(live));
    }

    /// The message with this sequence; `None` for one that is no more, or not yet.
    ///
    /// # Errors
    /// `INTERNAL` for one that is damaged on disk.
    pub(crate) fn get(&self, sequence: u64) -> Result<Option<Arc<Message>>, Status> {
        if let Some(message) = self.shared.recent.lock().get(sequence) {
            return Ok(Some(message));
        }
        Ok(self.read(sequence.saturating_sub(1), 1, usize::MAX)?.pop().filter(|(found, _)| *found == sequence).map(|(_, message)| message))
    }

    /// Up to `limit` messages after the sequence `after`, no more once they hold `bytes_max`, with their sequences.
    ///
    /// # Errors
    /// `INTERNAL` when one is damaged on disk.
    pub(crate) fn read_after(&self, after: u64, limit: usize, bytes_max: usize) -> Result<Vec<(u64, Arc<Message>)>, Status> {
        {
            let recent = self.shared.recent.lock();
            if after + 1 >= recent.first {
                let sequences = after + 1..recent.first + recent.messages.len() as u64;
                return Ok(sequences.take(limit).filter_map(|sequence| Some((sequence, recent.get(sequence)?))).collect());
            }
        }
        self.read(after, limit, bytes_max)
    }

    /// The first sequence that was published at `time` or later; the one after the head when there is none.
    ///
    /// # Errors
    /// `INTERNAL` when what is looked at is damaged on disk.
    pub(crate) fn first_since(&self, time: Timestamp) -> Result<u64, Status> {
        let extent = self.store.logs().extent(&log_name(&self.uid)).map_err(Status::internal)?;
        let (mut low, mut high) = (extent.first, extent.head + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            // One that was trimmed meanwhile is older than all that are there.
            match self.get(middle)? {
                Some(message) if message.published() >= time => high = middle,
                _ => low = middle + 1,
            }
        }
        Ok(low)
    }

    /// Forgets messages before the sequence `from`, some at a time.
    pub(crate) async fn trim(&self, from: u64) {
        const STEP: u64 = 1_000;
        let log = log_name(&self.uid);
        let Ok(extent) = self.store.logs().extent(&log) else { return };
        self.shared.change(|recent| recent.forget_before(from));
        let mut first = extent.first;
        while first < from {
            first = from.min(first + STEP);
            if let Err(error) = self.store.logs().trim(&log, first - 1).await {
                tracing::error!(log, %error, "a log was not trimmed");
                return;
            }
        }
    }

    fn read(&self, after: u64, limit: usize, bytes_max: usize) -> Result<Vec<(u64, Arc<Message>)>, Status> {
        let entries = self.store.logs().read(&log_name(&self.uid), after, limit, bytes_max).map_err(Status::internal)?;
        entries.into_iter().map(|entry| Ok((entry.number, Arc::new(Message::decode_entry(entry.value)?)))).collect()
    }
}

impl Shared {
    fn add(&self, first: u64, messages: Vec<Arc<Message>>) {
        let head = first + messages.len() as u64 - 1;
        self.used.store(self.memory.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.change(|recent| {
            if recent.first + recent.messages.len() as u64 != first {
                *recent = Recent { first, ..Recent::default() };
            }
            for message in messages {
                recent.bytes += message.bytes() + MESSAGE_OVERHEAD_BYTES;
                recent.messages.push_back(message);
            }
            while recent.bytes > RECENT_MAX_BYTES || recent.messages.len() > RECENT_MAX {
                recent.forget_first();
            }
        });
        self.pushing.lock().iter().filter_map(Weak::upgrade).for_each(|live| live.rouse());
        self.head.send_replace(head);
        self.memory.keep_within(ALL_RECENT_MAX_BYTES);
    }

    fn change(&self, change: impl FnOnce(&mut Recent)) {
        let mut recent = self.recent.lock();
        let before = recent.bytes;
        change(&mut recent);
        self.memory.bytes.fetch_add(recent.bytes, Ordering::Relaxed);
        self.memory.bytes.fetch_sub(before, Ordering::Relaxed);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.change(Recent::forget_all);
    }
}

impl Memory {
    fn add(&self, topic: &Arc<Shared>) {
        let mut topics = self.topics.lock();
        // Those that are gone are passed over now and then.
        if topics.len().is_power_of_two() {
            topics.retain(|topic| topic.strong_count() > 0);
        }
        topics.push(Arc::downgrade(topic));
    }

    /// Has topics give up what they keep, when it is more than `max`.
    fn keep_within(&self, max: usize) {
        if self.bytes.load(Ordering::Relaxed) <= max {
            return;
        }
        let mut topics = self.topics.lock();
        topics.retain(|topic| topic.strong_count() > 0);
        let mut by_use: Vec<_> = topics.iter().filter_map(Weak::upgrade).map(|topic| (topic.used.load(Ordering::Relaxed), topic)).collect();
        drop(topics);
        by_use.sort_unstable_by_key(|(used, _)| *used);
        for (_, topic) in by_use {
            if self.bytes.load(Ordering::Relaxed) <= max / 4 * 3 {
                return;
            }
            topic.change(Recent::forget_all);
        }
    }
}

impl Recent {
    fn forget_first(&mut self) {
        if let Some(message) = self.messages.pop_front() {
            self.bytes -= message.bytes() + MESSAGE_OVERHEAD_BYTES;
            self.first += 1;
        }
    }

    fn forget_all(&mut self) {
        self.first += self.messages.len() as u64;
        (self.messages, self.bytes) = (VecDeque::new(), 0);
    }

    fn forget_before(&mut self, sequence: u64) {
        while self.first < sequence && !self.messages.is_empty() {
            self.forget_first();
        }
    }

    fn get(&self, sequence: u64) -> Option<Arc<Message>> {
        let at = sequence.checked_sub(self.first)?;
        self.messages.get(usize::try_from(at).ok()?).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message { data: text.as_bytes().to_vec().into(), ..Message::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[tokio::test]
    async fn messages_are_found_in_memory_and_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let uid = super::super::record::uid_new();
        let memory = Arc::default();
        let stream = Stream::open(store.clone(), &uid, &memory).unwrap();
        assert_eq!((stream.head(), stream.first_since(at(0))), (0, Ok(1)));
        for (second, expect) in [(10, 1), (20, 3), (15, 5)] {
            assert_eq!(stream.publish(vec![message("a"), message("b")], at(second)).await, Ok(expect));
        }
        drop(stream.publish(vec![message("x".repeat(100 << 10).as_str())], at(40)).await);
        for reopened in [false, true] {
            let stream = if reopened { Stream::open(store.clone(), &uid, &memory).unwrap() } else { Arc::clone(&stream) };
            assert_eq!(stream.head(), 7);
            let times: Vec<i64> = stream.read_after(0, 100, usize::MAX).unwrap().iter().map(|(_, message)| message.published().as_second()).collect();
            assert_eq!(times, [10, 10, 20, 20, 20, 20, 40]);
            for (second, expect) in [(0, 1), (10, 1), (11, 3), (20, 3), (21, 7), (41, 8)] {
                assert_eq!(stream.first_since(at(second)), Ok(expect), "{second}");
            }
            assert_eq!(stream.get(8), Ok(None));
            assert_eq!(stream.read_after(5, 1, usize::MAX).unwrap().len(), 1);
            assert!(stream.read_after(7, 1, usize::MAX).unwrap().is_empty());
        }
        stream.trim(5).await;
        let reopened = Stream::open(store, &uid, &memory).unwrap();
        assert_eq!(reopened.get(4), Ok(None));
        assert_eq!(reopened.first_since(at(0)), Ok(5));
        assert_eq!(reopened.message_id(5), stream.message_id(5));
        assert_eq!(reopened.message_id(5).len(), 16);
    }

    #[tokio::test]
    async fn all_topics_together_keep_so_much_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let memory: Arc<Memory> = Arc::default();
        let streams: Vec<_> = (0..4).map(|n| Stream::open(store.clone(), &format!("{n:032x}"), &memory).unwrap()).collect();
        let one = 1000 + MESSAGE_OVERHEAD_BYTES;
        let kept = || streams.iter().map(|stream| stream.shared.recent.lock().messages.len()).collect::<Vec<_>>();
        for stream in &streams {
            stream.publish(vec![message(&"x".repeat(1000)); 10], at(1)).await.unwrap();
        }
        assert_eq!((kept(), memory.bytes.load(Ordering::Relaxed)), (vec![10; 4], 40 * one));
        // The first was used again: the second and the third are those that were used longest ago.
        streams[0].publish(vec![message(&"x".repeat(1000))], at(1)).await.unwrap();
        memory.keep_within(41 * one);
        assert_eq!(kept(), [11, 10, 10, 10]);
        memory.keep_within(32 * one);
        assert_eq!((kept(), memory.bytes.load(Ordering::Relaxed)), (vec![11, 0, 0, 10], 21 * one));
        // What was given up is read from disk, and what comes is kept again.
        assert_eq!(streams[1].read_after(0, 100, usize::MAX).unwrap().len(), 10);
        streams[1].publish(vec![message("y")], at(1)).await.unwrap();
        assert_eq!((kept()[1], streams[1].get(11).unwrap().unwrap().data.as_ref()), (1, &b"y"[..]));
        drop(streams);
        // The journals' tasks hold none of it for long.
        while memory.bytes.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    }
}
