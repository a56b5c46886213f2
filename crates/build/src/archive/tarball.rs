//! tar.gz archives: ustar, GNU long names, pax paths.
//!
//! Read in raw mode, so that long names and pax records are bounded here and not by whoever wrote them. Records that say
//! something about owners and times are passed over; those that would change where or how much is written are honoured
//! (`path`, `linkpath`) or refused (`size`, sparse files). The stream is read to its end, so that gzip's checksum is looked at
//! and nothing hides behind the tar's own end.

use std::{
    fs::File,
    io::{self, Read},
};

use flate2::read::MultiGzDecoder;
use tar::EntryType;

use super::{Error, Fault, Unpacker, refuse};
use crate::tree::PATH_MAX_BYTES;

/// Bytes of one pax record block; a path and a handful of attributes.
const PAX_MAX_BYTES: u64 = 64 << 10;

/// What the next real entry is called, when its own header cannot say it.
#[derive(Default)]
struct Named {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

pub(super) fn unpack(archive: File, into: &mut Unpacker) -> Result<(), Error> {
    // Everything that comes out of gzip counts, headers and skipped data too: a bomb needs no entry to be one.
    let spent = std::rc::Rc::new(std::cell::Cell::new(false));
    let overhead = (into.entries_max as u64).saturating_mul(2048);
    let stream = Metered {
        inner: MultiGzDecoder::new(io::BufReader::new(archive)),
        left: into.budget.left.saturating_add(overhead.min(into.budget.left)),
        spent: spent.clone(),
    };
    let budget = into.budget;
    let mut archive = tar::Archive::new(stream);
    let result = entries(&mut archive, into).and_then(|()| ended(archive.into_inner()));
    match result {
        Err(Error::Broken(_)) if spent.get() => Err(budget.spent()),
        other => other,
    }
}

fn entries<R: Read>(archive: &mut tar::Archive<R>, into: &mut Unpacker) -> Result<(), Error> {
    let broken = |e: io::Error| Error::Broken(e.to_string());
    let mut named = Named::default();
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        into.entry()?;
        let header = entry.header();
        let own_name = header.path_bytes().into_owned();
        let size = entry.size();
        match header.entry_type() {
            EntryType::GNULongName => named.path = Some(long_name(&mut entry, &own_name)?),
            EntryType::GNULongLink => named.link = Some(long_name(&mut entry, &own_name)?),
            EntryType::XHeader => {
                for (key, value) in pax(&mut entry, &own_name)? {
                    match key.as_slice() {
                        b"path" => named.path = Some(value),
                        b"linkpath" => named.link = Some(value),
                        key => pax_allowed(key, &own_name)?,
                    }
                }
            }
            EntryType::XGlobalHeader => {
                for (key, _) in pax(&mut entry, &own_name)? {
                    match key.as_slice() {
                        b"path" | b"linkpath" => {
                            return Err(refuse(&own_name, Fault::Extension("a path for all entries")));
                        }
                        key => pax_allowed(key, &own_name)?,
                    }
                }
            }
            kind => {
                let Named { path, link } = std::mem::take(&mut named);
                let name = path.unwrap_or(own_name);
                let mode = header.mode().map_err(broken)?;
                match kind {
                    // An old tar marks folders by the slash alone.
                    EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") && size == 0 => into.folder(&name)?,
                    EntryType::Regular | EntryType::Continuous => into.file(&name, mode & 0o111 != 0, size, &mut entry)?,
                    EntryType::Directory => into.folder(&name)?,
                    EntryType::Symlink => {
                        let target = link.or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default();
                        into.link(&name, &target)?;
                    }
                    EntryType::Link => return Err(refuse(&name, Fault::HardLink)),
                    EntryType::Char | EntryType::Block | EntryType::Fifo => {
                        return Err(refuse(&name, Fault::Special));
                    }
                    EntryType::GNUSparse => {
                        return Err(refuse(&name, Fault::Extension("holes (GNU sparse)")));
                    }
                    _ => return Err(refuse(&name, Fault::Extension("an unknown type"))),
                }
            }
        }
    }
    Ok(())
}

/// Reads what is behind the last entry: zeros up to the end of the last gzip member, whose checksum and length are right.
fn ended(mut stream: impl Read) -> Result<(), Error> {
    let mut buffer = [0u8; 16 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) if buffer[..n].iter().all(|byte| *byte == 0) => {}
            Ok(_) => return Err(Error::Broken("it goes on behind the end of its tar".to_owned())),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::Broken(format!("the end of its gzip is damaged or followed by something else ({e})"))),
        }
    }
}

/// A GNU long name: the data of an entry of its own, ended by NUL.
fn long_name(entry: &mut impl Read, own_name: &[u8]) -> Result<Vec<u8>, Error> {
    let mut name = bounded(entry, PATH_MAX_BYTES as u64 + 1, own_name)?;
    if name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

/// Key and value.
type PaxRecord = (Vec<u8>, Vec<u8>);

/// The records of a pax header: `LENGTH KEY=VALUE\n`, the length counting itself.
fn pax(entry: &mut impl Read, own_name: &[u8]) -> Result<Vec<PaxRecord>, Error> {
    let bytes = bounded(entry, PAX_MAX_BYTES, own_name)?;
    let malformed = || refuse(own_name, Fault::Extension("a malformed pax record"));
    let mut records = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let space = rest.iter().position(|b| *b == b' ').ok_or_else(malformed)?;
        let length: usize = std::str::from_utf8(&rest[..space]).ok().and_then(|t| t.parse().ok()).ok_or_else(malformed)?;
        if length <= space + 1 || length > rest.len() || rest[length - 1] != b'\n' {
            return Err(malformed());
        }
        let record = &rest[space + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        rest = &rest[length..];
    }
    Ok(records)
}

fn pax_allowed(key: &[u8], own_name: &[u8]) -> Result<(), Error> {
    if key == b"size" {
        return Err(refuse(own_name, Fault::Extension("a size in a pax record")));
    }
    if key.starts_with(b"GNU.sparse") {
        return Err(refuse(own_name, Fault::Extension("holes (GNU sparse)")));
    }
    Ok(())
}

fn bounded(entry: &mut impl Read, max: u64, own_name: &[u8]) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    entry.take(max + 1).read_to_end(&mut bytes).map_err(|e| Error::Broken(e.to_string()))?;
    if bytes.len() as u64 > max {
        return Err(refuse(own_name, Fault::Extension("a name or pax record that is too long")));
    }
    Ok(bytes)
}

/// Ends reading with an error after so many bytes, and says that it did.
struct Metered<R> {
    inner: R,
    left: u64,
    spent: std::rc::Rc<std::cell::Cell<bool>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        match self.left.checked_sub(n as u64) {
            Some(left) => self.left = left,
            None => {
                self.spent.set(true);
                return Err(io::Error::other("it unpacks to too much"));
            }
        }
        Ok(n)
    }
}
