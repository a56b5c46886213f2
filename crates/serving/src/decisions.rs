//! The last decisions about how many instances a revision has, and why: for `tanebi why-scaled`.
//!
//! Written when a decision changes something, or when the maximum begins to stand in the way; never in the path of a request that
//! finds a slot. A burst that makes the same decision many times is one entry.

use std::{collections::VecDeque, time::Duration};

use model::{
    Timestamp,
    scaling::{Decision, Reason},
};
use parking_lot::Mutex;

/// Kept of each revision.
const KEPT_MAX: usize = 100;
/// Starts (or ends) for the same reason within this are one decision.
const TOGETHER: Duration = Duration::from_secs(1);
/// So is that nothing can be done about the same lack.
const STILL: Duration = Duration::from_secs(60);

/// One decision.
#[derive(Clone, Debug)]
pub struct ScalingDecision {
    pub time: Timestamp,
    /// Instances before and after it, those that start included.
    pub from: u32,
    pub to: u32,
    pub decision: Decision,
}

#[derive(Default)]
pub(crate) struct Decisions(Mutex<VecDeque<ScalingDecision>>);

impl Decisions {
    /// One was made while there were `from` instances.
    pub(crate) fn made(&self, time: Timestamp, from: u32, decision: Decision) {
        let to = (from + decision.start).saturating_sub(decision.end);
        let mut kept = self.0.lock();
        if let Some(last) = kept.back_mut()
            && last.to == from
            && (last.from < last.to) == (from < to)
            && (last.from > last.to) == (from > to)
            && last.decision.reason.name() == decision.reason.name()
            && time.duration_since(last.time).unsigned_abs() < if from == to { STILL } else { TOGETHER }
        {
            (last.to, last.decision) = (to, decision);
            return;
        }
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(ScalingDecision { time, from, to, decision });
    }

    /// A revision's first instance is started to prove it.
    pub(crate) fn deployed(&self, time: Timestamp, from: u32) {
        self.made(time, from, Decision { start: 1, end: 0, fill: 1, limited: None, reason: Reason::Deployment });
    }

    /// The oldest first.
    pub(crate) fn list(&self) -> Vec<ScalingDecision> {
        self.0.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_decision_and_the_oldest_go() {
        let decisions = Decisions::default();
        let at = |ms: i64| Timestamp::from_millisecond(1_700_000_000_000 + ms).unwrap();
        let waited = |waiting| Decision { start: 1, end: 0, fill: 1, limited: None, reason: Reason::Waiting { waiting, taken: 0, slots: 0 } };
        for n in 0..5 {
            decisions.made(at(i64::from(n)), n, waited(n + 1));
        }
        let limited = Decision { start: 0, limited: Some(9), ..waited(9) };
        decisions.made(at(10), 5, limited);
        decisions.made(at(20_000), 5, limited);
        decisions.made(at(900_000), 5, Decision { start: 0, end: 5, fill: 1, limited: None, reason: Reason::Idle { time: Duration::from_secs(900) } });
        let list = decisions.list();
        let told: Vec<_> = list.iter().map(|one| (one.from, one.to, one.decision.to_string())).collect();
        assert_eq!(
            told,
            [
                (0, 5, "5 requests waited, no instance was ready".to_owned()),
                (5, 5, "9 requests waited, no instance was ready; maximum reached, 9 wanted".to_owned()),
                (5, 0, "idle for 15 min".to_owned()),
            ]
        );
        assert_eq!(list[0].time, at(0));
        for n in 0..300 {
            decisions.deployed(at(1_000_000 + 2000 * n), 0);
        }
        assert_eq!(decisions.list().len(), KEPT_MAX);
    }
}
