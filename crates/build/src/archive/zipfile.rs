//! Zip archives.
//!
//! The central directory is the truth; local headers must not disagree in what matters (the reader checks sizes and
//! checksums). gcloud writes them with Python's `zipfile`: deflate, unix modes, a `/` after folders.

use std::{
    cell::Cell,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    rc::Rc,
};

use zip::{CompressionMethod, ZipArchive, read::ArchiveOffset, read::Config};

use super::{Error, Fault, Unpacker, refuse};
use crate::tree::PATH_MAX_BYTES;

/// Bytes that may be read to know the entries: 20,000 of 400 bytes. Without it 100 MiB of headers would be held in memory.
const DIRECTORY_MAX_BYTES: u64 = 8 << 20;

/// Files of one jar.
const JAR_ENTRIES_MAX: usize = 65_000;

const TYPE_MASK: u32 = 0o170000;
const TYPE_FILE: u32 = 0o100000;
const TYPE_FOLDER: u32 = 0o040000;
const TYPE_LINK: u32 = 0o120000;

pub(super) fn unpack(archive: File, into: &mut Unpacker) -> Result<(), Error> {
    // No prefix before the first entry: sources are no self-extracting programs.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let left = Rc::new(Cell::new(DIRECTORY_MAX_BYTES));
    let reader = Metered { inner: archive, left: left.clone() };
    let mut archive = ZipArchive::with_config(config, io::BufReader::new(reader)).map_err(broken)?;
    // Only opening is metered: from here on the budget counts.
    left.set(u64::MAX);
    if archive.len() > into.entries_max {
        return Err(Error::Entries(into.entries_max));
    }
    if archive.has_duplicate_names() {
        return Err(Error::Broken("two of its entries have the same name".to_owned()));
    }
    if archive.has_overlapping_entries().map_err(broken)? {
        return Err(Error::Broken("its entries overlap".to_owned()));
    }
    for index in 0..archive.len() {
        into.entry()?;
        entry(&mut archive, index, into)?;
    }
    Ok(())
}

/// A jar that a sandbox wrote or a source brought, with the same bounds; `None` when it is none.
pub(crate) fn jar(file: File) -> Option<Jar> {
    let left = Rc::new(Cell::new(DIRECTORY_MAX_BYTES));
    let reader = Metered { inner: file, left: left.clone() };
    let jar = ZipArchive::new(io::BufReader::new(reader)).ok()?;
    left.set(u64::MAX);
    (jar.len() <= JAR_ENTRIES_MAX).then_some(jar)
}

/// Opened by [`jar`].
pub(crate) type Jar = ZipArchive<io::BufReader<Metered>>;

fn entry<R: Read + Seek>(archive: &mut ZipArchive<R>, index: usize, into: &mut Unpacker) -> Result<(), Error> {
    // Looked at before it is opened: opening an encrypted or oddly packed one fails with less to say.
    let (name, fault) = {
        let raw = archive.by_index_raw(index).map_err(broken)?;
        let fault = if raw.encrypted() {
            Some(Fault::Encrypted)
        } else if !matches!(raw.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
            Some(Fault::Method)
        } else {
            None
        };
        (raw.name_raw().to_vec(), fault)
    };
    if let Some(fault) = fault {
        return Err(refuse(&name, fault));
    }
    let mut entry = archive.by_index(index).map_err(broken)?;
    let size = entry.size();
    let mode = entry.unix_mode().unwrap_or(0);
    let folder = name.ends_with(b"/");
    match mode & TYPE_MASK {
        TYPE_LINK => {
            let mut target = Vec::new();
            (&mut entry).take(PATH_MAX_BYTES as u64 + 1).read_to_end(&mut target).map_err(|e| Error::Broken(e.to_string()))?;
            into.link(&name, &target)
        }
        TYPE_FOLDER | 0 | TYPE_FILE if folder => {
            if size != 0 {
                return Err(refuse(&name, Fault::Size));
            }
            into.folder(&name)
        }
        TYPE_FOLDER => into.folder(&name),
        0 | TYPE_FILE => into.file(&name, mode & 0o111 != 0, size, entry),
        _ => Err(refuse(&name, Fault::Special)),
    }
}

fn broken(error: zip::result::ZipError) -> Error {
    Error::Broken(error.to_string())
}

/// Ends reading with an error after so many bytes.
pub(crate) struct Metered {
    inner: File,
    left: Rc<Cell<u64>>,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        match self.left.get() {
            u64::MAX => {}
            left => self.left.set(left.checked_sub(n as u64).ok_or_else(|| io::Error::other("its table of contents is larger than 8 MiB"))?),
        }
        Ok(n)
    }
}

impl Seek for Metered {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}
