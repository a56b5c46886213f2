//! What a revision's instances use of their CPU and memory: for the autoscaler, and for who looks at charts.
//!
//! The kernel counts for each sandbox; the keeper is asked every two seconds while there are requests, once a minute while there are
//! none. A clone's memory is what it has for itself: what it shares with its template is the template's.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use crate::{
    autoscaler::Mean,
    instances::{Instance, blocking},
    pool::Pool,
};

/// Between two samples of a revision with requests, and of one without.
const BUSY_PERIOD: Duration = Duration::from_secs(2);
const IDLE_PERIOD: Duration = Duration::from_secs(60);
/// A keeper that is busy with starts is not waited for: the next sample tells the same.
const ASK_MAX: Duration = Duration::from_millis(500);

/// The samples of one revision.
pub(crate) struct Usage {
    asked: Instant,
    /// When each instance was looked at last, and the CPU time that it had used by then.
    seen: HashMap<String, (Instant, Duration)>,
    cpu: Mean,
    cpu_mean: f64,
}

impl Usage {
    pub(crate) fn new(now: Instant) -> Self {
        Self { asked: now, seen: HashMap::new(), cpu: Mean::new(now), cpu_mean: 0.0 }
    }

    /// When to sample next.
    pub(crate) fn due(&self, is_busy: bool) -> Instant {
        self.asked + if is_busy { BUSY_PERIOD } else { IDLE_PERIOD }
    }

    /// Samples when it is time. The CPU in use, averaged over the window, in instances.
    pub(crate) async fn take(&mut self, pool: &Arc<Pool>) -> f64 {
        if Instant::now() < self.due(true) {
            return self.cpu_mean;
        }
        self.asked = Instant::now();
        let instances = pool.ready_instances();
        let keeper = pool.shared.keeper.clone();
        let readings = timeout(
            ASK_MAX,
            blocking(move || {
                let read = |instance: Arc<Instance>| Some((keeper.usage(&instance.sandbox).ok()?, Instant::now(), instance));
                instances.into_iter().filter_map(read).collect::<Vec<_>>()
            }),
        );
        let Ok(readings) = readings.await else { return self.cpu_mean };
        let (cpu_limit, memory_limit) = (f64::from(pool.template.cpu_millis()) / 1000.0, pool.template.memory_bytes() as f64);
        let mut whole = 0.0;
        let before = std::mem::take(&mut self.seen);
        for (used, at, instance) in readings {
            let last = before.get(&instance.sandbox);
            // While it starts it may have more than its limit; nobody is more than whole.
            let cpu = last.and_then(|(since, cpu)| share(used.cpu.saturating_sub(*cpu), at.saturating_duration_since(*since), cpu_limit));
            whole += cpu.unwrap_or(0.0);
            pool.meter().utilization(pool.shared.clock.now(), cpu, used.memory_bytes as f64 / memory_limit);
            self.seen.insert(instance.sandbox.clone(), (at, used.cpu));
        }
        let now = Instant::now();
        let passed = self.cpu.passed(now).as_secs_f64();
        self.cpu_mean = self.cpu.take(now, whole * passed, whole == 0.0);
        self.cpu_mean
    }
}

/// The share of its CPU that was in use, 0 to 1. `None` when too little time has passed to tell.
fn share(used: Duration, passed: Duration, limit: f64) -> Option<f64> {
    (passed >= Duration::from_millis(100)).then(|| (used.as_secs_f64() / passed.as_secs_f64() / limit).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_limit() {
        let check = |used_ms, passed_ms, limit, expect| assert_eq!(share(Duration::from_millis(used_ms), Duration::from_millis(passed_ms), limit), expect);
        check(500, 1000, 1.0, Some(0.5));
        check(500, 1000, 0.5, Some(1.0));
        check(900, 1000, 0.5, Some(1.0));
        check(1000, 2000, 2.0, Some(0.25));
        check(0, 1000, 1.0, Some(0.0));
        check(10, 10, 1.0, None);
    }
}
