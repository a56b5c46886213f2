//! A revision's instances and the requests that wait for them.
//!
//! One lock for each revision, held for a few instructions and never across a wait. Slots are given back by dropping them and
//! then go to the request that has waited longest. What to start is `model::scaling`'s rule, asked here whenever a request
//! begins to wait and by `autoscaler.rs` as time passes. How an instance starts and ends is `instances.rs`.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::Duration,
};

use model::function::MANAGED_BY;
use model::{
    Hops, Revision, RevisionName, ServiceKey,
    image::{Image, ImageDigest},
    log::Source,
    revision::RevisionTemplate,
    scaling::{Observed, Scaling, desired_instances},
};
use parking_lot::Mutex;
use telemetry::{Meter, MeterKey};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{
    Handling, InstanceIdentity, Shared, StartFailure, autoscaler,
    clones::Clones,
    cold_start::{self, ColdStart},
    handling::Handled,
    headers::Trace,
    instances::{self, Instance, Reason, StopOrder},
    refusal::Refusal,
    slots::{Phase, Slots},
};

/// How many instances a revision may and must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    pub(crate) min: u32,
    pub(crate) max: u32,
    /// Whether any host leads to it.
    pub(crate) routed: bool,
}

/// A revision's instances and queue.
pub(crate) struct Pool {
    pub(crate) shared: Arc<Shared>,
    pub(crate) service: ServiceKey,
    pub(crate) revision: RevisionName,
    pub(crate) template: RevisionTemplate,
    /// Of log entries that no instance made.
    pub(crate) source: Arc<Source>,
    digest: Option<ImageDigest>,
    image: OnceLock<Arc<Image>>,
    meter: OnceLock<Arc<Meter>>,
    pub(crate) clones: Clones,
    /// The last ones.
    cold_starts: Mutex<VecDeque<ColdStart>>,
    state: Mutex<State>,
    /// Wakes the autoscaler of this revision.
    pub(crate) wake: Notify,
}

struct State {
    slots: Slots<Instance>,
    queue: VecDeque<Waiter>,
    next_waiter: u64,
    scale: Scale,
    load: Load,
    /// The mean of the last seconds' load, by the autoscaler.
    load_mean: f64,
    startup_mean: Option<Duration>,
    /// Starts that failed and instances that crashed young, in a row.
    failures: u32,
    /// No start that no request waits for before this.
    retry_at: Option<Instant>,
    retired: bool,
    autoscaler: Autoscaler,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Autoscaler {
    /// No instance and no request: no task.
    Off,
    /// Waits for something to expire.
    Sleeping,
    /// Looks every second.
    Ticking,
}

struct Waiter {
    number: u64,
    slot: oneshot::Sender<Result<Slot, Refusal>>,
}

/// Requests in the pool, over time.
struct Load {
    level: u32,
    since: Instant,
    /// Requests times seconds, up to `since`.
    area: f64,
    /// Since when there has been none.
    idle_since: Instant,
}

impl Load {
    fn change(&mut self, now: Instant, delta: i64) {
        self.advance(now);
        self.level = u32::try_from(i64::from(self.level) + delta).unwrap_or(0);
        if self.level == 0 {
            self.idle_since = now;
        }
    }

    fn advance(&mut self, now: Instant) {
        self.area += f64::from(self.level) * now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
    }
}

/// A place at an instance for one request. Dropping it gives it back.
pub(crate) struct Slot {
    instance: Option<Arc<Instance>>,
    /// The instance must be woken before it can answer.
    pub(crate) frozen: bool,
    /// The first place of an instance that was started for this request.
    pub(crate) is_cold: bool,
    /// The request that has it, once one has.
    handled: Option<Handled>,
}

impl Slot {
    fn of(instance: &Arc<Instance>, frozen: bool, is_cold: bool) -> Self {
        Self { instance: Some(instance.clone()), frozen, is_cold, handled: None }
    }

    /// The request that has it is about to reach the instance.
    pub(crate) fn handles(&mut self, trace: &Trace, hops: Hops) {
        self.handled = Some(self.instance().handling.begin(trace, hops));
    }

    pub(crate) fn instance(&self) -> &Arc<Instance> {
        self.instance.as_ref().expect("only `disarm` takes it, which consumes the slot")
    }

    /// Drops it without giving the place back.
    fn disarm(mut self) {
        self.instance = None;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(self.handled.take());
        if let Some(instance) = self.instance.take() {
            let pool = instance.pool.clone();
            pool.release(&instance);
        }
    }
}

/// What a request gets when it comes to the pool.
pub(crate) enum Entry {
    Slot(Slot),
    Wait(Place),
}

/// A place in the queue. Dropping it leaves the queue.
pub(crate) struct Place {
    pool: Arc<Pool>,
    number: u64,
    pub(crate) slot: oneshot::Receiver<Result<Slot, Refusal>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.leave(self.number);
        // A slot that was handed over in the last moment drops with the receiver and goes to the next.
    }
}

impl Pool {
    pub(crate) fn new(shared: Arc<Shared>, revision: &Revision) -> Arc<Self> {
        let now = Instant::now();
        let template = revision.template.clone();
        Arc::new(Self {
            service: revision.service.clone(),
            revision: revision.name.clone(),
            source: Arc::new(Source {
                project: revision.service.project.to_string(),
                region: revision.service.region.to_string(),
                service: revision.service.service.to_string(),
                revision: revision.name.to_string(),
                instance: String::new(),
                build: String::new(),
                job: String::new(),
                managed_by: template.labels.get(MANAGED_BY).cloned().unwrap_or_default(),
            }),
            digest: revision.image.clone(),
            image: OnceLock::new(),
            meter: OnceLock::new(),
            clones: Clones::default(),
            cold_starts: Mutex::default(),
            state: Mutex::new(State {
                slots: Slots::new(template.concurrency()),
                queue: VecDeque::new(),
                next_waiter: 0,
                scale: Scale { min: 0, max: template.max_instances(), routed: false },
                load: Load { level: 0, since: now, area: 0.0, idle_since: now },
                load_mean: 0.0,
                startup_mean: None,
                failures: 0,
                retry_at: None,
                retired: false,
                autoscaler: Autoscaler::Off,
            }),
            wake: Notify::new(),
            template,
            shared,
        })
    }

    /// Who an instance of that id is to its network.
    pub(crate) fn identity(&self, instance: String, handling: Arc<Handling>) -> InstanceIdentity {
        InstanceIdentity {
            project: self.source.project.clone(),
            region: self.source.region.clone(),
            service: self.source.service.clone(),
            revision: self.source.revision.clone(),
            instance,
            service_account: self.template.service_account.clone(),
            handling,
        }
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.state.lock().retired
    }

    pub(crate) fn meter(&self) -> &Arc<Meter> {
        self.meter.get_or_init(|| self.shared.telemetry.meter(&self.meter_key()))
    }

    pub(crate) fn meter_key(&self) -> MeterKey {
        MeterKey {
            project: self.source.project.clone(),
            region: self.source.region.clone(),
            service: self.source.service.clone(),
            revision: self.source.revision.clone(),
        }
    }

    /// What instances are made of. Reads the store: on a blocking thread only.
    pub(crate) fn image(&self) -> Result<Arc<Image>, String> {
        if let Some(image) = self.image.get() {
            return Ok(image.clone());
        }
        let digest = self.digest.as_ref().ok_or("the revision has no image")?;
        let bytes = self.shared.store.blobs().read(digest.hex()).map_err(|error| format!("image {digest} cannot be read: {error}"))?;
        let bytes = bytes.ok_or_else(|| format!("image {digest} is not there"))?;
        let image: Image = serde_json::from_slice(&bytes).map_err(|error| format!("image {digest} is no image: {error}"))?;
        Ok(self.image.get_or_init(|| Arc::new(image)).clone())
    }

    // --- requests -----------------------------------------------------------------------------------------------

    /// A slot, or a place in the queue; starts instances when they are needed.
    ///
    /// # Errors
    /// `QueueFull` when too many wait or no instance is allowed, `NoRevision` when the revision is gone.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Entry, Refusal> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.retired {
            return Err(if self.shared.closing.is_cancelled() { Refusal::Closing } else { Refusal::NoRevision });
        }
        if let Some(member) = state.slots.take(now) {
            let slot = Slot::of(&member.instance, member.frozen, false);
            state.load.change(now, 1);
            self.awaken(&mut state);
            return Ok(Entry::Slot(slot));
        }
        let capacity = state.scale.max.saturating_mul(state.slots.concurrency()) as usize;
        if state.scale.max == 0 || state.queue.len() >= (2 * capacity).clamp(QUEUE_MIN, QUEUE_MAX) {
            return Err(Refusal::QueueFull);
        }
        let (sender, slot) = oneshot::channel();
        let number = state.next_waiter;
        state.next_waiter += 1;
        state.queue.push_back(Waiter { number, slot: sender });
        state.load.change(now, 1);
        self.awaken(&mut state);
        let launches = self.plan(&mut state, now);
        drop(state);
        launch(launches, Reason::Autoscaling);
        Ok(Entry::Wait(Place { pool: self.clone(), number, slot }))
    }

    /// A slot of the instance that `is_it`; `None` when it is gone or has none that is free.
    pub(crate) fn enter_at(self: &Arc<Self>, is_it: impl Fn(&Instance) -> bool) -> Option<Slot> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let concurrency = state.slots.concurrency();
        let member = state.slots.iter_mut().find(|member| is_it(&member.instance) && member.has_slot(concurrency))?;
        member.take(now);
        let slot = Slot::of(&member.instance, member.frozen, false);
        state.load.change(now, 1);
        self.awaken(&mut state);
        Some(slot)
    }

    /// How long to hold a request that waits; `None` while nobody knows how long this revision starts and one is starting.
    pub(crate) fn hold(&self) -> Option<Duration> {
        let state = self.state.lock();
        let hold_min = self.shared.config.hold_min;
        match state.startup_mean {
            Some(mean) => Some(hold_min.max(mean.mul_f64(3.5))),
            None if state.slots.starting() > 0 => None,
            None => Some(hold_min),
        }
    }

    fn leave(&self, number: u64) {
        let mut state = self.state.lock();
        if let Some(index) = state.queue.iter().position(|waiter| waiter.number == number) {
            state.queue.remove(index);
            state.load.change(Instant::now(), -1);
        }
    }

    /// Gives a slot of `instance` to the longest waiting request, or makes it free.
    fn release(self: &Arc<Self>, instance: &Arc<Instance>) {
        loop {
            let now = Instant::now();
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let Some(member) = state.slots.find(instance) else { return };
            if member.phase == Phase::Ready
                && !member.unready
                && let Some(waiter) = state.queue.pop_front()
            {
                let slot = Slot::of(instance, member.frozen, false);
                // The one that leaves and the one that comes: the load is one less.
                state.load.change(now, -1);
                drop(guard);
                match waiter.slot.send(Ok(slot)) {
                    Ok(()) => return,
                    // It left in this moment: it is this request now whose slot goes on, and the load one less again.
                    Err(back) => {
                        if let Ok(slot) = back {
                            slot.disarm();
                        }
                        continue;
                    }
                }
            }
            member.in_flight -= 1;
            let mut linger = false;
            let mut billed = None;
            if member.in_flight == 0 {
                member.idle_since = now;
                if self.template.cpu_idle() {
                    billed = member.bill(now);
                    linger = member.phase == Phase::Ready && !std::mem::replace(&mut member.lingering, true);
                }
                if member.phase == Phase::Draining {
                    instance.drained.notify_one();
                }
            }
            state.load.change(now, -1);
            drop(guard);
            self.bill(billed);
            if linger {
                instances::linger(instance.clone());
            }
            return;
        }
    }

    /// An instance answered: whatever timed out before, it is alive.
    pub(crate) fn answered(&self, instance: &Arc<Instance>) {
        if let Some(member) = self.state.lock().slots.find(instance) {
            member.timeouts = 0;
        }
    }

    /// A request to `instance` ran into its timeout. Whether as many have in a row as it has slots.
    pub(crate) fn timed_out(&self, instance: &Arc<Instance>) -> bool {
        let mut state = self.state.lock();
        let concurrency = state.slots.concurrency();
        state.slots.find(instance).is_some_and(|member| {
            member.timeouts += 1;
            member.timeouts >= concurrency
        })
    }

    // --- the life of instances ----------------------------------------------------------------------------------

    /// Which instances to start now. They are counted as starting; the caller launches them after the lock.
    fn plan(self: &Arc<Self>, state: &mut State, now: Instant) -> Vec<Arc<Instance>> {
        if state.retired {
            return Vec::new();
        }
        let held_back = state.retry_at.is_some_and(|at| now < at);
        // One that is not ready serves nobody, and still is one of those that may be there.
        let unready = state.slots.unready();
        let live = state.slots.live() - unready;
        let observed = Observed {
            // What the mean remembers keeps instances while there are requests; it is no reason to start one when there are none.
            requests_mean: if state.load.level > 0 { state.load_mean } else { 0.0 },
            waiting: u32::try_from(state.queue.len()).unwrap_or(u32::MAX),
            in_flight: state.slots.in_flight(),
            instances: live,
            idle: if state.load.level > 0 { Duration::ZERO } else { now.saturating_duration_since(state.load.idle_since) },
        };
        let scaling = Scaling {
            concurrency: state.slots.concurrency(),
            max_instances: state.scale.max,
            min_instances: if held_back { 0 } else { state.scale.min },
            idle_max: self.shared.config.instance_idle_max,
        };
        let mut missing = desired_instances(observed, scaling).saturating_sub(live).min(state.scale.max.saturating_sub(live + unready));
        if state.failures > 0 {
            // What keeps failing may try one at a time: its starts must not take the host from the others.
            missing = if held_back && state.queue.is_empty() { 0 } else { missing.min(1_u32.saturating_sub(state.slots.starting())) };
        }
        (0..missing)
            .map(|_| {
                let instance = Instance::new(self.clone());
                state.slots.insert(instance.clone(), now);
                instance
            })
            .collect()
    }

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
        let instance = Instance::new(self.clone());
        state.slots.insert(instance.clone(), now);
        self.awaken(&mut state);
        drop(state);
        instances::launch(instance.clone(), Reason::Deployment);
        Ok(instance)
    }

    /// `instance` listens: it gets what waits. Whether it may take requests (it may not when it is being ended already).
    pub(crate) fn ready(self: &Arc<Self>, instance: &Arc<Instance>, startup: Duration) -> bool {
        let now = Instant::now();
        let mut handed = Vec::new();
        let mut billed = None;
        let mut linger = false;
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let concurrency = state.slots.concurrency();
            let Some(member) = state.slots.find(instance).filter(|member| member.phase == Phase::Starting) else { return false };
            member.phase = Phase::Ready;
            member.idle_since = now;
            while member.in_flight < concurrency {
                let Some(waiter) = state.queue.pop_front() else { break };
                member.take(now);
                handed.push(waiter);
            }
            if member.in_flight == 0 && self.template.cpu_idle() {
                billed = member.bill(now);
                linger = !std::mem::replace(&mut member.lingering, true);
            }
            state.startup_mean = Some(state.startup_mean.map_or(startup, |mean| (mean * 3 + startup) / 4));
            self.awaken(state);
        }
        self.bill(billed);
        self.meter().startup(startup);
        for (at, waiter) in handed.into_iter().enumerate() {
            // Whoever has left gives its slot back by dropping it. It was counted as waiting and still is as being served.
            drop(waiter.slot.send(Ok(Slot::of(instance, false, at == 0))));
        }
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
        let (billed, launches) = {
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
            let launches = if state.queue.is_empty() { Vec::new() } else { self.plan(state, now) };
            (member.bill(now), launches)
        };
        self.bill(billed);
        for waiter in refused {
            drop(waiter.slot.send(Err(Refusal::StartFailed)));
        }
        launch(launches, Reason::Autoscaling);
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

    /// Whether a request waits in the queue.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.state.lock().queue.is_empty()
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
        let (mut slots, mut launches) = (Vec::new(), Vec::new());
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let concurrency = state.slots.concurrency();
            let Some(member) = state.slots.find(instance) else { return };
            member.unready = !is_ready;
            while member.has_slot(concurrency) {
                let Some(waiter) = state.queue.pop_front() else { break };
                member.take(now);
                slots.push((waiter, Slot::of(instance, member.frozen, false)));
            }
            if !is_ready {
                launches = self.plan(state, now);
            }
        }
        for (waiter, slot) in slots {
            drop(waiter.slot.send(Ok(slot)));
        }
        launch(launches, Reason::Autoscaling);
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

    fn bill(&self, stretch: Option<Duration>) {
        if let Some(stretch) = stretch {
            self.meter().billable(stretch, self.template.cpu_millis(), self.template.memory_bytes());
        }
    }

    // --- scaling ------------------------------------------------------------------------------------------------

    /// New limits, by the table.
    pub(crate) fn scale(self: &Arc<Self>, scale: Scale) {
        let launches = {
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
        launch(launches, Reason::Minimum);
        self.wake.notify_one();
    }

    /// Sees to it that somebody looks after this pool.
    fn awaken(self: &Arc<Self>, state: &mut State) {
        match std::mem::replace(&mut state.autoscaler, Autoscaler::Ticking) {
            Autoscaler::Ticking => {}
            Autoscaler::Sleeping => self.wake.notify_one(),
            Autoscaler::Off => {
                self.shared.supervisor.spawn("autoscaler", autoscaler::run(self.clone()));
            }
        }
    }

    /// One look of the autoscaler: starts and ends what it must. Says when to look again; `None` when there is nothing left to look at.
    pub(crate) fn look(self: &Arc<Self>, mean: &mut autoscaler::Mean) -> Option<Instant> {
        let now = Instant::now();
        let mut billed = Vec::new();
        let mut ends = Vec::new();
        let launches;
        let next;
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            state.load.advance(now);
            state.load_mean = mean.take(now, std::mem::take(&mut state.load.area), state.load.level);
            launches = self.plan(state, now);

            // Who has been idle for long enough ends, as long as enough remain.
            let idle_max = if state.scale.routed { self.shared.config.instance_idle_max } else { self.shared.config.instance_idle_max.min(UNROUTED_IDLE_MAX) };
            let needed = (state.slots.in_flight().div_ceil(state.slots.concurrency())).max(state.scale.min);
            let mut spare = state.slots.live().saturating_sub(needed);
            // More than there may be, since the limit was lowered: those that have nothing to do go at once.
            let mut excess = state.slots.live().saturating_sub(state.scale.max);
            let mut expires = Vec::new();
            let (mut active, mut idle) = (0, 0);
            for member in state.slots.iter_mut() {
                if member.phase == Phase::Ready && member.in_flight == 0 {
                    let expiry = member.idle_since + idle_max;
                    if now < expiry && excess == 0 {
                        expires.push(expiry);
                    } else if spare > 0 {
                        spare -= 1;
                        excess = excess.saturating_sub(1);
                        ends.push(member.instance.clone());
                    }
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
            let busy = state.load.level > 0 || mean.level() > 0.01;
            if busy {
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
        for instance in ends {
            tracing::debug!(revision = %self.revision, instance = %instance.sandbox, "ending an idle instance");
            self.drain(&instance, StopOrder::gentle());
        }
        launch(launches, Reason::Autoscaling);
        Some(next.unwrap_or(now + FAR))
    }

    /// The revision is gone: no new request, no new instance; what runs may finish.
    pub(crate) fn retire(&self) {
        let refused: Vec<Waiter> = {
            let mut state = self.state.lock();
            state.retired = true;
            let n = state.queue.len();
            state.load.change(Instant::now(), -i64::try_from(n).unwrap_or(0));
            state.queue.drain(..).collect()
        };
        self.clones.end(&self.shared, true);
        let refusal = if self.shared.closing.is_cancelled() { Refusal::Closing } else { Refusal::NoRevision };
        for waiter in refused {
            drop(waiter.slot.send(Err(refusal)));
        }
    }

    pub(crate) fn cold_start(&self, cold_start: ColdStart) {
        let mut kept = self.cold_starts.lock();
        if kept.len() == cold_start::KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(cold_start);
    }

    pub(crate) fn cold_starts(&self) -> Vec<ColdStart> {
        self.cold_starts.lock().iter().cloned().collect()
    }

    pub(crate) fn infos(&self) -> Vec<crate::InstanceInfo> {
        let state = self.state.lock();
        let info = |member: &crate::slots::Member<Instance>| crate::InstanceInfo {
            id: member.instance.id.clone(),
            service: self.service.clone(),
            revision: self.revision.clone(),
            state: match member.phase {
                Phase::Starting => "starting",
                Phase::Ready if member.frozen => "frozen",
                Phase::Ready => "ready",
                Phase::Draining => "draining",
            },
            in_flight: member.in_flight,
            started: member.instance.started,
            start: member.instance.rung.get().map_or("", |rung| rung.name()),
        };
        state.slots.iter().map(info).collect()
    }
}

/// What is to be done about an idle instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freeze {
    Now,
    NotBefore(Instant),
    Never,
}

fn launch(instances: Vec<Arc<Instance>>, reason: Reason) {
    for instance in instances {
        instances::launch(instance, reason);
    }
}

/// Requests that may wait for one revision: twice what its instances can serve, within these.
const QUEUE_MIN: usize = 100;
const QUEUE_MAX: usize = 10_000;
/// 2^8 s, a little over 4 minutes between starts of what keeps failing.
const BACKOFF_DOUBLINGS_MAX: u32 = 8;
/// How long an idle instance is kept when no host leads to it any more.
const UNROUTED_IDLE_MAX: Duration = Duration::from_secs(60);
/// How much of an instance's time is told to the meter at once when all of it is billed. A multiple of 100 ms.
const BILLING_PERIOD: Duration = Duration::from_secs(60);
const FAR: Duration = Duration::from_secs(24 * 3600);
