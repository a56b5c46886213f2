//! Conditions: what is true of a resource, and why not.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// One of `Ready`, `ConfigurationsReady`, `RoutesReady` (services) or `Ready`, `ContainerHealthy`,
/// `ResourcesAvailable`, `ContainerReady`, `Active` (revisions), by Knative's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    pub kind: String,
    pub state: State,
    /// A word such as `ContainerMissing`, `HealthCheckContainerError`, `Retired`; empty when true.
    #[serde(default)]
    pub reason: String,
    /// What the user reads; gcloud prints that of `Ready` as the deploy's error.
    #[serde(default)]
    pub message: String,
    pub since: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    True,
    False,
    /// Being worked on.
    Unknown,
}

/// The condition `kind` of `conditions`.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.kind == kind)
}

/// Puts `next` in the place of the condition of its kind. `since` is kept when the state is the same.
pub fn set(conditions: &mut Vec<Condition>, mut next: Condition) {
    match conditions.iter_mut().find(|c| c.kind == next.kind) {
        Some(old) => {
            if old.state == next.state {
                next.since = old.since;
            }
            *old = next;
        }
        None => conditions.push(next),
    }
}
