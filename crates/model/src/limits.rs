//! Google's defaults and limits, each with its unit. Where they come from: Google's API protos and documentation.

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
