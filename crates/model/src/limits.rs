//! Google's defaults and limits, each with its unit. Where they come from: Google's API protos and documentation.

use std::time::Duration;

/// One vCPU.
pub const CPU_DEFAULT_MILLIS: u32 = 1000;
pub const MEMORY_DEFAULT_BYTES: u64 = 512 << 20;
pub const MEMORY_MAX_BYTES: u64 = 32 << 30;
pub const MEMORY_MIN_BYTES: u64 = 128 << 20;
pub const CONCURRENCY_DEFAULT: u32 = 80;
pub const CONCURRENCY_MAX: u32 = 1000;
pub const INSTANCES_MAX_DEFAULT: u32 = 100;
pub const TIMEOUT_DEFAULT_S: u32 = 300;
pub const TIMEOUT_MAX_S: u32 = 3600;
/// Environment variables of one container, and bytes of one name with its value.
pub const ENV_COUNT_MAX: usize = 1000;
pub const ENV_BYTES_MAX: usize = 32 << 10;
/// Names that the platform sets and an owner cannot.
pub const ENV_RESERVED: [&str; 4] = ["PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"];
/// A request's body over HTTP/1, in bytes.
pub const REQUEST_BODY_MAX_BYTES: u64 = 32 << 20;
/// How long an instance may take to listen.
pub const STARTUP_MAX_S: u32 = 240;
/// Between SIGTERM and SIGKILL.
pub const SHUTDOWN_GRACE_S: u32 = 10;
/// How long an idle instance is kept, at most.
pub const IDLE_MAX_S: u32 = 900;
pub const SERVICES_MAX: usize = 1000;
pub const REVISIONS_MAX: usize = 1000;

/// An archive of source: packed bytes, unpacked bytes, entries, and unpacked bytes for one packed one.
pub const SOURCE_PACKED_MAX_BYTES: u64 = 100 << 20;
pub const SOURCE_MAX_BYTES: u64 = 500 << 20;
pub const SOURCE_ENTRIES_MAX: usize = 20_000;
pub const SOURCE_RATIO_MAX: u64 = 100;

/// A job of Cloud Scheduler: its id, description, target's URI and headers, and all that its owner set, as it is kept.
pub const JOB_ID_MAX_BYTES: usize = 500;
pub const JOB_DESCRIPTION_MAX_CHARS: usize = 500;
pub const JOB_URI_MAX_BYTES: usize = 2083;
/// Their sum is below it.
pub const JOB_HEADERS_MAX_BYTES: usize = 80 << 10;
pub const JOB_MAX_BYTES: usize = 1 << 20;
/// How long one attempt may take.
pub const JOB_DEADLINE_DEFAULT: Duration = Duration::from_secs(180);
pub const JOB_DEADLINE_MIN: Duration = Duration::from_secs(15);
pub const JOB_DEADLINE_MAX: Duration = Duration::from_secs(30 * 60);
/// Attempts after the first.
pub const JOB_RETRIES_MAX: u32 = 5;
pub const JOB_BACKOFF_MIN_DEFAULT: Duration = Duration::from_secs(5);
pub const JOB_BACKOFF_MAX_DEFAULT: Duration = Duration::from_secs(3600);
pub const JOB_DOUBLINGS_DEFAULT: u32 = 5;
/// Jobs of one page of a list, which is also the default.
pub const JOBS_PAGE_MAX: usize = 500;
