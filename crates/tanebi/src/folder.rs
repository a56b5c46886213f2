//! The data folder's parts: each is made for, or proven to belong to, the one uid that uses it.
//!
//! Everything goes through descriptors that were opened without following links, so that nobody who can write beside
//! the data folder can lead a start by root elsewhere.

use std::{os::fd::OwnedFd, path::Path};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{self, Mode, OFlags},
    io::Errno,
    process::{Gid, Uid},
};

/// Makes the folder `path` (its parents too, for the caller), or proves that the one there is `owner`'s.
///
/// # Errors
/// A link or file in its place; a folder of someone else's; a new owner for a folder that is not empty.
pub fn ensure(path: &Path, owner: (u32, u32), mode: u32) -> Result<()> {
    ensure_inner(path, owner, mode).with_context(|| format!("folder {}", path.display()))
}

fn ensure_inner(path: &Path, (uid, gid): (u32, u32), mode: u32) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match fs::mkdir(path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let folder = open(path)?;
    let stat = fs::fstat(&folder)?;
    let me = rustix::process::geteuid().as_raw();
    if stat.st_uid != uid {
        let mine = stat.st_uid == me || me == 0;
        if !mine {
            bail!("belongs to uid {}, not to {uid}: choose another --data-dir, or give it to that user", stat.st_uid);
        }
        if !is_empty(&folder)? {
            bail!("belongs to uid {} and is not empty: it was used by another user; choose another --data-dir or change its owner to {uid}", stat.st_uid);
        }
        fs::fchown(&folder, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    fs::fchmod(&folder, Mode::from_raw_mode(mode))?;
    Ok(())
}

/// Proves that `user`, who is not the caller, passes every folder above `path`.
///
/// # Errors
/// The folder that does not let others pass, and what to do.
pub fn reachable(path: &Path, user: (u32, u32)) -> Result<()> {
    let path = path.canonicalize().with_context(|| format!("folder {}", path.display()))?;
    for above in path.ancestors().skip(1) {
        let stat = fs::stat(above).with_context(|| format!("folder {}", above.display()))?;
        let passing = match () {
            () if stat.st_uid == user.0 => 0o100,
            () if stat.st_gid == user.1 => 0o010,
            () => 0o001,
        };
        if stat.st_mode & passing == 0 {
            bail!(
                "the data folder {} lies in {}, which lets only its owner in (mode {:04o}); tanebi gives up root and serves as uid {}. \
                 Choose another --data-dir, for example /var/lib/tanebi, or let others pass: chmod o+x {}",
                path.display(),
                above.display(),
                stat.st_mode & 0o7777,
                user.0,
                above.display()
            );
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<OwnedFd> {
    match fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(folder) => Ok(folder),
        Err(Errno::LOOP | Errno::NOTDIR) => bail!("is a link or no folder"),
        Err(errno) => Err(errno.into()),
    }
}

fn is_empty(folder: &OwnedFd) -> Result<bool> {
    let mut entries = fs::Dir::read_from(folder)?;
    Ok(entries.all(|entry| entry.is_ok_and(|e| matches!(e.file_name().to_bytes(), b"." | b".."))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_files_and_foreign_folders_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let there = dir.path().join("a/b");
        ensure(&there, me, 0o700).unwrap();
        ensure(&there, me, 0o700).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&there, &link).unwrap();
        assert!(format!("{:#}", ensure(&link, me, 0o700).unwrap_err()).contains("link"));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(ensure(&file, me, 0o700).is_err());
        std::fs::write(there.join("x"), "").unwrap();
        assert!(ensure(&there, (me.0 + 1, me.1), 0o700).is_err(), "not empty: no new owner");
    }

    #[test]
    fn a_folder_above_that_lets_nobody_pass_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let stranger = (61_000, 61_000);
        fs::chmod(dir.path(), Mode::from_raw_mode(0o700)).unwrap();
        let text = reachable(&data, stranger).unwrap_err().to_string();
        assert!(text.contains("chmod o+x") && text.contains(&dir.path().display().to_string()), "{text}");
        fs::chmod(dir.path(), Mode::from_raw_mode(0o711)).unwrap();
        reachable(&data, stranger).unwrap();
    }
}
