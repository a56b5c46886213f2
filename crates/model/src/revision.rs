//! A revision: an immutable snapshot of a service's template.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    condition::Condition,
    image::ImageDigest,
    name::{RevisionName, ServiceKey},
};

/// What every instance of a revision is made from. Shape of run v2's RevisionTemplate, one container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevisionTemplate {
    /// The whole name that the owner asked for (`--revision-suffix`); drawn when none.
    #[serde(default)]
    pub revision: Option<RevisionName>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    pub container: Container,
    /// 0..; instances kept without requests.
    #[serde(default)]
    pub min_instances: u32,
    /// 100 when unset.
    #[serde(default)]
    pub max_instances: Option<u32>,
    /// Requests one instance serves at a time, 1..=1000; when unset 80, or 1 below 1 vCPU.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// 1..=3600; 300 when unset.
    #[serde(default)]
    pub timeout_s: Option<u32>,
    /// E-mail; the project's default compute account when empty.
    #[serde(default)]
    pub service_account: String,
    #[serde(default)]
    pub execution_environment: ExecutionEnvironment,
    /// Clients are led back to the instance that answered them first, as far as that can be.
    #[serde(default)]
    pub session_affinity: bool,
    /// A revision is ready without an instance that has passed its startup probe (`--no-deploy-health-check`).
    #[serde(default)]
    pub health_check_disabled: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Container {
    #[serde(default)]
    pub name: String,
    /// As the client wrote it, such as `asia-northeast1-docker.pkg.dev/P/cloud-run-source-deploy/NAME@sha256:...`.
    pub image: String,
    /// The base image whose updates are wanted, of `run.googleapis.com/base-images`.
    #[serde(default)]
    pub base_image: String,
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub args: Vec<String>,
    /// In order, as the client gave them.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Variables whose values are secrets: read whenever an instance starts, kept nowhere.
    #[serde(default)]
    pub secret_env: Vec<(String, SecretRef)>,
    /// Folders with secrets as files, read likewise.
    #[serde(default)]
    pub secret_mounts: Vec<SecretMount>,
    /// Empty folders in memory, writable; each instance has its own.
    #[serde(default)]
    pub memory_mounts: Vec<MemoryMount>,
    /// 1000 is one vCPU; 1000 when unset.
    #[serde(default)]
    pub cpu_millis: Option<u32>,
    /// 512 MiB when unset.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// 8080 when unset.
    #[serde(default)]
    pub port: Option<u16>,
    /// The port's name: false is `http1`, true `h2c`.
    #[serde(default)]
    pub h2c: bool,
    /// Request-based billing: no CPU between requests. True when unset (`--cpu-throttling`).
    #[serde(default)]
    pub cpu_idle: Option<bool>,
    #[serde(default)]
    pub startup_cpu_boost: bool,
    #[serde(default)]
    pub startup_probe: Option<Probe>,
    /// An instance that fails it is ended.
    #[serde(default)]
    pub liveness_probe: Option<Probe>,
    /// An instance that fails it gets no requests until it passes again.
    #[serde(default)]
    pub readiness_probe: Option<Probe>,
}

/// A version of a secret of the service's own project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRef {
    /// The secret's id.
    pub secret: String,
    /// A number, an alias or `latest`.
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretMount {
    /// Of the volume.
    pub name: String,
    /// Where the folder is, absolute.
    pub path: String,
    pub secret: String,
    /// Version and file in the folder; none is the latest version under the secret's own id.
    pub items: Vec<(String, String)>,
}

/// A volume in memory: what is in it counts as memory of its instance, and is gone with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryMount {
    /// Of the volume.
    pub name: String,
    /// Where the folder is, absolute.
    pub path: String,
    /// Half of the instance's memory when unset.
    #[serde(default)]
    pub size_bytes: Option<u64>,
}

impl SecretMount {
    /// Each file's path and what is in it.
    pub fn files(&self) -> Vec<(String, SecretRef)> {
        let file = |version: &str, file: &str| {
            (format!("{}/{file}", self.path.trim_end_matches('/')), SecretRef { secret: self.secret.clone(), version: version.to_owned() })
        };
        match self.items.as_slice() {
            [] => vec![file("latest", &self.secret)],
            items => items.iter().map(|(version, name)| file(version, name)).collect(),
        }
    }
}

/// The image of a function that has no source yet: its revision starts nothing, and its URL says so.
///
/// Google's console names such an image too.
pub const PLACEHOLDER_IMAGE: &str = "us-docker.pkg.dev/cloudrun/container/placeholder";

impl Container {
    /// Whether there is no source yet.
    pub fn is_placeholder(&self) -> bool {
        self.image == PLACEHOLDER_IMAGE
    }

    /// Every secret that an instance is given.
    pub fn secrets(&self) -> Vec<SecretRef> {
        let files = self.secret_mounts.iter().flat_map(|mount| mount.files().into_iter().map(|(_, source)| source));
        self.secret_env.iter().map(|(_, source)| source.clone()).chain(files).collect()
    }

    /// Files of secrets that name no fixed version: what is in them changes with the secret, as at Google.
    pub fn changing_secrets(&self) -> Vec<(String, SecretRef)> {
        let files = self.secret_mounts.iter().flat_map(SecretMount::files);
        files.filter(|(_, source)| source.version.parse::<u64>().is_err()).collect()
    }
}

/// run v2 Probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    #[serde(default)]
    pub initial_delay_s: u32,
    #[serde(default)]
    pub timeout_s: u32,
    #[serde(default)]
    pub period_s: u32,
    #[serde(default)]
    pub failure_threshold: u32,
    /// Of a readiness probe: passes in a row after which an instance gets requests again. 0 elsewhere.
    #[serde(default)]
    pub success_threshold: u32,
    pub check: Check,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    Tcp { port: u16 },
    Http { path: String, port: u16 },
    Grpc { port: u16, service: String },
}

/// The annotation of a template that chooses a [`Start`].
pub const START: &str = "tanebi.dev/start";
/// Seen at a revision whose instances cannot start as it was chosen: why. Never stored.
pub const START_REFUSED: &str = "tanebi.dev/start-refused";

/// Seen at a revision whose instances may be clones: what its code makes while it loads, as far as its source shows, a sentence a line. Never stored.
pub const START_NOTES: &str = "tanebi.dev/start-notes";

/// How instances after the first come to be: not Google's, so an annotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// As clones of a process that has loaded the revision's code, where that can be: what the code makes while it loads is shared.
    #[default]
    Revision,
    /// As clones of a process that has loaded the framework and not the revision's code: each loads that for itself.
    Runtime,
    /// As the first one: the command is run for each.
    Off,
}

impl Start {
    /// `revision`, `runtime` or `off`.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "revision" => Some(Self::Revision),
            "runtime" => Some(Self::Runtime),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecutionEnvironment {
    #[default]
    Unset,
    Gen1,
    Gen2,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    pub service: ServiceKey,
    pub name: RevisionName,
    pub uid: String,
    /// The service's, not the name alone: a service made again does not own old revisions.
    pub service_uid: String,
    /// The generation of the service that made it.
    pub generation: u64,
    pub created: Timestamp,
    pub creator: String,
    /// With every default filled in, except `revision`.
    pub template: RevisionTemplate,
    /// What the template's image was when the revision was made. `None` only when that image does not exist,
    /// and then the revision never becomes ready.
    #[serde(default)]
    pub image: Option<ImageDigest>,
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Copied from the service, as labels and logs need them.
    #[serde(default)]
    pub client: String,
    #[serde(default)]
    pub client_version: String,
}

impl RevisionTemplate {
    pub fn cpu_millis(&self) -> u32 {
        self.container.cpu_millis.unwrap_or(crate::limits::CPU_DEFAULT_MILLIS)
    }

    pub fn memory_bytes(&self) -> u64 {
        self.container.memory_bytes.unwrap_or(crate::limits::MEMORY_DEFAULT_BYTES)
    }

    /// How instances after the first come to be. What is not understood is refused when the template is checked.
    pub fn start(&self) -> Start {
        self.annotations.get(START).and_then(|word| Start::parse(word)).unwrap_or_default()
    }

    /// Whether its owner has said that instances may share what its code makes while it loads.
    pub fn sharing_is_chosen(&self) -> bool {
        self.annotations.contains_key(START) && self.start() == Start::Revision
    }

    pub fn concurrency(&self) -> u32 {
        self.concurrency.filter(|n| *n > 0).unwrap_or(if self.cpu_millis() < 1000 { 1 } else { crate::limits::CONCURRENCY_DEFAULT })
    }

    pub fn max_instances(&self) -> u32 {
        self.max_instances.filter(|n| *n > 0).unwrap_or(crate::limits::INSTANCES_MAX_DEFAULT)
    }

    pub fn timeout(&self) -> std::time::Duration {
        std::time::Duration::from_secs(u64::from(self.timeout_s.filter(|n| *n > 0).unwrap_or(crate::limits::TIMEOUT_DEFAULT_S)))
    }

    /// How large a volume in memory may grow: never beyond the memory of its instance.
    pub fn volume_bytes(&self, mount: &MemoryMount) -> u64 {
        mount.size_bytes.unwrap_or(self.memory_bytes() / 2).min(self.memory_bytes())
    }

    pub fn port(&self) -> u16 {
        self.container.port.unwrap_or(8080)
    }

    pub fn cpu_idle(&self) -> bool {
        self.container.cpu_idle.unwrap_or(true)
    }
}
