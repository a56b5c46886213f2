//! What the platform is doing by itself: attempts, pushes, what follows from them. Counted, so that one can wait until all has come to rest.
//!
//! A guard is held while something happens, never while an instant is waited for: what waits for its time is at rest.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts what is under way. Clones share it.
#[derive(Clone)]
pub struct Busy(Arc<watch::Sender<Counts>>);

#[derive(Clone, Copy, Default)]
struct Counts {
    under_way: usize,
    begun: u64,
}

impl Busy {
    #[expect(clippy::new_without_default, reason = "whoever makes one must hand it to those who count and those who wait")]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Counts::default())))
    }

    /// Something begins; it ends when the guard is dropped.
    pub fn begin(&self) -> Guard {
        self.0.send_modify(|counts| {
            counts.under_way += 1;
            counts.begun += 1;
        });
        Guard(self.clone())
    }

    /// How much has begun since the start.
    pub fn begun(&self) -> u64 {
        self.0.borrow().begun
    }

    /// Whether nothing is under way now.
    pub fn is_idle(&self) -> bool {
        self.0.borrow().under_way == 0
    }

    /// Waits until nothing is under way.
    pub async fn idle(&self) {
        let mut counts = self.0.subscribe();
        // The sender lives in `self`.
        let _ = counts.wait_for(|counts| counts.under_way == 0).await;
    }
}

/// Something is under way.
pub struct Guard(Busy);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.send_modify(|counts| counts.under_way -= 1);
    }
}
