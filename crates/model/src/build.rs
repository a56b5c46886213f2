//! A build: source in, image out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    image::ImageDigest,
    name::{ProjectId, Region},
};

/// The record of a build, read through cloudbuild's API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Build {
    pub project: ProjectId,
    pub region: Region,
    /// UUID; its operation has the same id.
    pub id: String,
    pub created: Timestamp,
    #[serde(default)]
    pub started: Option<Timestamp>,
    #[serde(default)]
    pub finished: Option<Timestamp>,
    pub source: StorageSource,
    /// Where the client wants the image, such as `asia-northeast1-docker.pkg.dev/P/cloud-run-source-deploy/NAME`.
    pub image_uri: String,
    /// As the client wrote it, such as `python312`.
    pub base_image: String,
    pub function_target: String,
    #[serde(default)]
    pub enable_automatic_updates: bool,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub service_account: String,
    pub state: BuildState,
    /// Set with `Success`.
    #[serde(default)]
    pub image: Option<ImageDigest>,
    /// Why it failed: what the user reads first.
    #[serde(default)]
    pub failure: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageSource {
    pub bucket: String,
    pub object: String,
    /// 0 means the live one.
    #[serde(default)]
    pub generation: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuildState {
    Queued,
    Working,
    Success,
    Failure,
    InternalError,
    Timeout,
    Cancelled,
}

impl BuildState {
    pub fn is_done(self) -> bool {
        !matches!(self, BuildState::Queued | BuildState::Working)
    }
}
