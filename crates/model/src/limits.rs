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
/// Initial delay, period and timeout of a liveness or readiness probe.
pub const PROBE_MAX_S: u32 = 3600;
/// Volumes in memory of one revision, together with its mounts of secrets.
pub const VOLUMES_MAX: usize = 100;
/// Files of secrets of one revision whose content changes with the secret: a descriptor each goes to the daemon in one message.
pub const CHANGING_SECRETS_MAX: usize = 200;
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
pub const SCHEMAS_MAX: usize = 10_000;
/// Of a schema: the bytes of a definition, and its revisions. Source: cloud.google.com/pubsub/docs/schemas; 300 KB are read as 300,000 bytes.
pub const SCHEMA_DEFINITION_BYTES_MAX: usize = 300_000;
pub const SCHEMA_REVISIONS_MAX: usize = 20;
pub const PUSH_ENDPOINT_BYTES_MAX: usize = 2048;
/// Labels of one resource.
pub const LABELS_MAX: usize = 64;
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
/// Jobs of a project in one region. Source: cloud.google.com/scheduler/quotas.
pub const JOBS_MAX: usize = 5_000;
/// Jobs of one page of a list, which is also the default.
pub const JOBS_PAGE_MAX: usize = 500;

/// How long what was deleted in a bucket can be restored, in seconds, unless its owner says otherwise; the least and the most that
/// is not nothing.
pub const SOFT_DELETE_DEFAULT_S: u64 = 7 * 24 * 3600;
pub const SOFT_DELETE_MIN_S: u64 = 7 * 24 * 3600;
pub const SOFT_DELETE_MAX_S: u64 = 90 * 24 * 3600;
/// A bucket's longest retention period, in seconds: a hundred years of 365.25 days.
pub const RETENTION_MAX_S: u64 = 3_155_760_000;
/// Rules of a bucket's lifecycle, and prefixes and suffixes in all of them.
pub const LIFECYCLE_RULES_MAX: usize = 100;
pub const LIFECYCLE_AFFIXES_MAX: usize = 1000;
/// Configurations of notifications of one bucket.
pub const NOTIFICATIONS_MAX: usize = 100;
/// An object's name, and its custom metadata, in bytes.
pub const OBJECT_NAME_MAX_BYTES: usize = 1024;
pub const OBJECT_METADATA_MAX_BYTES: usize = 8 << 10;
/// Objects that one composition joins.
pub const COMPOSE_SOURCES_MAX: usize = 32;
/// Chunks of a resumable upload are multiples of this, in bytes; how long its session lives, in seconds.
pub const RESUMABLE_QUANTUM_BYTES: usize = 256 << 10;
pub const RESUMABLE_MAX_S: u64 = 7 * 24 * 3600;
/// Parts of a multipart upload, and the least size of all but the last, in bytes.
pub const MULTIPART_PARTS_MAX: u32 = 10_000;
pub const MULTIPART_PART_MIN_BYTES: u64 = 5 << 20;
/// A multipart upload that gets no part for so long is given up, in seconds. Of this server: at Google only a lifecycle rule ends one.
pub const MULTIPART_IDLE_MAX_S: u64 = 7 * 24 * 3600;
/// Multipart uploads of one bucket that are open. Of this server.
pub const MULTIPART_UPLOADS_MAX: usize = 1000;
/// Calls of one batch.
pub const BATCH_CALLS_MAX: usize = 100;
/// How long a signed URL lives, in seconds.
pub const SIGNED_URL_MAX_S: u64 = 7 * 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    /// As Google's documentation has them: the numbers are written once more, so that none is changed by mistake.
    #[test]
    fn limits_of_storage_are_googles() {
        for (what, here, google) in [
            ("soft deletion, default", SOFT_DELETE_DEFAULT_S, 604_800),
            ("soft deletion, least", SOFT_DELETE_MIN_S, 604_800),
            ("soft deletion, most", SOFT_DELETE_MAX_S, 7_776_000),
            ("retention", RETENTION_MAX_S, 3_155_760_000),
            ("lifecycle rules", LIFECYCLE_RULES_MAX as u64, 100),
            ("lifecycle prefixes and suffixes", LIFECYCLE_AFFIXES_MAX as u64, 1000),
            ("notification configurations", NOTIFICATIONS_MAX as u64, 100),
            ("object name", OBJECT_NAME_MAX_BYTES as u64, 1024),
            ("custom metadata", OBJECT_METADATA_MAX_BYTES as u64, 8192),
            ("sources of a composition", COMPOSE_SOURCES_MAX as u64, 32),
            ("chunk of a resumable upload", RESUMABLE_QUANTUM_BYTES as u64, 262_144),
            ("session of a resumable upload", RESUMABLE_MAX_S, 604_800),
            ("parts of a multipart upload", u64::from(MULTIPART_PARTS_MAX), 10_000),
            ("part of a multipart upload", MULTIPART_PART_MIN_BYTES, 5_242_880),
            ("calls of a batch", BATCH_CALLS_MAX as u64, 100),
            ("signed URL", SIGNED_URL_MAX_S, 604_800),
        ] {
            assert_eq!(here, google, "{what}");
        }
    }
}
