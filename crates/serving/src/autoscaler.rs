//! Looks after the revisions that have work or instances, and only after those.
//!
//! Each such revision has one task: while there are requests it looks every second; while there are none it sleeps until the next
//! instance has been idle for too long; with neither it ends. The rule itself is `model::scaling::decide`, what it sees of the CPU is `usage.rs`.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::{
    pool::{Means, Pool},
    usage::Usage,
};

/// Between two looks at a revision with requests.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);
/// Over which requests and CPU are averaged.
const WINDOW: Duration = Duration::from_secs(10);

/// A mean over time, in which what was longer ago than the window hardly counts.
pub(crate) struct Mean {
    at: Instant,
    mean: f64,
}

impl Mean {
    pub(crate) fn new(now: Instant) -> Self {
        Self { at: now, mean: 0.0 }
    }

    /// Since the last time.
    pub(crate) fn passed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }

    /// Takes in `area` (a level times seconds) since the last time. `is_over`: there is nothing now.
    pub(crate) fn take(&mut self, now: Instant, area: f64, is_over: bool) -> f64 {
        let passed = self.passed(now).as_secs_f64();
        if passed > 0.0 {
            self.at = now;
            let weight = (-passed / WINDOW.as_secs_f64()).exp();
            self.mean = self.mean * weight + (area / passed) * (1.0 - weight);
        }
        if is_over && self.mean < 0.01 {
            self.mean = 0.0;
        }
        self.mean
    }
}

pub(crate) async fn run(pool: Arc<Pool>) {
    let mut requests = Mean::new(Instant::now());
    let mut usage = Usage::new(Instant::now());
    loop {
        let cpu = usage.take(&pool).await;
        let (area, level) = pool.load_take();
        let requests = requests.take(Instant::now(), area, level == 0);
        let Some(next) = pool.look(Means { requests, cpu }) else { return };
        tokio::select! {
            () = sleep_until(next.min(usage.due(requests > 0.0))) => {}
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
            mean.take(start + Duration::from_secs(second), 5.0, false);
        }
        assert!((4.5..=5.0).contains(&mean.mean), "{}", mean.mean);
        for second in 31..=120 {
            mean.take(start + Duration::from_secs(second), 0.0, true);
        }
        assert_eq!(mean.mean, 0.0);
    }
}
