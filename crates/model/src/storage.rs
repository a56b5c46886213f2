//! Buckets and objects: the records; the bytes are blobs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{clock::Timestamp, name::ProjectId};

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
    /// Fields that are kept and given back without an effect here (cors, iamConfiguration...), as JSON text.
    #[serde(default)]
    pub kept: BTreeMap<String, String>,
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
    /// Base64 of the big-endian CRC-32C, and of the MD5.
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
}
