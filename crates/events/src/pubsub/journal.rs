//! One log's appends, in the order in which they were handed in, with one append for all that wait.
//!
//! Who must fix an order (of publish times, of a subscription's changes) hands in under a lock of its own and waits without it.

use std::mem;

use model::Status;
use store::Store;
use tokio::sync::{mpsc, oneshot};

/// So many bytes of waiting entries are put into one append; the last batch may go over it.
const TOGETHER_MAX_BYTES: usize = 8 << 20;

/// What is done when entries lie on disk (with the number of the first) or do not.
type Then = Box<dyn FnOnce(Result<u64, Status>) + Send>;

enum Job {
    Append { entries: Vec<Vec<u8>>, then: Then },
    Reset { done: oneshot::Sender<()> },
}

/// What happens to appends behind one that failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    /// They are tried: each stands for itself.
    GoOn,
    /// They fail as well, until [`Journal::reset`]: each stands on those before it.
    Fail,
}

/// The way into one log. Ends when it is dropped and what waits is done.
pub(crate) struct Journal {
    queue: mpsc::UnboundedSender<Job>,
}

impl Journal {
    /// Call inside a tokio runtime.
    pub(crate) fn start(store: Store, log: String, after_failure: AfterFailure) -> Self {
        let (queue, jobs) = mpsc::unbounded_channel();
        tokio::spawn(run(store, log, after_failure, jobs));
        Self { queue }
    }

    /// Hands `entries` in; `then` is called in turn, by the journal's own task. Dropped uncalled when the runtime ends.
    pub(crate) fn append_then(&self, entries: Vec<Vec<u8>>, then: impl FnOnce(Result<u64, Status>) + Send + 'static) {
        let _ = self.queue.send(Job::Append { entries, then: Box::new(then) });
    }

    /// Hands `entries` in; what is returned resolves once they are on disk. Dropped, they are appended all the same.
    pub(crate) fn append(&self, entries: Vec<Vec<u8>>) -> impl Future<Output = Result<u64, Status>> + Send + use<> {
        let (done, answer) = oneshot::channel();
        self.append_then(entries, move |result| drop(done.send(result)));
        async move { answer.await.unwrap_or_else(|_| Err(Status::unavailable("The service is shutting down."))) }
    }

    /// Once all that was handed in is done, appends are tried again.
    pub(crate) async fn reset(&self) {
        let (done, answer) = oneshot::channel();
        if self.queue.send(Job::Reset { done }).is_ok() {
            let _ = answer.await;
        }
    }
}

async fn run(store: Store, log: String, after_failure: AfterFailure, mut jobs: mpsc::UnboundedReceiver<Job>) {
    let mut failure: Option<Status> = None;
    let mut next = jobs.recv().await;
    while let Some(job) = next.take() {
        let (mut entries, mut thens, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut waiting = Some(job);
        // All appends up to a reset, or up to the limit.
        while let Some(Job::Append { entries: more, then }) = waiting {
            bytes += more.iter().map(Vec::len).sum::<usize>();
            thens.push((more.len(), then));
            entries.extend(more);
            waiting = if bytes < TOGETHER_MAX_BYTES { jobs.try_recv().ok() } else { None };
        }
        if !thens.is_empty() {
            let appended = match &failure {
                Some(status) => Err(status.clone()),
                None => store.logs().append(&log, mem::take(&mut entries)).await.map_err(|error| {
                    let mut status = Status::unavailable("The service was unable to fulfill your request. Please try again.");
                    status.inner = error.to_string();
                    tracing::error!(log, %error, "a log took no entry");
                    status
                }),
            };
            if let (Err(status), AfterFailure::Fail) = (&appended, after_failure) {
                failure = Some(status.clone());
            }
            let mut first = appended;
            for (count, then) in thens {
                then(first.clone());
                first = first.map(|number| number + count as u64);
            }
        }
        if let Some(Job::Reset { done }) = waiting {
            failure = None;
            let _ = done.send(());
        }
        next = jobs.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn entries_lie_in_the_order_in_which_they_were_handed_in() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let journal = Journal::start(store.clone(), "log".to_owned(), AfterFailure::GoOn);
        let answers: Vec<_> = (0..100_u8).map(|n| journal.append(vec![vec![n], vec![n, n]])).collect();
        for (at, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.await, Ok(1 + 2 * at as u64));
        }
        let found = store.logs().read("log", 0, 1000, usize::MAX).unwrap();
        assert_eq!(found.len(), 200);
        for entry in found {
            assert_eq!(u64::from(entry.value[0]), (entry.number - 1) / 2);
        }
    }

    #[tokio::test]
    async fn behind_a_failure_all_fail_until_a_reset() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let journal = Journal::start(store.clone(), "log".to_owned(), AfterFailure::Fail);
        let too_large = vec![vec![0; store::ENTRY_MAX_BYTES + 1]];
        assert!(journal.append(too_large).await.is_err());
        assert!(journal.append(vec![vec![1]]).await.is_err());
        journal.reset().await;
        assert_eq!(journal.append(vec![vec![2]]).await, Ok(1));
    }
}
