//! What owners ask for, made true.
//!
//! **Invariant:** loops take no input but the store; doing it twice equals doing it once; knows no wire format.
//!
//! Two halves. The nouns (`service`, `revision`, `build`, `bucket`...) hold the rules: they check a wish, store it as an intent
//! and return. `reconcile` holds the loops that read intents and make them true. A call that was answered is on disk; what
//! was still to be done when the process died is done after the next start.

mod bucket;
mod build;
mod image;
mod object;
mod operation;
mod project;
mod reconcile;
mod records;
mod repository;
mod revision;
mod seam;
mod service;
mod template;
#[cfg(test)]
mod tests;
mod traffic;

use std::sync::{Arc, atomic::AtomicI64};

use model::{Clock, ProjectId, Region, Status};
use tokio::task::AbortHandle;

pub use build::BuildRequest;
pub use object::{Preconditions, is_precondition};
pub use project::{Project, project_ensure};
pub use repository::Repository;

/// The control plane. Clones share it; when the last one is dropped, its loops end where they are.
#[derive(Clone)]
pub struct Control {
    context: Arc<Context>,
    _loops: Arc<Loops>,
    config: Arc<Config>,
    serving: Option<serving::Serving>,
}

/// What a client means who names no project or region.
pub struct Config {
    /// Made at the start when it is not there.
    pub default_project: ProjectId,
    pub default_region: Region,
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
    store: store::Store,
    images: Arc<dyn seam::Images>,
    starter: Arc<dyn seam::Starter>,
    accounts: Arc<dyn seam::Accounts>,
    log: Box<dyn Fn(model::log::Entry) + Send + Sync>,
    /// The last instant, in microseconds, that was given to a bucket or an object.
    instant_last: AtomicI64,
    /// Held for reading while an object is written, for writing while a bucket is deleted: no object lands in a bucket that goes.
    objects: tokio::sync::RwLock<()>,
}

/// The running reconcilers.
struct Loops(Vec<AbortHandle>);

impl Drop for Loops {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Control {
    /// Makes the default project when it is not there, and starts the loops; what an earlier process left undone goes on.
    ///
    /// Call inside a tokio runtime.
    /// # Errors
    /// `INTERNAL` when the store fails.
    pub async fn start(
        config: Config,
        clock: Arc<dyn Clock>,
        store: store::Store,
        iam: iam::Iam,
        telemetry: telemetry::Telemetry,
        builder: ::build::Builder,
        serving: serving::Serving,
    ) -> Result<Self, Status> {
        let context = Context {
            images: Arc::new(seam::Builder { builder, store: store.clone() }),
            starter: Arc::new(serving.clone()),
            accounts: Arc::new(iam),
            log: Box::new(move |entry| telemetry.log(entry)),
            instant_last: AtomicI64::new(clock.now().as_microsecond()),
            objects: tokio::sync::RwLock::default(),
            clock,
            store,
        };
        Self::start_with(config, context, Some(serving)).await
    }

    pub(crate) async fn start_with(config: Config, context: Context, serving: Option<serving::Serving>) -> Result<Self, Status> {
        project_ensure(&context.store, &*context.clock, &config.default_project).await?;
        let context = Arc::new(context);
        let store = &context.store;
        let loops = vec![
            tokio::spawn(reconcile::run(Arc::new(reconcile::service::Services(context.clone())), store.clone())).abort_handle(),
            tokio::spawn(reconcile::run(Arc::new(reconcile::revision::Revisions(context.clone())), store.clone())).abort_handle(),
            tokio::spawn(reconcile::run(Arc::new(reconcile::build::Builds(context.clone())), store.clone())).abort_handle(),
            tokio::spawn(reconcile::run(Arc::new(reconcile::operation::Operations::new(context.clone())), store.clone())).abort_handle(),
        ];
        Ok(Self { context, _loops: Arc::new(Loops(loops)), config: Arc::new(config), serving })
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
