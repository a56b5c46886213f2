//! How many instances a revision needs: a rule without a clock or a queue of its own.

use std::time::Duration;

/// What was seen of a revision since the last look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// Requests being served and waiting, averaged over the window.
    pub requests_mean: f64,
    /// Requests waiting for a slot now.
    pub waiting: u32,
    /// Requests being served now.
    pub in_flight: u32,
    /// Instances that are ready or starting.
    pub instances: u32,
    /// How long no request has been served or waited; zero while there is one.
    pub idle: Duration,
}

/// A revision's settings that scaling looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// Requests one instance serves at a time.
    pub concurrency: u32,
    pub max_instances: u32,
    /// Instances that a deployer wants kept; they are counted by who starts them, not by requests.
    pub min_instances: u32,
    /// How long an instance without requests is kept.
    pub idle_max: Duration,
}

/// The share of an instance's slots that is meant to be in use, by Google's documentation.
pub const CONCURRENCY_TARGET: f64 = 0.6;

/// How many instances there should be.
///
/// Requests that wait need slots at once: all of them count in full, so that a burst from zero starts
/// what it needs in one step. Otherwise the mean of the window keeps instances at 60 % of their slots.
/// Never above `max_instances`, never below `min_instances` (unless the maximum is lower).
pub fn desired_instances(observed: Observed, scaling: Scaling) -> u32 {
    let concurrency = scaling.concurrency.max(1);
    let now = observed.in_flight.saturating_add(observed.waiting).div_ceil(concurrency);
    let steady = (observed.requests_mean / (f64::from(concurrency) * target(concurrency))).ceil().clamp(0.0, f64::from(u32::MAX)) as u32;
    let by_load = now.max(steady);
    let by_load = if by_load == 0 && observed.idle < scaling.idle_max {
        // Between requests what is there stays: the next burst is likely to be like the last one.
        observed.instances
    } else {
        by_load
    };
    by_load.max(scaling.min_instances).min(scaling.max_instances)
}

/// With one slot an instance cannot be at 60 %: it is in use or it is not.
fn target(concurrency: u32) -> f64 {
    if concurrency == 1 { 1.0 } else { CONCURRENCY_TARGET }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_follow_the_load() {
        let scaling = Scaling { concurrency: 10, max_instances: 5, min_instances: 0, idle_max: Duration::from_secs(900) };
        let nothing = Observed { requests_mean: 0.0, waiting: 0, in_flight: 0, instances: 0, idle: Duration::from_secs(1000) };
        assert_eq!(desired_instances(nothing, scaling), 0);
        assert_eq!(desired_instances(Observed { waiting: 1, idle: Duration::ZERO, ..nothing }, scaling), 1);
        assert_eq!(desired_instances(Observed { waiting: 31, idle: Duration::ZERO, ..nothing }, scaling), 4);
        assert_eq!(desired_instances(Observed { waiting: 1000, idle: Duration::ZERO, ..nothing }, scaling), 5);
        assert_eq!(desired_instances(Observed { requests_mean: 12.0, in_flight: 5, instances: 2, idle: Duration::ZERO, ..nothing }, scaling), 2);
        // Idle instances stay for a while, then go.
        assert_eq!(desired_instances(Observed { instances: 3, idle: Duration::from_secs(10), ..nothing }, scaling), 3);
        assert_eq!(desired_instances(Observed { instances: 3, ..nothing }, scaling), 0);
        assert_eq!(desired_instances(nothing, Scaling { min_instances: 2, ..scaling }), 2);
    }
}
