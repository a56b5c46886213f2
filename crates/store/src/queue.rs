//! A thread that writes, and the queue before it: what both the records and the logs need for group commit.
//!
//! It does not know what is written: the owner takes all jobs that wait, does them with one fsync and answers each.

use std::{collections::VecDeque, sync::Arc, thread};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::Error;

/// What may wait, in KiB. Jobs beyond it wait for room, in the order they came.
pub(crate) const QUEUE_MAX_KIB: usize = 64 << 10;
/// Jobs in one transaction. More would only make the first ones wait longer.
const BATCH_MAX: usize = 512;

/// Where jobs wait for the thread.
pub(crate) struct Queue<W, A> {
    state: Mutex<QueueState<W, A>>,
    wake: Condvar,
    room: Arc<Semaphore>,
}

struct QueueState<W, A> {
    jobs: VecDeque<Job<W, A>>,
    closed: bool,
}

/// Something to write, and who waits for it.
pub(crate) struct Job<W, A> {
    pub(crate) work: W,
    pub(crate) answer: oneshot::Sender<A>,
    /// Given back when the job is done.
    _room: OwnedSemaphorePermit,
}

impl<W, A> Queue<W, A> {
    fn new() -> Self {
        let state = QueueState { jobs: VecDeque::new(), closed: false };
        Self { state: Mutex::new(state), wake: Condvar::new(), room: Arc::new(Semaphore::new(QUEUE_MAX_KIB)) }
    }

    /// Queues `work` of so many bytes and waits for the answer; `None` when the queue is closed. Dropped before the answer, it
    /// may be done or not.
    pub(crate) async fn ask(&self, work: W, bytes: usize) -> Option<A> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(kib).await.ok()?;
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.closed {
                return None;
            }
            state.jobs.push_back(Job { work, answer, _room: room });
        }
        self.wake.notify_one();
        // Without an answer the thread is gone, which only a bug in it brings about.
        answered.await.ok()
    }

    /// Nothing is taken any more; what waits is still done.
    fn close(&self) {
        self.state.lock().closed = true;
        self.room.close();
        self.wake.notify_one();
    }

    /// Waits for jobs and takes them. `None` at the end.
    pub(crate) fn take(&self) -> Option<Vec<Job<W, A>>> {
        let mut state = self.state.lock();
        while state.jobs.is_empty() {
            if state.closed {
                return None;
            }
            self.wake.wait(&mut state);
        }
        let count = state.jobs.len().min(BATCH_MAX);
        Some(state.jobs.drain(..count).collect())
    }
}

/// The thread, joined on drop.
pub(crate) struct Writer<W, A> {
    queue: Arc<Queue<W, A>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl<W: Send + 'static, A: Send + 'static> Writer<W, A> {
    /// Starts `run` on a thread called `name`; it ends when the queue gives nothing more.
    pub(crate) fn start(name: &str, run: impl FnOnce(&Queue<W, A>) + Send + 'static) -> Result<Self, Error> {
        let queue = Arc::new(Queue::new());
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn({
                let queue = queue.clone();
                move || {
                    // Also when a bug panics there: whoever waits must learn that the end has come.
                    let _end = End(&queue);
                    run(&queue);
                }
            })
            .map_err(|error| Error::Io(format!("start the thread {name}: {error}")))?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }
}

impl<W, A> Writer<W, A> {
    pub(crate) fn queue(&self) -> &Queue<W, A> {
        &self.queue
    }

    /// Does what waits, then ends the thread.
    pub(crate) fn close(&self) {
        self.queue.close();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("a writing thread of the store panicked");
        }
    }
}

impl<W, A> Drop for Writer<W, A> {
    fn drop(&mut self) {
        self.close();
    }
}

/// The end of the thread.
struct End<'a, W, A>(&'a Queue<W, A>);

impl<W, A> Drop for End<'_, W, A> {
    fn drop(&mut self) {
        self.0.close();
        self.0.state.lock().jobs.clear();
    }
}
