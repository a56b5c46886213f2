//! What the tests stand on: a whole API over a new store, callers with tokens, and calls.

use std::{os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use api::{Api, Deps};
use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use model::{ProjectId, Region, Timestamp, image::Image};
use prost::Message;
use sandbox::Keeper;
use serde_json::Value as Json;
use store::{Expect, Store, Write};

pub const PROJECT: &str = "local-project";
pub const REGION: &str = "asia-northeast1";
pub const RUN: &str = "run.googleapis.com";
pub const RUN_REGION: &str = "asia-northeast1-run.googleapis.com";

pub struct World {
    pub api: Api,
    pub iam: iam::Iam,
    pub store: Store,
    pub number: u64,
    /// `NAME@sha256:...` of an image whose command does not exist.
    pub image: String,
    pub owner: String,
    pub viewer: String,
    pub stranger: String,
}

/// Forks the keeper. The process must have one thread.
pub fn keeper(dir: &Path) -> Keeper {
    let me = (rustix_uid(dir), rustix_gid(dir));
    sandbox::fork_keeper(sandbox::KeeperConfig { dir: dir.join("keeper"), writable_under: vec![dir.to_owned()], daemon_uid: me.0, daemon_gid: me.1 })
        .expect("a keeper")
}

/// The owner of a folder that this process has just made: its own uid.
fn rustix_uid(dir: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(dir).expect("the folder is there").uid()
}

fn rustix_gid(dir: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(dir).expect("the folder is there").gid()
}

pub struct Clock;

impl model::Clock for Clock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn until(&self, _: Timestamp) -> model::clock::Until {
        Box::pin(std::future::pending())
    }
}

/// Nothing in these tests comes so far as to use a network.
struct NoNetwork;

impl serving::InstanceNetwork for NoNetwork {
    fn serve(&self, _: serving::InstanceIdentity, _: OwnedFd, _: OwnedFd, _: OwnedFd, _: OwnedFd, _: tokio_util::sync::CancellationToken) {}
}

impl build::BuildEgress for NoNetwork {
    fn serve(&self, _: &mut sandbox::Sandbox, _: &[&str]) -> Box<dyn Send> {
        Box::new(())
    }
}

impl World {
    pub async fn new(dir: &Path, keeper: Arc<Keeper>) -> Self {
        let clock: Arc<dyn model::Clock> = Arc::new(Clock);
        let (default_project, default_region) = (ProjectId::parse(PROJECT).unwrap(), Region::parse(REGION).unwrap());
        let store = Store::open(&dir.join("state")).unwrap();
        let vault = iam::Vault::open(&dir.join("vault.keys"), &store).unwrap();
        let telemetry = telemetry::Telemetry::open(&dir.join("state"), clock.clone()).unwrap();
        let project = control::project_ensure(&store, &*clock, &default_project).await.unwrap();
        let iam = iam::Iam::open(store.clone(), clock.clone(), project.id.clone(), project.number, "owner@example.com").await.unwrap();
        let serving = serving::Serving::start(
            serving::Config {
                domains: vec!["run.app".into()],
                ca_bundle: Vec::new(),
                java_trust_store: Vec::new(),
                hold_min: Duration::from_secs(1),
                instance_idle_max: Duration::from_secs(1),
                templates_bytes: 1 << 30,
                empty: dir.join("empty"),
                armed_max: 1,
                hops_max: 32,
                vault: vault.clone(),
            },
            clock.clone(),
            store.clone(),
            iam.clone(),
            telemetry.clone(),
            keeper.clone(),
            Arc::new(NoNetwork),
        )
        .unwrap();
        std::fs::create_dir_all(dir.join("build")).unwrap();
        let builder = build::Builder::new(
            build::Config {
                dir: dir.join("build"),
                ca_bundle: Vec::new(),
                java_trust_store: Vec::new(),
                egress: Arc::new(NoNetwork),
                timeout: Duration::from_secs(60),
                memory_bytes: 1 << 30,
                package_environment: Vec::new(),
                catalogue: build::Catalogue::default(),
                looker: None,
                clock: clock.clone(),
            },
            store.clone(),
            keeper,
        )
        .unwrap();
        let deliverer = events::deliver::Deliverer::new(serving.clone(), iam.clone());
        let outside = Arc::new(events::pubsub::Platform { iam: iam.clone(), deliverer: deliverer.clone(), clock: clock.clone(), log: Arc::new(drop) });
        let pubsub = events::pubsub::PubSub::open(store.clone(), clock.clone(), outside).await.unwrap();
        let config = control::Config { default_project: default_project.clone(), default_region: default_region.clone(), files_clock: clock.clone(), vault };
        let control =
            control::Control::start(config, clock.clone(), store.clone(), iam.clone(), telemetry.clone(), builder, serving, pubsub.clone()).await.unwrap();
        let busy = deliverer.busy().clone();
        let way = events::scheduler::Sender { deliverer, iam: iam.clone(), clock: clock.clone(), topics: pubsub.clone() };
        let (scheduler, _) = events::scheduler::Scheduler::start(store.clone(), clock.clone(), Arc::new(way), busy, Box::new(drop)).await.unwrap();
        let image = image_put(&store).await;
        let api = Api::new(Deps {
            clock,
            control,
            iam: iam.clone(),
            pubsub,
            scheduler,
            telemetry,
            config: api::Config { default_project, default_region, owner: "owner@example.com".to_owned() },
        });
        for email in ["viewer@example.com", "stranger@example.com"] {
            iam.user_create(email).await.unwrap();
        }
        let token = |email: &str| iam.access_token_issue(&iam.identity(email), "", Duration::from_secs(3600)).token;
        let (owner, viewer, stranger) = (token("owner@example.com"), token("viewer@example.com"), token("stranger@example.com"));
        let world = Self { api, number: project.number.0, image, owner, viewer, stranger, iam, store };
        world.viewer_bind().await;
        world
    }

    /// The account that is there from the start.
    pub fn compute(&self) -> String {
        format!("{}-compute@developer.gserviceaccount.com", self.number)
    }

    async fn viewer_bind(&self) {
        let resource = format!("projects/{PROJECT}");
        let mut found = self.iam.policy_get(&resource).unwrap();
        found.policy.bindings.push(model::policy::Binding::new("roles/viewer", vec![model::policy::Member::User("viewer@example.com".to_owned())]));
        self.iam.policy_set(&resource, found.policy, &found.etag).await.unwrap();
    }

    /// A REST call; the answer must be JSON or empty.
    pub async fn call(&self, token: Option<&str>, method: &str, host: &str, path: &str, body: Option<Json>) -> (StatusCode, Json) {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let (status, text) = self.raw(token, method, host, path, "application/json", body.into()).await;
        let json = if text.is_empty() { Json::Null } else { serde_json::from_slice(&text).unwrap_or_else(|_| panic!("{method} {path}: {text:?}")) };
        (status, json)
    }

    /// A REST call of the owner's that goes well.
    pub async fn good(&self, method: &str, host: &str, path: &str, body: Option<Json>) -> Json {
        let (status, json) = self.call(Some(&self.owner), method, host, path, body).await;
        assert_eq!(status, StatusCode::OK, "{method} {path}: {json:#}");
        json
    }

    /// A REST call of the owner's that is refused: HTTP status, `error.status`, `error.message`.
    pub async fn bad(&self, method: &str, host: &str, path: &str, body: Option<Json>) -> (u16, String, String) {
        let (status, json) = self.call(Some(&self.owner), method, host, path, body).await;
        let text = |name: &str| json["error"][name].as_str().unwrap_or_else(|| panic!("{method} {path}: {json:#}")).to_owned();
        assert_eq!(json["error"]["code"], status.as_u16(), "{json:#}");
        (status.as_u16(), text("status"), text("message"))
    }

    pub async fn raw(&self, token: Option<&str>, method: &str, host: &str, path: &str, content_type: &str, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path).header(header::HOST, host);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.header(header::CONTENT_TYPE, content_type).body(Body::from(body)).unwrap();
        let response = self.api.handle(host, request).await;
        let status = response.status();
        (status, axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec())
    }

    /// A gRPC call: the reply, or code and message.
    pub async fn grpc<A: Message + Default>(&self, token: Option<&str>, method: &str, request: &impl Message) -> Result<A, (tonic::Code, String)> {
        let mut frame = vec![0];
        frame.extend(u32::try_from(request.encoded_len()).unwrap().to_be_bytes());
        frame.extend(request.encode_to_vec());
        let mut builder = Request::post(format!("/{method}")).header(header::CONTENT_TYPE, "application/grpc").header(header::TE, "trailers");
        if let Some(token) = token {
            builder = builder.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let (head, body) = self.api.handle(RUN, builder.body(Body::from(frame)).unwrap()).await.into_parts();
        let body = http_body_util::BodyExt::collect(body).await.unwrap();
        let mut meta = head.headers;
        meta.extend(body.trailers().cloned().unwrap_or_default());
        let status = tonic::Status::from_header_map(&meta).expect("a gRPC answer has a status");
        if status.code() != tonic::Code::Ok {
            return Err((status.code(), status.message().to_owned()));
        }
        Ok(A::decode(&body.to_bytes()[5..]).expect("a reply of the method's type"))
    }

    /// A service of run v1 as gcloud would send it.
    pub fn v1_service(&self, name: &str) -> Json {
        serde_json::json!({
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": { "name": name, "namespace": PROJECT },
            "spec": { "template": { "spec": { "containers": [{ "image": self.image, "name": "" }] } } },
        })
    }

    /// A service of run v2.
    pub fn v2_service(&self) -> Json {
        serde_json::json!({ "template": { "containers": [{ "image": self.image }] } })
    }
}

/// An image as a build would have left it.
async fn image_put(store: &Store) -> String {
    let image = Image {
        runtime: "python312".into(),
        runtime_version: "3.12.1".into(),
        memory_env: Vec::new(),
        start_notes: Vec::new(),
        runtime_paths: Vec::new(),
        layers: Vec::new(),
        command: vec!["/nothing/here".into()],
        working_dir: "/".into(),
        env: Vec::new(),
    };
    let hex = store.blobs().put(&serde_json::to_vec(&image).unwrap()).unwrap();
    let name = format!("{REGION}-docker.pkg.dev/{PROJECT}/cloud-run-source-deploy/f@sha256:{hex}");
    let writes = vec![
        Write::put(format!("manifest/{hex}"), Expect::Absent, &image.runtime),
        Write::put(model::key::image(&name), Expect::Absent, &serde_json::json!({ "digest": format!("sha256:{hex}") })),
    ];
    store.commit(writes).await.unwrap();
    name
}
