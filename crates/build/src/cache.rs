//! What uv downloaded, shared by builds.
//!
//! The threat is a build that changes what another one will install. So no sandbox ever writes to the shared folder: each
//! works on a copy of its own, and the daemon takes a copy back only from a sandbox in which nothing but uv and the
//! interpreter's own compiler ran. That is made sure of, not hoped for: in such a sandbox the folder in which uv builds
//! packages is blocked by a file, so uv stops before it would run a first line of a package's code (seen: "failed to
//! create directory"), the requirements are installed by a single uv run into an empty environment (so that no `.pth`
//! file of theirs is there when an interpreter starts), and the user's own build variables are absent. When a package
//! must be built, or the user sets variables, the build runs again with the block taken away and its copy is thrown away.
//!
//! Copies are made by data, a few 100 MB at most, and only when dependencies changed.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use sandbox::Keeper;

use crate::{
    Error,
    failure::BUILDS_BUCKET,
    tree::{self, CopyError, CopyRules, TreeWriter},
    work::{discard, folder_make},
};

/// Bytes of the shared folder. Above, it starts again from nothing.
const MAX_BYTES: u64 = 512 << 20;
const ENTRIES_MAX: usize = 100_000;
const NAME: &str = "uv-";
/// What uv found out about interpreters, by path and time: the environment's path is the same in every build, its interpreter is not.
const INTERPRETERS_BUCKET: &str = "interpreter-v5";
/// Left out when a copy is taken back.
const WITHOUT: [&str; 2] = [BUILDS_BUCKET, INTERPRETERS_BUCKET];

/// The shared folder, one generation after another.
pub(crate) struct Cache {
    folder: PathBuf,
    keeper: Arc<Keeper>,
    now: Mutex<Arc<Generation>>,
    count: AtomicU64,
}

/// A folder that does not change. Discarded when it is neither the newest nor in use.
pub(crate) struct Generation {
    path: PathBuf,
    keeper: Arc<Keeper>,
    is_old: AtomicBool,
}

impl Generation {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.is_old.load(Ordering::Acquire) {
            discard(&self.keeper, &self.path);
        }
    }
}

impl Cache {
    /// Takes the newest generation of the last run, and discards the others.
    pub(crate) fn open(folder: PathBuf, keeper: Arc<Keeper>) -> Result<Self, Error> {
        let fail = |e: std::io::Error| Error::Internal(format!("reading {}: {e}", folder.display()));
        folder_make(&folder)?;
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let number = entry.file_name().to_str().and_then(|name| name.strip_prefix(NAME)?.parse::<u64>().ok());
            match number {
                Some(number) => numbers.push(number),
                // Half made when the daemon ended.
                None => discard(&keeper, &entry.path()),
            }
        }
        numbers.sort_unstable();
        let newest = numbers.pop();
        for old in numbers {
            discard(&keeper, &folder.join(format!("{NAME}{old}")));
        }
        let number = newest.unwrap_or(0);
        let path = folder.join(format!("{NAME}{number}"));
        folder_make(&path)?;
        let now = Generation { path, keeper: keeper.clone(), is_old: AtomicBool::new(false) };
        Ok(Self { folder, keeper, now: Mutex::new(Arc::new(now)), count: AtomicU64::new(number + 1) })
    }

    pub(crate) fn now(&self) -> Arc<Generation> {
        self.now.lock().clone()
    }

    /// Makes a sandbox's copy the newest generation, if it holds something new. Only for copies that no foreign code wrote.
    /// Of two builds at the same time the last one wins; what the other downloaded is downloaded again some day.
    pub(crate) fn promote(&self, copy: &Path) -> Result<(), Error> {
        let fail = |what: &str, e: &dyn std::fmt::Display| Error::Internal(format!("keeping downloads: {what}: {e}"));
        let mut new = tree::sizes(copy, ENTRIES_MAX).map_err(|e| fail("looking", &e))?;
        new.retain(|path, _| !WITHOUT.iter().any(|name| path.strip_prefix(b"/").is_some_and(|path| path.starts_with(name.as_bytes()))));
        let old = tree::sizes(self.now().path(), ENTRIES_MAX).map_err(|e| fail("looking", &e))?;
        if new == old {
            return Ok(());
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let half = self.folder.join(format!("new-{number}"));
        folder_make(&half)?;
        let rules = CopyRules { bytes_max: MAX_BYTES, entries_max: ENTRIES_MAX, links_below: vec!["/cache".to_owned()], without: WITHOUT.to_vec() };
        let mut writer = TreeWriter::open(&half).map_err(|e| fail("opening", &e))?;
        match tree::copy(copy, &mut writer, &rules) {
            Ok(_) => {}
            Err(CopyError::TooLarge(_) | CopyError::TooMany(_)) => {
                tracing::info!("downloads are more than {} MiB: starting again from nothing", MAX_BYTES >> 20);
                discard(&self.keeper, &half);
                folder_make(&half)?;
            }
            Err(e) => {
                discard(&self.keeper, &half);
                return Err(fail("copying", &e));
            }
        }
        let path = self.folder.join(format!("{NAME}{number}"));
        std::fs::rename(&half, &path).map_err(|e| fail("renaming", &e))?;
        let new = Arc::new(Generation { path, keeper: self.keeper.clone(), is_old: AtomicBool::new(false) });
        let old = std::mem::replace(&mut *self.now.lock(), new);
        old.is_old.store(true, Ordering::Release);
        Ok(())
    }
}
