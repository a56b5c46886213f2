//! A revision's instances and the requests that wait for them.
//!
//! One lock for each revision, held for a few instructions and never across a wait. Slots are given back by dropping them
//! (`slot.rs`) and then go to the request that has waited longest; who cannot be served in time is refused by `model::overload`.
//! How many instances there are is `scaling.rs`, what happens to them `life.rs`, how an instance starts and ends `instances.rs`.

mod life;
mod scaling;
mod slot;

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::Duration,
};

use model::function::MANAGED_BY;
use model::{
    Revision, RevisionName, ServiceKey,
    image::{Image, ImageDigest},
    log::Source,
    overload::{self, ServiceTime},
    revision::RevisionTemplate,
};
use parking_lot::Mutex;
use telemetry::{Meter, MeterKey};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

pub(crate) use self::{
    life::Freeze,
    scaling::Scale,
    slot::{Entry, Place, Slot},
};
use crate::{
    Handling, InstanceIdentity, Shared,
    clones::Clones,
    cold_start::{self, ColdStart},
    decisions::Decisions,
    instances::{self, Instance},
    pool::slot::Waiter,
    refusal::Refusal,
    slots::{Phase, Slots},
};

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
    /// Of the autoscaler, the last ones.
    pub(crate) decisions: Decisions,
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
    /// Means of the last seconds, by the autoscaler.
    means: Means,
    startup_mean: Option<Duration>,
    /// How long requests hold their slots.
    service_time: ServiceTime,
    /// Starts that failed and instances that crashed young, in a row.
    failures: u32,
    /// No start that no request waits for before this.
    retry_at: Option<Instant>,
    retired: bool,
    /// The maximum stood in the way when the rule was asked last.
    is_limited: bool,
    autoscaler: Autoscaler,
}

/// What the last seconds were like on average.
#[derive(Clone, Copy, Default)]
pub(crate) struct Means {
    /// Requests being served and waiting.
    pub(crate) requests: f64,
    /// CPU in use, in instances.
    pub(crate) cpu: f64,
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

/// Requests in the pool, over time.
struct Load {
    level: u32,
    since: Instant,
    /// Requests times seconds, up to `since`.
    area: f64,
}

impl Load {
    fn change(&mut self, now: Instant, delta: i64) {
        self.advance(now);
        self.level = u32::try_from(i64::from(self.level) + delta).unwrap_or(0);
    }

    fn advance(&mut self, now: Instant) {
        self.area += f64::from(self.level) * now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
    }
}

impl State {
    fn waiting(&self) -> u32 {
        u32::try_from(self.queue.len()).unwrap_or(u32::MAX)
    }

    /// As many requests as can ever be served at the same time.
    fn slots_max(&self) -> u32 {
        self.scale.max.max(self.slots.live()).saturating_mul(self.slots.concurrency())
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
            decisions: Decisions::default(),
            state: Mutex::new(State {
                slots: Slots::new(template.concurrency()),
                queue: VecDeque::new(),
                next_waiter: 0,
                scale: Scale { min: 0, max: template.max_instances(), is_manual: false, routed: false },
                load: Load { level: 0, since: now, area: 0.0 },
                means: Means::default(),
                startup_mean: None,
                service_time: ServiceTime::default(),
                failures: 0,
                retry_at: None,
                retired: false,
                is_limited: false,
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
    /// `QueueFull` when no slot can come free within the hold time or no instance is allowed, `NoRevision` when the revision is gone.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Entry, Refusal> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.retired {
            return Err(if self.shared.closing.is_cancelled() { Refusal::Closing } else { Refusal::NoRevision });
        }
        if let Some(member) = state.slots.take(now) {
            let slot = Slot::of(member, now);
            state.load.change(now, 1);
            self.awaken(&mut state);
            return Ok(Entry::Slot(slot));
        }
        let least = overload::least_wait(state.waiting(), state.slots_max(), &state.service_time);
        if state.scale.max == 0 || state.queue.len() >= QUEUE_MAX || least > self.hold_time(&state) {
            return Err(self.refused(&state));
        }
        let (sender, slot) = oneshot::channel();
        let number = state.next_waiter;
        state.next_waiter += 1;
        state.queue.push_back(Waiter { number, slot: sender });
        state.load.change(now, 1);
        self.awaken(&mut state);
        let plan = self.plan(&mut state, now);
        drop(state);
        self.carry_out(plan);
        Ok(Entry::Wait(Place { pool: self.clone(), number, slot }))
    }

    /// A slot of the instance that `is_it`; `None` when it is gone or has none that is free.
    pub(crate) fn enter_at(self: &Arc<Self>, is_it: impl Fn(&Instance) -> bool) -> Option<Slot> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let concurrency = state.slots.concurrency();
        let member = state.slots.iter_mut().find(|member| is_it(&member.instance) && member.has_slot(concurrency))?;
        member.take(now);
        let slot = Slot::of(member, now);
        state.load.change(now, 1);
        self.awaken(&mut state);
        Some(slot)
    }

    /// How long to hold a request that waits; `None` while nobody knows how long this revision starts and one is starting.
    pub(crate) fn hold(&self) -> Option<Duration> {
        let state = self.state.lock();
        let is_known = state.startup_mean.is_some() || state.slots.starting() == 0;
        is_known.then(|| self.hold_time(&state))
    }

    fn hold_time(&self, state: &State) -> Duration {
        overload::hold_time(state.startup_mean, self.shared.config.hold_min)
    }

    /// The refusal of a request that was held for the hold time.
    pub(crate) fn overdue(&self) -> Refusal {
        self.refused(&self.state.lock())
    }

    fn refused(&self, state: &State) -> Refusal {
        let wait = overload::expected_wait(state.waiting(), state.slots_max(), &state.service_time);
        Refusal::QueueFull { retry_after_s: overload::retry_after_s(wait, self.hold_time(state)) }
    }

    fn leave(&self, number: u64) {
        let mut state = self.state.lock();
        if let Some(index) = state.queue.iter().position(|waiter| waiter.number == number) {
            state.queue.remove(index);
            state.load.change(Instant::now(), -1);
        }
    }

    /// Gives a slot of `instance`, held since `taken`, to the longest waiting request, or makes it free.
    fn release(self: &Arc<Self>, instance: &Arc<Instance>, taken: Instant) {
        let mut served = Some(taken);
        loop {
            let now = Instant::now();
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let Some(member) = state.slots.find(instance) else { return };
            if let Some(taken) = served.take() {
                state.service_time.take(now.saturating_duration_since(taken));
            }
            if member.phase == Phase::Ready
                && !member.unready
                && let Some(waiter) = state.queue.pop_front()
            {
                let slot = Slot::of(member, now);
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

    pub(crate) fn is_waited_for(&self) -> bool {
        !self.state.lock().queue.is_empty()
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

    pub(crate) fn ready_instances(&self) -> Vec<Arc<Instance>> {
        self.state.lock().slots.iter().filter(|member| member.phase == Phase::Ready).map(|member| member.instance.clone()).collect()
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

/// Requests that may wait for one revision, whatever is known of their chance: a bound of memory.
const QUEUE_MAX: usize = 10_000;
