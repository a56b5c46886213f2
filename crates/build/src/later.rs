//! What a build leaves for later ones: put away when it has answered, so that nobody who deploys waits for a cache.
//!
//! Nothing of an image may be in here. What is lost (the daemon ended, the build was given up) is downloaded again: a chore makes
//! its result in a folder of its own and names it last. The next build waits for what was begun, so that it finds it.

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::step::blocking;

/// Work that blocks.
type Chore = Box<dyn FnOnce() + Send>;

/// The chores of one build.
#[derive(Default)]
pub(crate) struct Later(Mutex<Vec<Chore>>);

impl Later {
    pub(crate) fn add(&self, chore: impl FnOnce() + Send + 'static) {
        self.0.lock().push(Box::new(chore));
    }
}

/// How many builds have chores under way.
pub(crate) struct Chores(watch::Sender<usize>);

impl Chores {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Does a build's chores beside the runtime's threads, then lets go of its folder.
    pub(crate) fn begin(&self, later: Later, work: impl Send + 'static) {
        let chores = later.0.into_inner();
        if chores.is_empty() {
            return;
        }
        self.0.send_modify(|count| *count += 1);
        let begun = Begun(self.0.clone());
        tokio::spawn(async move {
            let _begun = begun;
            let done = blocking(move || {
                chores.into_iter().for_each(|chore| chore());
                drop(work);
            });
            if let Err(e) = done.await {
                tracing::warn!("keeping what a build left: {e}");
            }
        });
    }

    /// Waits until none are under way.
    pub(crate) async fn settled(&self) {
        // The sender is ours: it cannot be gone.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

struct Begun(watch::Sender<usize>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[tokio::test]
    async fn who_comes_next_waits_for_what_was_begun() {
        let (chores, done) = (Chores::new(), Arc::new(AtomicBool::new(false)));
        chores.settled().await;
        let later = Later::default();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let seen = done.clone();
        later.add(move || {
            let _ = held.recv();
            seen.store(true, Ordering::SeqCst);
        });
        chores.begin(later, ());
        {
            let settled = chores.settled();
            tokio::pin!(settled);
            assert!(tokio::time::timeout(std::time::Duration::ZERO, &mut settled).await.is_err());
            release.send(()).unwrap();
            settled.await;
        }
        assert!(done.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_chore_that_fails_holds_nobody_up() {
        let (chores, later) = (Chores::new(), Later::default());
        later.add(|| panic!("a chore's fault"));
        chores.begin(later, ());
        chores.settled().await;
    }
}
