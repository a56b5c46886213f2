//! An image: what a build leaves, and all that an instance's root is made of.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// `sha256:` and 64 hexadecimal digits: the hash of an [`Image`]'s JSON, which is a blob of that name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageDigest(String);

impl ImageDigest {
    /// `None` unless `text` is `sha256:` and 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        (hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))).then(|| Self(text.to_owned()))
    }

    /// The digits without `sha256:`.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The manifest of a built function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Runtime id, such as `python312`.
    pub runtime: String,
    /// The interpreter's own version, such as `3.12.1`.
    pub runtime_version: String,
    /// Host directories that the runtime consists of, bound read-only at the same path.
    pub runtime_paths: Vec<PathBuf>,
    /// Each is laid read-only at its target.
    pub layers: Vec<Layer>,
    /// Absolute path first.
    pub command: Vec<String>,
    pub working_dir: PathBuf,
    /// Set by the build; the service's own variables win.
    pub env: Vec<(String, String)>,
    /// Set from the memory of an instance; the service's own variables win.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory_env: Vec<MemoryVariable>,
    /// What the source makes while it loads, so that clones share it: a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub start_notes: Vec<String>,
}

/// A variable by which a runtime is told how much memory it has: `before`, that many MiB, `after`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryVariable {
    pub name: String,
    pub before: String,
    /// Percent of the instance's memory.
    pub percent: u32,
    pub after: String,
    /// An owner's own value is added to, unless it holds this text. Empty: it stays as it is.
    pub unless: String,
}

impl MemoryVariable {
    /// For an instance of that many bytes.
    pub fn value(&self, memory_bytes: u64) -> String {
        format!("{}{}{}", self.before, (memory_bytes >> 20) * u64::from(self.percent) / 100, self.after)
    }
}

/// A tree of files in the store's layers, by the hash of its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// 64 hexadecimal digits.
    pub digest: String,
    /// Where it lies in an instance: `/workspace` (code), `/layers/python` (dependencies) and the like.
    pub target: PathBuf,
}
