//! The keeper's private folder: nobody else can have put anything in it, and one keeper at a time uses it.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, fchmod, flock, fstat, mkdirat, openat, statat},
    process::geteuid,
};

use crate::error::{Failure, Step};

/// Held open, and locked, as long as the keeper lives.
pub(crate) struct Folder {
    path: PathBuf,
    held: OwnedFd,
}

impl Folder {
    /// Makes the folder (not its parents) when it is missing, and verifies it: a folder, no link, ours, for nobody else.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let at = || path.display();
        match mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => {
                return Err(Failure::new(format!("make the keeper's folder {}", at()), error));
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = openat(CWD, path, flags, Mode::empty()).step(|| format!("open the keeper's folder {}, which cannot be a link", at()))?;
        let stat = fstat(&held).step(|| format!("look at the keeper's folder {}", at()))?;
        if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
            let found = format!("keeper's folder {}: uid {}, mode {:o}", at(), stat.st_uid, stat.st_mode & 0o7777);
            return Err(Failure::new(found, rustix::io::Errno::PERM).hint(format!("it must belong to uid {} and be 0700", geteuid().as_raw())));
        }
        flock(&held, FlockOperation::NonBlockingLockExclusive).step(|| format!("lock the keeper's folder {}; another keeper uses it", at()))?;
        let folder = Self { path: path.to_owned(), held };
        folder.mount_point_make()?;
        Ok(folder)
    }

    /// The one name that starters mount on, each in a mount namespace of its own. Anybody may pass through it: init has left root.
    fn mount_point_make(&self) -> Result<(), Failure> {
        let step = || format!("make {}", self.mount_point().display());
        match mkdirat(&self.held, "root", Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(Failure::new(step(), error)),
        }
        let stat = statat(&self.held, "root", AtFlags::SYMLINK_NOFOLLOW).step(step)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(Failure::new(step(), rustix::io::Errno::NOTDIR));
        }
        let root = openat(&self.held, "root", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).step(step)?;
        fchmod(&root, Mode::from_raw_mode(0o755)).step(step)
    }

    /// An empty folder to mount a root on.
    pub fn mount_point(&self) -> PathBuf {
        self.path.join("root")
    }

    /// Where the keeper's cgroups are written down for the next keeper.
    pub fn cgroup_note(&self) -> PathBuf {
        self.path.join("cgroups")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_folder_that_another_could_have_prepared_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let made = top.path().join("made");
        let first = Folder::open(&made).unwrap();
        assert!(Folder::open(&made).is_err(), "it is locked");
        drop(first);
        Folder::open(&made).unwrap();

        let wide = top.path().join("wide");
        std::fs::create_dir(&wide).unwrap();
        std::fs::set_permissions(&wide, PermissionsExt::from_mode(0o755)).unwrap();
        assert!(Folder::open(&wide).is_err_and(|failure| failure.hint.is_some()));

        let link = top.path().join("link");
        symlink(&made, &link).unwrap();
        assert!(Folder::open(&link).is_err());

        let inner = top.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::set_permissions(&inner, PermissionsExt::from_mode(0o700)).unwrap();
        symlink(&made, inner.join("root")).unwrap();
        assert!(Folder::open(&inner).is_err());
    }
}
