//! A log entry in the shape that Google's Logging API gives it, before it is JSON.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// google.logging.type.LogSeverity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Severity {
    #[default]
    Default = 0,
    Debug = 100,
    Info = 200,
    Notice = 300,
    Warning = 400,
    Error = 500,
    Critical = 600,
    Alert = 700,
    Emergency = 800,
}

/// Which log, by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LogName {
    /// `run.googleapis.com/requests`
    Requests,
    /// `run.googleapis.com/stdout`
    Stdout,
    /// `run.googleapis.com/stderr`
    Stderr,
    /// `run.googleapis.com/varlog/system`
    System,
    /// `cloudbuild`
    Build,
    /// `cloudscheduler.googleapis.com/executions`
    Executions,
    /// `cloudaudit.googleapis.com/activity`: calls that change something, by whom.
    Activity,
    /// `pubsub.googleapis.com/push`: pushes that a rule of this server's forbids.
    Push,
}

impl LogName {
    pub const ALL: [LogName; 8] =
        [LogName::Requests, LogName::Stdout, LogName::Stderr, LogName::System, LogName::Build, LogName::Executions, LogName::Activity, LogName::Push];
}

/// The one thing that entries of an instance share; made once for each instance.
///
/// Of [`LogName::Activity`] it is an API's: `service` is its host, `revision` the method. Of [`LogName::Push`] `service` is the subscription's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub project: String,
    pub region: String,
    /// Empty for a build and a job.
    pub service: String,
    pub revision: String,
    /// Empty when no instance was involved.
    pub instance: String,
    /// Of a build only.
    #[serde(default)]
    pub build: String,
    /// Of a job of Cloud Scheduler only: its id.
    #[serde(default)]
    pub job: String,
    /// `cloudfunctions` when the service is a function's; empty otherwise.
    #[serde(default)]
    pub managed_by: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub source: Arc<Source>,
    pub log: LogName,
    pub time: Timestamp,
    pub severity: Severity,
    pub payload: Payload,
    #[serde(default)]
    pub http: Option<HttpRequest>,
    /// `projects/P/traces/ID`.
    #[serde(default)]
    pub trace: String,
    #[serde(default)]
    pub span: String,
    #[serde(default)]
    pub trace_sampled: bool,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Payload {
    None,
    Text(String),
    /// A structured line of the function's, less the fields that were understood. JSON text of an object.
    Json(String),
    /// A `google.cloud.audit.AuditLog`, as JSON text.
    Audit(String),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HttpRequest {
    pub method: Cow<'static, str>,
    pub url: String,
    pub request_bytes: u64,
    pub status: u16,
    pub response_bytes: u64,
    pub user_agent: String,
    pub remote_ip: String,
    pub referer: String,
    pub latency_us: u64,
    pub protocol: Cow<'static, str>,
}
