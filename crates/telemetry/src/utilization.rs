//! What a revision's instances used of their CPU and memory, and how many there were: a spread for each minute of the last day.
//!
//! In memory only: it begins with the server. A minute without a sample (nobody looked, as there was no instance) is not there.

use std::collections::VecDeque;

use model::Timestamp;

/// A day.
pub const MINUTES_MAX: usize = 24 * 60;
/// Buckets of a [`Spread`], each a tenth; what is 1 or more is in one of its own after them.
pub const BUCKETS: usize = 10;
const MINUTE_S: i64 = 60;

/// One minute.
#[derive(Clone, Debug, PartialEq)]
pub struct Minute {
    /// Its beginning.
    pub start: Timestamp,
    /// Of CPU limits, sampled of each instance every few seconds.
    pub cpu: Spread,
    /// Of memory limits.
    pub memory: Spread,
    /// Instances with a request, and without, when it was sampled last.
    pub active: u32,
    pub idle: u32,
}

/// How shares (0: none, 1: all) were spread.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    pub count: u32,
    pub mean: f32,
    pub max: f32,
    /// Sum of the squares of what each is away from the mean.
    pub deviation_squares: f32,
    /// The last one: 1 or more.
    pub buckets: [u16; BUCKETS + 1],
}

impl Spread {
    fn add(&mut self, share: f32) {
        self.count = self.count.saturating_add(1);
        let away = share - self.mean;
        self.mean += away / self.count as f32;
        self.deviation_squares += away * (share - self.mean);
        self.max = self.max.max(share);
        let bucket = &mut self.buckets[((share * BUCKETS as f32) as usize).min(BUCKETS)];
        *bucket = bucket.saturating_add(1);
    }
}

/// The minutes of one revision.
#[derive(Default)]
pub(crate) struct Utilization {
    minutes: VecDeque<Minute>,
}

impl Utilization {
    /// One instance at `at`. `cpu` is not known of one that is looked at for the first time.
    pub(crate) fn add(&mut self, at: Timestamp, cpu: Option<f64>, memory: f64, (active, idle): (u32, u32)) {
        let second = at.as_second().div_euclid(MINUTE_S) * MINUTE_S;
        let Ok(start) = Timestamp::from_second(second) else { return };
        // A clock that was set back goes on in the last minute.
        if self.minutes.back().is_none_or(|last| last.start < start) {
            if self.minutes.len() == MINUTES_MAX {
                self.minutes.pop_front();
            }
            self.minutes.push_back(Minute { start, cpu: Spread::default(), memory: Spread::default(), active, idle });
        }
        let Some(minute) = self.minutes.back_mut() else { return };
        if let Some(cpu) = cpu {
            minute.cpu.add(cpu as f32);
        }
        minute.memory.add(memory as f32);
        (minute.active, minute.idle) = (active, idle);
    }

    /// Those that begin within `from..until`, the oldest first.
    pub(crate) fn between(&self, from: Timestamp, until: Timestamp) -> Vec<Minute> {
        self.minutes.iter().filter(|minute| minute.start >= from && minute.start < until).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_hold_the_spread_of_their_samples() {
        let at = |s: i64| Timestamp::from_second(1_700_000_000 / MINUTE_S * MINUTE_S + s).unwrap();
        let mut utilization = Utilization::default();
        utilization.add(at(1), None, 0.5, (1, 0));
        for (s, cpu) in [(2, 0.0), (4, 0.25), (6, 1.0), (59, 0.75)] {
            utilization.add(at(s), Some(cpu), 0.5, (1, 1));
        }
        utilization.add(at(60), Some(0.1), 1.2, (2, 3));
        let minutes = utilization.between(at(0), at(120));
        let [first, second] = minutes.as_slice() else { panic!("{minutes:?}") };
        assert_eq!((first.start, first.cpu.count, first.memory.count), (at(0), 4, 5));
        assert_eq!((first.cpu.mean, first.cpu.max, first.cpu.deviation_squares), (0.5, 1.0, 0.625));
        assert_eq!(first.cpu.buckets, [1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 1]);
        assert_eq!((second.start, second.memory.buckets[BUCKETS], second.active, second.idle), (at(60), 1, 2, 3));
        assert_eq!(utilization.between(at(1), at(60)), []);
    }

    #[test]
    fn a_day_is_kept() {
        let mut utilization = Utilization::default();
        for minute in 0..2000 {
            utilization.add(Timestamp::from_second(minute * MINUTE_S).unwrap(), Some(0.1), 0.1, (1, 0));
        }
        let all = utilization.between(Timestamp::MIN, Timestamp::MAX);
        assert_eq!((all.len(), all[0].start.as_second()), (MINUTES_MAX, (2000 - MINUTES_MAX as i64) * MINUTE_S));
    }
}
