//! What owners ask for, made true.
//!
//! **Invariant:** loops take no input but the store; doing it twice equals doing it once; knows no wire format.

use std::sync::Arc;

use model::{
    Clock, ProjectId, ProjectNumber, Region, Revision, RevisionName, Service, ServiceKey, Status,
    build::{Build, StorageSource},
    operation::Operation,
    storage::{Bucket, Object},
};

/// The control plane. Clones share it.
#[derive(Clone)]
pub struct Control {}

pub struct Config {
    pub default_project: ProjectId,
    pub default_region: Region,
}

/// A stored thing with the revision that is its etag and resourceVersion.
#[derive(Clone, Debug)]
pub struct Versioned<T> {
    pub value: T,
    pub revision: u64,
}

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Project {
    pub id: ProjectId,
    pub number: ProjectNumber,
    pub name: String,
    pub created: model::Timestamp,
}

/// An Artifact Registry repository: a name only; images are in the store.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Repository {
    pub project: ProjectId,
    pub region: Region,
    pub id: String,
    pub format: String,
    pub description: String,
    pub created: model::Timestamp,
    pub updated: model::Timestamp,
}

pub struct BuildRequest {
    pub project: ProjectId,
    pub region: Region,
    pub source: StorageSource,
    pub image_uri: String,
    pub base_image: String,
    pub function_target: String,
    pub enable_automatic_updates: bool,
    pub env: std::collections::BTreeMap<String, String>,
    pub tags: Vec<String>,
    pub service_account: String,
}

/// Preconditions of an object write or read (ifGenerationMatch and friends); 0 in `generation_match` means "must not exist".
#[derive(Clone, Debug, Default)]
pub struct Preconditions {
    pub generation_match: Option<i64>,
    pub generation_not_match: Option<i64>,
    pub metageneration_match: Option<i64>,
    pub metageneration_not_match: Option<i64>,
}

impl Control {
    pub async fn start(
        config: Config,
        clock: Arc<dyn Clock>,
        store: store::Store,
        iam: iam::Iam,
        telemetry: telemetry::Telemetry,
        builder: build::Builder,
        serving: serving::Serving,
    ) -> Result<Self, Status> {
        todo!()
    }

    // --- projects -----------------------------------------------------------------------------------------------
    pub fn project_get(&self, id_or_number: &str) -> Result<Project, Status> {
        todo!()
    }
    pub fn project_list(&self) -> Result<Vec<Project>, Status> {
        todo!()
    }

    // --- services (permission checks are the api's; actAs on the service account is checked here) -----------------
    pub fn service_get(&self, key: &ServiceKey) -> Result<Versioned<Service>, Status> {
        todo!()
    }
    /// `region` `None` is the wildcard `-`. After `after` (a key), at most `limit`.
    pub fn service_list(&self, project: &ProjectId, region: Option<&Region>, after: Option<&str>, limit: usize) -> Result<Vec<Versioned<Service>>, Status> {
        todo!()
    }
    /// Checks (names, limits, image, traffic) and stores the intent; reconcilers do the rest. `service` has what the owner wrote; uid, generation, times, status are set here.
    /// `dry_run`: everything but the store.
    pub async fn service_create(&self, who: &iam::Identity, service: Service, dry_run: bool) -> Result<(Versioned<Service>, Operation), Status> {
        todo!()
    }
    /// `expected`: the revision that the writer has read; `None` for any. A template that differs makes a revision; one that does not, none.
    pub async fn service_replace(&self, who: &iam::Identity, service: Service, expected: Option<u64>, dry_run: bool) -> Result<(Versioned<Service>, Operation), Status> {
        todo!()
    }
    pub async fn service_delete(&self, who: &iam::Identity, key: &ServiceKey, expected: Option<u64>) -> Result<(Versioned<Service>, Operation), Status> {
        todo!()
    }
    /// Waits until the service is settled (at `generation` or later), or `timeout`.
    pub async fn service_wait(&self, key: &ServiceKey, generation: u64, timeout: std::time::Duration) -> Result<Versioned<Service>, Status> {
        todo!()
    }
    /// All URLs of a service, the deterministic one first: `https://...run.app`.
    pub fn service_urls(&self, service: &Service) -> Vec<String> {
        todo!()
    }
    pub fn revision_get(&self, project: &ProjectId, region: &Region, name: &RevisionName) -> Result<Versioned<Revision>, Status> {
        todo!()
    }
    pub fn revision_list(&self, project: &ProjectId, region: Option<&Region>, service: Option<&model::ServiceName>, after: Option<&str>, limit: usize) -> Result<Vec<Versioned<Revision>>, Status> {
        todo!()
    }
    /// Refused while it gets traffic or is the latest.
    pub async fn revision_delete(&self, who: &iam::Identity, project: &ProjectId, region: &Region, name: &RevisionName) -> Result<(Versioned<Revision>, Operation), Status> {
        todo!()
    }
    pub fn operation_get(&self, project: &ProjectId, region: &Region, id: &str) -> Result<Operation, Status> {
        todo!()
    }
    pub fn operation_list(&self, project: &ProjectId, region: &Region) -> Result<Vec<Operation>, Status> {
        todo!()
    }
    /// The operation when it is done, or as it is after `timeout`.
    pub async fn operation_wait(&self, project: &ProjectId, region: &Region, id: &str, timeout: std::time::Duration) -> Result<Operation, Status> {
        todo!()
    }

    // --- builds ---------------------------------------------------------------------------------------------------
    /// Checks source and base image, stores the build, runs it. Returns it and the base image's full URI.
    pub async fn build_submit(&self, who: &iam::Identity, request: BuildRequest) -> Result<(Build, String), Status> {
        todo!()
    }
    pub fn build_get(&self, project: &ProjectId, region: &Region, id: &str) -> Result<Build, Status> {
        todo!()
    }
    pub fn build_list(&self, project: &ProjectId, region: &Region, limit: usize) -> Result<Vec<Build>, Status> {
        todo!()
    }
    /// The build when it is done, or as it is after `timeout`.
    pub async fn build_wait(&self, project: &ProjectId, region: &Region, id: &str, timeout: std::time::Duration) -> Result<Build, Status> {
        todo!()
    }

    // --- repositories -----------------------------------------------------------------------------------------------
    pub fn repository_get(&self, project: &ProjectId, region: &Region, id: &str) -> Result<Repository, Status> {
        todo!()
    }
    pub fn repository_list(&self, project: &ProjectId, region: &Region) -> Result<Vec<Repository>, Status> {
        todo!()
    }
    pub async fn repository_create(&self, project: &ProjectId, region: &Region, id: &str, format: &str, description: &str) -> Result<(Repository, Operation), Status> {
        todo!()
    }

    // --- buckets and objects ------------------------------------------------------------------------------------------
    pub fn bucket_get(&self, name: &str) -> Result<Versioned<Bucket>, Status> {
        todo!()
    }
    pub fn bucket_list(&self, project: &ProjectId, prefix: &str) -> Result<Vec<Versioned<Bucket>>, Status> {
        todo!()
    }
    /// Names by Google's rules; taken: 409.
    pub async fn bucket_create(&self, bucket: Bucket) -> Result<Versioned<Bucket>, Status> {
        todo!()
    }
    pub async fn bucket_update(&self, bucket: Bucket, expected: u64) -> Result<Versioned<Bucket>, Status> {
        todo!()
    }
    /// Refused while it holds objects.
    pub async fn bucket_delete(&self, name: &str) -> Result<(), Status> {
        todo!()
    }
    pub fn object_get(&self, bucket: &str, name: &str) -> Result<Versioned<Object>, Status> {
        todo!()
    }
    /// Names after `after`, with `prefix`, at most `limit`.
    pub fn object_list(&self, bucket: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Versioned<Object>>, Status> {
        todo!()
    }
    /// The bytes are a blob already; size and hashes were computed while it was written. Generation and times are set here.
    pub async fn object_put(&self, object: Object, preconditions: &Preconditions) -> Result<Versioned<Object>, Status> {
        todo!()
    }
    pub async fn object_update(&self, object: Object, preconditions: &Preconditions) -> Result<Versioned<Object>, Status> {
        todo!()
    }
    pub async fn object_delete(&self, bucket: &str, name: &str, preconditions: &Preconditions) -> Result<(), Status> {
        todo!()
    }
    /// Where blobs are read and written.
    pub fn store(&self) -> &store::Store {
        todo!()
    }
    pub fn serving(&self) -> &serving::Serving {
        todo!()
    }
}
