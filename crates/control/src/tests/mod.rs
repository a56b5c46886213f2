//! The control plane over a real store, with a builder and instances that do what a test says.

mod build;
mod crash;
mod deploy;
mod function;
mod garbage;
mod property;
mod rules;
mod secret;
mod storage;
mod versions;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt};
use iam::Identity;
use model::{
    Clock, ProjectId, Region, Revision, RevisionName, Service, ServiceKey, ServiceName, Status, Timestamp,
    condition::{self, State},
    image::{Image, ImageDigest},
    service::TrafficTarget,
};
use parking_lot::Mutex;
use serving::StartFailure;
use store::Store;
use tokio::sync::watch;

use crate::{Config, Context, Control, image, seam};

/// Long enough for any machine; nothing waits for it to pass.
pub(crate) const LONG: Duration = Duration::from_secs(120);

pub(crate) const IMAGE: &str = "asia-northeast1-docker.pkg.dev/local-project/cloud-run-source-deploy/f";
/// May read no secret.
pub(crate) const BLIND_ACCOUNT: &str = "blind@local-project.iam.gserviceaccount.com";
pub(crate) const STRANGER_ACCOUNT: &str = "not-mine@local-project.iam.gserviceaccount.com";

pub(crate) fn project() -> ProjectId {
    ProjectId::parse("local-project").unwrap()
}

pub(crate) fn region() -> Region {
    Region::parse("asia-northeast1").unwrap()
}

pub(crate) fn key(name: &str) -> ServiceKey {
    ServiceKey { project: project(), region: region(), service: ServiceName::parse(name).unwrap() }
}

pub(crate) fn owner() -> Identity {
    Identity { kind: iam::Kind::User, email: "dev@example.com".into(), subject: "1".into() }
}

pub(crate) fn name(text: &str) -> RevisionName {
    RevisionName::parse(text).unwrap()
}

/// A clock that begins with that of the files and moves on by a second with every look.
pub(crate) struct SteppingClock(Arc<AtomicI64>);

impl SteppingClock {
    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for SteppingClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.fetch_add(1, Ordering::SeqCst)).unwrap()
    }

    fn until(&self, at: Timestamp) -> model::clock::Until {
        let seconds = self.0.clone();
        Box::pin(async move {
            while seconds.load(Ordering::SeqCst) < at.as_second() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }
}

/// What stands for builder, instances and accounts; outlives the control planes that use it.
pub(crate) struct World {
    pub clock: Arc<SteppingClock>,
    /// Of the manifest.
    pub digest: Mutex<ImageDigest>,
    /// Layers that caches name.
    pub cached: Mutex<HashSet<String>>,
    pub manifest: Image,
    /// Proofs begun, by revision.
    pub proofs: Mutex<HashMap<String, u32>>,
    /// Services whose instances were ended.
    pub stopped: Mutex<Vec<String>>,
    /// Resources whose policies were removed.
    pub policies_removed: Mutex<Vec<String>>,
    /// Values of the variable GATE whose proofs and builds may end.
    pub open: watch::Sender<HashSet<String>>,
    pub builds: Mutex<Vec<build::Started>>,
    pub log: Mutex<Vec<model::log::Entry>>,
    /// Notifications, in order.
    pub published: Mutex<Vec<events::storage::Message>>,
    /// What is under way.
    pub busy: events::busy::Busy,
    /// Where the vault's file lies.
    pub keys: tempfile::TempDir,
}

impl World {
    pub fn new() -> Arc<Self> {
        let manifest = Image {
            runtime: "python312".into(),
            runtime_version: "3.12.1".into(),
            memory_env: Vec::new(),
            start_notes: Vec::new(),
            runtime_paths: Vec::new(),
            layers: Vec::new(),
            command: vec!["/bin/true".into()],
            working_dir: "/workspace".into(),
            env: Vec::new(),
        };
        Arc::new(Self {
            clock: Arc::new(SteppingClock(Arc::new(AtomicI64::new(Timestamp::now().as_second())))),
            digest: Mutex::new(ImageDigest::parse(&format!("sha256:{}", "a".repeat(64))).unwrap()),
            cached: Mutex::default(),
            manifest,
            proofs: Mutex::default(),
            stopped: Mutex::default(),
            policies_removed: Mutex::default(),
            open: watch::Sender::new(HashSet::new()),
            builds: Mutex::default(),
            log: Mutex::default(),
            published: Mutex::default(),
            busy: events::busy::Busy::new(),
            keys: tempfile::tempdir().unwrap(),
        })
    }

    pub fn digest(&self) -> ImageDigest {
        self.digest.lock().clone()
    }

    /// Lets what waits at `gate` end.
    pub fn open(&self, gate: &str) {
        self.open.send_modify(|open| {
            open.insert(gate.to_owned());
        });
    }

    pub async fn pass(&self, gate: &str) {
        let mut open = self.open.subscribe();
        open.wait_for(|open| open.contains(gate)).await.unwrap();
    }

    pub fn proofs_of(&self, revision: &RevisionName) -> u32 {
        self.proofs.lock().get(revision.as_str()).copied().unwrap_or(0)
    }
}

impl seam::Starter for World {
    /// The variable GATE: waits until that gate is open. FAIL: fails with its value as the last output.
    fn prove<'a>(&'a self, revision: &'a Revision, _image: &'a Image) -> BoxFuture<'a, Result<(), StartFailure>> {
        async move {
            *self.proofs.lock().entry(revision.name.to_string()).or_default() += 1;
            let variable = |name: &str| revision.template.container.env.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
            if let Some(gate) = variable("GATE") {
                self.pass(&gate).await;
            }
            match variable("FAIL") {
                Some(last_output) => Err(StartFailure::NotListening { port: revision.template.port(), last_output }),
                None => Ok(()),
            }
        }
        .boxed()
    }

    fn stop<'a>(&'a self, service: &'a ServiceKey) -> BoxFuture<'a, ()> {
        self.stopped.lock().push(service.service.to_string());
        std::future::ready(()).boxed()
    }
}

impl seam::Accounts for World {
    fn may_act_as(&self, _who: &Identity, email: &str) -> bool {
        email != STRANGER_ACCOUNT
    }

    fn may_read(&self, email: &str, _secret: &model::secret::SecretKey) -> bool {
        email != BLIND_ACCOUNT
    }

    fn policy_remove<'a>(&'a self, resource: &'a str) -> BoxFuture<'a, Result<(), Status>> {
        self.policies_removed.lock().push(resource.to_owned());
        std::future::ready(Ok(())).boxed()
    }
}

/// One topic, `projects/local-project/topics/t`.
impl seam::Topics for World {
    fn is_there(&self, topic: &str) -> Result<bool, Status> {
        Ok(topic == "projects/local-project/topics/t")
    }

    fn publish<'a>(&'a self, _topic: &'a str, message: events::storage::Message) -> BoxFuture<'a, Result<(), Status>> {
        self.published.lock().push(message);
        std::future::ready(Ok(())).boxed()
    }

    fn busy(&self) -> events::busy::Busy {
        self.busy.clone()
    }
}

/// Starts a control plane over `store`.
pub(crate) async fn start(store: &Store, world: &Arc<World>) -> Control {
    let log = world.clone();
    let context = Context {
        clock: world.clock.clone(),
        files_clock: world.clock.clone(),
        store: store.clone(),
        images: Arc::new(build::Images { world: world.clone() }),
        starter: world.clone(),
        accounts: world.clone(),
        topics: world.clone(),
        untold: Mutex::default(),
        vault: iam::Vault::open(&world.keys.path().join("vault.keys"), store).unwrap(),
        log: Box::new(move |entry| log.log.lock().push(entry)),
        instant_last: AtomicI64::new(0),
        objects: tokio::sync::RwLock::default(),
        deploys: tokio::sync::RwLock::default(),
    };
    store.commit(image::image_writes(IMAGE, &world.digest())).await.unwrap();
    let vault = context.vault.clone();
    let config = Config { default_project: project(), default_region: region(), files_clock: world.clock.clone(), vault };
    Control::start_with(config, context, None).await.unwrap()
}

/// Ends the loops wherever they are. What they had handed to the store is written before this returns: a process that is killed
/// writes nothing later either.
pub(crate) async fn crash(control: &Control, store: &Store) {
    control.stop().await;
    store.commit(Vec::new()).await.unwrap();
}

/// A store of its own, and a control plane over it.
pub(crate) struct Plane {
    pub control: Control,
    pub world: Arc<World>,
    pub store: Store,
    _dir: tempfile::TempDir,
}

impl Plane {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let world = World::new();
        Self { control: start(&store, &world).await, world, store, _dir: dir }
    }

    /// As after a crash: the loops stop wherever they are, and others begin.
    pub async fn restart(&mut self) {
        crash(&self.control, &self.store).await;
        self.control = start(&self.store, &self.world).await;
    }

    pub async fn create(&self, service: Service) -> Service {
        self.control.service_create(&owner(), service, false).await.unwrap().0.value
    }

    pub async fn replace(&self, service: Service) -> Service {
        self.control.service_replace(&owner(), service, None, false).await.unwrap().0.value
    }

    /// The service once it is settled at the generation it has now.
    pub async fn settled(&self, name: &str) -> Service {
        let generation = self.control.service_get(&key(name)).unwrap().value.generation;
        let service = self.control.service_wait(&key(name), generation, LONG).await.unwrap().value;
        assert!(service.is_settled(), "{:?}", service.status);
        service
    }

    pub async fn gone(&self, name: &str) {
        let gone = crate::records::wait::<Service>(&self.store, &model::key::service(&key(name)), LONG, |found| found.is_none()).await.unwrap();
        assert!(gone.is_none());
    }

    pub fn revisions(&self, service: &str) -> Vec<Revision> {
        let service = ServiceName::parse(service).unwrap();
        let mut revisions: Vec<Revision> =
            self.control.revision_list(&project(), Some(&region()), Some(&service), None, 5000).unwrap().into_iter().map(|r| r.value).collect();
        revisions.sort_by_key(|revision| revision.generation);
        revisions
    }

    /// Waits until `is_so` holds of what the store has; `what` says for what in a failure.
    pub async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let mut watch = self.store.watch("");
        let end = tokio::time::Instant::now() + LONG;
        while !is_so() {
            tokio::time::timeout_at(end, async {
                tokio::select! {
                    _ = watch.next() => {}
                    // What is waited for may not be in the store.
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            })
            .await
            .unwrap_or_else(|_| panic!("waited in vain: {what}"));
        }
    }
}

pub(crate) fn open(dir: &Path) -> Store {
    Store::open(dir).unwrap()
}

pub(crate) fn service(name: &str) -> Service {
    serde_json::from_value(serde_json::json!({
        "key": key(name), "uid": "", "generation": 0, "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z",
        "creator": "", "last_modifier": "", "template": { "container": { "image": IMAGE } }, "traffic": []
    }))
    .unwrap()
}

/// `service` with one variable of its template set.
pub(crate) fn with_env(mut service: Service, variable: &str, value: &str) -> Service {
    service.template.container.env.retain(|(name, _)| name != variable);
    service.template.container.env.push((variable.to_owned(), value.to_owned()));
    service
}

pub(crate) fn target(revision: Option<&RevisionName>, percent: u32, tag: Option<&str>) -> TrafficTarget {
    TrafficTarget { revision: revision.cloned(), percent, tag: tag.map(str::to_owned) }
}

pub(crate) fn state(service: &Service, kind: &str) -> State {
    condition::find(&service.status.conditions, kind).unwrap_or_else(|| panic!("no condition {kind}")).state
}

pub(crate) fn message(service: &Service, kind: &str) -> String {
    condition::find(&service.status.conditions, kind).map(|condition| condition.message.clone()).unwrap_or_default()
}

/// The traffic as served: revision, percent, tag.
pub(crate) fn served(service: &Service) -> Vec<(String, u32, Option<String>)> {
    service.status.traffic.iter().map(|t| (t.revision.to_string(), t.percent, t.tag.clone())).collect()
}
