//! What is counted of a revision: requests, latencies, instances, and the time that would be billed.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use model::Timestamp;
use parking_lot::Mutex;

use crate::{
    histogram::{Counts, Histogram},
    utilization::{Minute, Utilization},
};

/// Whose meter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeterKey {
    pub project: String,
    pub region: String,
    pub service: String,
    pub revision: String,
}

/// How an instance may be started: from what was made ahead, from its revision's template, from its runtime's, from nothing.
pub const RUNGS: [&str; 4] = ["armed", "template", "runtime", "ordinary"];

/// A revision's counts; every method is a few atomic operations, but for those about utilization, which no request waits for.
#[derive(Default)]
pub struct Meter {
    /// By the first digit of the status; what has none (no answer was given) is first.
    requests: [AtomicU64; 6],
    latencies: Histogram,
    startups: Histogram,
    /// Of requests that an instance was started for, by how it was. Most revisions have none.
    cold_starts: [OnceLock<Box<Histogram>>; RUNGS.len()],
    /// Active ones in the upper half, idle ones in the lower: they change together.
    instances: AtomicU64,
    billable_ms: AtomicU64,
    cpu_millis_ms: AtomicU64,
    memory_byte_ms: Sum128,
    utilization: Mutex<Utilization>,
}

impl Meter {
    /// A request that was answered, or came to an end without an answer (`status` 0).
    pub fn request(&self, status: u16, latency: Duration) {
        let class = usize::from(status / 100);
        self.requests[if class < 6 { class } else { 0 }].fetch_add(1, Ordering::Relaxed);
        self.latencies.add(latency);
    }

    /// Instances now: active (with a request), idle.
    pub fn instances(&self, active: u32, idle: u32) {
        self.instances.store(u64::from(active) << 32 | u64::from(idle), Ordering::Relaxed);
    }

    /// What one instance uses of its CPU, if that is known, and of its memory: shares of its limits.
    pub fn utilization(&self, at: Timestamp, cpu: Option<f64>, memory: f64) {
        let instances = self.instances.load(Ordering::Relaxed);
        self.utilization.lock().add(at, cpu, memory, ((instances >> 32) as u32, instances as u32));
    }

    /// Minutes that begin within `from..until` and have samples, the oldest first; of the last day at most.
    pub fn minutes(&self, from: Timestamp, until: Timestamp) -> Vec<Minute> {
        self.utilization.lock().between(from, until)
    }

    /// An instance became ready, this long after it was asked for.
    pub fn startup(&self, latency: Duration) {
        self.startups.add(latency);
    }

    /// A request that an instance was started for, by a `rung` of [`RUNGS`], got its answer's first byte this long after it came.
    pub fn cold_start(&self, rung: &str, latency: Duration) {
        if let Some(at) = RUNGS.iter().position(|name| *name == rung) {
            self.cold_starts[at].get_or_init(Box::default).add(latency);
        }
    }

    /// A stretch of an instance's life that is billed, rounded up to 100 ms by Google's rule.
    ///
    /// `cpu_millis`: thousandths of a vCPU; `memory_bytes`: its memory limit. Stretches of one instance must not overlap.
    pub fn billable(&self, stretch: Duration, cpu_millis: u32, memory_bytes: u64) {
        let ms = billable_ms(stretch);
        self.billable_ms.fetch_add(ms, Ordering::Relaxed);
        self.cpu_millis_ms.fetch_add(ms.saturating_mul(u64::from(cpu_millis)), Ordering::Relaxed);
        self.memory_byte_ms.add(u128::from(ms) * u128::from(memory_bytes));
    }

    /// All counts. Those of one call may be in it in part.
    pub fn snapshot(&self) -> Snapshot {
        let latencies = self.latencies.snapshot();
        let instances = self.instances.load(Ordering::Relaxed);
        Snapshot {
            requests_by_class: std::array::from_fn(|class| self.requests[class].load(Ordering::Relaxed)),
            latency_ms_p50: latencies.quantile_ms(0.50),
            latency_ms_p99: latencies.quantile_ms(0.99),
            instances_active: (instances >> 32) as u32,
            instances_idle: instances as u32,
            starts: self.startups.snapshot().total(),
            billable_ms_total: self.billable_ms.load(Ordering::Relaxed),
            cpu_millis_ms_total: self.cpu_millis_ms.load(Ordering::Relaxed),
            memory_byte_ms_total: self.memory_byte_ms.load(),
        }
    }

    pub(crate) fn latencies(&self) -> Counts {
        self.latencies.snapshot()
    }

    /// Those of each rung that was used.
    pub(crate) fn cold_starts(&self) -> impl Iterator<Item = (&'static str, Counts)> {
        RUNGS.into_iter().zip(&self.cold_starts).filter_map(|(rung, histogram)| Some((rung, histogram.get()?.snapshot())))
    }

    pub(crate) fn startups(&self) -> Counts {
        self.startups.snapshot()
    }
}

/// A meter at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// By the first digit of the status: 1xx at 1 to 5xx at 5; requests without an answer at 0.
    pub requests_by_class: [u64; 6],
    /// Within 7 % of the true one.
    pub latency_ms_p50: f64,
    pub latency_ms_p99: f64,
    pub instances_active: u32,
    pub instances_idle: u32,
    pub starts: u64,
    /// Each stretch rounded up to 100 ms.
    pub billable_ms_total: u64,
    /// Thousandths of a vCPU times milliseconds: 1e6 of them are a vCPU-second.
    pub cpu_millis_ms_total: u64,
    pub memory_byte_ms_total: u128,
}

/// Google rounds usage up to the nearest 100 ms.
fn billable_ms(stretch: Duration) -> u64 {
    let ms = stretch.as_nanos().div_ceil(100_000_000) * 100;
    u64::try_from(ms).unwrap_or(u64::MAX)
}

/// A sum beyond 64 bits: half a GiB for a year of milliseconds is.
#[derive(Default)]
struct Sum128 {
    low: AtomicU64,
    high: AtomicU64,
}

impl Sum128 {
    fn add(&self, value: u128) {
        let (low, high) = (value as u64, (value >> 64) as u64);
        let before = self.low.fetch_add(low, Ordering::AcqRel);
        let carry = u64::from(before.checked_add(low).is_none());
        if high + carry > 0 {
            self.high.fetch_add(high + carry, Ordering::AcqRel);
        }
    }

    /// Read while somebody adds, it may lack a carry for a moment.
    fn load(&self) -> u128 {
        let high = self.high.load(Ordering::Acquire);
        u128::from(high) << 64 | u128::from(self.low.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn billable_time_is_rounded_up_to_100_ms() {
        let check = |us: u64, expect: u64| assert_eq!(billable_ms(Duration::from_micros(us)), expect, "{us} us");
        check(0, 0);
        check(1, 100);
        check(100_000, 100);
        check(100_001, 200);
        check(1_234_567, 1300);
        assert_eq!(billable_ms(Duration::MAX), u64::MAX);
    }

    #[test]
    fn a_meter_counts() {
        let meter = Meter::default();
        for status in [200, 204, 404, 503, 101, 0, 999] {
            meter.request(status, Duration::from_millis(10));
        }
        meter.instances(3, 2);
        meter.startup(Duration::from_millis(5));
        meter.billable(Duration::from_millis(150), 1000, 512 << 20);
        meter.billable(Duration::from_millis(50), 80, 128 << 20);
        let snapshot = meter.snapshot();
        assert_eq!(snapshot.requests_by_class, [2, 1, 2, 0, 1, 1]);
        assert_eq!((snapshot.instances_active, snapshot.instances_idle, snapshot.starts), (3, 2, 1));
        assert_eq!(snapshot.billable_ms_total, 300);
        assert_eq!(snapshot.cpu_millis_ms_total, 200 * 1000 + 100 * 80);
        assert_eq!(snapshot.memory_byte_ms_total, 200 * (512 << 20) + 100 * (128 << 20));
        assert!((snapshot.latency_ms_p99 - 10.0).abs() < 0.7, "{}", snapshot.latency_ms_p99);
    }

    #[test]
    fn sums_carry() {
        let sum = Sum128::default();
        let values = [u128::from(u64::MAX), 1, 1 << 70, u128::from(u64::MAX), 7];
        values.iter().for_each(|value| sum.add(*value));
        assert_eq!(sum.load(), values.iter().sum());
    }
}
