//! Where entries wait for the writer: bounded by number and bytes, without a lock, and never waited for.
//!
//! What does not fit is dropped and counted: in total, and by source so that each can be told in its own log.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread::Thread,
};

use model::log::{Entry, Payload, Source};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Entries that may wait. The queue is allocated once, about 2.5 MB.
const ENTRIES_MAX: usize = 8 << 10;
/// What the texts of waiting entries may hold.
const BYTES_MAX: i64 = 64 << 20;
/// The writer wakes at the first entry and waits for this many, or for its time.
pub(crate) const BATCH: usize = 1000;
/// Sources whose losses are told apart; those of others are told with the last of them.
const LOST_SOURCES_MAX: usize = 64;

pub(crate) struct Queue {
    sender: SyncSender<Entry>,
    /// Entries sent less entries taken. Below zero for moments: an entry can be taken before it is counted.
    waiting: AtomicI64,
    bytes: AtomicI64,
    written: AtomicU64,
    dropped: AtomicU64,
    lost: Mutex<Vec<(Arc<Source>, u64)>>,
    flushes: Mutex<Vec<oneshot::Sender<()>>>,
    closed: AtomicBool,
    ended: AtomicBool,
    /// The writer, once it runs.
    thread: OnceLock<Thread>,
}

/// The queue and the end of it that the writer keeps.
pub(crate) fn bounded() -> (Arc<Queue>, Receiver<Entry>) {
    bounded_by(ENTRIES_MAX)
}

fn bounded_by(entries_max: usize) -> (Arc<Queue>, Receiver<Entry>) {
    let (sender, receiver) = mpsc::sync_channel(entries_max);
    let queue = Queue {
        sender,
        waiting: AtomicI64::new(0),
        bytes: AtomicI64::new(0),
        written: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
        lost: Mutex::default(),
        flushes: Mutex::default(),
        closed: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        thread: OnceLock::new(),
    };
    (Arc::new(queue), receiver)
}

impl Queue {
    /// Takes the entry or drops it.
    pub(crate) fn push(&self, entry: Entry) {
        let bytes = entry_bytes(&entry);
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > BYTES_MAX {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return self.lose(&entry.source, 1);
        }
        match self.sender.try_send(entry) {
            Ok(()) => {
                let before = self.waiting.fetch_add(1, Ordering::AcqRel);
                // Only these two change what the writer does, so a batch costs two wakes and not a thousand.
                if before == 0 || before == BATCH as i64 - 1 {
                    self.wake();
                }
            }
            Err(mpsc::TrySendError::Full(entry) | mpsc::TrySendError::Disconnected(entry)) => {
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                self.lose(&entry.source, 1);
            }
        }
    }

    /// Resolves when all that was pushed before has been written or lost.
    pub(crate) async fn flush(&self) {
        let (sender, receiver) = oneshot::channel();
        self.flushes.lock().push(sender);
        if self.is_ended() {
            // Its last look at this list may have been before.
            self.flushes.lock().clear();
        }
        self.wake();
        // An error means that the writer has ended: nothing waits any more.
        let _ = receiver.await;
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake();
    }

    /// Counts entries of `source` as lost.
    pub(crate) fn lose(&self, source: &Arc<Source>, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
        // Who drops is in a hurry: when another one notes a loss just now, this one stays in the total only.
        let Some(mut lost) = self.lost.try_lock() else {
            return;
        };
        let known = lost.iter().position(|(known, _)| Arc::ptr_eq(known, source) || known == source);
        match known.or((lost.len() >= LOST_SOURCES_MAX).then_some(LOST_SOURCES_MAX - 1)) {
            Some(index) => lost[index].1 += count,
            None => lost.push((source.clone(), count)),
        }
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// The writer's side.
impl Queue {
    /// This thread is woken from now on.
    pub(crate) fn attach(&self) {
        let _ = self.thread.set(std::thread::current());
    }

    pub(crate) fn waiting(&self) -> usize {
        usize::try_from(self.waiting.load(Ordering::Acquire)).unwrap_or(0)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The writer takes no more.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.flushes.lock().clear();
    }

    pub(crate) fn is_flush_asked(&self) -> bool {
        !self.flushes.lock().is_empty()
    }

    /// Those who wait for what is queued now.
    pub(crate) fn flushes_take(&self) -> Vec<oneshot::Sender<()>> {
        std::mem::take(&mut self.flushes.lock())
    }

    pub(crate) fn lost_take(&self) -> Vec<(Arc<Source>, u64)> {
        std::mem::take(&mut self.lost.lock())
    }

    /// Moves what waits into `batch`, at most as much as the queue can hold.
    pub(crate) fn take(&self, receiver: &Receiver<Entry>, batch: &mut Vec<Entry>, max: usize) {
        let before = batch.len();
        batch.extend(receiver.try_iter().take(max));
        let taken = &batch[before..];
        self.waiting.fetch_sub(taken.len() as i64, Ordering::AcqRel);
        self.bytes.fetch_sub(taken.iter().map(entry_bytes).sum(), Ordering::Relaxed);
    }

    pub(crate) fn written_add(&self, count: usize) {
        self.written.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// What an entry holds beside its own size; its source is shared.
fn entry_bytes(entry: &Entry) -> i64 {
    let payload = match &entry.payload {
        Payload::None => 0,
        Payload::Text(text) | Payload::Json(text) | Payload::Audit(text) => text.len(),
    };
    let http = entry
        .http
        .as_ref()
        .map_or(0, |http| http.method.len() + http.url.len() + http.user_agent.len() + http.remote_ip.len() + http.referer.len() + http.protocol.len());
    let labels: usize = entry.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    (payload + http + labels + entry.trace.len() + entry.span.len()) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::tests::{entry, source};

    #[test]
    fn a_full_queue_drops_counts_and_never_waits() {
        let (queue, receiver) = bounded_by(10);
        let (a, b) = (Arc::new(source("a")), Arc::new(source("b")));
        for number in 0..25 {
            let mut entry = entry("x");
            entry.source = if number % 5 == 0 { b.clone() } else { a.clone() };
            queue.push(entry);
        }
        assert_eq!(queue.dropped(), 15);
        let lost = queue.lost_take();
        assert_eq!(lost.iter().map(|(source, count)| (source.service.as_str(), *count)).collect::<Vec<_>>(), [("b", 3), ("a", 12)]);
        let mut batch = Vec::new();
        queue.take(&receiver, &mut batch, 100);
        assert_eq!((batch.len(), queue.waiting(), queue.bytes.load(Ordering::Relaxed)), (10, 0, 0));
        queue.push(entry("y"));
        assert_eq!((queue.waiting(), queue.dropped()), (1, 15));
    }

    #[test]
    fn bytes_are_bounded_as_well() {
        let (queue, _receiver) = bounded_by(1000);
        let large = "x".repeat(1 << 20);
        for _ in 0..100 {
            queue.push(entry(&large));
        }
        assert_eq!((queue.waiting(), queue.dropped()), (64, 36));
    }
}
