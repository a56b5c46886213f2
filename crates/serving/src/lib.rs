//! From a request to an instance and back.
//!
//! **Invariant:** no store write and no wait on the control plane in a request's path.

pub mod egress;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use model::{Clock, Revision, RevisionName, ServiceKey, image::Image};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Bodies of requests and answers, streamed.
pub type Body = BoxBody<Bytes, BoxError>;
pub type Request = http::Request<Body>;
pub type Response = http::Response<Body>;

/// Where a request comes from; decided by the listener it came in by, never by a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The host or its network.
    Outside { remote: std::net::SocketAddr, tls: bool },
    /// An instance of a project, or one of the platform's own senders (Pub/Sub, Scheduler, Eventarc).
    Inside { project: String },
}

/// Settings of the data plane.
#[derive(Clone)]
pub struct Config {
    /// Domains under which services have hosts, without port: `run.app`, `run.localhost`, an operator's own.
    pub domains: Vec<String>,
    /// PEM bundle that instances trust (public roots and tanebi's own).
    pub ca_bundle: Vec<u8>,
    /// How long to hold a request when no slot comes free: Google's rule is max(3.5 x average startup, 10 s).
    pub hold_min: Duration,
    pub instance_idle_max: Duration,
}

/// The data plane. Clones share it.
#[derive(Clone)]
pub struct Serving {}

/// Gets every inbound request of an instance that is not for a service: metadata server and Google's API hosts.
pub trait Platform: Send + Sync + 'static {
    /// A request to 169.254.169.254:80 / metadata.google.internal of an instance.
    fn metadata(&self, instance: InstanceIdentity, request: Request) -> futures_util::future::BoxFuture<'static, Response>;
    /// A request of an instance to a host of Google's that tanebi plays (TLS already ended): APIs, accounts, service URLs.
    fn google(&self, project: String, request: Request) -> futures_util::future::BoxFuture<'static, Response>;
}

/// Whose metadata server it is.
#[derive(Clone, Debug)]
pub struct InstanceIdentity {
    pub project: String,
    pub region: String,
    pub service: String,
    pub revision: String,
    /// Long hexadecimal id, as Google's.
    pub instance: String,
    pub service_account: String,
}

/// Why a revision's first instance did not become ready.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartFailure {
    #[error("The user-provided container failed to start and listen on the port defined provided by the PORT={port} environment variable within the allocated timeout.")]
    NotListening { port: u16, last_output: String },
    #[error("The container exited with code {code}.")]
    Exited { code: i32, last_output: String },
    #[error("Memory limit of {limit_mib} MiB exceeded")]
    OutOfMemory { limit_mib: u64, last_output: String },
    #[error("{0}")]
    Platform(String),
}

#[derive(Clone, Debug)]
pub struct InstanceInfo {
    pub id: String,
    pub service: ServiceKey,
    pub revision: RevisionName,
    /// starting, ready, frozen, draining.
    pub state: &'static str,
    pub in_flight: u32,
    pub started: model::Timestamp,
}

impl Serving {
    /// Starts the loops (table watch, autoscaler). `image_of` reads an image's manifest.
    pub fn start(
        config: Config,
        clock: Arc<dyn Clock>,
        store: store::Store,
        iam: iam::Iam,
        telemetry: telemetry::Telemetry,
        keeper: Arc<sandbox::Keeper>,
        platform: Arc<dyn Platform>,
    ) -> Result<Self, BoxError> {
        todo!()
    }
    /// Whether `host` (no port) is one of a service's, existing or not: below one of the domains.
    pub fn owns_host(&self, host: &str) -> bool {
        todo!()
    }
    /// Answers a request for a service by its host, from `host` on: ingress, invoker, traffic, activator, forward, finish. Always an answer.
    pub async fn handle(&self, origin: Origin, request: Request) -> Response {
        todo!()
    }
    /// Answers a request for a service named by path (`/_run/REGION/NAME/...` of the default project); the prefix is already cut off.
    pub async fn handle_service(&self, origin: Origin, service: &ServiceKey, request: Request) -> Response {
        todo!()
    }
    /// Starts the first instance of a new revision and waits until it listens; it stays as the revision's first instance.
    pub async fn prove(&self, revision: &Revision, image: &Image) -> Result<(), StartFailure> {
        todo!()
    }
    pub fn instances(&self) -> Vec<InstanceInfo> {
        todo!()
    }
    /// Drains and ends the instances of a service (all services when `None`): scale to zero now. Returns how many; waits at most `grace`.
    pub async fn stop_instances(&self, service: Option<&ServiceKey>, grace: Duration) -> usize {
        todo!()
    }
    /// Ends everything: no new requests, SIGTERM, `grace`, SIGKILL.
    pub async fn shutdown(&self, grace: Duration) {
        todo!()
    }
}

