//! What can break on disk, one variant for each kind of answer a caller can give.

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
};

/// Why something of the store could not be read or written. Nothing was acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A step on a file or folder failed; the text names the step, the path and the system's reason.
    #[error("{0}")]
    Io(String),
    /// No space is left. The store goes on when there is space again.
    #[error("no space left on the disk of the data folder ({0}); free some and try again")]
    Full(String),
    /// SQLite refused a step.
    #[error("{step}: {reason}")]
    Sqlite { step: &'static str, reason: String },
    /// Another process has the folder.
    #[error("{} is in use by another tanebi{}; stop that one or choose another data folder", dir.display(), holder(*pid))]
    Locked { dir: PathBuf, pid: Option<u32> },
    /// A newer tanebi wrote the folder.
    #[error("{} has the format {found}, and this tanebi knows formats up to {known}; use the newer tanebi that wrote it", path.display())]
    Newer { path: PathBuf, found: i64, known: i64 },
    /// `state.db` is a database of something else.
    #[error("{} is not a database of tanebi; move it away or choose another data folder", path.display())]
    Foreign { path: PathBuf },
    /// The bytes of this record are not those that were written: it is refused, the others are served.
    #[error("the record {key:?} is damaged on disk: {reason}; restore it from a backup, or write or delete it without a precondition")]
    Damaged { key: String, reason: &'static str },
    /// The bytes of this blob are not those that were written.
    #[error("the blob {id} is damaged on disk: its content has the hash {found}")]
    BlobDamaged { id: String, found: String },
    /// A record holds JSON of another shape than asked for.
    #[error("the record {key:?} does not hold what is read from it: {reason}")]
    Shape { key: String, reason: String },
    /// A commit that cannot be one; the text says why.
    #[error("{0}")]
    Invalid(String),
    /// A tree that cannot be a layer.
    #[error("{}: {reason}", path.display())]
    Layer { path: PathBuf, reason: &'static str },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

impl Error {
    /// Of a step on `path`, such as `("rename", path)`.
    pub(crate) fn io(step: &str, path: &Path, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let text = format!("{step} {}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full(text),
            _ => Error::Io(text),
        }
    }

    pub(crate) fn sqlite(step: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Error::Full(step.to_owned()),
            _ => Error::Sqlite { step, reason: sqlite_reason(&error) },
        }
    }
}

/// SQLite's text and its extended code: the text alone ("disk I/O error") does not say which call failed.
fn sqlite_reason(error: &rusqlite::Error) -> String {
    match error.sqlite_error() {
        Some(inner) => format!("{error} (SQLite code {})", inner.extended_code),
        None => error.to_string(),
    }
}

/// Why a commit wrote nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A precondition did not hold; nothing was written.
    #[error("{key} is not at the expected revision")]
    Conflict { key: String },
    /// What the commit met on disk. After `Error::Sqlite` of the step `commit` the writes may still be found after a
    /// restart: they were not acknowledged, and not undone on the disk either. Read before trying again.
    #[error(transparent)]
    Store(#[from] Error),
}

impl CommitError {
    /// Whether another writer was first: read again, decide again.
    pub fn is_conflict(&self) -> bool {
        matches!(self, CommitError::Conflict { .. })
    }
}

/// For [`Error::Invalid`] with a reason that is a value.
pub(crate) fn invalid(reason: impl Display) -> Error {
    Error::Invalid(reason.to_string())
}
