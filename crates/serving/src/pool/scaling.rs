//! How many instances a pool has: `model::scaling` decides; here it is asked and obeyed.
//!
//! It is asked whenever a request begins to wait, when an instance is gone, when limits change and as time passes (`autoscaler.rs`).

use std::{sync::Arc, time::Duration};

use model::scaling::{Observed, Reason, Scaling, Starts, decide};
use tokio::time::Instant;

use super::{Autoscaler, Means, Pool, State};
use crate::{
    autoscaler,
    instances::{self, Instance, StopOrder},
    slots::{Member, Phase},
};

/// How many instances a revision may and must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    pub(crate) min: u32,
    pub(crate) max: u32,
    /// The number is the owner's.
    pub(crate) is_manual: bool,
    /// Whether any host leads to it.
    pub(crate) routed: bool,
}

/// What was decided, to be carried out once the lock is free. The instances in it are counted already.
#[derive(Default)]
pub(super) struct Plan {
    launches: Vec<Arc<Instance>>,
    /// They are started because the owner wants so many, not because of requests.
    is_minimum: bool,
    ends: Vec<Arc<Instance>>,
}

impl Pool {
    /// Asks the rule which instances to start and to end now.
    pub(super) fn plan(self: &Arc<Self>, state: &mut State, now: Instant) -> Plan {
        if state.retired {
            return Plan::default();
        }
        let idle_max = self.idle_max(state);
        let has_expired = |member: &Member<Instance>| now >= member.idle_since + idle_max;
        let live = state.slots.live();
        let observed = Observed {
            requests_mean: state.means.requests,
            cpu_mean: state.means.cpu,
            waiting: state.waiting(),
            in_flight: state.slots.in_flight(),
            starting: state.slots.starting(),
            ready: live - state.slots.starting() - state.slots.unready(),
            unready: state.slots.unready(),
            idle: state.slots.idle(|_| true),
            unready_idle: state.slots.idle(|member| member.unready),
            expired: state.slots.idle(has_expired),
            starts: match state.retry_at {
                _ if state.failures == 0 => Starts::Good,
                Some(at) if now < at => Starts::HeldBack,
                _ => Starts::Failing,
            },
        };
        let scaling = Scaling {
            concurrency: state.slots.concurrency(),
            max_instances: state.scale.max,
            min_instances: state.scale.min,
            is_manual: state.scale.is_manual,
            idle_max,
        };
        let decision = decide(&observed, &scaling);
        state.slots.fill(decision.fill);
        let was_limited = std::mem::replace(&mut state.is_limited, decision.limited.is_some());
        if decision.start + decision.end > 0 || (state.is_limited && !was_limited) {
            self.decisions.made(self.shared.clock.now(), live, decision);
        }
        let launches = (0..decision.start)
            .map(|_| {
                let instance = Instance::new(self.clone());
                state.slots.insert(instance.clone(), now);
                instance
            })
            .collect();
        let mut ends = Vec::new();
        if decision.end > 0 {
            for member in state.slots.first_to_end().into_iter().take(decision.end as usize) {
                member.phase = Phase::Draining;
                ends.push(member.instance.clone());
            }
        }
        let is_minimum = matches!(decision.reason, Reason::Minimum { .. } | Reason::Manual { .. });
        Plan { launches, is_minimum, ends }
    }

    /// Google's time, and less when no host leads to the revision any more.
    fn idle_max(&self, state: &State) -> Duration {
        let idle_max = self.shared.config.instance_idle_max;
        if state.scale.routed { idle_max } else { idle_max.min(UNROUTED_IDLE_MAX) }
    }

    /// Does what was decided.
    pub(super) fn carry_out(&self, plan: Plan) {
        for instance in plan.ends {
            tracing::debug!(revision = %self.revision, instance = %instance.sandbox, "ending an idle instance");
            self.drain(&instance, StopOrder::gentle());
        }
        for instance in plan.launches {
            instances::launch(instance, if plan.is_minimum { instances::Reason::Minimum } else { instances::Reason::Autoscaling });
        }
    }

    /// New limits, by the table.
    pub(crate) fn scale(self: &Arc<Self>, scale: Scale) {
        let plan = {
            let mut state = self.state.lock();
            if state.retired || state.scale == scale {
                return;
            }
            if state.scale.routed && !scale.routed {
                // Nobody can call it: what it would start from is not worth its memory.
                self.clones.end(&self.shared, false);
            }
            state.scale = scale;
            if scale.min > 0 {
                self.awaken(&mut state);
            }
            self.plan(&mut state, Instant::now())
        };
        self.carry_out(plan);
        self.wake.notify_one();
    }

    /// Sees to it that somebody looks after this pool.
    pub(super) fn awaken(self: &Arc<Self>, state: &mut State) {
        match std::mem::replace(&mut state.autoscaler, Autoscaler::Ticking) {
            Autoscaler::Ticking => {}
            Autoscaler::Sleeping => self.wake.notify_one(),
            Autoscaler::Off => {
                self.shared.supervisor.spawn("autoscaler", autoscaler::run(self.clone()));
            }
        }
    }

    /// Requests times seconds since the last time, and requests now.
    pub(crate) fn load_take(&self) -> (f64, u32) {
        let mut state = self.state.lock();
        state.load.advance(Instant::now());
        (std::mem::take(&mut state.load.area), state.load.level)
    }

    /// One look of the autoscaler: starts and ends what it must. Says when to look again; `None` when there is nothing left to look at.
    pub(crate) fn look(self: &Arc<Self>, means: Means) -> Option<Instant> {
        let now = Instant::now();
        let mut billed = Vec::new();
        let plan;
        let next;
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            state.means = means;
            plan = self.plan(state, now);
            let idle_max = self.idle_max(state);
            let mut expires = Vec::new();
            let (mut active, mut idle) = (0, 0);
            for member in state.slots.iter_mut() {
                if member.is_idle() {
                    expires.extend(Some(member.idle_since + idle_max).filter(|at| *at > now));
                }
                if !self.template.cpu_idle() {
                    // Always billed: told in stretches, so that it can be seen while it runs.
                    if let Some(from) = member.billed_from
                        && now >= from + BILLING_PERIOD
                    {
                        billed.push(BILLING_PERIOD);
                        member.billed_from = Some(from + BILLING_PERIOD);
                    }
                    expires.extend(member.billed_from.map(|from| from + BILLING_PERIOD));
                }
                if member.in_flight > 0 { active += 1 } else { idle += 1 }
            }
            if let Some(meter) = self.meter.get() {
                meter.instances(active, idle);
            }
            if state.load.level > 0 || means.requests > 0.01 {
                state.autoscaler = Autoscaler::Ticking;
                next = Some(now + autoscaler::PERIOD);
            } else {
                expires.extend(state.retry_at.filter(|at| *at > now && state.slots.live() < state.scale.min));
                next = expires.into_iter().min();
                // Without an expiry an instance (one that starts or drains) wakes the autoscaler itself.
                let nothing = next.is_none() && state.slots.iter().next().is_none();
                state.autoscaler = if nothing { Autoscaler::Off } else { Autoscaler::Sleeping };
                if nothing {
                    return None;
                }
            }
        }
        for stretch in billed {
            self.bill(Some(stretch));
        }
        self.carry_out(plan);
        Some(next.unwrap_or(now + FAR))
    }
}

/// How long an idle instance is kept when no host leads to it any more.
const UNROUTED_IDLE_MAX: Duration = Duration::from_secs(60);
/// How much of an instance's time is told to the meter at once when all of it is billed. A multiple of 100 ms.
const BILLING_PERIOD: Duration = Duration::from_secs(60);
const FAR: Duration = Duration::from_secs(24 * 3600);
