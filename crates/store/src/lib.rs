//! Records, blobs and layers on disk.
//!
//! **Invariant:** the only place that knows bytes on disk.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};

/// The embedded store. Clones share it. Reads are synchronous and fast (SQLite, page cache); a commit waits for its fsync.
#[derive(Clone)]
pub struct Store {}

/// A stored value and the revision (of the whole store) that wrote it last: its etag and resourceVersion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: String,
    pub value: Arc<[u8]>,
    pub revision: u64,
}

impl Record {
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        todo!()
    }
}

/// One change of a commit. All changes of one commit happen or none.
#[derive(Clone, Debug)]
pub struct Write {
    pub key: String,
    pub expect: Expect,
    /// `None` deletes.
    pub value: Option<Vec<u8>>,
}

impl Write {
    pub fn put<T: Serialize>(key: impl Into<String>, expect: Expect, value: &T) -> Self {
        todo!()
    }
    pub fn delete(key: impl Into<String>, expect: Expect) -> Self {
        todo!()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Any,
    Absent,
    Revision(u64),
}

/// What a watcher learns, in the order of revisions. Deleted keys come with `value: None`.
#[derive(Clone, Debug)]
pub struct Change {
    pub key: String,
    pub value: Option<Arc<[u8]>>,
    pub revision: u64,
}

/// A watcher that fell behind gets `None` from `next` never; it gets `Event::Resync` and must scan again.
#[derive(Clone, Debug)]
pub enum Event {
    Change(Change),
    Resync,
}

pub struct Watch {}

impl Watch {
    /// Waits for the next change under the watched prefix. `None` when the store is closed.
    pub async fn next(&mut self) -> Option<Event> {
        todo!()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Io(String),
}

#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A precondition did not hold; nothing was written.
    #[error("{key} is not at the expected revision")]
    Conflict { key: String },
    #[error(transparent)]
    Store(#[from] Error),
}

impl Store {
    /// Opens or makes the store in `dir` (made 0700): `state.db`, `blobs/`, `layers/`, `staging/`. Takes an exclusive lock of the directory.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        todo!()
    }
    pub fn get(&self, key: &str) -> Result<Option<Record>, Error> {
        todo!()
    }
    /// Records whose key begins with `prefix`, by key, after `after`, at most `limit`.
    pub fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, Error> {
        todo!()
    }
    /// Returns the revision of the commit once it is on disk (group commit).
    pub async fn commit(&self, writes: Vec<Write>) -> Result<u64, CommitError> {
        todo!()
    }
    /// From now on; watch first, then scan.
    pub fn watch(&self, prefix: &str) -> Watch {
        todo!()
    }
    pub fn blobs(&self) -> &Blobs {
        todo!()
    }
    pub fn layers(&self) -> &Layers {
        todo!()
    }
}

/// Files named by the SHA-256 of their content, in hexadecimal. Synchronous: call on a blocking thread.
pub struct Blobs {}

impl Blobs {
    pub fn writer(&self) -> Result<BlobWriter, Error> {
        todo!()
    }
    pub fn put(&self, bytes: &[u8]) -> Result<String, Error> {
        todo!()
    }
    pub fn open(&self, id: &str) -> Result<Option<File>, Error> {
        todo!()
    }
    pub fn read(&self, id: &str) -> Result<Option<Vec<u8>>, Error> {
        todo!()
    }
    pub fn delete(&self, id: &str) -> Result<(), Error> {
        todo!()
    }
}

pub struct BlobWriter {}

impl std::io::Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        todo!()
    }
    fn flush(&mut self) -> std::io::Result<()> {
        todo!()
    }
}

impl BlobWriter {
    /// Makes the blob durable (fsync of file and folder) and returns its id. Dropping without it leaves nothing.
    pub fn finish(self) -> Result<String, Error> {
        todo!()
    }
}

/// Trees of files named by the hash of their content: read-only parts of an instance's root.
/// Hash: SHA-256 over the sorted entries (path, kind, mode 0755/0644, link target, content hash).
pub struct Layers {}

impl Layers {
    /// A new empty folder (0755) on the same file system, to fill and then `commit` or let drop.
    pub fn staging(&self) -> Result<Staging, Error> {
        todo!()
    }
    /// The folder of a layer that is there.
    pub fn path(&self, digest: &str) -> Option<PathBuf> {
        todo!()
    }
}

/// Removed on drop.
pub struct Staging {}

impl Staging {
    pub fn path(&self) -> &Path {
        todo!()
    }
    /// Hashes the tree, makes it durable, gives it its name (or drops it when that layer exists). Returns the digest.
    pub fn commit(self) -> Result<String, Error> {
        todo!()
    }
}
