//! Buckets and objects: the records; the bytes are blobs.
//!
//! What their owners have set about how long things stay (versions, soft deletion, holds, retention) is here with the rules that
//! follow from it; what happens by itself with time is in [`lifecycle`]. Nothing here is stored or looked up.
//! Source of the rules: Cloud Storage's documentation, the pages "Object Versioning", "Soft delete", "Bucket Lock", "Object holds".

pub mod lifecycle;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    hops::Hops,
    name::{ProjectId, ProjectNumber},
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    pub name: String,
    pub project: ProjectId,
    pub location: String,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub metageneration: i64,
    #[serde(default)]
    pub storage_class: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Fields that are kept and given back as they were written (cors, iamConfiguration...), as JSON text.
    #[serde(default)]
    pub kept: BTreeMap<String, String>,
    /// What is overwritten or deleted stays as a noncurrent version.
    #[serde(default)]
    pub versioning: bool,
    /// How long what is deleted for good can be restored.
    #[serde(default)]
    pub soft_delete: SoftDelete,
    /// No object goes before it has this age.
    #[serde(default)]
    pub retention: Option<Retention>,
    /// Objects may have a retention of their own.
    #[serde(default)]
    pub object_retention: bool,
    /// New objects begin with an event-based hold.
    #[serde(default)]
    pub default_event_based_hold: bool,
    /// What happens to objects with time.
    #[serde(default)]
    pub lifecycle: Vec<lifecycle::Rule>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoftDelete {
    /// 0 for none.
    pub retention_s: u64,
    /// Since when; what was deleted before keeps its time.
    pub effective: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    pub period_s: u64,
    pub effective: Timestamp,
    /// It can be made longer only, and not be taken away.
    #[serde(default)]
    pub locked: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    pub bucket: String,
    pub name: String,
    /// Microseconds of its creation, rising within a bucket.
    pub generation: i64,
    pub metageneration: i64,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub size: u64,
    /// The blob with its bytes.
    pub blob: String,
    /// Base64 of the big-endian CRC-32C, and of the MD5, which an object composed of others does not have.
    pub crc32c: String,
    pub md5: String,
    #[serde(default)]
    pub content_type: String,
    #[serde(default)]
    pub content_encoding: String,
    #[serde(default)]
    pub content_disposition: String,
    #[serde(default)]
    pub content_language: String,
    #[serde(default)]
    pub cache_control: String,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Empty: its bucket's.
    #[serde(default)]
    pub storage_class: String,
    /// When its class was changed, if it was.
    #[serde(default)]
    pub class_changed: Option<Timestamp>,
    /// Of how many it is composed; 0 when it was uploaded.
    #[serde(default)]
    pub components: u32,
    #[serde(default)]
    pub custom_time: Option<Timestamp>,
    #[serde(default)]
    pub event_based_hold: bool,
    #[serde(default)]
    pub temporary_hold: bool,
    /// When the last event-based hold was taken off: the bucket's retention counts from there.
    #[serde(default)]
    pub hold_released: Option<Timestamp>,
    #[serde(default)]
    pub retention: Option<ObjectRetention>,
    /// Since when it is not the live version.
    #[serde(default)]
    pub noncurrent: Option<Timestamp>,
    #[serde(default)]
    pub soft_deleted: Option<SoftDeleted>,
}

/// One object's own retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRetention {
    /// It can be made longer only.
    pub locked: bool,
    pub until: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoftDeleted {
    pub at: Timestamp,
    /// When it is gone for good.
    pub until: Timestamp,
}

/// Why an object can neither be deleted nor overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    EventBasedHold,
    TemporaryHold,
    RetainedUntil(Timestamp),
}

impl Object {
    /// The end of the bucket's retention; `None` when it has none, or an event-based hold puts it off.
    pub fn retention_end(&self, bucket: &Bucket) -> Option<Timestamp> {
        let retention = bucket.retention.filter(|_| !self.event_based_hold)?;
        Some(later(self.hold_released.unwrap_or(self.created), retention.period_s))
    }

    /// What keeps it from being deleted or overwritten `now`.
    pub fn lock(&self, bucket: &Bucket, now: Timestamp) -> Option<Lock> {
        if self.event_based_hold {
            return Some(Lock::EventBasedHold);
        }
        if self.temporary_hold {
            return Some(Lock::TemporaryHold);
        }
        let own = self.retention.map(|retention| retention.until);
        self.retention_end(bucket).max(own).filter(|until| *until > now).map(Lock::RetainedUntil)
    }
}

/// `seconds` after `at`, at most the end of the calendar.
pub fn later(at: Timestamp, seconds: u64) -> Timestamp {
    i64::try_from(seconds).ok().and_then(|seconds| at.checked_add(jiff::SignedDuration::from_secs(seconds)).ok()).unwrap_or(Timestamp::MAX)
}

/// What happened to an object: recorded with the change itself, in the order of the changes of one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub kind: ChangeKind,
    pub at: Timestamp,
    pub project: ProjectId,
    /// Which of the buckets that had this name.
    pub bucket_created: Timestamp,
    /// As it was left; for what is gone, as it was.
    pub object: Object,
    /// The generation that it took the place of, or that took its place.
    #[serde(default)]
    pub other: Option<i64>,
    /// What lies behind it.
    #[serde(default, skip_serializing_if = "Hops::is_none")]
    pub hops: Hops,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ChangeKind {
    Finalize,
    Delete,
    Archive,
    MetadataUpdate,
}

impl ChangeKind {
    pub const ALL: [Self; 4] = [Self::Finalize, Self::Delete, Self::Archive, Self::MetadataUpdate];

    /// `eventType` of a notification.
    pub fn name(self) -> &'static str {
        match self {
            Self::Finalize => "OBJECT_FINALIZE",
            Self::Delete => "OBJECT_DELETE",
            Self::Archive => "OBJECT_ARCHIVE",
            Self::MetadataUpdate => "OBJECT_METADATA_UPDATE",
        }
    }
}

/// Where a bucket's changes are told: a configuration of notifications.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// Digits.
    pub id: String,
    /// `projects/P/topics/T`.
    pub topic: String,
    /// Empty for all kinds.
    #[serde(default)]
    pub kinds: Vec<ChangeKind>,
    /// Sent with every message.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    #[serde(default)]
    pub prefix: String,
    /// Whether the object's metadata is the message's data.
    pub payload: bool,
}

impl Notification {
    pub fn wants(&self, change: &Change) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&change.kind)) && change.object.name.starts_with(&self.prefix)
    }
}

/// The agent that at Google acts for a project's buckets, such as when it publishes to a topic.
pub fn agent(project: ProjectNumber) -> String {
    format!("service-{project}@gs-project-accounts.iam.gserviceaccount.com")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_and_retention_lock_an_object() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let bucket = |retention: serde_json::Value| -> Bucket {
            serde_json::from_value(serde_json::json!({
                "name": "b", "project": "local-project", "location": "US", "created": at(0), "updated": at(0), "metageneration": 1, "retention": retention,
            }))
            .unwrap()
        };
        let object = |more: serde_json::Value| -> Object {
            let mut object = serde_json::json!({
                "bucket": "b", "name": "o", "generation": 7, "metageneration": 2, "created": at(0), "updated": at(0), "size": 0, "blob": "", "crc32c": "", "md5": "",
            });
            object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(object).unwrap()
        };
        let (free, ten) = (bucket(serde_json::Value::Null), bucket(serde_json::json!({ "period_s": 10, "effective": at(0) })));
        let none = serde_json::json!({});
        for (bucket, more, now, expect) in [
            (&free, none.clone(), 0, None),
            (&ten, none.clone(), 9, Some(Lock::RetainedUntil(at(10)))),
            (&ten, none, 10, None),
            (&ten, serde_json::json!({ "hold_released": at(100) }), 105, Some(Lock::RetainedUntil(at(110)))),
            (&ten, serde_json::json!({ "event_based_hold": true }), 1000, Some(Lock::EventBasedHold)),
            (&free, serde_json::json!({ "temporary_hold": true }), 0, Some(Lock::TemporaryHold)),
            (&free, serde_json::json!({ "retention": { "locked": false, "until": at(5) } }), 4, Some(Lock::RetainedUntil(at(5)))),
            (&ten, serde_json::json!({ "retention": { "locked": true, "until": at(5) } }), 4, Some(Lock::RetainedUntil(at(10)))),
        ] {
            assert_eq!(object(more.clone()).lock(bucket, at(now)), expect, "{more} at {now}");
        }
        assert_eq!(later(at(0), u64::MAX), Timestamp::MAX);
    }
}
