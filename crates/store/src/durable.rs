//! Making files and folders outlive a power cut, and telling which were not needed for long. The only place that syncs beside
//! SQLite.
//!
//! A file's content is durable after its own fsync, its name after one of its folder. With the test feature
//! `unsafe-no-fsync` all of it does nothing, and SQLite does not sync either.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::DirBuilderExt,
    path::Path,
    time::SystemTime,
};

use rustix::{
    fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW},
    io::Errno,
};

use crate::error::Error;

/// Whether syncs are real.
pub(crate) const SYNCS: bool = !cfg!(feature = "unsafe-no-fsync");

/// The content and size of `file`, found at `path`.
pub(crate) fn file_sync(file: &File, path: &Path) -> Result<(), Error> {
    if !SYNCS {
        return Ok(());
    }
    file.sync_all().map_err(|error| Error::io("fsync", path, error))
}

/// The names in the folder `path`.
pub(crate) fn folder_sync(path: &Path) -> Result<(), Error> {
    let folder = File::open(path).map_err(|error| Error::io("open folder", path, error))?;
    file_sync(&folder, path)
}

/// Everything on the file system that holds `path`.
pub(crate) fn file_system_sync(path: &Path) -> Result<(), Error> {
    if !SYNCS {
        return Ok(());
    }
    let folder = File::open(path).map_err(|error| Error::io("open folder", path, error))?;
    rustix::fs::syncfs(&folder).map_err(|error| Error::io("syncfs", path, error))
}

/// When the file or folder at `path` was written or touched last; `None` when it is not there.
pub(crate) fn touched(path: &Path) -> Result<Option<SystemTime>, Error> {
    match fs::symlink_metadata(path).and_then(|about| about.modified()) {
        Ok(time) => Ok(Some(time)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("stat", path, error)),
    }
}

/// Sets that time to now; whether it is there.
pub(crate) fn touch(path: &Path) -> Result<bool, Error> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    match rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(Error::io("touch", path, error)),
    }
}

/// Makes the folder `path` with `mode`, and those above it, where they are not there, and makes its name durable.
pub(crate) fn folder_make(path: &Path, mode: u32) -> Result<(), Error> {
    let above = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(Path::new(".")),
        other => other,
    };
    if let Some(above) = above.filter(|above| !above.exists()) {
        folder_make(above, mode)?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        // One that is there may come from a process that was killed before it could sync.
        Err(error) if error.kind() != ErrorKind::AlreadyExists || !path.is_dir() => {
            return Err(Error::io("create folder", path, error));
        }
        _ => {}
    }
    above.map_or(Ok(()), folder_sync)
}
