//! Looks after the revisions that have work or instances, and only after those.
//!
//! Each such revision has one task: while there are requests it looks every second; while there are none it sleeps until the
//! next instance has been idle for too long; with neither it ends. The rule itself is `model::scaling::desired_instances`.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::pool::Pool;

/// Between two looks at a revision with requests.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);
/// Over which the load is averaged.
const WINDOW: Duration = Duration::from_secs(10);

/// The mean number of requests, in which what was longer ago than the window hardly counts.
pub(crate) struct Mean {
    at: Instant,
    mean: f64,
}

impl Mean {
    fn new(now: Instant) -> Self {
        Self { at: now, mean: 0.0 }
    }

    /// Takes in `area` (requests times seconds) since the last time. `level` is the number of requests now.
    pub(crate) fn take(&mut self, now: Instant, area: f64, level: u32) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        if passed > 0.0 {
            self.at = now;
            let weight = (-passed / WINDOW.as_secs_f64()).exp();
            self.mean = self.mean * weight + (area / passed) * (1.0 - weight);
        }
        if level == 0 && self.mean < 0.01 {
            self.mean = 0.0;
        }
        self.mean
    }

    pub(crate) fn level(&self) -> f64 {
        self.mean
    }
}

pub(crate) async fn run(pool: Arc<Pool>) {
    let mut mean = Mean::new(Instant::now());
    while let Some(next) = pool.look(&mut mean) {
        tokio::select! {
            () = sleep_until(next) => {}
            () = pool.wake.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_mean_follows_the_load_within_the_window() {
        let start = Instant::now();
        let mut mean = Mean::new(start);
        for second in 1..=30 {
            mean.take(start + Duration::from_secs(second), 5.0, 5);
        }
        assert!((4.5..=5.0).contains(&mean.level()), "{}", mean.level());
        for second in 31..=120 {
            mean.take(start + Duration::from_secs(second), 0.0, 0);
        }
        assert_eq!(mean.level(), 0.0);
    }
}
