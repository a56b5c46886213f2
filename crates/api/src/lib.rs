//! Google's shapes.
//!
//! **Invariant:** the only place with Google's shapes; one function a method: translate, call, translate.

use std::sync::Arc;

/// What the surfaces work on.
#[derive(Clone)]
pub struct Deps {
    pub clock: Arc<dyn model::Clock>,
    pub control: control::Control,
    pub iam: iam::Iam,
    pub telemetry: telemetry::Telemetry,
    pub config: Config,
}

#[derive(Clone)]
pub struct Config {
    pub default_project: model::ProjectId,
    pub default_region: model::Region,
    /// Path prefix under which the metadata server answers for shells signed in as others (a secret): see `Api::metadata_shell`.
    pub owner: String,
}

/// Bodies as `serving` has them.
pub type Request = http::Request<axum::body::Body>;
pub type Response = http::Response<axum::body::Body>;

#[derive(Clone)]
pub struct Api {}

impl Api {
    pub fn new(deps: Deps) -> Self {
        todo!()
    }
    /// A request to one of Google's API hosts, or to this server directly by path. `host` without port, lower case. gRPC by content type.
    pub async fn handle(&self, host: &str, request: Request) -> Response {
        todo!()
    }
    /// The metadata server of one identity.
    pub async fn metadata(&self, identity: MetadataIdentity, request: Request) -> Response {
        todo!()
    }
}

/// Whose metadata server it is.
#[derive(Clone, Debug)]
pub struct MetadataIdentity {
    pub project: String,
    pub region: String,
    /// Empty when it is a shell's, not an instance's.
    pub instance: String,
    pub service_account: String,
}
