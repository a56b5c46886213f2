//! Which request cannot be served in time: a rule without a clock or a queue of its own.
//!
//! Google holds a request that finds no slot for 3.5 times the average start, at least 10 s, and then refuses it with 429. What
//! cannot get a slot within that time, however well it goes, is refused when it comes: its caller learns at once, and nobody waits behind it.

use std::time::Duration;

/// Requests that must have been served before anything is said about the next ones.
const SAMPLES_MIN: u32 = 20;
/// How many requests the mean remembers: what was before fades.
const SAMPLES_MEMORY: u32 = 64;
/// How much luck is allowed for, in standard deviations.
const LUCK: f64 = 2.0;
/// What `Retry-After` says at most.
const RETRY_AFTER_MAX_S: u32 = 60;

/// How long requests hold their slots: mean and variance of the last ones.
///
/// A request that has not ended is no part of it, so one that never does changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServiceTime {
    samples: u32,
    mean_s: f64,
    variance: f64,
}

impl ServiceTime {
    /// A request gave its slot back after `time`.
    pub fn take(&mut self, time: Duration) {
        self.samples = self.samples.saturating_add(1);
        let weight = 1.0 / f64::from(self.samples.min(SAMPLES_MEMORY));
        let difference = time.as_secs_f64() - self.mean_s;
        let step = weight * difference;
        self.mean_s += step;
        self.variance = (1.0 - weight) * (self.variance + difference * step);
    }

    /// Zero before the first.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.mean_s.max(0.0))
    }
}

/// How long a request with `ahead` others before it will wait while `slots` serve: as many services, shared.
pub fn expected_wait(ahead: u32, slots: u32, service: &ServiceTime) -> Duration {
    seconds(f64::from(ahead) * service.mean_s / f64::from(slots.max(1)))
}

/// How long it waits at least: the expected wait, less what luck may make of it.
///
/// Times that differ widely, or few of them, say little: then this is near zero, and the request is held. Zero while nothing is known.
pub fn least_wait(ahead: u32, slots: u32, service: &ServiceTime) -> Duration {
    if service.samples < SAMPLES_MIN {
        return Duration::ZERO;
    }
    let (ahead, deviation) = (f64::from(ahead), service.variance.max(0.0).sqrt());
    // Of a sum of so many services, and of the mean itself: one with weights that fade is as good as one of twice their memory.
    let by_chance = deviation * ahead.sqrt();
    let by_estimate = deviation * ahead / f64::from(service.samples.min(2 * SAMPLES_MEMORY)).sqrt();
    seconds((ahead * service.mean_s - LUCK * by_chance.hypot(by_estimate)) / f64::from(slots.max(1)))
}

/// How long a request is held: Google's rule. `startup`: what starts of the revision take on average.
pub fn hold_time(startup: Option<Duration>, hold_min: Duration) -> Duration {
    startup.map_or(hold_min, |startup| hold_min.max(startup.mul_f64(3.5)))
}

/// Whole seconds after which a request that is refused now would be held: until the queue is as short as what the hold time serves.
pub fn retry_after_s(wait: Duration, hold: Duration) -> u32 {
    let until = wait.saturating_sub(hold).as_secs_f64().ceil() as u32;
    until.clamp(1, RETRY_AFTER_MAX_S)
}

fn seconds(seconds: f64) -> Duration {
    // A day is as good as never.
    Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn served(times_ms: impl IntoIterator<Item = u64>) -> ServiceTime {
        let mut service = ServiceTime::default();
        times_ms.into_iter().for_each(|ms| service.take(Duration::from_millis(ms)));
        service
    }

    const HOLD: Duration = Duration::from_secs(10);

    #[test]
    fn equal_times_make_a_sharp_line() {
        let service = served([100; 50]);
        assert_eq!(expected_wait(50, 5, &service).as_millis(), 1000);
        // 2 slots of 100 ms serve 200 within the hold time.
        assert!(least_wait(199, 2, &service) < HOLD && least_wait(202, 2, &service) > HOLD);
        assert_eq!(service.mean().as_millis(), 100);
    }

    #[test]
    fn what_is_not_known_is_held() {
        assert_eq!(least_wait(100_000, 1, &ServiceTime::default()), Duration::ZERO);
        assert_eq!(least_wait(100_000, 1, &served([60_000; SAMPLES_MIN as usize - 1])), Duration::ZERO);
        assert!(least_wait(2, 1, &served([60_000; SAMPLES_MIN as usize])) > HOLD);
        // Now and then a long one: a short queue may be all short ones.
        let bimodal = served((0..200).map(|n| if n % 20 == 0 { 30_000 } else { 10 }));
        assert!(least_wait(10, 1, &bimodal) < HOLD, "{:?}", least_wait(10, 1, &bimodal));
        // A very long queue is not.
        assert!(least_wait(1000, 1, &bimodal) > HOLD);
    }

    #[test]
    fn a_function_that_gets_fast_is_believed() {
        let slow = served([5000; 100]);
        let mut service = slow;
        assert!(least_wait(5, 1, &service) > HOLD);
        let believed = (1..).find(|_| {
            service.take(Duration::from_millis(10));
            least_wait(5, 1, &service) < HOLD
        });
        assert!(believed < Some(20), "{believed:?}");
    }

    #[test]
    fn holding_and_trying_again() {
        assert_eq!(hold_time(None, HOLD), HOLD);
        assert_eq!(hold_time(Some(Duration::from_secs(1)), HOLD), HOLD);
        assert_eq!(hold_time(Some(Duration::from_secs(10)), HOLD), Duration::from_secs(35));
        assert_eq!(retry_after_s(Duration::from_secs(4), HOLD), 1);
        assert_eq!(retry_after_s(Duration::from_millis(12_300), HOLD), 3);
        assert_eq!(retry_after_s(Duration::from_secs(3600), HOLD), 60);
    }

    proptest! {
        /// Of queues that are really served, drawn from the same times as the samples, hardly one that was in time would have been refused.
        #[test]
        fn who_could_have_been_served_is_not_refused(
            times in prop::collection::vec(1_u64..3000, 20..64),
            slots in 1_u32..20,
            ahead in 1_u32..400,
            seed in any::<u64>(),
        ) {
            let service = served(times.iter().copied());
            let mut random = seed | 1;
            let mut in_time = 0;
            for _ in 0..20 {
                // Each slot is in the middle of a request; the next in the queue gets the first that is free.
                let mut draw = || {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    times[(random % times.len() as u64) as usize] as f64 / 1e3
                };
                let mut free: Vec<f64> = (0..slots).map(|_| draw() / 2.0).collect();
                let mut start = 0.0;
                for _ in 0..=ahead {
                    let first = (0..free.len()).min_by(|a, b| free[*a].total_cmp(&free[*b])).expect("a slot");
                    start = free[first];
                    free[first] += draw();
                }
                in_time += u32::from(start <= HOLD.as_secs_f64());
            }
            let is_refused = least_wait(ahead, slots, &service) > HOLD;
            prop_assert!(!is_refused || in_time <= 2, "{in_time} of 20 were in time: {service:?}, {ahead} before it, {slots} slots");
        }

        #[test]
        fn a_longer_queue_or_fewer_slots_never_wait_less_on_average(ahead in 0_u32..10_000, slots in 1_u32..1000, ms in 1_u64..100_000) {
            let service = served([ms; 30]);
            prop_assert!(expected_wait(ahead + 1, slots, &service) >= expected_wait(ahead, slots, &service));
            prop_assert!(expected_wait(ahead, slots, &service) >= expected_wait(ahead, slots + 1, &service));
            prop_assert!(least_wait(ahead, slots, &service) <= expected_wait(ahead, slots, &service) + Duration::from_micros(1));
        }
    }
}
