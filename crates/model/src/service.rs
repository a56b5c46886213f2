//! A service: what its owner asked for (shape of run v2) and what came of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    condition::Condition,
    name::{RevisionName, ServiceKey},
    revision::RevisionTemplate,
};

/// The annotation of a service that chooses a [`Shadow`].
pub const SHADOW: &str = "tanebi.dev/shadow";
/// The annotation that names the revision which keeps the latest one's share of requests until copies were answered well
/// ([`Service::shadow_release`]).
pub const SHADOW_HELD: &str = "tanebi.dev/shadow-held";

/// Which requests of a service may be sent again as copies, to see what a new revision answers before it takes traffic. Not Google's,
/// so an annotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shadow {
    /// Only when someone asks, and only those that read.
    #[default]
    Off,
    /// GET, HEAD and OPTIONS.
    Reads,
    /// All others too: what such a request does is done again.
    All,
}

impl Shadow {
    /// By the annotation's text; `None` for another one.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self::Off),
            "reads" => Some(Self::Reads),
            "all" => Some(Self::All),
            _ => None,
        }
    }

    /// What `annotations` choose; what is not understood was never accepted.
    pub fn of(annotations: &BTreeMap<String, String>) -> Self {
        annotations.get(SHADOW).and_then(|text| Self::parse(text)).unwrap_or_default()
    }
}

/// The canonical resource. run v1 (Knative), run v2 and functions v2 are mappings of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub key: ServiceKey,
    /// UUID; a service deleted and made again has another one.
    pub uid: String,
    /// Counts changes of what the owner asked for, from 1.
    pub generation: u64,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations nobody here understands, kept and given back. Understood ones are fields.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    pub created: Timestamp,
    pub updated: Timestamp,
    /// Set while the service is being deleted: it serves no more.
    #[serde(default)]
    pub deleted: Option<Timestamp>,
    /// E-mail of who made it.
    pub creator: String,
    pub last_modifier: String,
    #[serde(default)]
    pub client: String,
    #[serde(default)]
    pub client_version: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub ingress: Ingress,
    /// `--no-invoker-iam-check`.
    #[serde(default)]
    pub invoker_iam_disabled: bool,
    /// `--no-default-url`.
    #[serde(default)]
    pub default_uri_disabled: bool,
    #[serde(default)]
    pub custom_audiences: Vec<String>,
    #[serde(default)]
    pub scaling: ServiceScaling,
    /// How the source became the image, when it was a source deploy.
    #[serde(default)]
    pub build_config: Option<BuildConfig>,
    pub template: RevisionTemplate,
    /// Never empty: 100 % to the latest when the owner says nothing.
    pub traffic: Vec<TrafficTarget>,
    #[serde(default)]
    pub status: ServiceStatus,
}

/// Who may reach a service at all, before IAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ingress {
    #[default]
    All,
    Internal,
    InternalAndLoadBalancer,
    None,
}

/// Limits over all revisions of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceScaling {
    /// `--min`; 0 when unset.
    #[serde(default)]
    pub min_instances: u32,
    /// `--max`; none when unset.
    #[serde(default)]
    pub max_instances: Option<u32>,
    /// `--scaling=N`; automatic when none.
    #[serde(default)]
    pub manual_instances: Option<u32>,
}

/// run v2 BuildConfig; in v1 the annotations `run.googleapis.com/build-*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildConfig {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub source_location: String,
    #[serde(default)]
    pub function_target: String,
    #[serde(default)]
    pub image_uri: String,
    #[serde(default)]
    pub base_image: String,
    #[serde(default)]
    pub enable_automatic_updates: bool,
    #[serde(default)]
    pub environment_variables: BTreeMap<String, String>,
    #[serde(default)]
    pub service_account: String,
    #[serde(default)]
    pub worker_pool: String,
}

/// A share of the requests, asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficTarget {
    /// `None` means: the latest ready revision.
    #[serde(default)]
    pub revision: Option<RevisionName>,
    /// 0..=100; all of a service sum to 100.
    pub percent: u32,
    /// A tag gives the target a URL of its own.
    #[serde(default)]
    pub tag: Option<String>,
}

/// A share of the requests, as served now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficStatus {
    pub revision: RevisionName,
    /// Whether this target follows the latest.
    #[serde(default)]
    pub latest: bool,
    pub percent: u32,
    #[serde(default)]
    pub tag: Option<String>,
}

/// Written by the reconcilers only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The generation that `conditions` speak of.
    #[serde(default)]
    pub observed_generation: u64,
    #[serde(default)]
    pub conditions: Vec<Condition>,
    #[serde(default)]
    pub latest_created: Option<RevisionName>,
    #[serde(default)]
    pub latest_ready: Option<RevisionName>,
    /// What the router serves.
    #[serde(default)]
    pub traffic: Vec<TrafficStatus>,
    /// Counts revisions made, for names such as `NAME-00001-abc`.
    #[serde(default)]
    pub revisions_created: u64,
}

impl Service {
    /// Whether the reconcilers have come to an end, good or bad, with what the owner asked for last.
    pub fn is_settled(&self) -> bool {
        self.status.observed_generation == self.generation
            && crate::condition::find(&self.status.conditions, "Ready").is_some_and(|c| c.state != crate::condition::State::Unknown)
    }

    /// Gives the latest revision the share that [`SHADOW_HELD`] kept from it. `false`, and nothing changes, when none is held: because
    /// nothing was, or because the owner has moved traffic since.
    pub fn shadow_release(&mut self) -> bool {
        let Some(held) = self.annotations.get(SHADOW_HELD) else { return false };
        let is_held = |target: &&mut TrafficTarget| target.percent > 0 && target.revision.as_ref().is_some_and(|name| name.as_str() == held);
        let Some(target) = self.traffic.iter_mut().find(is_held) else { return false };
        target.revision = None;
        self.annotations.remove(SHADOW_HELD);
        true
    }
}
