//! What owners ask for, made true.
//!
//! **Invariant:** loops take no input but the store; doing it twice equals doing it once; knows no wire format.
//!
//! Two halves. The nouns (`service`, `revision`, `build`, `bucket`...) hold the rules: they check a wish, store it as an intent
//! and return. `reconcile` holds the loops that read intents and make them true. A call that was answered is on disk; what
//! was still to be done when the process died is done after the next start.

pub mod admission;
mod bucket;
mod build;
mod function;
mod image;
mod notification;
mod object;
mod operation;
mod project;
mod reconcile;
mod records;
mod repository;
mod revision;
mod seam;
mod secret;
mod service;
mod template;
#[cfg(test)]
mod tests;
mod traffic;
mod trigger;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicI64},
};

use model::{Clock, Hops, ProjectId, Region, Status};
use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinHandle};

pub use ::build::{Language, Runtime, Stage};
pub use build::BuildRequest;
pub use object::{Preconditions, UnlockedRetention, is_precondition, lock_reason, object_place};
pub use project::{Project, project_ensure};
pub use repository::Repository;
pub use trigger::TriggerWish;

/// The control plane. Clones share it; when the last one is dropped, its loops end where they are.
#[derive(Clone)]
pub struct Control {
    context: Arc<Context>,
    loops: Arc<Loops>,
    config: Arc<Config>,
    serving: Option<serving::Serving>,
    /// What lies behind the changes of objects that are made by it.
    hops: Hops,
}

/// What a client means who names no project or region.
pub struct Config {
    /// Made at the start when it is not there.
    pub default_project: ProjectId,
    pub default_region: Region,
    /// The clock by which the system dates files; another than that of records when that one is moved by hand.
    pub files_clock: Arc<dyn Clock>,
    /// Seals secrets' payloads.
    pub vault: iam::Vault,
}

/// A stored thing with the revision that is its etag and resourceVersion.
#[derive(Clone, Debug)]
pub struct Versioned<T> {
    pub value: T,
    pub revision: u64,
}

/// What the rules and the loops work with.
pub(crate) struct Context {
    clock: Arc<dyn Clock>,
    /// By which the system dates files.
    files_clock: Arc<dyn Clock>,
    store: store::Store,
    images: Arc<dyn seam::Images>,
    starter: Arc<dyn seam::Starter>,
    accounts: Arc<dyn seam::Accounts>,
    topics: Arc<dyn seam::Topics>,
    /// By the keys of their records: changes of objects that nobody was told of yet.
    untold: Mutex<HashMap<String, events::busy::Guard>>,
    vault: iam::Vault,
    log: Box<dyn Fn(model::log::Entry) + Send + Sync>,
    /// The last instant, in microseconds, that was given to a bucket or an object.
    instant_last: AtomicI64,
    /// Held for reading while an object is written, for writing while a bucket is deleted: no object lands in a bucket that goes.
    objects: tokio::sync::RwLock<()>,
    /// Held for reading from looking an image up until what needs it is stored, for writing while images are forgotten.
    deploys: tokio::sync::RwLock<()>,
}

/// The running reconcilers; they end when `stop` says so or is dropped.
struct Loops {
    stop: watch::Sender<bool>,
    /// The first loop that ended without being told to.
    failed: Arc<watch::Sender<Option<&'static str>>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Loops {
    fn new() -> Self {
        Self { stop: watch::Sender::new(false), failed: Arc::new(watch::Sender::new(None)), tasks: Mutex::default() }
    }

    fn spawn<R: reconcile::Reconciler>(&self, reconciler: R, store: &store::Store) {
        self.spawn_loop(R::NAME, reconcile::run(Arc::new(reconciler), store.clone(), self.stop.subscribe()));
    }

    fn spawn_loop(&self, name: &'static str, run: impl Future<Output = ()> + Send + 'static) {
        // Dropped at the end of the loop, by a panic too.
        let ended = Ended { name, stop: self.stop.subscribe(), failed: self.failed.clone() };
        self.tasks.lock().push(tokio::spawn(async move {
            let _ended = ended;
            run.await;
        }));
    }
}

/// Says that a loop ended, unless it was told to.
struct Ended {
    name: &'static str,
    stop: watch::Receiver<bool>,
    failed: Arc<watch::Sender<Option<&'static str>>>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let is_meant = *self.stop.borrow() || self.stop.has_changed().is_err();
        if !is_meant {
            self.failed.send_if_modified(|failed| failed.replace(failed.unwrap_or(self.name)).is_none());
        }
    }
}

impl Control {
    /// Makes the default project when it is not there, and starts the loops; what an earlier process left undone goes on.
    ///
    /// Call inside a tokio runtime.
    /// # Errors
    /// `INTERNAL` when the store fails.
    #[expect(clippy::too_many_arguments, reason = "all that the control plane stands on, each made once by the binary")]
    pub async fn start(
        config: Config,
        clock: Arc<dyn Clock>,
        store: store::Store,
        iam: iam::Iam,
        telemetry: telemetry::Telemetry,
        builder: ::build::Builder,
        serving: serving::Serving,
        pubsub: events::pubsub::PubSub,
    ) -> Result<Self, Status> {
        let context = Context {
            images: Arc::new(seam::Builder { builder, store: store.clone() }),
            starter: Arc::new(serving.clone()),
            accounts: Arc::new(iam),
            topics: Arc::new(pubsub),
            untold: Mutex::default(),
            vault: config.vault.clone(),
            log: Box::new(move |entry| telemetry.log(entry)),
            instant_last: AtomicI64::new(clock.now().as_microsecond()),
            objects: tokio::sync::RwLock::default(),
            deploys: tokio::sync::RwLock::default(),
            clock,
            files_clock: config.files_clock.clone(),
            store,
        };
        Self::start_with(config, context, Some(serving)).await
    }

    pub(crate) async fn start_with(config: Config, context: Context, serving: Option<serving::Serving>) -> Result<Self, Status> {
        project_ensure(&context.store, &*context.clock, &config.default_project).await?;
        let context = Arc::new(context);
        let loops = Loops::new();
        loops.spawn(reconcile::service::Services(context.clone()), &context.store);
        loops.spawn(reconcile::revision::Revisions(context.clone()), &context.store);
        loops.spawn(reconcile::build::Builds(context.clone()), &context.store);
        loops.spawn(reconcile::operation::Operations::new(context.clone()), &context.store);
        loops.spawn_loop("lifecycle", reconcile::lifecycle::run(context.clone(), loops.stop.subscribe()));
        loops.spawn(reconcile::change::Changes(context.clone()), &context.store);
        loops.spawn(reconcile::garbage::Garbage::new(context.clone()), &context.store);
        loops.spawn(reconcile::function::Functions(context.clone()), &context.store);
        loops.spawn(reconcile::trigger::Triggers(context.clone()), &context.store);
        loops.spawn_loop("secrets", reconcile::secret::run(context.clone(), loops.stop.subscribe()));
        Ok(Self { context, loops: Arc::new(loops), config: Arc::new(config), serving, hops: Hops::default() })
    }

    /// Resolves with the name of the first loop that ended without being told to: a fault of ours, or the store is closed. Then
    /// intents are stored and nothing makes them true; the process should be started again.
    pub fn failed(&self) -> impl Future<Output = &'static str> + Send + 'static {
        let mut failed = self.loops.failed.subscribe();
        async move {
            loop {
                if let Some(name) = *failed.borrow_and_update() {
                    return name;
                }
                if failed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Ends the loops where they are and waits until they write no more; what they left goes on after the next start.
    /// Calls to this control plane still store intents.
    pub async fn stop(&self) {
        self.loops.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.loops.tasks.lock());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a reconciler had ended by a fault");
            }
        }
    }

    /// The same for one who changes objects behind `hops`: what is told of the changes has them.
    #[must_use]
    pub fn behind(&self, hops: &Hops) -> Self {
        Self { hops: hops.clone(), ..self.clone() }
    }

    pub fn default_project(&self) -> &ProjectId {
        &self.config.default_project
    }

    pub fn default_region(&self) -> &Region {
        &self.config.default_region
    }

    /// Where blobs are read and written.
    pub fn store(&self) -> &store::Store {
        &self.context.store
    }

    pub fn serving(&self) -> &serving::Serving {
        self.serving.as_ref().expect("every control plane that `start` made has one")
    }
}
