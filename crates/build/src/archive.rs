//! Source archives: a zip or tar.gz into a folder.
//!
//! What a stranger uploads. Refuses whatever could write outside of the folder, surprise its reader (duplicates, hard
//! links, devices, encrypted entries, sizes that lie) or grow without bound; keeps nothing of owners, times and modes
//! but "executable". A refused archive may leave a half-filled folder: the caller drops it. Limits: `model::limits`.

mod tarball;
mod zipfile;

pub(crate) use zipfile::{Jar, jar};

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use model::limits;

pub use crate::tree::PathFault;
use crate::tree::{TreePath, TreeWriter, WriteError};

/// Unpacked bytes that are allowed whatever the ratio is: small texts of one letter pack better than 100 to 1.
const RATIO_FREE_BYTES: u64 = 16 << 20;

/// How much an archive may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the archive.
    pub packed_bytes: u64,
    /// Bytes of all files together.
    pub unpacked_bytes: u64,
    /// Entries and the folders that they imply.
    pub entries: usize,
    /// Unpacked bytes for each packed one, above 16 MiB.
    pub ratio: u64,
}

impl Limits {
    /// The limits of sources.
    pub const SOURCE: Limits = Limits {
        packed_bytes: limits::SOURCE_PACKED_MAX_BYTES,
        unpacked_bytes: limits::SOURCE_MAX_BYTES,
        entries: limits::SOURCE_ENTRIES_MAX,
        ratio: limits::SOURCE_RATIO_MAX,
    };
}

/// Why an archive was not unpacked. All but `Io` are the uploader's to mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("The source archive is neither a zip nor a tar.gz file. Upload one of these.")]
    Format,
    #[error("The source archive cannot be read: {0}. Make it again, then deploy again.")]
    Broken(String),
    #[error("The source archive has an entry {entry} that is refused: {why}.")]
    Entry { entry: String, why: Fault },
    #[error("The source archive is larger than {} MiB. Leave out what is not needed (.gcloudignore).", .0 >> 20)]
    Packed(u64),
    #[error("The source unpacks to more than {} MiB. Leave out what is not needed (.gcloudignore).", .0 >> 20)]
    Unpacked(u64),
    #[error("The source has more than {0} files and folders. Leave out what is not needed (.gcloudignore).")]
    Entries(usize),
    #[error("The source archive unpacks to more than {0} times its size, as only a damaged or hostile one does.")]
    Ratio(u64),
    #[error("writing the source: {0}")]
    Io(#[source] io::Error),
}

/// What is wrong with one entry.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Path(#[from] PathFault),
    #[error("there is an entry of this name already")]
    Duplicate,
    #[error("a file or a link lies where its folder should be")]
    NotAFolder,
    #[error("it is a link that leads out of the source, to {0}")]
    LinkOut(String),
    #[error("it is a hard link")]
    HardLink,
    #[error("it is a device, pipe or socket")]
    Special,
    #[error("it is encrypted")]
    Encrypted,
    #[error("it is packed by a method that is not supported; use deflate")]
    Method,
    #[error("it does not have the size that the archive says")]
    Size,
    #[error("it has {0}, which is not supported")]
    Extension(&'static str),
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    pub files: usize,
    pub bytes: u64,
}

/// Unpacks a zip or tar.gz, told apart by its first bytes, into an empty folder.
pub fn unpack(mut archive: File, folder: &Path, limits: &Limits) -> Result<Unpacked, Error> {
    let broken = |e: io::Error| Error::Broken(e.to_string());
    let packed_bytes = archive.seek(SeekFrom::End(0)).map_err(broken)?;
    if packed_bytes > limits.packed_bytes {
        return Err(Error::Packed(limits.packed_bytes));
    }
    archive.seek(SeekFrom::Start(0)).map_err(broken)?;
    let mut magic = [0; 4];
    let mut read = 0;
    while read < magic.len() {
        match archive.read(&mut magic[read..]).map_err(broken)? {
            0 => break,
            n => read += n,
        }
    }
    archive.seek(SeekFrom::Start(0)).map_err(broken)?;
    let mut into = Unpacker {
        tree: TreeWriter::open(folder).map_err(Error::Io)?,
        budget: Budget::new(limits, packed_bytes),
        entries: 0,
        made: 0,
        entries_max: limits.entries,
        unpacked: Unpacked::default(),
    };
    match &magic[..read] {
        // An empty zip is only an end record.
        b"PK\x03\x04" | b"PK\x05\x06" => zipfile::unpack(archive, &mut into)?,
        [0x1f, 0x8b, ..] => tarball::unpack(archive, &mut into)?,
        _ => return Err(Error::Format),
    }
    Ok(into.unpacked)
}

/// Bytes that may still be unpacked.
#[derive(Clone, Copy, Debug)]
struct Budget {
    left: u64,
    unpacked_max: u64,
    ratio: u64,
    by_ratio: bool,
}

impl Budget {
    fn new(limits: &Limits, packed_bytes: u64) -> Self {
        let by_ratio = packed_bytes.saturating_mul(limits.ratio).max(RATIO_FREE_BYTES);
        Self { left: limits.unpacked_bytes.min(by_ratio), unpacked_max: limits.unpacked_bytes, ratio: limits.ratio, by_ratio: by_ratio < limits.unpacked_bytes }
    }

    fn take(&mut self, bytes: u64) -> Result<(), Error> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.spent()),
        }
    }

    fn spent(&self) -> Error {
        if self.by_ratio { Error::Ratio(self.ratio) } else { Error::Unpacked(self.unpacked_max) }
    }
}

/// The side that writes, the same for both formats.
struct Unpacker {
    tree: TreeWriter,
    budget: Budget,
    entries: usize,
    /// Files and links.
    made: usize,
    entries_max: usize,
    unpacked: Unpacked,
}

impl Unpacker {
    /// Counts an entry, whatever it is.
    fn entry(&mut self) -> Result<(), Error> {
        self.entries += 1;
        // Counted twice: entries that make nothing (headers of headers), and folders that no entry names.
        if self.entries.max(self.made + self.tree.folders()) > self.entries_max {
            return Err(Error::Entries(self.entries_max));
        }
        Ok(())
    }

    fn path(&self, name: &[u8]) -> Result<TreePath, Error> {
        TreePath::parse(name).map_err(|fault| refuse(name, fault))
    }

    fn folder(&mut self, name: &[u8]) -> Result<(), Error> {
        let path = self.path(name)?;
        self.tree.folder(&path).map_err(|e| write_error(name, e))
    }

    /// Writes a file of exactly `size` bytes.
    fn file(&mut self, name: &[u8], executable: bool, size: u64, mut content: impl Read) -> Result<(), Error> {
        let path = self.path(name)?;
        if path.is_root() {
            return Err(refuse(name, PathFault::Empty));
        }
        let mut file = self.tree.file(&path, executable).map_err(|e| write_error(name, e))?;
        self.made += 1;
        let mut written = 0u64;
        let mut buffer = [0u8; 16 << 10];
        loop {
            let n = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::Broken(format!("{}: {e}", shown(name)))),
            };
            written += n as u64;
            if written > size {
                return Err(refuse(name, Fault::Size));
            }
            self.budget.take(n as u64)?;
            file.write_all(&buffer[..n]).map_err(Error::Io)?;
        }
        if written != size {
            return Err(refuse(name, Fault::Size));
        }
        self.unpacked.files += 1;
        self.unpacked.bytes += written;
        Ok(())
    }

    fn link(&mut self, name: &[u8], target: &[u8]) -> Result<(), Error> {
        let path = self.path(name)?;
        let out = || refuse(name, Fault::LinkOut(shown(target)));
        let target = std::str::from_utf8(target).map_err(|_| out())?;
        if path.is_root() || !crate::tree::link_stays(&path, target) {
            return Err(out());
        }
        self.made += 1;
        self.tree.link(&path, target).map_err(|e| write_error(name, e))
    }
}

fn refuse(name: &[u8], why: impl Into<Fault>) -> Error {
    Error::Entry { entry: shown(name), why: why.into() }
}

fn write_error(name: &[u8], error: WriteError) -> Error {
    match error {
        WriteError::Taken => refuse(name, Fault::Duplicate),
        WriteError::NotAFolder => refuse(name, Fault::NotAFolder),
        WriteError::Io(e) => Error::Io(e),
    }
}

/// A name as it may be shown: quoted, escaped, short.
fn shown(name: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(name).chars().take(120).collect();
    format!("{text:?}")
}

#[cfg(test)]
mod tests;
