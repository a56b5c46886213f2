//! Logs, metrics and billable time.
//!
//! **Invariant:** never blocks or fails a caller; bounded memory; loss is counted.

use std::{path::Path, sync::Arc, time::Duration};

use model::{
    Clock, Timestamp,
    log::{Entry, Severity},
};

#[derive(Clone)]
pub struct Telemetry {}

impl Telemetry {
    /// Opens `telemetry.db` in `dir`; a broken file is set aside and said, never a reason not to start.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        todo!()
    }
    /// Queues an entry. Full queue: it is dropped and counted.
    pub fn log(&self, entry: Entry) {
        todo!()
    }
    /// Waits until what was logged before is readable.
    pub async fn flush(&self) {
        todo!()
    }
    /// Entries that `filter` (Google's Logging query language) matches, in the order asked. `page` is the last page's token.
    /// Synchronous: call on a blocking thread.
    pub fn entries(&self, query: &Query) -> Result<Page, QueryError> {
        todo!()
    }
    /// The meter of a revision; made at first use, shared.
    pub fn meter(&self, key: &MeterKey) -> Arc<Meter> {
        todo!()
    }
    pub fn meters(&self) -> Vec<(MeterKey, Arc<Meter>)> {
        todo!()
    }
    /// Prometheus text format.
    pub fn prometheus(&self) -> String {
        todo!()
    }
}

#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Entries of these projects only.
    pub projects: Vec<String>,
    pub filter: String,
    pub newest_first: bool,
    pub limit: usize,
    pub page: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Each with its insertId: unique, rising.
    pub entries: Vec<(String, Entry)>,
    pub next: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// 1-based line and column of what was not understood.
    #[error("Unparseable filter: {0}")]
    Filter(String),
    #[error(transparent)]
    Read(#[from] Error),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Io(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeterKey {
    pub project: String,
    pub region: String,
    pub service: String,
    pub revision: String,
}

/// A revision's counts; every method is a few atomic operations.
pub struct Meter {}

impl Meter {
    pub fn request(&self, status: u16, latency: Duration) {
        todo!()
    }
    /// Instances now: active (with a request), idle.
    pub fn instances(&self, active: u32, idle: u32) {
        todo!()
    }
    pub fn startup(&self, latency: Duration) {
        todo!()
    }
    /// A stretch of an instance's life that is billed, rounded up to 100 ms by Google's rule.
    pub fn billable(&self, stretch: Duration, cpu_millis: u32, memory_bytes: u64) {
        todo!()
    }
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub requests_by_class: [u64; 6],
    pub latency_ms_p50: f64,
    pub latency_ms_p99: f64,
    pub instances_active: u32,
    pub instances_idle: u32,
    pub starts: u64,
    pub billable_ms_total: u64,
    pub cpu_millis_ms_total: u64,
    pub memory_byte_ms_total: u128,
}

/// One line of a function's output as an entry's severity, payload, time, trace...: JSON objects are understood as Google's agent does.
pub fn line_parse(project: &str, line: &[u8], now: Timestamp, default: Severity) -> LineParsed {
    todo!()
}

#[derive(Clone, Debug)]
pub struct LineParsed {
    pub severity: Severity,
    pub payload: model::log::Payload,
    pub time: Timestamp,
    pub http: Option<model::log::HttpRequest>,
    pub trace: String,
    pub span: String,
    pub trace_sampled: bool,
    pub labels: std::collections::BTreeMap<String, String>,
}
