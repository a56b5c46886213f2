//! Google's shapes.
//!
//! **Invariant:** the only place with Google's shapes; one function a method: translate, call, translate.
//!
//! The way of a request: [`front`] finds the method by host and path, [`caller`] says who asks, [`permission`] whether
//! they may, then the method's own function answers. REST methods that Google defines in protos arrive at the gRPC
//! service that implements them ([`transcode`]); those that have no proto are endpoints of a [`surface`].

mod app;
#[cfg(test)]
mod arbitrary;
mod artifact_registry;
mod audit;
mod caller;
mod cloud_build;
mod convert;
mod credentials;
mod deny_policies;
mod error;
mod eventarc;
mod filter;
mod front;
mod functions;
mod groups;
mod grpc;
mod iam_admin;
mod iam_policy;
mod iam_roles;
mod location;
mod logging;
mod mask;
mod metadata;
mod monitoring;
mod oauth;
mod operation;
mod page;
mod permission;
mod policy;
mod pubsub;
mod quantity;
mod resource_manager;
mod run_v1;
mod run_v2;
mod scheduler;
mod secret_manager;
mod service_usage;
mod sign_in;
mod simulator;
mod storage;
mod surface;
mod tanebi;
mod template;
mod transcode;
mod transport;
mod version;

use std::sync::Arc;

pub use error::{Error, not_played};

/// What the surfaces work on.
#[derive(Clone)]
pub struct Deps {
    /// The wall clock.
    pub clock: Arc<dyn model::Clock>,
    /// Services, builds, buckets, repositories, projects.
    pub control: control::Control,
    /// Tokens, accounts, policies.
    pub iam: iam::Iam,
    /// Topics and subscriptions.
    pub pubsub: events::pubsub::PubSub,
    /// Jobs.
    pub scheduler: events::scheduler::Scheduler,
    /// Logs and meters.
    pub telemetry: telemetry::Telemetry,
    /// What the operator decided.
    pub config: Config,
}

impl Deps {
    /// The same for a call that `hops` lie behind, as far as it changes objects.
    pub(crate) fn behind(self, hops: &model::Hops) -> Self {
        Self { control: self.control.behind(hops), ..self }
    }
}

/// What the operator decided.
#[derive(Clone)]
pub struct Config {
    /// The project that shells and instances belong to when nothing else is said.
    pub default_project: model::ProjectId,
    /// The region of a request whose host names none (`http://127.0.0.1:8080/apis/...`).
    pub default_region: model::Region,
    /// Path prefix under which the metadata server answers for shells signed in as others (a secret): see `Api::metadata_shell`.
    pub owner: String,
}

/// Bodies as `serving` has them.
pub type Request = http::Request<axum::body::Body>;
/// What every method answers in the end.
pub type Response = http::Response<axum::body::Body>;

/// An extension of a request that came over TLS, put there by whoever ended it: links in the answer begin with https.
#[derive(Clone, Copy, Debug)]
pub struct OverTls;

/// An extension of a request: the address that it came from, put there by whoever accepted it. Without one it came from inside.
#[derive(Clone, Copy, Debug)]
pub struct CallerAddress(pub std::net::IpAddr);

/// Google's APIs. Clones share it.
#[derive(Clone)]
pub struct Api(Arc<front::Front>);

impl Api {
    /// Builds every route table.
    ///
    /// # Panics
    /// When two methods of one host claim the same path: a mistake in this crate that its tests show.
    pub fn new(deps: Deps) -> Self {
        Self(Arc::new(front::Front::new(deps)))
    }

    /// A request to one of Google's API hosts, or to this server directly by path. `host` without port, lower case. gRPC by content type.
    /// What lies behind it ([`model::Hops`]) is an extension, as its address is.
    pub async fn handle(&self, host: &str, request: Request) -> Response {
        self.0.handle(host, request).await
    }

    /// Who signs in with `credentials`, for the console.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when they are not good, `RESOURCE_EXHAUSTED` after too many tries.
    pub async fn sign_in(&self, credentials: Credentials) -> Result<iam::Identity, model::Status> {
        self.0.sign_in(credentials).await
    }

    /// Whether an API lives on `host`, which is one of Google's. [`not_played`] says what it means when none does.
    pub fn plays(&self, host: &str) -> bool {
        self.0.plays(host)
    }

    /// Every REST method that is served, with what it needs: for documents, and for the test that calls each without it.
    pub fn served(&self) -> Vec<Served> {
        self.0.served()
    }

    /// The metadata server of one identity.
    pub async fn metadata(&self, identity: MetadataIdentity, request: Request) -> Response {
        self.0.metadata(identity, request).await
    }
}

/// What a person signs in with.
pub enum Credentials {
    /// The secret of a one-time link.
    Link(String),
    Password {
        email: String,
        password: String,
    },
}

/// One REST method.
#[derive(Clone, Debug)]
pub struct Served {
    /// The API, or the method's name in its proto.
    pub api: String,
    pub verb: http::Method,
    /// The first of its hosts.
    pub host: &'static str,
    /// `*` for a part of any value, `**` for several.
    pub path: String,
    pub needs: Needs,
}

/// What a method asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Not even credentials.
    Nothing,
    /// Good credentials of anyone.
    Credentials,
    /// This permission on the resource that the path or the request's name field names.
    Permission(&'static str),
    /// This permission on each resource that the body names: the method itself asks.
    PermissionInside(&'static str),
}

/// Whose metadata server it is.
#[derive(Clone, Debug)]
pub struct MetadataIdentity {
    /// The project's id.
    pub project: String,
    /// The region, such as `asia-northeast1`.
    pub region: String,
    /// Empty when it is a shell's, not an instance's.
    pub instance: String,
    /// E-mail of the account whose tokens it gives.
    pub service_account: String,
}
