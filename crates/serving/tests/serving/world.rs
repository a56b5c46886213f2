//! What the checks share: the data plane on a store of its own, services to call, and ways to call them.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use model::{
    Clock, ProjectId, ProjectNumber, Region, Revision, RevisionName, Service, ServiceKey, ServiceName, Timestamp,
    image::{Image, ImageDigest, Layer},
    key,
    log::{Entry, LogName, Payload},
    revision::{Container, RevisionTemplate},
    service::{ServiceStatus, TrafficStatus},
};
use sandbox::{Keeper, KeeperConfig};
use serving::{
    Body, InstanceIdentity, InstanceInfo, InstanceNetwork, Origin, Request, Response, Serving, Workers,
    listener::{self, Limits},
};
use store::{Expect, Store, Write};
use tokio_util::sync::CancellationToken;

pub type Check = (&'static str, for<'a> fn(&'a World) -> BoxFuture<'a, ()>);

/// Generous: the machine may be building eight other things.
pub const LIMIT: Duration = Duration::from_secs(60);
pub const NUMBER: ProjectNumber = ProjectNumber(9_123_456_789_012);
pub const PROJECT: &str = "my-project";
pub const REGION: &str = "asia-northeast1";
pub const OWNER: &str = "owner@example.com";
const PYTHON: &str = "/usr/bin/python3";

pub struct World {
    pub serving: Serving,
    pub store: Store,
    pub iam: iam::Iam,
    pub telemetry: telemetry::Telemetry,
    pub keeper: Arc<Keeper>,
    pub address: SocketAddr,
    pub image: Image,
    digest: ImageDigest,
    made: AtomicU32,
}

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "a test is its own binary")]
        Timestamp::try_from(std::time::SystemTime::now()).expect("a time that fits")
    }

    fn until(&self, _: Timestamp) -> model::clock::Until {
        Box::pin(std::future::pending())
    }
}

/// Instances here have no network: their listeners are closed.
struct Closed;

impl InstanceNetwork for Closed {
    fn serve(&self, _: InstanceIdentity, _: OwnedFd, _: OwnedFd, _: OwnedFd, _: OwnedFd, _: CancellationToken) {}
}

pub fn fork() -> (tempfile::TempDir, Keeper) {
    let ground = tempfile::Builder::new().prefix("serving-").tempdir_in("/var/tmp").expect("temporary folder");
    let staging = ground.path().join("staging");
    std::fs::create_dir(&staging).expect("staging");
    let (uid, gid) = (nix_id("Uid:"), nix_id("Gid:"));
    // A keeper started by root expects a daemon that is not root.
    let other = |id: u32| if id == 0 { 65534 } else { id };
    let config = KeeperConfig { dir: ground.path().join("keeper"), writable_under: vec![staging], daemon_uid: other(uid), daemon_gid: other(gid) };
    let keeper = sandbox::fork_keeper(config).expect("a keeper");
    (ground, keeper)
}

fn nix_id(field: &str) -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of status");
    line.split_whitespace().next().and_then(|id| id.parse().ok()).expect("a number")
}

/// How long the data plane that most checks use keeps an idle instance.
const IDLE_MAX: Duration = Duration::from_secs(900);

fn start(idle_max: Duration, clock: Arc<dyn Clock>, store: &Store, iam: &iam::Iam, telemetry: &telemetry::Telemetry, keeper: &Arc<Keeper>) -> Serving {
    // Read once.
    let keys = tempfile::tempdir().expect("a folder");
    // One for all runs: nothing is ever in it.
    let empty = std::path::PathBuf::from("/var/tmp/serving-empty");
    std::fs::create_dir_all(&empty).expect("an empty folder");
    let config = serving::Config {
        domains: vec!["run.app".to_owned(), "run.localhost".to_owned()],
        ca_bundle: b"-----BEGIN CERTIFICATE-----\n".to_vec(),
        java_trust_store: Vec::new(),
        hold_min: Duration::from_secs(2),
        instance_idle_max: idle_max,
        templates_bytes: 1 << 30,
        armed_max: 1,
        hops_max: 32,
        empty,
        vault: iam::Vault::open(&keys.path().join("vault.keys"), store).expect("a vault"),
    };
    Serving::start(config, clock, store.clone(), iam.clone(), telemetry.clone(), keeper.clone(), Arc::new(Closed)).expect("serving")
}

impl World {
    pub async fn new(ground: &tempfile::TempDir, keeper: Keeper) -> Self {
        assert!(std::path::Path::new(PYTHON).exists(), "the function needs {PYTHON}");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let dir = ground.path().join("state");
        std::fs::create_dir(&dir).expect("state");
        let store = Store::open(&dir).expect("store");
        let project = ProjectId::parse(PROJECT).expect("project");
        let record = serde_json::json!({ "id": PROJECT, "number": NUMBER });
        store.commit(vec![Write::put(key::project(&project), Expect::Any, &record)]).await.expect("commit");
        let iam = iam::Iam::open(store.clone(), clock.clone(), project, NUMBER, OWNER).await.expect("iam");
        let telemetry = telemetry::Telemetry::open(&dir, clock.clone()).expect("telemetry");
        let staging = store.layers().staging().expect("staging");
        std::fs::write(staging.path().join("main.py"), include_str!("function.py")).expect("main.py");
        let layer = staging.commit().expect("layer");
        let image = Image {
            runtime: "python312".to_owned(),
            runtime_version: "3.12".to_owned(),
            memory_env: Vec::new(),
            start_notes: Vec::new(),
            runtime_paths: vec!["/usr".into()],
            layers: vec![Layer { digest: layer, target: "/workspace".into() }],
            command: vec![PYTHON.to_owned(), "-B".to_owned(), "/workspace/main.py".to_owned()],
            working_dir: "/workspace".into(),
            env: vec![("FUNCTION_TARGET".to_owned(), "hello_http".to_owned())],
        };
        let id = store.blobs().put(&serde_json::to_vec(&image).expect("json")).expect("blob");
        let digest = ImageDigest::parse(&format!("sha256:{id}")).expect("digest");
        let keeper = Arc::new(keeper);
        let serving = start(IDLE_MAX, clock, &store, &iam, &telemetry, &keeper);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let handler = {
            let serving = serving.clone();
            move |origin: Origin, request: Request| -> BoxFuture<'static, Response> {
                let serving = serving.clone();
                Box::pin(async move { serving.handle(origin, request).await })
            }
        };
        tokio::spawn(async move {
            let workers = Workers::start().expect("threads");
            listener::serve(listener, None, Arc::new(handler), Limits::default(), CancellationToken::new(), &workers).await;
        });
        Self { serving, store, iam, telemetry, keeper, address, image, digest, made: AtomicU32::new(0) }
    }

    /// Another data plane on the same store and keeper, whose idle instances end after `idle_max`.
    pub fn second(&self, idle_max: Duration) -> Serving {
        start(idle_max, Arc::new(SystemClock), &self.store, &self.iam, &self.telemetry, &self.keeper)
    }

    /// Ends all instances, and what was deployed.
    pub async fn clear(&self) {
        self.serving.stop_instances(None, Duration::from_secs(2)).await;
        for prefix in [key::SERVICES, key::REVISIONS] {
            for record in self.store.scan(prefix, None, 1000).expect("scan") {
                self.store.commit(vec![Write::delete(record.key, Expect::Any)]).await.expect("commit");
            }
        }
    }

    /// A public service that is not deployed yet.
    pub fn service(&self) -> Deployment<'_> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let key = ServiceKey {
            project: ProjectId::parse(PROJECT).expect("project"),
            region: Region::parse(REGION).expect("region"),
            service: ServiceName::parse(&format!("check-{number}")).expect("name"),
        };
        let template = RevisionTemplate {
            revision: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            container: Container { memory_bytes: Some(256 << 20), ..Container::default() },
            min_instances: 0,
            max_instances: Some(5),
            concurrency: None,
            timeout_s: Some(60),
            service_account: String::new(),
            execution_environment: model::revision::ExecutionEnvironment::Unset,
            session_affinity: false,
            health_check_disabled: false,
        };
        let service = Service {
            uid: format!("service-{number}"),
            generation: 1,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            created: Timestamp::UNIX_EPOCH,
            updated: Timestamp::UNIX_EPOCH,
            deleted: None,
            creator: OWNER.to_owned(),
            last_modifier: OWNER.to_owned(),
            client: String::new(),
            client_version: String::new(),
            description: String::new(),
            ingress: model::service::Ingress::All,
            invoker_iam_disabled: true,
            default_uri_disabled: false,
            custom_audiences: Vec::new(),
            scaling: model::service::ServiceScaling::default(),
            build_config: None,
            template,
            traffic: Vec::new(),
            status: ServiceStatus::default(),
            key,
        };
        Deployment { world: self, service, revisions: Vec::new() }
    }

    pub fn instances(&self, service: &ServiceKey) -> Vec<InstanceInfo> {
        self.serving.instances().into_iter().filter(|instance| instance.service == *service).collect()
    }

    /// The last thousand entries of a service, oldest first.
    pub async fn log(&self, service: &ServiceKey) -> Vec<Entry> {
        self.telemetry.flush().await;
        let query = telemetry::Query {
            projects: vec![PROJECT.to_owned()],
            filter: format!("resource.labels.service_name=\"{}\"", service.service),
            newest_first: true,
            limit: 1000,
            page: None,
        };
        let telemetry = self.telemetry.clone();
        let page = tokio::task::spawn_blocking(move || telemetry.entries(&query)).await.expect("entries").expect("entries");
        page.entries.into_iter().rev().map(|(_, entry)| entry).collect()
    }

    /// Waits until the log of a service has an entry that `wanted` says is the one.
    pub async fn log_until(&self, service: &ServiceKey, what: &str, wanted: impl Fn(&Entry) -> bool) -> Entry {
        let begun = Instant::now();
        loop {
            let log = self.log(service).await;
            if let Some(entry) = log.iter().find(|entry| wanted(entry)) {
                return entry.clone();
            }
            assert!(
                begun.elapsed() < LIMIT,
                "no entry: {what}; there are {:?}",
                log.iter().rev().take(50).map(|entry| (entry.log, text(entry))).collect::<Vec<_>>()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn system_log_until(&self, service: &ServiceKey, words: &str) -> Entry {
        self.log_until(service, words, |entry| entry.log == LogName::System && text(entry).contains(words)).await
    }

    pub async fn request_log_until(&self, service: &ServiceKey, status: u16) -> Entry {
        self.log_until(service, &status.to_string(), |entry| entry.log == LogName::Requests && entry.http.as_ref().is_some_and(|http| http.status == status))
            .await
    }
}

pub fn text(entry: &Entry) -> &str {
    match &entry.payload {
        Payload::Text(text) | Payload::Json(text) | Payload::Audit(text) => text,
        Payload::None => "",
    }
}

/// Waits until `condition` holds.
pub async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < LIMIT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A service and its revisions, before or after they are in the store.
pub struct Deployment<'a> {
    world: &'a World,
    pub service: Service,
    pub revisions: Vec<Revision>,
}

impl Deployment<'_> {
    pub fn template(mut self, change: impl FnOnce(&mut RevisionTemplate)) -> Self {
        change(&mut self.service.template);
        self
    }

    /// The word that tells the function how to behave.
    pub fn mode(self, mode: &str) -> Self {
        let args = vec!["-B".to_owned(), "/workspace/main.py".to_owned(), mode.to_owned()];
        self.template(|template| template.container.args = args)
    }

    pub fn service(mut self, change: impl FnOnce(&mut Service)) -> Self {
        change(&mut self.service);
        self
    }

    /// One more revision of the template as it is now.
    pub fn revision(&mut self) -> Revision {
        let number = self.revisions.len() + 1;
        let name = RevisionName::parse(&format!("{}-{number:05}-abc", self.service.key.service)).expect("name");
        let revision = Revision {
            service: self.service.key.clone(),
            uid: format!("revision-of-{name}"),
            name,
            service_uid: self.service.uid.clone(),
            generation: 1,
            created: Timestamp::UNIX_EPOCH,
            creator: OWNER.to_owned(),
            template: self.service.template.clone(),
            image: Some(self.world.digest.clone()),
            conditions: Vec::new(),
            client: String::new(),
            client_version: String::new(),
        };
        self.revisions.push(revision.clone());
        revision
    }

    /// Writes everything, with all traffic to the last revision, and waits until it is routed.
    pub async fn deploy(&mut self) -> ServiceKey {
        if self.revisions.is_empty() {
            self.revision();
        }
        let last = self.revisions.last().expect("one").name.clone();
        self.traffic(&[(&last, 100, None)]).await
    }

    pub async fn traffic(&mut self, traffic: &[(&RevisionName, u32, Option<&str>)]) -> ServiceKey {
        let target = |(revision, percent, tag): &(&RevisionName, u32, Option<&str>)| TrafficStatus {
            revision: (*revision).clone(),
            latest: false,
            percent: *percent,
            tag: tag.map(str::to_owned),
        };
        self.service.status.traffic = traffic.iter().map(target).collect();
        let mut writes = vec![Write::put(key::service(&self.service.key), Expect::Any, &self.service)];
        writes.extend(self.revisions.iter().map(|revision| Write::put(key::revision(&revision.service, &revision.name), Expect::Any, revision)));
        self.world.store.commit(writes).await.expect("commit");
        self.settle().await;
        self.service.key.clone()
    }

    /// Waits until the table of services has what was written before: the watch gives changes in order.
    async fn settle(&self) {
        let probe = self.world.service().service(|service| service.invoker_iam_disabled = false);
        let name = RevisionName::parse(&format!("{}-00001-abc", probe.service.key.service)).expect("name");
        let mut service = probe.service.clone();
        service.status.traffic = vec![TrafficStatus { revision: name, latest: true, percent: 100, tag: None }];
        self.world.store.commit(vec![Write::put(key::service(&service.key), Expect::Any, &service)]).await.expect("commit");
        let host = host(&service.key);
        // A service without a revision: 403 as soon as the table has it.
        until("the table follows", || async { self.world.get(&host, "/").await.status == 403 }).await;
        self.world.store.commit(vec![Write::delete(key::service(&service.key), Expect::Any)]).await.expect("commit");
    }
}

/// The deterministic host of a service.
pub fn host(service: &ServiceKey) -> String {
    format!("{}.run.app", model::address::host_deterministic(&service.service, NUMBER, service.region.as_str()))
}

// --- calling --------------------------------------------------------------------------------------------------------

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

pub fn outside() -> Origin {
    Origin::Outside { remote: "192.0.2.7:4000".parse().expect("an address"), tls: true }
}

pub fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed()
}

pub fn request(method: &str, host: &str, path: &str) -> http::request::Builder {
    http::Request::builder().method(method).uri(path).header("host", host)
}

impl World {
    pub async fn send(&self, request: Request) -> Answer {
        whole(self.serving.handle(outside(), request).await).await
    }

    pub async fn get(&self, host: &str, path: &str) -> Answer {
        self.send(request("GET", host, path).body(full("")).expect("a request")).await
    }
}

pub async fn whole(response: Response) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
}
