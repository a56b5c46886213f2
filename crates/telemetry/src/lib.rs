//! Logs, metrics and billable time.
//!
//! **Invariant:** never blocks or fails a caller; bounded memory; loss is counted.
//!
//! [`Telemetry`] is the way in. An entry goes through `queue` to the one thread of `writer`, which puts batches into
//! `telemetry.db` (`database`); `query` reads them by a `filter`, Google's Logging query language. `shape` knows how
//! Google names what an entry comes from, `line` how a function's output becomes an entry. `meter` counts, `prometheus`
//! prints what was counted; `utilization` keeps what instances used, minute by minute.

mod database;
mod filter;
mod histogram;
mod line;
mod meter;
mod prometheus;
mod query;
mod queue;
mod shape;
mod telemetry;
mod utilization;
mod writer;

pub use database::Error;
pub use filter::syntax;
pub use line::{LINE_MAX_BYTES, LineParsed, line_parse};
pub use meter::{Meter, MeterKey, RUNGS, Snapshot};
pub use query::{FILTER_MAX_BYTES, PAGE_MAX, Page, Query, QueryError};
pub use shape::{entry_labels, log_id, log_name, resource_labels, resource_type, severity_name, severity_parse};
pub use telemetry::{Retention, Telemetry};
pub use utilization::{BUCKETS, MINUTES_MAX, Minute, Spread};
