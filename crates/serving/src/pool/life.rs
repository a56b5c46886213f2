//! What happens to the instances of a pool: started, ready, frozen, probed, drained, gone. How it is done is `instances.rs`.

use std::{sync::Arc, time::Duration};

use model::image::Image;
use tokio::time::Instant;

use super::{
    Pool, State,
    scaling::Plan,
    slot::{Slot, Waiter},
};
use crate::{
    StartFailure,
    instances::{self, Instance, Reason, StopOrder},
    refusal::Refusal,
    slots::Phase,
};

/// What is to be done about an idle instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freeze {
    Now,
    NotBefore(Instant),
    Never,
}

/// 2^8 s, a little over 4 minutes between starts of what keeps failing.
const BACKOFF_DOUBLINGS_MAX: u32 = 8;

impl State {
    /// Gives the slots of `instance` to those who wait, the longest waiting first. They were counted as waiting and still are as being served.
    fn hand_out(&mut self, instance: &Arc<Instance>, now: Instant) -> Vec<(Waiter, Slot)> {
        let concurrency = self.slots.concurrency();
        let mut handed = Vec::new();
        let Some(member) = self.slots.find(instance) else { return handed };
        while member.has_slot(concurrency) {
            let Some(waiter) = self.queue.pop_front() else { break };
            member.take(now);
            handed.push((waiter, Slot::of(member, now)));
        }
        handed
    }
}

/// Whoever has left gives its slot back by dropping it.
fn send(handed: Vec<(Waiter, Slot)>) {
    for (waiter, slot) in handed {
        drop(waiter.slot.send(Ok(slot)));
    }
}

impl Pool {
    /// Starts one instance for `prove`, unless one is there. Whether its start is under way or done is the instance's outcome.
    pub(crate) fn first(self: &Arc<Self>, image: &Image) -> Result<Arc<Instance>, StartFailure> {
        let _ = self.image.set(Arc::new(image.clone()));
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.retired {
            return Err(StartFailure::Platform("the revision is gone".to_owned()));
        }
        if let Some(member) = state.slots.iter().find(|member| member.phase != Phase::Draining) {
            return Ok(member.instance.clone());
        }
        let from = state.slots.live();
        let instance = Instance::new(self.clone());
        state.slots.insert(instance.clone(), now);
        self.awaken(&mut state);
        drop(state);
        self.decisions.deployed(self.shared.clock.now(), from);
        instances::launch(instance.clone(), Reason::Deployment);
        Ok(instance)
    }

    /// `instance` listens: it gets what waits. Whether it may take requests (it may not when it is being ended already).
    pub(crate) fn ready(self: &Arc<Self>, instance: &Arc<Instance>, startup: Duration) -> bool {
        let now = Instant::now();
        let mut handed;
        let mut billed = None;
        let mut linger = false;
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let Some(member) = state.slots.find(instance).filter(|member| member.phase == Phase::Starting) else { return false };
            member.phase = Phase::Ready;
            member.idle_since = now;
            handed = state.hand_out(instance, now);
            let Some(member) = state.slots.find(instance) else { return false };
            if member.in_flight == 0 && self.template.cpu_idle() {
                billed = member.bill(now);
                linger = !std::mem::replace(&mut member.lingering, true);
            }
            state.startup_mean = Some(state.startup_mean.map_or(startup, |mean| (mean * 3 + startup) / 4));
            self.awaken(state);
        }
        self.bill(billed);
        self.meter().startup(startup);
        if let Some((_, slot)) = handed.first_mut() {
            slot.is_cold = true;
        }
        send(handed);
        if linger {
            instances::linger(instance.clone());
        }
        self.wake.notify_one();
        true
    }

    /// `instance` has served for a while: what failed before is forgotten.
    pub(crate) fn settled(&self) {
        let mut state = self.state.lock();
        state.failures = 0;
        state.retry_at = None;
    }

    /// `instance` is gone, or was never there. `failed` when that counts against the revision.
    pub(crate) fn removed(self: &Arc<Self>, instance: &Arc<Instance>, failed: bool) {
        let now = Instant::now();
        let mut refused = Vec::new();
        let (billed, plan) = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let Some(mut member) = state.slots.remove(instance) else { return };
            state.load.change(now, -i64::from(member.in_flight));
            if failed {
                state.failures = state.failures.saturating_add(1);
                let backoff = Duration::from_secs(1 << state.failures.min(BACKOFF_DOUBLINGS_MAX));
                state.retry_at = Some(now + backoff);
                if member.phase == Phase::Starting && state.slots.live() == 0 {
                    let n = state.queue.len();
                    refused.extend(state.queue.drain(..));
                    state.load.change(now, -i64::try_from(n).unwrap_or(0));
                }
            }
            let plan = if state.queue.is_empty() { Plan::default() } else { self.plan(state, now) };
            (member.bill(now), plan)
        };
        self.bill(billed);
        for waiter in refused {
            drop(waiter.slot.send(Err(Refusal::StartFailed)));
        }
        self.carry_out(plan);
        self.wake.notify_one();
    }

    /// Lets `instance` finish what it has, then ends it, by `order`. Done twice, the earlier times hold.
    pub(crate) fn drain(&self, instance: &Arc<Instance>, order: StopOrder) {
        {
            let mut state = self.state.lock();
            let Some(member) = state.slots.find(instance) else { return };
            member.phase = Phase::Draining;
            if member.in_flight == 0 {
                instance.drained.notify_one();
            }
        }
        instance.stop(order);
    }

    /// `drain` for all of them. Returns them.
    pub(crate) fn drain_all(&self, order: StopOrder) -> Vec<Arc<Instance>> {
        let all: Vec<Arc<Instance>> = self.state.lock().slots.iter().map(|member| member.instance.clone()).collect();
        all.iter().for_each(|instance| self.drain(instance, order));
        all
    }

    pub(crate) fn in_flight(&self, instance: &Arc<Instance>) -> u32 {
        self.state.lock().slots.find(instance).map_or(0, |member| member.in_flight)
    }

    /// Marks `instance` frozen when it has been idle for `linger`; else says when to look again, or nothing when never.
    pub(crate) fn freeze_begin(&self, instance: &Arc<Instance>, linger: Duration) -> Freeze {
        let mut state = self.state.lock();
        let Some(member) = state.slots.find(instance) else { return Freeze::Never };
        if member.phase != Phase::Ready || member.in_flight > 0 || member.probes > 0 || member.frozen {
            member.lingering = false;
            return Freeze::Never;
        }
        let due = member.idle_since + linger;
        if Instant::now() < due {
            return Freeze::NotBefore(due);
        }
        member.lingering = false;
        member.frozen = true;
        Freeze::Now
    }

    /// A probe is about to be sent to `instance`: it is not frozen until [`Pool::probed`]. Whether it must be woken; `None` when it takes nothing more.
    pub(crate) fn probing(&self, instance: &Arc<Instance>) -> Option<bool> {
        let mut state = self.state.lock();
        let member = state.slots.find(instance).filter(|member| member.phase == Phase::Ready)?;
        member.probes += 1;
        Some(member.frozen)
    }

    /// The probe has come to its end. `true`: somebody must freeze the instance again.
    pub(crate) fn probed(&self, instance: &Arc<Instance>) -> bool {
        let mut state = self.state.lock();
        state.slots.find(instance).is_some_and(|member| {
            member.probes -= 1;
            let is_idle = member.phase == Phase::Ready && member.in_flight == 0 && member.probes == 0 && !member.frozen;
            is_idle && self.template.cpu_idle() && !std::mem::replace(&mut member.lingering, true)
        })
    }

    /// Whether `instance` gets requests, by its readiness probe. One that gets them again has those that wait.
    pub(crate) fn readiness(self: &Arc<Self>, instance: &Arc<Instance>, is_ready: bool) {
        let now = Instant::now();
        let (handed, plan) = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let Some(member) = state.slots.find(instance) else { return };
            member.unready = !is_ready;
            (state.hand_out(instance, now), if is_ready { Plan::default() } else { self.plan(state, now) })
        };
        send(handed);
        self.carry_out(plan);
    }

    pub(crate) fn is_frozen(&self, instance: &Arc<Instance>) -> bool {
        self.state.lock().slots.find(instance).is_some_and(|member| member.frozen)
    }

    /// `instance` runs. When it has nothing to do by now, somebody must freeze it again: `true`.
    pub(crate) fn thawed(&self, instance: &Arc<Instance>) -> bool {
        let mut state = self.state.lock();
        state.slots.find(instance).is_some_and(|member| {
            member.frozen = false;
            member.phase == Phase::Ready && member.in_flight == 0 && self.template.cpu_idle() && !std::mem::replace(&mut member.lingering, true)
        })
    }

    pub(super) fn bill(&self, stretch: Option<Duration>) {
        if let Some(stretch) = stretch {
            self.meter().billable(stretch, self.template.cpu_millis(), self.template.memory_bytes());
        }
    }
}
