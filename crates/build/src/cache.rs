//! What package managers downloaded, shared by builds: one folder for uv, one for npm, one for Go.
//!
//! The threat is a build that changes what another one will install. So no sandbox ever writes to the shared folder: each
//! works on a copy of its own, and the daemon takes a copy back only from a sandbox in which nothing but the package manager
//! and the language's own compiler ran. That is made sure of, not hoped for; a build with variables of the user's shares nothing:
//! - uv: the folder in which it builds packages is blocked by a file, so it stops before it would run a first line of a
//!   package's code (seen: "failed to create directory"), and the requirements are installed by a single run into an empty
//!   environment (so that no `.pth` file of theirs is there when an interpreter starts). When a package must be built, the
//!   build runs again with the block taken away and its copy is thrown away.
//! - npm: packages of the registry are installed without their scripts; those run afterwards in another sandbox. A source with an
//!   .npmrc or with packages from elsewhere shares nothing, as npm can be told there to run programs.
//! - Go: other people's packages are downloaded and compiled, and no line of the source; Go runs no code of what it compiles.
//!
//! What Maven, Gradle, yarn, pnpm, bun and Poetry leave is never shared that way, as they run code of packages.
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
    python::BUILDS_BUCKET,
    tree::{self, CopyError, CopyRules, TreeWriter},
    work::{discard, discard_beside, folder_make},
};

const ENTRIES_MAX: usize = 100_000;
/// What uv found out about interpreters, by path and time: the environment's path is the same in every build, its interpreter is not.
const UV_INTERPRETERS_BUCKET: &str = "interpreter-v5";

/// The shared folders.
pub(crate) struct Caches {
    pub(crate) uv: Arc<Cache>,
    pub(crate) npm: Arc<Cache>,
    pub(crate) go: Arc<Cache>,
}

/// What differs between them.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// What generations' names start with.
    name: &'static str,
    /// Left out when a copy is taken back.
    without: &'static [&'static str],
    /// Bytes of one. Above, it starts again from nothing.
    bytes_max: u64,
}

impl Caches {
    pub(crate) fn open(dir: &Path, keeper: &Arc<Keeper>) -> Result<Self, Error> {
        let open = |folder: &str, rules: Rules| Cache::open(dir.join(folder), rules, keeper.clone()).map(Arc::new);
        Ok(Self {
            uv: open("downloads", Rules { name: "uv-", without: &[BUILDS_BUCKET, UV_INTERPRETERS_BUCKET], bytes_max: 512 << 20 })?,
            npm: open("downloads-npm", Rules { name: "npm-", without: &["_logs", "_update-notifier-last-checked"], bytes_max: 512 << 20 })?,
            go: open("downloads-go", Rules { name: "go-", without: &[], bytes_max: 2 << 30 })?,
        })
    }
}

/// The shared folder, one generation after another.
pub(crate) struct Cache {
    folder: PathBuf,
    rules: Rules,
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
            discard_beside(self.path.clone(), self.keeper.clone());
        }
    }
}

impl Cache {
    /// Takes the newest generation of the last run, and discards the others.
    fn open(folder: PathBuf, rules: Rules, keeper: Arc<Keeper>) -> Result<Self, Error> {
        let fail = |e: std::io::Error| Error::Internal(format!("reading {}: {e}", folder.display()));
        folder_make(&folder)?;
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let number = entry.file_name().to_str().and_then(|name| name.strip_prefix(rules.name)?.parse::<u64>().ok());
            match number {
                Some(number) => numbers.push(number),
                // Half made when the daemon ended.
                None => discard(&keeper, &entry.path()),
            }
        }
        numbers.sort_unstable();
        let newest = numbers.pop();
        for old in numbers {
            discard(&keeper, &folder.join(format!("{}{old}", rules.name)));
        }
        let number = newest.unwrap_or(0);
        let path = folder.join(format!("{}{number}", rules.name));
        folder_make(&path)?;
        let now = Generation { path, keeper: keeper.clone(), is_old: AtomicBool::new(false) };
        Ok(Self { folder, rules, keeper, now: Mutex::new(Arc::new(now)), count: AtomicU64::new(number + 1) })
    }

    pub(crate) fn now(&self) -> Arc<Generation> {
        self.now.lock().clone()
    }

    /// Makes a sandbox's copy the newest generation, if it holds something new. Only for copies that no foreign code wrote.
    /// Of two builds at the same time the last one wins; what the other downloaded is downloaded again some day.
    pub(crate) fn promote(&self, copy: &Path) -> Result<(), Error> {
        let fail = |what: &str, e: &dyn std::fmt::Display| Error::Internal(format!("keeping downloads: {what}: {e}"));
        let new = match tree::sizes(copy, ENTRIES_MAX) {
            // Too many files: below it starts again from nothing.
            Err(e) if e.kind() == std::io::ErrorKind::QuotaExceeded => None,
            sizes => Some(sizes.map_err(|e| fail("looking", &e))?),
        };
        let is_left_out = |path: &[u8]| self.rules.without.iter().any(|name| path.strip_prefix(b"/").is_some_and(|path| path.starts_with(name.as_bytes())));
        let new = new.map(|mut new| {
            new.retain(|path, _| !is_left_out(path));
            new
        });
        let old = tree::sizes(self.now().path(), ENTRIES_MAX).map_err(|e| fail("looking", &e))?;
        if new.as_ref() == Some(&old) {
            return Ok(());
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let half = self.folder.join(format!("new-{number}"));
        folder_make(&half)?;
        let rules = CopyRules {
            bytes_max: self.rules.bytes_max,
            entries_max: ENTRIES_MAX,
            links_below: vec!["/cache".to_owned()],
            without: self.rules.without.to_vec(),
        };
        let mut writer = TreeWriter::open(&half).map_err(|e| fail("opening", &e))?;
        match tree::copy(copy, &mut writer, &rules) {
            Ok(_) => {}
            Err(CopyError::TooLarge(_) | CopyError::TooMany(_)) => {
                tracing::info!("downloads are more than {} MiB: starting again from nothing", self.rules.bytes_max >> 20);
                discard(&self.keeper, &half);
                folder_make(&half)?;
            }
            Err(e) => {
                discard(&self.keeper, &half);
                return Err(fail("copying", &e));
            }
        }
        let path = self.folder.join(format!("{}{number}", self.rules.name));
        std::fs::rename(&half, &path).map_err(|e| fail("renaming", &e))?;
        let new = Arc::new(Generation { path, keeper: self.keeper.clone(), is_old: AtomicBool::new(false) });
        let old = std::mem::replace(&mut *self.now.lock(), new);
        old.is_old.store(true, Ordering::Release);
        Ok(())
    }
}
