//! A function of Cloud Functions v2: a source, how it is built, and the service that runs it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    build::StorageSource,
    clock::Timestamp,
    name::ServiceKey,
    service::Service,
    trigger::{EventFilter, TriggerKey},
};

/// The label of services, revisions and log entries that belong to functions, and its value.
pub const MANAGED_BY: &str = "goog-managed-by";
pub const MANAGED_BY_FUNCTIONS: &str = "cloudfunctions";

/// What its owner asked for, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Function {
    /// A function and its service have one name.
    pub key: ServiceKey,
    /// UUID; a function deleted and made again has another one.
    pub uid: String,
    /// Counts changes of what the owner asked for, from 1.
    pub generation: u64,
    pub created: Timestamp,
    pub updated: Timestamp,
    /// Set while it is being deleted.
    #[serde(default)]
    pub deleted: Option<Timestamp>,
    /// Whose rights it is deployed with.
    pub deployer: Deployer,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub build: FunctionBuild,
    /// What the service is to be; its image is what the build makes.
    pub service: Service,
    /// What calls it; `None`: requests.
    #[serde(default)]
    pub trigger: Option<EventTrigger>,
    /// Triggers that it had before, which are to go.
    #[serde(default)]
    pub triggers_past: Vec<TriggerKey>,
    /// As the owner wrote them, such as `256M` and `0.1666`.
    pub memory: String,
    pub cpu: String,
    #[serde(default)]
    pub status: FunctionStatus,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployer {
    pub email: String,
    pub subject: String,
    pub is_service_account: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionBuild {
    /// Such as `python312`.
    pub runtime: String,
    pub entry_point: String,
    pub source: StorageSource,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub service_account: String,
    /// It is built to take events, not requests.
    #[serde(default)]
    pub is_for_events: bool,
    /// The id of the build of this source; where its image goes.
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub image_uri: String,
}

/// The events that a function is for; its trigger is made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventTrigger {
    /// Its id is given with the first deploy.
    pub key: TriggerKey,
    /// With that of `type`.
    pub filters: Vec<EventFilter>,
    /// `projects/P/topics/T`, for messages of Pub/Sub; made when it is not there, and left when the function goes.
    #[serde(default)]
    pub topic: Option<String>,
    /// An e-mail.
    pub service_account: String,
    /// Whether an event is tried again after a failure.
    #[serde(default)]
    pub is_retried: bool,
}

/// Written by the reconciler only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionStatus {
    /// The generation that came to an end, good or bad.
    #[serde(default)]
    pub observed_generation: u64,
    /// Why it ended badly; empty when it went well.
    #[serde(default)]
    pub failure: String,
    /// The generation whose service was asked for, and the service's own generation then.
    #[serde(default)]
    pub applied_generation: u64,
    #[serde(default)]
    pub service_generation: u64,
    /// The generation whose trigger was asked for, and the trigger's own generation then.
    #[serde(default)]
    pub triggered_generation: u64,
    #[serde(default)]
    pub trigger_generation: u64,
}

impl Function {
    /// `projects/P/locations/R/functions/F`.
    pub fn resource(&self) -> String {
        resource(&self.key)
    }

    /// Whether what the owner asked for last came to an end.
    pub fn is_settled(&self) -> bool {
        self.status.observed_generation == self.generation
    }
}

/// `projects/P/locations/R/functions/F`.
pub fn resource(key: &ServiceKey) -> String {
    format!("projects/{}/locations/{}/functions/{}", key.project, key.region, key.service)
}

/// Whether a service belongs to a function.
pub fn is_managed(service: &Service) -> bool {
    service.labels.get(MANAGED_BY).is_some_and(|by| by == MANAGED_BY_FUNCTIONS)
}
