//! The store: opens the folder, reads, hands commits to the committer.

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
};

use crate::{
    blobs::Blobs,
    committer::Committer,
    database,
    durable::{folder_make, folder_sync},
    error::{CommitError, Error},
    integrity::{self, Damage},
    layers::Layers,
    lock::folder_lock,
    logs::Logs,
    readers::Readers,
    record::{Guard, Record, Write, writes_check},
    trash::Trash,
    watch::{Watch, Watchers},
};

/// The embedded store. Clones share it. Reads are synchronous and fast (SQLite, page cache); a commit waits for its fsync.
///
/// The last clone's drop does the commits that wait, ends the committer and lets the folder go.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// Dropped in this order: the committer ends before the connections close, the trash before the lock, which goes last.
struct Inner {
    committer: Committer,
    logs: Logs,
    readers: Readers,
    watchers: Arc<Watchers>,
    damage: Arc<Damage>,
    blobs: Blobs,
    layers: Layers,
    _trash: Trash,
    _lock: File,
}

impl Store {
    /// Opens or makes the store in `dir` (made 0700): `state.db`, `logs.db`, `blobs/`, `layers/`, `staging/`. Takes an exclusive lock of the directory.
    ///
    /// A folder that is there keeps its mode; what lies in it is its owner's alone either way.
    /// Removes what an earlier process left in `staging/`, and reads all records once to find damage.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Newer`], [`Error::Foreign`], or what the disk says. Damaged records are none: they are logged and refused one by one.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        folder_make(dir, 0o700)?;
        let lock = folder_lock(dir)?;
        let staging = dir.join("staging");
        folder_make(&staging, 0o700)?;
        staging_empty(&staging)?;
        let blobs = Blobs::make(&dir.join("blobs"), &staging)?;
        let trash = Trash::start()?;
        let layers = Layers::open(&dir.join("layers"), &staging, trash.bin())?;

        let path = dir.join("state.db");
        let connection = database::open(&path)?;
        folder_sync(dir)?;
        let damage = Arc::new(Damage::default());
        let head = integrity::verify(&connection, &damage)?;
        let readers = Readers::open(&path, damage.clone())?;
        let watchers = Arc::new(Watchers::default());
        let committer = Committer::start(&path, connection, head, watchers.clone(), damage.clone())?;
        let logs = Logs::open(&dir.join("logs.db"), blobs.clone())?;
        folder_sync(dir)?;
        Ok(Self { inner: Arc::new(Inner { committer, logs, readers, watchers, damage, blobs, layers, _trash: trash, _lock: lock }) })
    }

    /// The record under `key`. Sees every commit that was answered before.
    ///
    /// # Errors
    /// [`Error::Damaged`] when its bytes are not those that were written.
    pub fn get(&self, key: &str) -> Result<Option<Record>, Error> {
        self.inner.readers.get(key)
    }

    /// Records whose key begins with `prefix`, by key, after `after`, at most `limit`. All of one moment.
    ///
    /// Keys are ordered by their bytes. Damaged records are left out and logged; [`Store::damaged`] names them. Fewer
    /// than `limit` means that there are no more.
    pub fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, Error> {
        self.inner.readers.scan(prefix, after, limit)
    }

    /// Returns the revision of the commit once it is on disk (group commit).
    ///
    /// Revisions rise by one with each commit of the whole store and never come twice. When the future is dropped before
    /// the answer, the commit may happen or not. One without writes is a commit as well.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] with the first key whose precondition does not hold; [`Error::Invalid`] for keys that are
    /// empty, too long or there twice, and for more than [`crate::COMMIT_MAX_BYTES`]; [`Error::Damaged`] for a precondition
    /// on a damaged record; [`Error::Full`] and others of the disk, after which nothing of it is visible here.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<u64, CommitError> {
        self.commit_while(Vec::new(), writes).await
    }

    /// The same, as long as the records of `guards` are what they were: in one transaction with the writes.
    ///
    /// # Errors
    /// As [`Store::commit`]; [`CommitError::Conflict`] with the key of a guard too, before those of the writes.
    pub async fn commit_while(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<u64, CommitError> {
        writes_check(&writes)?;
        self.inner.committer.commit(guards, writes).await
    }

    /// Changes from now on: none that was answered before, all that are answered after. Watch first, then scan.
    pub fn watch(&self, prefix: &str) -> Watch {
        self.inner.watchers.watch(prefix)
    }

    /// Keys of records known to be damaged: a list from `scan` lacks them.
    pub fn damaged(&self) -> Vec<String> {
        self.inner.damage.keys()
    }

    /// Whether a list from `scan` has every record there is: nothing is known to be damaged, and none is missing whose name is not known.
    pub fn is_whole(&self) -> bool {
        self.inner.damage.is_none()
    }

    /// Does the commits that wait, then takes no more: they get [`Error::Closed`], watches end. Reads go on.
    ///
    /// Blocks for as long as the disk takes. The folder is let go when the last clone is dropped.
    pub fn close(&self) {
        self.inner.committer.close();
        self.inner.logs.close();
    }

    /// Ordered entries by the name of their log.
    pub fn logs(&self) -> &Logs {
        &self.inner.logs
    }

    /// Content by its hash.
    pub fn blobs(&self) -> &Blobs {
        &self.inner.blobs
    }

    /// Trees of files by their hash.
    pub fn layers(&self) -> &Layers {
        &self.inner.layers
    }
}

/// Nothing in `staging/` was ever acknowledged.
fn staging_empty(staging: &Path) -> Result<(), Error> {
    let entries = fs::read_dir(staging).map_err(|error| Error::io("read folder", staging, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("read folder", staging, error))?;
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|error| Error::io("remove", &path, error))?;
    }
    Ok(())
}
