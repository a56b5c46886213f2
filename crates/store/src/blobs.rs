//! Files named by the SHA-256 of their content.
//!
//! `blobs/ab/abcdef...`. Which blobs are still needed is not known here: their owner deletes one that is its own, and a sweep
//! removes those that are not on a list and were neither put nor touched for a while.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};

use crate::{
    durable::{file_sync, folder_make, folder_sync, touch, touched},
    error::Error,
};

/// Files named by the SHA-256 of their content, in hexadecimal. Synchronous: call on a blocking thread. Clones share it.
#[derive(Clone)]
pub struct Blobs {
    place: Arc<Place>,
}

struct Place {
    folder: PathBuf,
    staging: PathBuf,
    count: AtomicU64,
    /// Held for reading while a name is given or touched, for writing while one is taken away.
    names: RwLock<()>,
}

impl Place {
    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(&id[..2]).join(id)
    }
}

/// A SHA-256 in lower-case hexadecimal: the only form of names in `blobs/` and `layers/`.
pub(crate) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The digests among the names in a folder.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let fail = |error| Error::io("read folder", folder, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        names.extend(entry.map_err(fail)?.file_name().into_string().ok().filter(|name| is_digest(name)));
    }
    Ok(names)
}

impl Blobs {
    pub(crate) fn make(folder: &Path, staging: &Path) -> Result<Self, Error> {
        folder_make(folder, 0o700)?;
        // All 256 now, so that no blob needs to make a folder's name durable.
        for byte in 0..=255_u8 {
            let path = folder.join(format!("{byte:02x}"));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("create folder", &path, error));
                }
                _ => {}
            }
        }
        folder_sync(folder)?;
        let place = Place { folder: folder.to_owned(), staging: staging.to_owned(), count: AtomicU64::new(0), names: RwLock::new(()) };
        Ok(Self { place: Arc::new(place) })
    }

    /// A new blob, to write to and then `finish` or let drop.
    pub fn writer(&self) -> Result<BlobWriter, Error> {
        let number = self.place.count.fetch_add(1, Ordering::Relaxed);
        let path = self.place.staging.join(format!("blob-{number}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(|error| Error::io("create", &path, error))?;
        Ok(BlobWriter { place: self.place.clone(), file, path, hash: Sha256::new() })
    }

    /// Writes `bytes` as a blob and returns its id.
    pub fn put(&self, bytes: &[u8]) -> Result<String, Error> {
        let mut writer = self.writer()?;
        writer.write_all(bytes).map_err(|error| writer.error(error))?;
        writer.finish()
    }

    /// The blob's file, for reading; `None` when there is none. Its content is not verified.
    pub fn open(&self, id: &str) -> Result<Option<File>, Error> {
        if !is_digest(id) {
            return Ok(None);
        }
        let path = self.place.path(id);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", &path, error)),
        }
    }

    /// The blob's content; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::BlobDamaged`] when it is not what was written.
    pub fn read(&self, id: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some(mut file) = self.open(id)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| Error::io("read", &self.place.path(id), error))?;
        let found = hex::encode(Sha256::digest(&bytes));
        if found != id {
            let error = Error::BlobDamaged { id: id.to_owned(), found };
            tracing::error!("{error}");
            return Err(error);
        }
        Ok(Some(bytes))
    }

    /// Says that the blob is needed: to a sweep it is as one that was put now. Whether it is there.
    pub fn touch(&self, id: &str) -> Result<bool, Error> {
        if !is_digest(id) {
            return Ok(false);
        }
        let _naming = self.place.names.read();
        touch(&self.place.path(id))
    }

    /// When the blob was put or touched last; `None` when there is none.
    pub fn touched(&self, id: &str) -> Result<Option<SystemTime>, Error> {
        if is_digest(id) { touched(&self.place.path(id)) } else { Ok(None) }
    }

    /// Removes the blobs that are not in `keep` and were neither put nor touched since `since`; how many.
    ///
    /// One that is put or touched meanwhile stays, or is there again when that answers.
    pub fn sweep(&self, keep: &HashSet<String>, since: SystemTime) -> Result<usize, Error> {
        let mut removed = 0;
        for byte in 0..=255_u8 {
            for id in names(&self.place.folder.join(format!("{byte:02x}")))? {
                let path = self.place.path(&id);
                if keep.contains(&id) || touched(&path)?.is_none_or(|time| time >= since) {
                    continue;
                }
                let _naming = self.place.names.write();
                // Asked again: nobody can put it now.
                if touched(&path)?.is_some_and(|time| time < since) {
                    fs::remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Removes the blob, if it is there. After a power cut it may be there again.
    pub fn delete(&self, id: &str) -> Result<(), Error> {
        if !is_digest(id) {
            return Ok(());
        }
        let path = self.place.path(id);
        // Not between a sweep's second look and its removal.
        let _naming = self.place.names.write();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path, error)),
            _ => Ok(()),
        }
    }
}

/// A blob being written. Dropped before [`BlobWriter::finish`], it leaves nothing.
pub struct BlobWriter {
    place: Arc<Place>,
    file: File,
    path: PathBuf,
    hash: Sha256,
}

impl io::Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl BlobWriter {
    /// Makes the blob durable (fsync of file and folder) and returns its id. Dropping without it leaves nothing.
    ///
    /// A blob of the same content is replaced by this one, which changes nothing but heals damage.
    pub fn finish(self) -> Result<String, Error> {
        // What was written slowly is as new as what was written fast.
        touch(&self.path)?;
        file_sync(&self.file, &self.path)?;
        let id = hex::encode(self.hash.clone().finalize());
        let target = self.place.path(&id);
        {
            let _naming = self.place.names.read();
            fs::rename(&self.path, &target).map_err(|error| Error::io("rename to", &target, error))?;
        }
        folder_sync(&self.place.folder.join(&id[..2]))?;
        Ok(id)
    }

    /// The file opened once more, to begin to sync what was written so far. A failure that it is told of is told to
    /// [`BlobWriter::finish`] as well.
    pub fn reopened(&self) -> Result<File, Error> {
        File::open(&self.path).map_err(|error| Error::io("open", &self.path, error))
    }

    fn error(&self, error: io::Error) -> Error {
        Error::io("write", &self.path, error)
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // Not there any more when it was finished: numbers of staged files are never used twice.
        let _ = fs::remove_file(&self.path);
    }
}
