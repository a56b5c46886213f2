//! A long-running operation.

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    name::{ProjectId, Region, ServiceKey},
    status::Status,
    trigger::TriggerKey,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    pub project: ProjectId,
    pub region: Region,
    /// UUID.
    pub id: String,
    pub created: Timestamp,
    /// Set when it is done.
    #[serde(default)]
    pub finished: Option<Timestamp>,
    pub subject: Subject,
    /// Why it failed; `None` while it runs and when it went well.
    #[serde(default)]
    pub error: Option<Status>,
}

/// What an operation works on; its response is that resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Subject {
    Service { key: ServiceKey, uid: String, generation: u64, verb: Verb },
    Repository { name: String },
    Function { key: ServiceKey, uid: String, generation: u64, verb: Verb },
    Revision { key: ServiceKey, revision: String },
    Trigger { key: TriggerKey, uid: String, generation: u64, verb: Verb },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    Create,
    Replace,
    Delete,
}
