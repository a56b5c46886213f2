//! A build's own folder, and its sandboxes' names. Both are gone when the build is.

use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sandbox::Keeper;

use crate::Error;

/// Folders of builds, below the configured one.
pub(crate) const WORK: &str = "work";

/// Distinguishes builds of this process, and sandboxes of a build.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Discarded when the last clone is dropped, whoever owns what is in it.
#[derive(Clone)]
pub(crate) struct Work(Arc<Folder>);

struct Folder {
    path: PathBuf,
    name: String,
    keeper: Arc<Keeper>,
}

impl Work {
    pub(crate) fn new(dir: &Path, id: &str, keeper: Arc<Keeper>) -> Result<Self, Error> {
        let plain: String = id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(36).collect();
        let name = format!("build-{plain}-{}", COUNT.fetch_add(1, Ordering::Relaxed) % 1_000_000);
        let path = dir.join(WORK).join(&name);
        folder_make(&path)?;
        Ok(Self(Arc::new(Folder { path, name, keeper })))
    }

    /// A new empty folder, for a sandbox to write to. Made again when it is there.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.0.path.join(name);
        if path.symlink_metadata().is_ok() {
            self.0.keeper.discard(&path).map_err(|e| Error::Internal(format!("emptying {}: {e}", path.display())))?;
        }
        folder_make(&path)?;
        Ok(path)
    }

    /// Gives one of its folders a name of its own: no later step empties it.
    pub(crate) fn put_aside(&self, folder: &Path) -> Result<PathBuf, Error> {
        let path = self.0.path.join(format!("aside-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        std::fs::rename(folder, &path).map_err(|e| Error::Internal(format!("putting {} aside: {e}", folder.display())))?;
        Ok(path)
    }

    /// Where a folder of that name is, or would be.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }

    /// At most 63 characters: `build-`, 36, a hyphen and up to 6 digits, `-` and more.
    pub(crate) fn sandbox_id(&self) -> String {
        format!("{}-{}", self.0.name, COUNT.fetch_add(1, Ordering::Relaxed) % 1_000_000)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        discard_beside(self.path.clone(), self.keeper.clone());
    }
}

/// Removes a tree on a thread of its own: large ones take a while, and the caller may be a thread of the async runtime.
pub(crate) fn discard_beside(path: PathBuf, keeper: Arc<Keeper>) {
    let (path, keeper) = (Arc::new(path), keeper);
    let (thread_path, thread_keeper) = (path.clone(), keeper.clone());
    let discarding = std::thread::Builder::new().name("build-discard".to_owned()).spawn(move || discard(&thread_keeper, &thread_path));
    if discarding.is_err() {
        discard(&keeper, &path);
    }
}

/// Removes a tree. What cannot be removed is tried again at the next start.
pub(crate) fn discard(keeper: &Keeper, path: &Path) {
    if let Err(e) = keeper.discard(path) {
        tracing::warn!("discarding {}: {e}; the next start tries again", path.display());
    }
}

/// 0755: a sandbox's uid must come through.
pub(crate) fn folder_make(path: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(|e| Error::Internal(format!("making {}: {e}", path.display())))
}
