//! From source to image.
//!
//! **Invariant:** user code and package managers run only inside a sandbox.

pub mod archive;
pub mod catalogue;
mod python;
mod requirements;
mod tree;
mod variables;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use model::image::{Image, ImageDigest};

/// Builds functions. Clones share queue and caches: one build a core at a time, the rest in order.
#[derive(Clone)]
pub struct Builder {}

pub struct Config {
    /// Folder for caches and work in progress; sandboxes write below it, so it is one of the keeper's `writable_under`.
    pub dir: PathBuf,
    /// PEM bundle that sandboxes trust.
    pub ca_bundle: Vec<u8>,
    /// The network of build steps.
    pub egress: Arc<dyn BuildEgress>,
    /// The wall time of a build.
    pub timeout: std::time::Duration,
    /// Bytes of memory of a build's sandbox.
    pub memory_bytes: u64,
    /// What the host's own package-manager configuration says (index URLs, proxies), read by the binary and passed in. Variable, value.
    pub package_environment: Vec<(String, String)>,
}

/// Takes the network ends of a build's sandbox and serves them (DNS, outbound to registries only) until the sandbox ends.
pub trait BuildEgress: Send + Sync + 'static {
    fn serve(&self, sandbox: &mut sandbox::Sandbox);
}

pub struct Request {
    pub id: String,
    /// Blob with the archive (zip or tar.gz).
    pub archive: String,
    /// `python312`, `google-22/python312`, a full image path. Empty: by what the source needs.
    pub base_image: String,
    /// Empty: not a function.
    pub function_target: String,
    pub env: BTreeMap<String, String>,
}

/// A line of the build's log.
pub type LogLine = String;

#[derive(Clone, Debug)]
pub struct Built {
    pub digest: ImageDigest,
    pub image: Image,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source or its dependencies are at fault; the text says what to do.
    #[error("{0}")]
    User(String),
    #[error("the build took longer than {0:?}")]
    Timeout(std::time::Duration),
    #[error("{0}")]
    Internal(String),
}

impl Builder {
    pub fn new(config: Config, store: store::Store, keeper: Arc<sandbox::Keeper>) -> Result<Self, Error> {
        todo!()
    }
    /// Runs to the end; `log` gets each line as it comes.
    pub async fn build(&self, request: Request, log: Arc<dyn Fn(LogLine) + Send + Sync>) -> Result<Built, Error> {
        todo!()
    }
    /// Base image names that can be built on now, with their interpreters' versions and paths.
    pub fn runtimes(&self) -> Vec<Runtime> {
        todo!()
    }
    /// The full URI by which gcloud shows a base image: `REGION-docker.pkg.dev/serverless-runtimes/google-22/runtimes/python312`.
    /// # Errors
    /// `Error::User` for a name that is no base image or not on this host.
    pub fn base_image_uri(&self, base_image: &str, region: &str) -> Result<String, Error> {
        todo!()
    }
}

/// The manifest behind a digest, if this store has it.
pub fn image_get(store: &store::Store, digest: &ImageDigest) -> Result<Option<Image>, store::Error> {
    todo!()
}

#[derive(Clone, Debug)]
pub struct Runtime {
    pub id: String,
    pub version: String,
    pub interpreter: PathBuf,
}
