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

/// Pub/Sub: one publish, in messages and in bytes of all data, attributes and ordering keys. Source: cloud.google.com/pubsub/quotas.
pub const PUBLISH_MESSAGES_MAX: usize = 1000;
pub const PUBLISH_BYTES_MAX: usize = 10_000_000;
pub const ATTRIBUTES_MAX: usize = 100;
pub const ATTRIBUTE_KEY_BYTES_MAX: usize = 256;
pub const ATTRIBUTE_VALUE_BYTES_MAX: usize = 1024;
pub const ORDERING_KEY_BYTES_MAX: usize = 1024;
/// Bytes of one acknowledgement or change of deadlines.
pub const ACK_REQUEST_BYTES_MAX: usize = 512 << 10;
/// Messages of one pull.
pub const PULL_MESSAGES_MAX: usize = 1000;
/// How long a topic keeps its messages, when it does.
pub const TOPIC_RETENTION_MIN_S: u64 = 10 * 60;
pub const TOPIC_RETENTION_MAX_S: u64 = 31 * 24 * 3600;
/// After so long without a subscriber a subscription is deleted.
pub const SUBSCRIPTION_TTL_DEFAULT_S: u64 = 31 * 24 * 3600;
pub const SUBSCRIPTION_TTL_MIN_S: u64 = 24 * 3600;
/// From the oldest message that a snapshot holds to its end; and the least that must be left of it.
pub const SNAPSHOT_LIFE_S: u64 = 7 * 24 * 3600;
pub const SNAPSHOT_LIFE_MIN_S: u64 = 3600;
/// Of a project.
pub const TOPICS_MAX: usize = 10_000;
pub const SUBSCRIPTIONS_MAX: usize = 10_000;
pub const SNAPSHOTS_MAX: usize = 5_000;
pub const PUSH_ENDPOINT_BYTES_MAX: usize = 2048;
/// Labels of one resource.
pub const LABELS_MAX: usize = 64;
