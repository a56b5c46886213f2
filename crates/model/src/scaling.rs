//! How many instances a revision needs: a rule without a clock or a queue of its own.
//!
//! Google's rule as it is documented: requests that find no slot start instances at once; otherwise instances are kept at 60 % of
//! their CPU and of their slots, by the mean of a window; one that has had no request for 15 minutes ends; never fewer than the
//! minimum, never more than the maximum. Who starts, ends and counts them is `serving`'s to know.
//! Source: Cloud Run's documentation, "About instance autoscaling in Cloud Run services".

use std::{fmt, time::Duration};

/// What is seen of a revision at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observed {
    /// Requests being served and waiting, averaged over the window.
    pub requests_mean: f64,
    /// CPU in use by all instances, averaged over the window. The unit is one instance's CPU: 1.7 is one that uses all of its
    /// own and another that uses seven tenths. 0 when nobody measures it.
    pub cpu_mean: f64,
    /// Requests waiting for a slot now.
    pub waiting: u32,
    /// Requests being served now.
    pub in_flight: u32,
    /// Instances that do not listen yet.
    pub starting: u32,
    /// Instances that take requests, frozen or not.
    pub ready: u32,
    /// Instances that would take requests if their readiness probe passed: they serve nobody, and are there.
    pub unready: u32,
    /// Instances that have no request and could be ended.
    pub idle: u32,
    /// Of those, how many are unready: they end first.
    pub unready_idle: u32,
    /// Of the idle, how many have had none for [`Scaling::idle_max`].
    pub expired: u32,
    pub starts: Starts,
}

/// Whether what is started comes to listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Starts {
    #[default]
    Good,
    /// The last one failed; the next may be tried.
    Failing,
    /// The last one failed, and the time of the next try has not come: only a request that waits is a reason for one.
    HeldBack,
}

/// A revision's settings that scaling looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// Requests one instance serves at a time.
    pub concurrency: u32,
    pub max_instances: u32,
    /// Instances that are there without requests.
    pub min_instances: u32,
    /// The number is the owner's, not the rule's: minimum and maximum are the same.
    pub is_manual: bool,
    /// How long an instance without requests is kept.
    pub idle_max: Duration,
}

/// The share of its slots, and of its CPU, that an instance is meant to use, by Google's documentation.
pub const TARGET: f64 = 0.6;
/// An instance ends only when the others would stay below their target with so many times the load: a load at the border of two
/// numbers would start and end the same one again and again.
const SLACK: f64 = 1.25;

/// What is to be done, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// Instances to start now.
    pub start: u32,
    /// Instances without requests to end now: the unready first, then those that have been idle for longest.
    pub end: u32,
    /// Up to how many requests one instance is given before the next gets any; beyond that the emptiest gets them.
    pub fill: u32,
    /// How many there would be without the maximum, when it stands in the way.
    pub limited: Option<u32>,
    pub reason: Reason,
}

/// Why there should be as many instances as a [`Decision`] says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// Requests found no free slot. `slots`: those of instances that take requests; `taken`: how many of them are in use.
    Waiting {
        waiting: u32,
        taken: u32,
        slots: u32,
    },
    /// More of the slots were in use than is meant to be.
    Concurrency {
        percent: u32,
        target_percent: u32,
    },
    /// More of the CPU was in use than is meant to be.
    Cpu {
        percent: u32,
        target_percent: u32,
    },
    Minimum {
        instances: u32,
    },
    /// The owner's number.
    Manual {
        instances: u32,
    },
    /// There are more than there may be: the maximum was lowered.
    Maximum {
        instances: u32,
    },
    /// No request for so long.
    Idle {
        time: Duration,
    },
    /// A new revision proves that it starts.
    Deployment,
    /// What is there is enough.
    Enough,
}

/// How many instances to start or to end.
///
/// After it there are never more than `max_instances` by its doing, and never fewer than `min_instances` unless starts fail. It never
/// ends an instance that it would start again from the same input.
pub fn decide(observed: &Observed, scaling: &Scaling) -> Decision {
    let live = observed.starting + observed.ready;
    let there = live + observed.unready;
    let need = Need::of(observed, scaling);
    let (mut wanted, mut reason) = (need.instances, need.reason);
    let minimum = if observed.starts == Starts::HeldBack { 0 } else { scaling.min_instances };
    if minimum > wanted {
        wanted = minimum;
        reason = if scaling.is_manual { Reason::Manual { instances: minimum } } else { Reason::Minimum { instances: minimum } };
    }
    let limited = (wanted > scaling.max_instances).then_some(wanted);
    let wanted = wanted.min(scaling.max_instances);
    let mut start = wanted.saturating_sub(live).min(scaling.max_instances.saturating_sub(there));
    // What keeps failing may try one at a time: its starts must not take the host from the others.
    match observed.starts {
        Starts::Good => {}
        Starts::HeldBack if observed.waiting == 0 => start = 0,
        Starts::Failing | Starts::HeldBack => start = start.min(1_u32.saturating_sub(observed.starting)),
    }
    let excess = there.saturating_sub(scaling.max_instances);
    // What would be needed again a moment later stays. Held back, the minimum starts none; what there is of it stays.
    let slack = Observed { requests_mean: observed.requests_mean * SLACK, cpu_mean: observed.cpu_mean * SLACK, ..*observed };
    let kept = wanted.max(Need::of(&slack, scaling).instances.max(scaling.min_instances).min(scaling.max_instances));
    // A surplus of unready ones ends none that takes requests.
    let spare = observed.unready_idle + live.saturating_sub(kept);
    let end = if start > 0 { 0 } else { observed.expired.max(excess).min(observed.idle).min(there.saturating_sub(kept)).min(spare) };
    if end > 0 {
        reason = match () {
            () if excess < end => Reason::Idle { time: scaling.idle_max },
            () if scaling.is_manual => Reason::Manual { instances: scaling.max_instances },
            () => Reason::Maximum { instances: scaling.max_instances },
        };
    } else if start == 0 && limited.is_none() {
        reason = Reason::Enough;
    }
    Decision { start, end, fill: need.fill(observed, scaling), limited, reason }
}

/// What the requests need, whatever the limits are.
struct Need {
    instances: u32,
    reason: Reason,
    /// Set when the CPU asks for more than the slots do.
    by_cpu: bool,
}

impl Need {
    fn of(observed: &Observed, scaling: &Scaling) -> Self {
        let concurrency = scaling.concurrency.max(1);
        let now = observed.in_flight.saturating_add(observed.waiting);
        if now == 0 {
            // What the window remembers keeps nobody from being idle, and is no reason to start any.
            return Self { instances: 0, reason: Reason::Enough, by_cpu: false };
        }
        let ready = f64::from(observed.ready.max(1));
        let target = target(concurrency);
        let mut need = Self {
            instances: now.div_ceil(concurrency),
            reason: Reason::Waiting { waiting: observed.waiting, taken: observed.in_flight, slots: observed.ready.saturating_mul(concurrency) },
            by_cpu: false,
        };
        let slots = count(observed.requests_mean / (f64::from(concurrency) * target));
        if slots > need.instances {
            let percent = percent(observed.requests_mean / (f64::from(concurrency) * ready));
            need = Self { instances: slots, reason: Reason::Concurrency { percent, target_percent: self::percent(target) }, by_cpu: false };
        }
        // Requests that share no instance do not slow each other down, and more instances than requests take no work from any.
        let useful = if concurrency == 1 { 0 } else { count(observed.requests_mean / TARGET).max(now) };
        let cpu = count(observed.cpu_mean / TARGET).min(useful);
        if cpu > need.instances {
            let percent = percent(observed.cpu_mean / ready);
            need = Self { instances: cpu, reason: Reason::Cpu { percent, target_percent: self::percent(TARGET) }, by_cpu: true };
        }
        need
    }

    /// Instances are filled up to their target, so that those that are not needed fall idle and end. When the CPU asks for more instances
    /// than the slots do, to as many requests as are theirs when all share: else the new ones would get none.
    fn fill(&self, observed: &Observed, scaling: &Scaling) -> u32 {
        let concurrency = scaling.concurrency.max(1);
        let usual = (f64::from(concurrency) * TARGET) as u32;
        let fill = if self.by_cpu { count(observed.requests_mean / f64::from(self.instances.min(scaling.max_instances).max(1))).min(usual) } else { usual };
        fill.max(1)
    }
}

/// With one slot an instance cannot be at 60 %: it is in use or it is not.
fn target(concurrency: u32) -> f64 {
    if concurrency == 1 { 1.0 } else { TARGET }
}

/// So much below a whole number is one: a mean is never exact.
const BARELY: f64 = 0.01;

fn count(of: f64) -> u32 {
    (of - BARELY).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

fn percent(share: f64) -> u32 {
    (share * 100.0).round().clamp(0.0, f64::from(u32::MAX)) as u32
}

impl Reason {
    /// One word for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "WAITING",
            Self::Concurrency { .. } => "CONCURRENCY",
            Self::Cpu { .. } => "CPU",
            Self::Minimum { .. } => "MINIMUM",
            Self::Manual { .. } => "MANUAL",
            Self::Maximum { .. } => "MAXIMUM",
            Self::Idle { .. } => "IDLE",
            Self::Deployment => "DEPLOYMENT",
            Self::Enough => "ENOUGH",
        }
    }
}

/// In words for the owner of the service.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = |n: u32| if n == 1 { "1 request".to_owned() } else { format!("{n} requests") };
        match *self {
            Self::Waiting { waiting, slots: 0, .. } => write!(f, "{} waited, no instance was ready", requests(waiting)),
            Self::Waiting { waiting, taken, slots } => write!(f, "{} waited, {taken} of {slots} slots were taken", requests(waiting)),
            Self::Concurrency { percent, target_percent } => write!(f, "concurrency {percent} % (target {target_percent} %)"),
            Self::Cpu { percent, target_percent } => write!(f, "CPU {percent} % (target {target_percent} %)"),
            Self::Minimum { instances } => write!(f, "minimum {instances}"),
            Self::Manual { instances } => write!(f, "manual scaling: {instances}"),
            Self::Maximum { instances } => write!(f, "maximum {instances}"),
            Self::Idle { time } => match time.as_secs() {
                s if s % 60 == 0 && s > 0 => write!(f, "idle for {} min", s / 60),
                s => write!(f, "idle for {s} s"),
            },
            Self::Deployment => write!(f, "first instance of a new revision"),
            Self::Enough => write!(f, "enough"),
        }
    }
}

/// In words: the reason, and the maximum when that stood in the way.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        match self.limited {
            Some(wanted) => write!(f, "; maximum reached, {wanted} wanted"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALING: Scaling = Scaling { concurrency: 10, max_instances: 5, min_instances: 0, is_manual: false, idle_max: Duration::from_secs(900) };

    #[track_caller]
    fn check(observed: Observed, scaling: Scaling, expect: (u32, u32), words: &str) {
        let decision = decide(&observed, &scaling);
        assert_eq!(((decision.start, decision.end), decision.to_string().as_str()), (expect, words), "{observed:?} {scaling:?}");
    }

    #[test]
    fn instances_follow_the_requests() {
        let none = Observed::default();
        check(none, SCALING, (0, 0), "enough");
        check(Observed { waiting: 1, ..none }, SCALING, (1, 0), "1 request waited, no instance was ready");
        check(Observed { waiting: 31, ..none }, SCALING, (4, 0), "31 requests waited, no instance was ready");
        check(Observed { waiting: 31, starting: 4, ..none }, SCALING, (0, 0), "enough");
        check(Observed { waiting: 3, in_flight: 20, ready: 2, ..none }, SCALING, (1, 0), "3 requests waited, 20 of 20 slots were taken");
        check(Observed { waiting: 1000, ..none }, SCALING, (5, 0), "1000 requests waited, no instance was ready; maximum reached, 100 wanted");
        check(
            Observed { waiting: 30, in_flight: 50, ready: 5, ..none },
            SCALING,
            (0, 0),
            "30 requests waited, 50 of 50 slots were taken; maximum reached, 8 wanted",
        );
        check(Observed { requests_mean: 12.0, in_flight: 5, ready: 2, ..none }, SCALING, (0, 0), "enough");
        check(Observed { requests_mean: 15.0, in_flight: 15, ready: 2, ..none }, SCALING, (1, 0), "concurrency 75 % (target 60 %)");
        // One slot is in use or it is not; a mean that is a hair above one is one.
        let single = Scaling { concurrency: 1, ..SCALING };
        check(Observed { requests_mean: 1.000_001, in_flight: 1, ready: 1, ..none }, single, (0, 0), "enough");
        check(Observed { requests_mean: 1.3, in_flight: 1, ready: 1, ..none }, single, (1, 0), "concurrency 130 % (target 100 %)");
        // What the window remembers starts nobody when there is no request.
        check(Observed { requests_mean: 40.0, cpu_mean: 3.0, ready: 1, idle: 1, ..none }, SCALING, (0, 0), "enough");
    }

    #[test]
    fn instances_follow_the_cpu() {
        let busy = Observed { requests_mean: 4.0, in_flight: 4, ready: 1, cpu_mean: 0.85, ..Observed::default() };
        check(busy, SCALING, (1, 0), "CPU 85 % (target 60 %)");
        assert_eq!(decide(&busy, &SCALING).fill, 2, "both get half of the requests");
        check(Observed { ready: 2, ..busy }, SCALING, (0, 0), "enough");
        check(Observed { cpu_mean: 0.55, ..busy }, SCALING, (0, 0), "enough");
        assert_eq!(decide(&Observed { cpu_mean: 0.55, ..busy }, &SCALING).fill, 6);
        // Of so many instances most would have nothing to do.
        check(Observed { requests_mean: 1.0, in_flight: 1, cpu_mean: 6.0, ready: 2, ..busy }, SCALING, (0, 0), "enough");
        check(Observed { requests_mean: 1.0, in_flight: 1, cpu_mean: 1.0, ..busy }, Scaling { concurrency: 1, ..SCALING }, (0, 0), "enough");
    }

    #[test]
    fn idle_instances_end_down_to_the_minimum() {
        let idle = Observed { ready: 3, idle: 3, ..Observed::default() };
        check(idle, SCALING, (0, 0), "enough");
        check(Observed { expired: 2, ..idle }, SCALING, (0, 2), "idle for 15 min");
        check(Observed { expired: 3, ..idle }, Scaling { min_instances: 2, ..SCALING }, (0, 1), "idle for 15 min");
        check(Observed::default(), Scaling { min_instances: 2, ..SCALING }, (2, 0), "minimum 2");
        check(Observed { expired: 3, ..idle }, Scaling { min_instances: 3, ..SCALING }, (0, 0), "enough");
        // What is needed does not end although it is idle at this moment.
        check(Observed { requests_mean: 11.0, in_flight: 9, ready: 2, idle: 1, expired: 1, ..Observed::default() }, SCALING, (0, 0), "enough");
    }

    #[test]
    fn limits_hold() {
        check(Observed { ready: 3, idle: 3, ..Observed::default() }, Scaling { max_instances: 1, ..SCALING }, (0, 2), "maximum 1");
        check(Observed { ready: 3, in_flight: 3, requests_mean: 3.0, ..Observed::default() }, Scaling { max_instances: 1, ..SCALING }, (0, 0), "enough");
        let manual = Scaling { max_instances: 3, min_instances: 3, is_manual: true, ..SCALING };
        check(Observed { ready: 1, idle: 1, ..Observed::default() }, manual, (2, 0), "manual scaling: 3");
        check(Observed { ready: 4, idle: 4, ..Observed::default() }, manual, (0, 1), "manual scaling: 3");
        check(
            Observed { waiting: 1, ..Observed::default() },
            Scaling { max_instances: 0, ..SCALING },
            (0, 0),
            "1 request waited, no instance was ready; maximum reached, 1 wanted",
        );
        // What is not ready is there all the same.
        check(Observed { waiting: 9, unready: 4, ..Observed::default() }, SCALING, (1, 0), "9 requests waited, no instance was ready");
        check(Observed { waiting: 9, unready: 5, ..Observed::default() }, SCALING, (0, 0), "enough");
    }

    #[test]
    fn unready_ones_are_the_surplus() {
        let two = Scaling { min_instances: 2, ..SCALING };
        let surplus = Observed { ready: 2, unready: 1, idle: 3, unready_idle: 1, expired: 2, ..Observed::default() };
        check(surplus, two, (0, 1), "idle for 15 min");
        // It has a request still: none that is ready ends in its place.
        check(Observed { idle: 2, unready_idle: 0, ..surplus }, two, (0, 0), "enough");
        check(Observed { idle: 2, unready_idle: 0, ..surplus }, Scaling { max_instances: 2, ..two }, (0, 0), "enough");
        check(surplus, Scaling { max_instances: 2, ..two }, (0, 1), "maximum 2");
        // One is missing and one too many: the new one first.
        check(Observed { ready: 1, idle: 3, unready: 2, unready_idle: 2, ..surplus }, two, (1, 0), "minimum 2");
    }

    #[test]
    fn what_fails_tries_one_at_a_time() {
        let many = Observed { waiting: 40, ..Observed::default() };
        assert_eq!(decide(&Observed { starts: Starts::Failing, ..many }, &SCALING).start, 1);
        assert_eq!(decide(&Observed { starts: Starts::HeldBack, ..many }, &SCALING).start, 1);
        assert_eq!(decide(&Observed { starts: Starts::Failing, starting: 1, ..many }, &SCALING).start, 0);
        let minimum = Scaling { min_instances: 2, ..SCALING };
        assert_eq!(decide(&Observed { starts: Starts::Failing, ..Observed::default() }, &minimum).start, 1);
        assert_eq!(decide(&Observed { starts: Starts::HeldBack, ..Observed::default() }, &minimum).start, 0);
        assert_eq!(decide(&Observed { starts: Starts::HeldBack, ready: 1, idle: 1, expired: 1, ..Observed::default() }, &minimum).end, 0);
    }
}
