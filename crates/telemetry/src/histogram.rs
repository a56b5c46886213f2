//! Durations, counted in buckets whose width grows with them: fixed memory, one atomic addition, an error below 1/8.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Buckets in each power of two.
const PER_POWER: usize = 8;
/// Powers of two of microseconds; the last bucket takes all from 2^36 us, which is 19 hours.
const POWERS: usize = 36;
const BUCKETS: usize = PER_POWER * (POWERS - 2);

/// Counts of durations. A bucket holds those above the last one's end up to its own, as Prometheus' `le` says.
pub(crate) struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum_us: AtomicU64::new(0) }
    }
}

impl Histogram {
    pub(crate) fn add(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(us)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Counts {
        Counts { counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(), sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

/// A histogram at one moment.
pub(crate) struct Counts {
    counts: Vec<u64>,
    pub(crate) sum_us: u64,
}

impl Counts {
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The duration that the share `quantile` (0 to 1) of all does not exceed, in milliseconds; the middle of its bucket.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        let total = self.total();
        if total == 0 {
            return 0.0;
        }
        let rank = ((total as f64 * quantile).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        let index = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        let index = index.unwrap_or(BUCKETS - 1);
        let below = if index == 0 { 0 } else { end_us(index - 1) };
        (below + end_us(index)) as f64 / 2.0 / 1000.0
    }

    /// How many do not exceed `us`, a power of two from 8.
    pub(crate) fn up_to(&self, us: u64) -> u64 {
        self.counts[..=bucket(us)].iter().sum()
    }
}

/// The bucket of a duration. Up to 8 us each has its own.
fn bucket(us: u64) -> usize {
    // Ends belong to their bucket, so it is counted from the value below.
    let below = us.saturating_sub(1);
    if below < PER_POWER as u64 {
        return below as usize;
    }
    let power = below.ilog2() as usize;
    let step = (below >> (power - 3)) as usize - PER_POWER;
    ((power - 2) * PER_POWER + step).min(BUCKETS - 1)
}

/// The largest duration of a bucket.
fn end_us(index: usize) -> u64 {
    if index < PER_POWER {
        return index as u64 + 1;
    }
    let (power, step) = (index / PER_POWER + 2, index % PER_POWER);
    ((PER_POWER + step + 1) as u64) << (power - 3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn powers_of_two_end_a_bucket() {
        for power in 3..POWERS {
            let us = 1 << power;
            assert_eq!(end_us(bucket(us)), us);
            assert_eq!(bucket(us + 1), (bucket(us) + 1).min(BUCKETS - 1));
        }
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket(us in 1_u64..1 << 36) {
            let index = bucket(us);
            prop_assert!(us <= end_us(index));
            let below = if index == 0 { 0 } else { end_us(index - 1) };
            prop_assert!(us > below);
            prop_assert!((end_us(index) - below) as f64 <= us as f64 / 8.0 + 1.0);
        }
    }

    #[test]
    fn quantiles_are_near() {
        let histogram = Histogram::default();
        for ms in 1..=1000 {
            histogram.add(Duration::from_millis(ms));
        }
        let counts = histogram.snapshot();
        assert_eq!((counts.total(), counts.sum_us), (1000, 500_500_000));
        for (quantile, expect) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = counts.quantile_ms(quantile);
            assert!((found - expect).abs() / expect < 0.0625 + 0.01, "{quantile}: {found}");
        }
        assert_eq!(counts.up_to(1 << 20), 1000);
        assert_eq!(counts.up_to(1 << 16), 65);
        assert_eq!(Histogram::default().snapshot().quantile_ms(0.5), 0.0);
    }

    #[test]
    fn the_longest_and_the_shortest_are_counted() {
        let histogram = Histogram::default();
        histogram.add(Duration::ZERO);
        histogram.add(Duration::MAX);
        assert_eq!(histogram.snapshot().total(), 2);
    }
}
