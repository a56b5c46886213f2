//! From source to image.
//!
//! **Invariant:** user code and package managers run only inside a sandbox.
//!
//! The way of a build: `archive` (unpack) -> `variables`, `plan` (decide) -> `python`, `nodejs`, `go` or `java` (install, or
//! know; compile) -> `image` (keep the manifest). `builder` is that story, `job` what its steps share, and `step` runs each
//! command in its sandbox. `runtime` fetches interpreters that the host does not have.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use model::image::{Image, ImageDigest};

pub mod archive;
mod builder;
mod cache;
pub mod catalogue;
mod environment;
mod fault;
mod go;
mod image;
mod java;
mod job;
mod known;
mod language;
mod later;
mod log;
pub mod look;
mod nodejs;
mod plan;
mod python;
mod record;
mod runtime;
mod script;
mod step;
mod tree;
mod variables;
mod work;

pub use builder::Builder;
pub use catalogue::{Catalogue, Interpreter, Stage};
pub use image::{image_forget, image_get, images};
pub use language::Language;

/// What builds need.
pub struct Config {
    /// Folder for caches and work in progress; sandboxes write below it, so it is one of the keeper's `writable_under`.
    pub dir: PathBuf,
    /// PEM bundle that sandboxes trust.
    pub ca_bundle: Vec<u8>,
    /// The same as a key store that Java reads.
    pub java_trust_store: Vec<u8>,
    /// The network of build steps.
    pub egress: Arc<dyn BuildEgress>,
    /// The wall time of a build, from when it leaves the queue.
    pub timeout: std::time::Duration,
    /// Bytes of memory of a build's sandbox.
    pub memory_bytes: u64,
    /// What the host's own package-manager configuration says (index URLs, proxies), read by the binary and passed in. Variable, value.
    pub package_environment: Vec<(String, String)>,
    /// The interpreters of this host, found before privileges were dropped.
    pub catalogue: Catalogue,
    /// The program that looks at a source in a sandbox, run as `PROGRAM look LANGUAGE FOLDER` (see [`look`]); none: nothing is looked at.
    pub looker: Option<PathBuf>,
    /// Says when dependencies were installed.
    pub clock: Arc<dyn model::Clock>,
}

/// Takes the network ends of a build's sandbox and serves them: DNS, outbound to registries only.
pub trait BuildEgress: Send + Sync + 'static {
    /// Takes `outbound`, `dns_udp` and `dns_tcp`, and serves them until the answer is dropped, which is when the step has ended.
    /// Called on a thread of the async runtime: must not block, and neither must the drop.
    /// `also`: hosts beside the registries.
    fn serve(&self, sandbox: &mut sandbox::Sandbox, also: &[&str]) -> Box<dyn Send>;
}

/// What to build.
pub struct Request {
    /// The project that it is for.
    pub project: String,
    /// Names the build in the folder of work in progress and in its sandboxes.
    pub id: String,
    /// Blob with the archive (zip or tar.gz).
    pub archive: String,
    /// `python312`, `google-22/python312`, a full image path. Empty: by what the source needs.
    pub base_image: String,
    /// Empty: not a function.
    pub function_target: String,
    /// Build environment variables. Google's are honoured or refused.
    pub env: BTreeMap<String, String>,
    /// Whether the log tells what instances would share that are clones ([`look`]): not where its owner wants none.
    pub tells_shared: bool,
}

/// A line of the build's log.
pub type LogLine = String;

/// What a build made.
#[derive(Clone, Debug)]
pub struct Built {
    /// Names the manifest.
    pub digest: ImageDigest,
    /// The manifest.
    pub image: Image,
}

/// Why a build made nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source or its dependencies are at fault; the text says what to do. Its first line is the cause.
    #[error("{0}")]
    User(String),
    /// It took longer than this.
    #[error("the build took longer than {0:?}")]
    Timeout(std::time::Duration),
    /// This host is at fault; for our log.
    #[error("{0}")]
    Internal(String),
}

/// A base image of Google's, and what of it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// `python312`.
    pub id: String,
    pub language: Language,
    /// `Python 3.12`.
    pub name: String,
    /// `google-22`.
    pub stack: String,
    pub stage: Stage,
    /// The days on which Google deprecates and decommissions it, as `2030-10-10`.
    pub deprecated: Option<String>,
    pub decommissioned: Option<String>,
    /// The interpreter's version, its file, and whether tanebi fetched it.
    pub found: Option<(String, PathBuf, bool)>,
    /// Where nothing was found: how to get it, or why not.
    pub missing: String,
}
