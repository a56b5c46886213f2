//! The slots of a revision's instances: which are taken, and which is taken next.
//!
//! Bookkeeping only: no instance is started, frozen or ended here and nobody waits here (`pool.rs` does both under its lock).
//!
//! **The choice.** An instance that runs and is below its fill comes first, the fullest of them before the others: the rest fall
//! idle, are frozen, cost nothing and end. When all that run are above that, a frozen one is woken; when there is none, the
//! emptiest takes it, so that a burst is spread. The fill is `model::scaling`'s: 60 % of the slots, or fewer when the CPU is what they lack.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

/// A stage of an instance's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It does not listen yet.
    Starting,
    /// It takes requests; frozen or not.
    Ready,
    /// It finishes what it has and gets nothing more.
    Draining,
}

/// An instance and what it does now.
pub(crate) struct Member<T> {
    pub(crate) instance: Arc<T>,
    pub(crate) phase: Phase,
    pub(crate) in_flight: u32,
    /// The processes are stopped, or are being stopped or woken at this moment.
    pub(crate) frozen: bool,
    /// Since when it has had no request, when it has none.
    pub(crate) idle_since: Instant,
    /// Since when its time is billed; `None` while it is free.
    pub(crate) billed_from: Option<Instant>,
    /// Requests that ran into their timeout since it answered the last one.
    pub(crate) timeouts: u32,
    /// A task is waiting to freeze it.
    pub(crate) lingering: bool,
    /// Its readiness probe has failed: it gets nothing until it passes.
    pub(crate) unready: bool,
    /// Probes that are being sent to it: it must run.
    pub(crate) probes: u32,
}

pub(crate) struct Slots<T> {
    members: Vec<Member<T>>,
    /// Of one instance; at least 1.
    concurrency: u32,
    /// How many of them are filled before the next instance's; at least 1.
    fill: u32,
}

impl<T> Slots<T> {
    pub(crate) fn new(concurrency: u32) -> Self {
        Self { members: Vec::new(), concurrency: concurrency.max(1), fill: (concurrency * 3 / 5).max(1) }
    }

    pub(crate) fn fill(&mut self, fill: u32) {
        self.fill = fill.max(1);
    }

    pub(crate) fn concurrency(&self) -> u32 {
        self.concurrency
    }

    /// Adds an instance that is being started; its start is billed.
    pub(crate) fn insert(&mut self, instance: Arc<T>, now: Instant) {
        self.members.push(Member {
            instance,
            phase: Phase::Starting,
            in_flight: 0,
            frozen: false,
            idle_since: now,
            billed_from: Some(now),
            timeouts: 0,
            lingering: false,
            unready: false,
            probes: 0,
        });
    }

    pub(crate) fn remove(&mut self, instance: &Arc<T>) -> Option<Member<T>> {
        let index = self.members.iter().position(|member| Arc::ptr_eq(&member.instance, instance))?;
        Some(self.members.swap_remove(index))
    }

    pub(crate) fn find(&mut self, instance: &Arc<T>) -> Option<&mut Member<T>> {
        self.members.iter_mut().find(|member| Arc::ptr_eq(&member.instance, instance))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member<T>> {
        self.members.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member<T>> {
        self.members.iter_mut()
    }

    /// Instances that take requests now or will.
    pub(crate) fn live(&self) -> u32 {
        self.count(|member| member.phase != Phase::Draining)
    }

    pub(crate) fn starting(&self) -> u32 {
        self.count(|member| member.phase == Phase::Starting)
    }

    /// Instances that would take requests if they were ready.
    pub(crate) fn unready(&self) -> u32 {
        self.count(|member| member.unready && member.phase != Phase::Draining)
    }

    /// Instances without a request that `is` says something of.
    pub(crate) fn idle(&self, is: impl Fn(&Member<T>) -> bool) -> u32 {
        self.count(|member| member.is_idle() && is(member))
    }

    /// Idle instances in the order in which they end: those that are not ready, then those that have been idle for longest.
    pub(crate) fn first_to_end(&mut self) -> Vec<&mut Member<T>> {
        let mut idle: Vec<_> = self.members.iter_mut().filter(|member| member.is_idle()).collect();
        idle.sort_by_key(|member| (!member.unready, member.idle_since));
        idle
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.members.iter().map(|member| member.in_flight).sum()
    }

    fn count(&self, is: impl Fn(&Member<T>) -> bool) -> u32 {
        u32::try_from(self.members.iter().filter(|member| is(member)).count()).unwrap_or(u32::MAX)
    }

    /// Takes a slot, when one is free. The member says whether it must be woken first.
    pub(crate) fn take(&mut self, now: Instant) -> Option<&mut Member<T>> {
        let (concurrency, fill) = (self.concurrency, self.fill);
        let member = self.members.iter_mut().filter(|member| member.has_slot(concurrency)).min_by_key(|member| {
            if !member.frozen && member.in_flight < fill {
                (0, concurrency - member.in_flight)
            } else if member.frozen {
                (1, member.in_flight)
            } else {
                (2, member.in_flight)
            }
        })?;
        member.take(now);
        Some(member)
    }
}

impl<T> Member<T> {
    /// Whether it takes one more request.
    pub(crate) fn has_slot(&self, concurrency: u32) -> bool {
        self.phase == Phase::Ready && !self.unready && self.in_flight < concurrency
    }

    /// Whether it could be ended without anyone's loss.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Ready && self.in_flight == 0
    }

    pub(crate) fn take(&mut self, now: Instant) {
        self.in_flight += 1;
        self.billed_from.get_or_insert(now);
    }

    /// Ends the stretch that is billed now and returns its length.
    pub(crate) fn bill(&mut self, now: Instant) -> Option<Duration> {
        self.billed_from.take().map(|from| now.saturating_duration_since(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Instances as (in flight, frozen); which one is taken.
    fn check(concurrency: u32, instances: &[(u32, bool)], expect: Option<usize>) {
        let now = Instant::now();
        let mut slots = Slots::new(concurrency);
        for (index, (in_flight, frozen)) in instances.iter().enumerate() {
            slots.insert(Arc::new(index), now);
            let member = slots.iter_mut().last().unwrap();
            (member.phase, member.in_flight, member.frozen) = (Phase::Ready, *in_flight, *frozen);
        }
        assert_eq!(slots.take(now).map(|member| *member.instance), expect, "{concurrency} {instances:?}");
    }

    #[tokio::test]
    async fn instances_are_filled_to_the_target_then_woken_then_filled_up() {
        check(10, &[], None);
        check(10, &[(0, false), (3, false), (5, false)], Some(2));
        check(10, &[(0, true), (3, false)], Some(1));
        check(10, &[(0, true), (6, false)], Some(0));
        check(10, &[(8, false), (6, false), (9, false)], Some(1));
        check(10, &[(10, false), (10, false)], None);
        check(1, &[(1, false), (0, true)], Some(1));
        check(1, &[(0, true), (0, false)], Some(1));
    }

    #[tokio::test]
    async fn what_lacks_cpu_is_filled_less() {
        let now = Instant::now();
        let mut slots = Slots::new(80);
        slots.fill(2);
        for index in 0..2 {
            slots.insert(Arc::new(index), now);
            slots.iter_mut().last().unwrap().phase = Phase::Ready;
        }
        let taken: Vec<i32> = (0..6).map(|_| *slots.take(now).unwrap().instance).collect();
        assert_eq!(taken.iter().filter(|index| **index == 0).count(), 3, "{taken:?}");
        assert_eq!(taken[0], taken[1], "one is filled before the next");
    }

    #[tokio::test]
    async fn those_that_are_not_ready_end_first() {
        let now = Instant::now();
        let mut slots = Slots::new(10);
        for (index, (idle_s, unready, in_flight)) in [(30, false, 0), (60, false, 0), (10, true, 0), (90, true, 1), (20, true, 0)].into_iter().enumerate() {
            slots.insert(Arc::new(index), now);
            let member = slots.iter_mut().last().unwrap();
            (member.phase, member.unready, member.in_flight) = (Phase::Ready, unready, in_flight);
            member.idle_since = now + Duration::from_secs(100 - idle_s);
        }
        assert_eq!(slots.first_to_end().iter().map(|member| *member.instance).collect::<Vec<_>>(), [4, 2, 1, 0]);
    }

    #[tokio::test]
    async fn starting_and_draining_instances_are_not_taken() {
        let now = Instant::now();
        let mut slots = Slots::new(10);
        slots.insert(Arc::new(0), now);
        assert!(slots.take(now).is_none());
        let only = slots.iter_mut().next().unwrap();
        only.phase = Phase::Ready;
        assert!(slots.take(now).is_some());
        slots.iter_mut().next().unwrap().unready = true;
        assert!(slots.take(now).is_none());
        assert_eq!((slots.live(), slots.unready()), (1, 1));
        (slots.iter_mut().next().unwrap().unready, slots.iter_mut().next().unwrap().phase) = (false, Phase::Draining);
        assert!(slots.take(now).is_none());
        assert_eq!((slots.live(), slots.in_flight()), (0, 1));
    }
}
