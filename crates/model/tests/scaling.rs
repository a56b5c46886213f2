//! The autoscaler's rule in a simulated revision: instances that start, share a CPU and serve, under loads of many shapes.
//!
//! Simulated time in steps of 50 ms; the rule is asked when a request begins to wait and once a second, as `serving` does, and
//! sees means that fade over ten seconds. The same seed gives the same run.

use std::{collections::VecDeque, time::Duration};

use model::scaling::{Decision, Observed, Reason, Scaling, Starts, TARGET, decide};
use proptest::prelude::*;

const STEP_S: f64 = 0.05;
const WINDOW_S: f64 = 10.0;

/// What a function does with a request.
#[derive(Clone, Copy, Debug)]
struct Work {
    /// Waits for others.
    wait_s: f64,
    /// Then computes: seconds of one instance's CPU.
    cpu_s: f64,
}

struct Request {
    wait_s: f64,
    cpu_s: f64,
}

struct Instance {
    ready_at: f64,
    requests: Vec<Request>,
    idle_since: f64,
}

/// A revision, its instances and its queue.
struct World {
    scaling: Scaling,
    start_s: f64,
    work: Work,
    now: f64,
    instances: Vec<Instance>,
    waiting: VecDeque<f64>,
    requests_mean: f64,
    cpu_mean: f64,
    fill: u32,
    /// Not yet a whole request.
    due: f64,
    seen: Seen,
}

/// What is judged afterwards.
#[derive(Default)]
struct Seen {
    /// When, how many more or fewer, why.
    changes: Vec<(f64, i64, Reason)>,
    instances_max: usize,
    longest_wait_s: f64,
    served: u64,
}

impl World {
    fn new(scaling: Scaling, start_s: f64, work: Work) -> Self {
        Self {
            scaling,
            start_s,
            work,
            now: 0.0,
            instances: Vec::new(),
            waiting: VecDeque::new(),
            requests_mean: 0.0,
            cpu_mean: 0.0,
            fill: 1,
            due: 0.0,
            seen: Seen::default(),
        }
    }

    /// Runs for `seconds` with so many requests a second.
    fn run(&mut self, seconds: f64, rate: impl Fn(f64) -> f64) {
        let (began, steps) = (self.now, (seconds / STEP_S).round() as u64);
        for step in 0..steps {
            let at = (step as f64 + 0.5) * STEP_S;
            self.due += rate(at) * STEP_S;
            while self.due >= 1.0 {
                self.due -= 1.0;
                self.arrive();
            }
            self.serve();
            self.now = began + (step + 1) as f64 * STEP_S;
            if ((self.now / STEP_S).round() as u64).is_multiple_of(20) {
                self.look();
            }
        }
    }

    fn arrive(&mut self) {
        self.waiting.push_back(self.now);
        self.place();
        if !self.waiting.is_empty() {
            self.look();
        }
    }

    /// Slots for those who wait, as `serving` chooses them.
    fn place(&mut self) {
        let (now, fill, concurrency) = (self.now, self.fill as usize, self.scaling.concurrency as usize);
        while let Some(since) = self.waiting.front() {
            let free = self.instances.iter_mut().filter(|one| one.ready_at <= now && one.requests.len() < concurrency);
            let best = free.min_by_key(|one| if one.requests.len() < fill { (0, concurrency - one.requests.len()) } else { (1, one.requests.len()) });
            let Some(best) = best else { return };
            best.requests.push(Request { wait_s: self.work.wait_s, cpu_s: self.work.cpu_s });
            self.seen.longest_wait_s = self.seen.longest_wait_s.max(now - since);
            self.waiting.pop_front();
        }
    }

    /// One step of everybody's work.
    fn serve(&mut self) {
        // Those of this step, before some of them are done.
        let level = (self.in_flight() + self.waiting.len()) as f64;
        let mut used = 0.0;
        for instance in &mut self.instances {
            let computing = instance.requests.iter().filter(|one| one.wait_s <= 0.0).count();
            let mut own = 0.0;
            for request in &mut instance.requests {
                if request.wait_s > 0.0 {
                    request.wait_s -= STEP_S;
                } else {
                    let share = (STEP_S / computing as f64).min(request.cpu_s.max(0.0));
                    request.cpu_s -= share;
                    own += share / STEP_S;
                }
            }
            let before = instance.requests.len();
            instance.requests.retain(|one| one.wait_s > 1e-9 || one.cpu_s > 1e-9);
            self.seen.served += (before - instance.requests.len()) as u64;
            if before > 0 && instance.requests.is_empty() {
                instance.idle_since = self.now;
            }
            used += own;
        }
        let weight = (-STEP_S / WINDOW_S).exp();
        self.requests_mean = self.requests_mean * weight + level * (1.0 - weight);
        self.cpu_mean = self.cpu_mean * weight + used * (1.0 - weight);
        self.place();
    }

    fn in_flight(&self) -> usize {
        self.instances.iter().map(|one| one.requests.len()).sum()
    }

    fn look(&mut self) {
        let number = |n: usize| u32::try_from(n).unwrap();
        let is_idle = |one: &&Instance| one.ready_at <= self.now && one.requests.is_empty();
        let idle_max = self.scaling.idle_max.as_secs_f64();
        let ready = self.instances.iter().filter(|one| one.ready_at <= self.now).count();
        let observed = Observed {
            requests_mean: self.requests_mean,
            cpu_mean: self.cpu_mean,
            waiting: number(self.waiting.len()),
            in_flight: number(self.in_flight()),
            starting: number(self.instances.len() - ready),
            ready: number(ready),
            unready: 0,
            unready_idle: 0,
            idle: number(self.instances.iter().filter(is_idle).count()),
            expired: number(self.instances.iter().filter(is_idle).filter(|one| self.now - one.idle_since >= idle_max - 1e-9).count()),
            starts: Starts::Good,
        };
        let Decision { start, end, fill, limited, reason } = decide(&observed, &self.scaling);
        assert!(start == 0 || end == 0, "it starts and ends at once: {observed:?}");
        assert!(end <= observed.idle && fill >= 1 && fill <= self.scaling.concurrency.max(1), "{observed:?}");
        assert!(limited.is_none_or(|wanted| wanted > self.scaling.max_instances));
        self.fill = fill;
        for _ in 0..start {
            self.instances.push(Instance { ready_at: self.now + self.start_s, requests: Vec::new(), idle_since: self.now + self.start_s });
        }
        for _ in 0..end {
            let longest = self.instances.iter().enumerate().filter(|(_, one)| is_idle(one)).min_by(|(_, a), (_, b)| a.idle_since.total_cmp(&b.idle_since));
            let at = longest.expect("as many as it said are idle").0;
            self.instances.swap_remove(at);
        }
        if start + end > 0 {
            self.seen.changes.push((self.now, i64::from(start) - i64::from(end), reason));
        }
        self.seen.instances_max = self.seen.instances_max.max(self.instances.len());
        assert!(self.instances.len() <= self.scaling.max_instances as usize, "over the maximum: {observed:?}");
        assert!(self.instances.len() >= self.scaling.min_instances.min(self.scaling.max_instances) as usize, "under the minimum: {observed:?}");
    }

    fn changes_since(&self, at: f64) -> usize {
        self.seen.changes.iter().filter(|(when, ..)| *when > at).count()
    }
}

fn scaling(concurrency: u32, max_instances: u32) -> Scaling {
    Scaling { concurrency, max_instances, min_instances: 0, is_manual: false, idle_max: Duration::from_secs(900) }
}

const WAITING: Work = Work { wait_s: 0.5, cpu_s: 0.0 };
const COMPUTING: Work = Work { wait_s: 0.0, cpu_s: 0.1 };

#[test]
fn a_burst_from_zero_starts_what_it_needs_in_one_step() {
    for (burst, concurrency, max, expect) in [(1, 80, 100, 1), (200, 80, 100, 3), (50, 1, 100, 50), (500, 1, 40, 40)] {
        let mut world = World::new(scaling(concurrency, max), 0.5, WAITING);
        world.run(STEP_S, |_| f64::from(burst) / STEP_S + 1e-6);
        assert_eq!(world.instances.len(), expect, "{burst} at once, {concurrency} an instance, at most {max}");
    }
}

#[test]
fn a_steady_load_is_served_at_the_target_of_its_slots() {
    // 100 a second for half a second each: 50 at a time, of 10 slots an instance.
    let mut world = World::new(scaling(10, 100), 1.0, WAITING);
    world.run(120.0, |_| 100.0);
    let settled = world.now;
    world.run(1800.0, |_| 100.0);
    // Who comes within a step counts all of it.
    let needed = (100.0 * (0.5 + STEP_S) / (10.0 * TARGET)).ceil() as usize;
    assert_eq!(world.changes_since(settled + 900.0), 0, "{:?}", world.seen.changes);
    assert!((needed..=needed + 1).contains(&world.instances.len()), "{} instances, {needed} needed", world.instances.len());
    assert!(world.waiting.is_empty());
}

#[test]
fn a_computing_load_is_served_at_the_target_of_its_cpu() {
    // 25 a second for a tenth of a CPU second each: two and a half CPUs, although one instance has 80 slots.
    let mut world = World::new(scaling(80, 100), 1.0, COMPUTING);
    world.run(300.0, |_| 25.0);
    let settled = world.now;
    world.seen.longest_wait_s = 0.0;
    world.run(1800.0, |_| 25.0);
    let needed = (2.5 / TARGET).ceil() as usize;
    assert!(world.cpu_mean > 2.4, "all is served: {}", world.cpu_mean);
    assert!(world.instances.len() >= needed && world.instances.len() <= needed + 3, "{} instances, {needed} needed", world.instances.len());
    assert_eq!(world.changes_since(settled + 900.0), 0, "{:?}", world.seen.changes);
    assert!(world.seen.changes.iter().any(|(_, n, reason)| *n > 0 && matches!(reason, Reason::Cpu { .. })));
    assert!(world.in_flight() < 25, "{} are in flight: nobody waits for a CPU", world.in_flight());
}

#[test]
fn idle_instances_end_after_a_quarter_of_an_hour() {
    let mut world = World::new(scaling(1, 100), 0.5, WAITING);
    world.run(60.0, |_| 10.0);
    let there = world.instances.len();
    assert!(there >= 5, "{there}");
    let last = world.now;
    world.run(890.0, |_| 0.0);
    assert!(!world.instances.is_empty(), "they are kept");
    world.run(30.0, |_| 0.0);
    assert!(world.instances.is_empty());
    let (at, _, reason) = world.seen.changes.last().unwrap();
    assert!((895.0..=902.0).contains(&(at - last)), "{}", at - last);
    assert_eq!(reason.to_string(), "idle for 15 min");
}

#[test]
fn spikes_that_come_again_find_their_instances() {
    // Every five minutes 40 requests at once: after the first time nothing is started or ended.
    let mut world = World::new(scaling(4, 100), 0.5, WAITING);
    world.run(600.0, |at| if at % 300.0 < STEP_S { 40.0 / STEP_S + 1e-6 } else { 0.0 });
    let known = world.now;
    world.run(7200.0, |at| if at % 300.0 < STEP_S { 40.0 / STEP_S + 1e-6 } else { 0.0 });
    assert_eq!(world.changes_since(known), 0, "{:?}", world.seen.changes);
    assert_eq!(world.instances.len(), 10);
}

#[test]
fn a_day_has_as_few_changes_as_its_curve() {
    // Quiet at night, most at noon, at 0.5 to 60 requests at a time: up in the morning, down in the evening, nothing in between.
    let mut world = World::new(scaling(10, 100), 1.0, WAITING);
    let day = 4.0 * 3600.0;
    world.run(day, |at| 1.0 + 119.0 * (std::f64::consts::PI * at / day).sin().powi(2));
    let ups: Vec<_> = world.seen.changes.iter().filter(|(_, n, _)| *n > 0).collect();
    assert!(ups.iter().all(|(at, ..)| *at < day / 2.0 + 60.0), "started after the peak: {ups:?}");
    assert!(world.seen.changes.iter().all(|(at, n, _)| *n > 0 || *at > day / 2.0), "ended before the peak: {:?}", world.seen.changes);
    assert!(world.seen.instances_max <= 11, "{}", world.seen.instances_max);
    assert!(world.instances.len() < 5, "{}", world.instances.len());
}

#[test]
fn long_requests_keep_their_instances() {
    let mut world = World::new(scaling(2, 10), 0.5, Work { wait_s: 1800.0, cpu_s: 0.0 });
    world.run(4.0, |_| 1.0);
    assert_eq!(world.instances.len(), 2, "as many slots as requests: {:?}", world.seen.changes);
    world.run(1700.0, |_| 0.0);
    assert!(world.in_flight() == 4 && world.instances.len() >= 2);
    world.run(1100.0, |_| 0.0);
    assert!(world.instances.is_empty() && world.seen.served == 4);
}

#[test]
fn manual_scaling_is_the_owners_number() {
    let mut world = World::new(Scaling { min_instances: 3, is_manual: true, ..scaling(1, 3) }, 0.5, WAITING);
    world.look();
    for rate in [0.0, 20.0, 2.0, 0.0] {
        world.run(1000.0, move |_| rate);
        assert_eq!(world.instances.len(), 3);
    }
    assert_eq!(world.seen.changes.len(), 1);
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Steady,
    Ramp,
    Steps,
    Sawtooth,
    Spikes,
    OnAndOff,
}

impl Shape {
    /// From 0 to 1, at `at` of a run.
    fn level(self, at: f64, seconds: f64) -> f64 {
        match self {
            Self::Steady => 1.0,
            Self::Ramp => at / seconds,
            Self::Steps => (at * 4.0 / seconds).floor() / 4.0 + 0.25,
            Self::Sawtooth => (at % 60.0) / 60.0,
            Self::Spikes => {
                if at % 45.0 < 1.0 {
                    1.0
                } else {
                    0.05
                }
            }
            Self::OnAndOff => {
                if at % 40.0 < 20.0 {
                    1.0
                } else {
                    0.0
                }
            }
        }
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![Just(Shape::Steady), Just(Shape::Ramp), Just(Shape::Steps), Just(Shape::Sawtooth), Just(Shape::Spikes), Just(Shape::OnAndOff)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Limits hold at every look (asserted in `look`), all is served when there may be enough instances, and when the load is over all
    /// but the minimum end.
    #[test]
    fn any_load_is_served_within_the_limits(
        shape in shape(), rate in 0.2_f64..60.0, wait_s in 0.0_f64..2.0, cpu_s in 0.0_f64..0.2, start_s in 0.05_f64..5.0,
        concurrency in 1_u32..100, min in 0_u32..4, max in 1_u32..30,
    ) {
        let limits = Scaling { min_instances: min.min(max), idle_max: Duration::from_secs(60), ..scaling(concurrency, max) };
        let mut world = World::new(limits, start_s, Work { wait_s, cpu_s });
        world.look();
        world.run(400.0, |at| rate * shape.level(at, 400.0));
        let is_enough = f64::from(max) * TARGET > rate * cpu_s + 1.0 && f64::from(max * concurrency) * TARGET > rate * (wait_s + STEP_S + cpu_s / TARGET) + 1.0;
        if is_enough {
            prop_assert!(world.seen.longest_wait_s <= start_s + 2.0, "one waited for {} s", world.seen.longest_wait_s);
        }
        world.run(3000.0, |_| 0.0);
        prop_assert!(world.in_flight() > 0 || world.instances.len() == limits.min_instances as usize, "{} are left", world.instances.len());
    }

    /// A load that stays the same has no instance started, and none ended and started again, once it is known.
    #[test]
    fn nothing_flaps(rate in 0.5_f64..60.0, wait_s in 0.0_f64..2.0, cpu_s in 0.0_f64..0.2, concurrency in 1_u32..100) {
        let mut world = World::new(Scaling { idle_max: Duration::from_secs(60), ..scaling(concurrency, 200) }, 1.0, Work { wait_s, cpu_s });
        world.run(400.0, |_| rate);
        let settled = world.now;
        world.run(600.0, |_| rate);
        let after: Vec<_> = world.seen.changes.iter().filter(|(at, ..)| *at > settled).collect();
        let ups = after.iter().filter(|(_, n, _)| *n > 0).count();
        prop_assert!(ups == 0 || ups == after.len(), "{after:?}");
        prop_assert!(after.len() <= 1, "{after:?}");
    }

    /// From the same input, what is ended would not be started again.
    #[test]
    fn an_end_is_no_reason_to_start(
        requests_mean in 0.0_f64..100.0, cpu_mean in 0.0_f64..20.0, waiting in 0_u32..50, in_flight in 0_u32..200, starting in 0_u32..10,
        ready in 0_u32..40, unready in 0_u32..5, unready_idle in 0_u32..5, idle in 0_u32..40, expired in 0_u32..40, concurrency in 1_u32..100, min in 0_u32..10, max in 0_u32..40,
    ) {
        let unready_idle = unready_idle.min(unready);
        let idle = idle.min(ready) + unready_idle;
        let expired = expired.min(idle);
        let observed =
            Observed { requests_mean, cpu_mean, waiting, in_flight, starting, ready, unready, unready_idle, idle, expired, starts: Starts::Good };
        let scaling = Scaling { min_instances: min, ..scaling(concurrency, max) };
        let decision = decide(&observed, &scaling);
        prop_assert!(decision.start == 0 || decision.end == 0);
        prop_assert!(starting + ready + unready + decision.start <= max.max(starting + ready + unready));
        let of_unready = decision.end.min(unready_idle);
        let of_ready = decision.end - of_unready;
        let ended = Observed {
            ready: ready - of_ready,
            unready: unready - of_unready,
            unready_idle: unready_idle - of_unready,
            idle: idle - decision.end,
            expired: expired.saturating_sub(decision.end),
            ..observed
        };
        // Room that unready ones took is used.
        if of_ready > 0 {
            prop_assert_eq!(decide(&ended, &scaling).start, 0, "{:?}", decision);
        }
    }
}
