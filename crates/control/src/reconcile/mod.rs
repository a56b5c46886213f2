//! Reconcilers: loops that make what is stored true.
//!
//! A reconciler is woken by changes in the store and by a period, looks at one key and does what is missing there. It takes
//! no other input, so that a lost wake-up costs at most a period and a crash at most a repetition. Wake-ups carry keys, not
//! data: many changes of one resource are one look at it.
//!
//! Here is the part that all of them share: which key when. What is done for a key is in the modules.

pub(crate) mod build;
pub(crate) mod change;
pub(crate) mod function;
pub(crate) mod garbage;
pub(crate) mod lifecycle;
pub(crate) mod operation;
pub(crate) mod revision;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod traffic;
pub(crate) mod trigger;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use model::Status;
use parking_lot::Mutex;
use store::{Change, Event, Store};
use tokio::{
    sync::Notify,
    task::{Id, JoinSet},
    time::{Instant, MissedTickBehavior},
};

/// How often everything is looked at, whether or not anything changed.
const PERIOD: Duration = Duration::from_secs(60);
/// How long a key that failed rests: the first time, and at most.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What one loop does.
pub(crate) trait Reconciler: Send + Sync + 'static {
    /// For logs.
    const NAME: &'static str;
    /// Where in the store its wake-ups come from.
    const PREFIXES: &'static [&'static str];

    /// Keys that are worked on at the same time, at most.
    fn parallel(&self) -> usize;
    /// The keys that a change concerns.
    fn concerned(&self, change: &Change) -> Vec<String>;
    /// Every key there is work to be found for.
    fn all(&self) -> Result<Vec<String>, Status>;
    /// Makes one key true; called for a key at most once at a time. An error means: again, later.
    fn step(&self, key: &str) -> impl Future<Output = Result<(), Status>> + Send;
}

/// Keys that wait to be looked at: each once, in the order of arrival.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    order: VecDeque<String>,
    known: HashSet<String>,
}

impl Queue {
    fn add(&self, keys: impl IntoIterator<Item = String>) {
        let mut waiting = self.waiting.lock();
        for key in keys {
            if waiting.known.insert(key.clone()) {
                waiting.order.push_back(key);
            }
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// The first key that `may_start` lets through.
    fn take(&self, may_start: impl Fn(&str) -> bool) -> Option<String> {
        let mut waiting = self.waiting.lock();
        let at = waiting.order.iter().position(|key| may_start(key))?;
        let key = waiting.order.remove(at)?;
        waiting.known.remove(&key);
        Some(key)
    }
}

/// Runs `reconciler` until `stop` says so or its sender is gone, or the store is closed. Nothing of it runs after that.
pub(crate) async fn run<R: Reconciler>(reconciler: Arc<R>, store: Store, mut stop: tokio::sync::watch::Receiver<bool>) {
    let queue = Arc::new(Queue::default());
    // The watches are there before the first look at everything, so that no change falls between.
    let mut watchers = JoinSet::new();
    for prefix in R::PREFIXES {
        watchers.spawn(watch(reconciler.clone(), store.watch(prefix), queue.clone()));
    }
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut running = Running::default();
    loop {
        let rest_end = running.rest_end();
        tokio::select! {
            _ = period.tick() => look_at_all(&*reconciler, &queue),
            () = queue.arrived.notified() => {}
            () = running.ended() => {}
            () = rested(rest_end) => queue.add(running.rested_take()),
            // Watches end when the store is closed.
            _ = watchers.join_next() => break,
            // An error means that the sender is gone.
            _ = stop.wait_for(|stop| *stop) => break,
        }
        while running.tasks.len() < reconciler.parallel() {
            let Some(key) = queue.take(|key| running.is_free(key)) else {
                break;
            };
            running.start(reconciler.clone(), key);
        }
    }
    running.tasks.shutdown().await;
    watchers.shutdown().await;
}

async fn watch<R: Reconciler>(reconciler: Arc<R>, mut watch: store::Watch, queue: Arc<Queue>) {
    while let Some(event) = watch.next().await {
        match event {
            Event::Change(change) => queue.add(reconciler.concerned(&change)),
            Event::Resync => look_at_all(&*reconciler, &queue),
        }
    }
}

fn look_at_all<R: Reconciler>(reconciler: &R, queue: &Queue) {
    match reconciler.all() {
        Ok(keys) => queue.add(keys),
        Err(error) => {
            tracing::error!(reconciler = R::NAME, %error, "cannot list what there is to do")
        }
    }
}

/// Keys being worked on, and those that rest after a failure.
#[derive(Default)]
struct Running {
    tasks: JoinSet<Result<(), Status>>,
    keys: HashMap<Id, String>,
    failures: HashMap<String, u32>,
    resting: BTreeMap<(Instant, String), ()>,
}

impl Running {
    /// A key is free when nobody works on it. One that rests may start earlier when something about it changed.
    fn is_free(&self, key: &str) -> bool {
        !self.keys.values().any(|running| running == key)
    }

    fn start<R: Reconciler>(&mut self, reconciler: Arc<R>, key: String) {
        let task = {
            let key = key.clone();
            self.tasks.spawn(async move {
                let done = reconciler.step(&key).await;
                if let Err(error) = &done {
                    tracing::warn!(reconciler = R::NAME, key, %error, "will be tried again");
                }
                done
            })
        };
        self.keys.insert(task.id(), key);
    }

    /// Waits until a task ends; for ever when there is none.
    async fn ended(&mut self) {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let (id, is_good) = match ended {
            Ok((id, result)) => (id, result.is_ok()),
            // A panic is a fault of ours in one key; the others go on.
            Err(error) => (error.id(), false),
        };
        let Some(key) = self.keys.remove(&id) else {
            return;
        };
        if is_good {
            self.failures.remove(&key);
            return;
        }
        let failures = self.failures.entry(key.clone()).or_default();
        let rest = RETRY_MIN.saturating_mul(2u32.saturating_pow(*failures)).min(RETRY_MAX);
        *failures = failures.saturating_add(1);
        self.resting.insert((Instant::now() + rest, key), ());
    }

    /// When the next key has rested.
    fn rest_end(&self) -> Option<Instant> {
        self.resting.first_key_value().map(|((until, _), ())| *until)
    }

    fn rested_take(&mut self) -> Vec<String> {
        let now = Instant::now();
        let later = self.resting.split_off(&(now + Duration::from_nanos(1), String::new()));
        std::mem::replace(&mut self.resting, later).into_keys().map(|(_, key)| key).collect()
    }
}

/// Waits until `end`; for ever when no key rests.
async fn rested(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
