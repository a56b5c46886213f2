//! Telling others of changes, in the order of revisions, without ever waiting for them.
//!
//! Each watcher has a queue with a bound. One that falls behind loses what is queued and gets one `Resync` in its place.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Changes that wait for one watcher, at most: by number and by bytes of keys and values.
const QUEUE_MAX: usize = 4096;
const QUEUE_MAX_BYTES: usize = 32 << 20;

/// What a watcher learns, in the order of revisions. Deleted keys come with `value: None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    pub value: Option<Arc<[u8]>>,
    pub revision: u64,
}

impl Change {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, |value| value.len())
    }
}

/// A change, or that changes were lost: a watcher that fell behind gets `Resync` and must scan again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Change(Change),
    Resync,
}

/// Changes of the records under one prefix, from when it was made. Ends with the store.
pub struct Watch {
    queue: Arc<Queue>,
}

impl Watch {
    /// Waits for the next change under the watched prefix. `None` when the store is closed.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop()? {
                return Some(event);
            }
            self.queue.wake.notified().await;
        }
    }
}

struct Queue {
    prefix: String,
    /// Changes up to this revision were there for every read before the watch began.
    since: u64,
    state: Mutex<QueueState>,
    wake: Notify,
}

#[derive(Default)]
struct QueueState {
    events: VecDeque<Event>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    /// `None` at the end, `Some(None)` when there is nothing yet.
    fn pop(&self) -> Option<Option<Event>> {
        let mut state = self.state.lock();
        match state.events.pop_front() {
            Some(event) => {
                if let Event::Change(change) = &event {
                    state.bytes -= change.bytes();
                }
                Some(Some(event))
            }
            None if state.closed => None,
            None => Some(None),
        }
    }

    fn push(&self, change: &Change) {
        let mut state = self.state.lock();
        if state.events.len() >= QUEUE_MAX || state.bytes + change.bytes() > QUEUE_MAX_BYTES {
            state.resync();
        } else {
            state.bytes += change.bytes();
            state.events.push_back(Event::Change(change.clone()));
        }
        drop(state);
        self.wake.notify_one();
    }
}

impl QueueState {
    fn resync(&mut self) {
        self.events.clear();
        self.events.push_back(Event::Resync);
        self.bytes = 0;
    }
}

/// All watchers of a store.
#[derive(Default)]
pub(crate) struct Watchers {
    list: Mutex<List>,
    /// The last revision that reads see and commits are answered with.
    committed: AtomicU64,
}

#[derive(Default)]
struct List {
    queues: Vec<Weak<Queue>>,
    closed: bool,
}

impl Watchers {
    pub(crate) fn watch(&self, prefix: &str) -> Watch {
        let mut list = self.list.lock();
        let state = QueueState { closed: list.closed, ..QueueState::default() };
        let queue = Arc::new(Queue { prefix: prefix.to_owned(), since: self.committed.load(Ordering::Acquire), state: Mutex::new(state), wake: Notify::new() });
        // Those that were dropped go here too, so that a store that nobody writes to does not collect them.
        list.queues.retain(|queue| queue.strong_count() > 0);
        list.queues.push(Arc::downgrade(&queue));
        Watch { queue }
    }

    /// Before anybody is answered with `revision`: who watches from then on is not told of it.
    pub(crate) fn committed(&self, revision: u64) {
        self.committed.store(revision, Ordering::Release);
    }

    /// Tells all who watch a prefix of `key`. The value is copied once, and only when somebody does.
    pub(crate) fn tell(&self, key: String, value: Option<Vec<u8>>, revision: u64) {
        let watching: Vec<Arc<Queue>> = {
            let mut list = self.list.lock();
            list.queues.retain(|queue| queue.strong_count() > 0);
            list.queues.iter().filter_map(Weak::upgrade).filter(|queue| revision > queue.since && key.starts_with(&queue.prefix)).collect()
        };
        if watching.is_empty() {
            return;
        }
        let change = Change { key, value: value.map(Arc::from), revision };
        for queue in watching {
            queue.push(&change);
        }
    }

    /// Everybody must scan again.
    pub(crate) fn resync(&self) {
        self.each(|queue| {
            queue.state.lock().resync();
            queue.wake.notify_one();
        });
    }

    pub(crate) fn close(&self) {
        self.list.lock().closed = true;
        self.each(|queue| {
            queue.state.lock().closed = true;
            queue.wake.notify_one();
        });
    }

    fn each(&self, visit: impl Fn(&Queue)) {
        self.list.lock().queues.iter().filter_map(Weak::upgrade).for_each(|queue| visit(&queue));
    }
}
