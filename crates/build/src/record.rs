//! Small JSON files in the build folder: what can be made or fetched again, so a broken one is the same as none.

use std::{io, path::Path};

use serde::{Serialize, de::DeserializeOwned};

use crate::Error;

/// Bytes of one.
const MAX_BYTES: u64 = 64 << 10;

/// `None` when there is none, or none that can be read.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let meta = match path.metadata() {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::Internal(format!("reading {}: {e}", path.display()))),
    };
    if meta.len() > MAX_BYTES {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(|e| Error::Internal(format!("reading {}: {e}", path.display())))?;
    Ok(serde_json::from_slice(&bytes).ok())
}

/// Whole or not at all, also after a power cut: one of them says that an interpreter is here.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let fail = |e: &dyn std::fmt::Display| Error::Internal(format!("writing {}: {e}", path.display()));
    let folder = path.parent().ok_or_else(|| fail(&"it has no folder"))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|e| fail(&e))?;
    serde_json::to_writer(&mut file, value).map_err(|e| fail(&e))?;
    file.as_file().sync_all().map_err(|e| fail(&e))?;
    file.persist(path).map_err(|e| fail(&e.error))?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| fail(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_record_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), None);
        write(&path, &vec![1u8, 2]).unwrap();
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), Some(vec![1, 2]));
        std::fs::write(&path, "[1,").unwrap();
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), None);
        std::fs::write(&path, "[1]".repeat(30_000)).unwrap();
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), None);
    }
}
