//! The messages of one topic: published in order, kept in its log, the newest in memory too.
//!
//! It outlives its topic for as long as a subscription or a snapshot needs its messages.

use std::{collections::VecDeque, sync::Arc};

use model::{Status, Timestamp};
use parking_lot::Mutex;
use store::Store;
use tokio::sync::watch;

use super::{
    journal::{AfterFailure, Journal},
    message::Message,
    record::uid_half,
};

/// What of the newest messages is kept in memory, so that who follows reads nothing from disk.
const RECENT_MAX_BYTES: usize = 16 << 20;
const RECENT_MAX: usize = 20_000;
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
    pub(crate) fn open(store: Store, uid: &str) -> Result<Arc<Self>, Status> {
        let log = log_name(uid);
        let head = store.logs().extent(&log).map_err(Status::internal)?.head;
        let newest = store.logs().read(&log, head.saturating_sub(1), 1, usize::MAX).map_err(Status::internal)?.pop();
        let last = newest.map(|entry| Message::decode_entry(entry.value)).transpose()?.map_or(Timestamp::UNIX_EPOCH, |message| message.published());
        let recent = Recent { first: head + 1, ..Recent::default() };
        let shared = Arc::new(Shared { head: watch::Sender::new(head), recent: Mutex::new(recent) });
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
        const STEP: u64 = 5_000;
        let log = log_name(&self.uid);
        let Ok(extent) = self.store.logs().extent(&log) else { return };
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
        let mut recent = self.recent.lock();
        if recent.first + recent.messages.len() as u64 != first {
            *recent = Recent { first, ..Recent::default() };
        }
        for message in messages {
            recent.bytes += message.bytes() + MESSAGE_OVERHEAD_BYTES;
            recent.messages.push_back(message);
        }
        while recent.bytes > RECENT_MAX_BYTES || recent.messages.len() > RECENT_MAX {
            let Some(message) = recent.messages.pop_front() else { break };
            recent.bytes -= message.bytes() + MESSAGE_OVERHEAD_BYTES;
            recent.first += 1;
        }
        drop(recent);
        self.head.send_replace(head);
    }
}

impl Recent {
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
        let stream = Stream::open(store.clone(), &uid).unwrap();
        assert_eq!((stream.head(), stream.first_since(at(0))), (0, Ok(1)));
        for (second, expect) in [(10, 1), (20, 3), (15, 5)] {
            assert_eq!(stream.publish(vec![message("a"), message("b")], at(second)).await, Ok(expect));
        }
        drop(stream.publish(vec![message("x".repeat(100 << 10).as_str())], at(40)).await);
        for reopened in [false, true] {
            let stream = if reopened { Stream::open(store.clone(), &uid).unwrap() } else { Arc::clone(&stream) };
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
        let reopened = Stream::open(store, &uid).unwrap();
        assert_eq!(reopened.get(4), Ok(None));
        assert_eq!(reopened.first_since(at(0)), Ok(5));
        assert_eq!(reopened.message_id(5), stream.message_id(5));
        assert_eq!(reopened.message_id(5).len(), 16);
    }
}
