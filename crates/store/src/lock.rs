//! One process at a time: an flock on the file `lock`, which the kernel lets go when its holder ends in any way.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::error::Error;

/// Locks `dir` until the answer is dropped. The file holds the holder's process id for the error of those who come late.
///
/// # Errors
/// [`Error::Locked`] when another process, or another [`crate::Store`] in this one, has it.
pub(crate) fn folder_lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let fail = |step: &'static str| {
        let path = path.clone();
        move |error: std::io::Error| Error::io(step, &path, error)
    };
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(fail("open"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.take(32).read_to_string(&mut pid);
            return Err(Error::Locked { dir: dir.to_owned(), pid: pid.trim().parse().ok() });
        }
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path, error)),
    }
    file.set_len(0).map_err(fail("truncate"))?;
    file.rewind().map_err(fail("seek"))?;
    writeln!(file, "{}", std::process::id()).map_err(fail("write"))?;
    Ok(file)
}
