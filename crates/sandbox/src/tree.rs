//! Whole folder trees that strangers filled: removing one, and giving one back to the daemon.
//!
//! Every step goes by an open descriptor of the folder above, without following links or crossing mounts, so what lies in the
//! tree cannot lead out of it. Done in a fork of the keeper: a tree can be large.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Uid, chmodat, chownat, openat2, renameat_with, statat, unlinkat},
    io::Errno,
};

use crate::error::{Failure, Step};

/// How deep one descent goes: each level holds a descriptor open.
const DEPTH_MAX: usize = 500;

/// Removes `name` in `parent`, whatever it is. Gone already is fine.
pub(crate) fn discard(parent: &OwnedFd, name: &CStr) -> Result<(), Failure> {
    let shown = name.to_string_lossy();
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(Failure::new(format!("remove {shown}"), error)),
    }
    let top = folder_open(parent.as_fd(), name).step(|| format!("open {shown} to remove it"))?;
    let mut lifted = 0;
    // What lies too deep is lifted to the top, which is then emptied again.
    loop {
        let before = lifted;
        empty(&top, &top, 0, &mut lifted).step(|| format!("empty {shown}"))?;
        if lifted == before {
            break;
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR).step(|| format!("remove {shown}"))
}

fn empty(top: &OwnedFd, folder: &OwnedFd, depth: usize, lifted: &mut u64) -> Result<(), Errno> {
    for name in names(folder)? {
        match unlinkat(folder, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            // POSIX has EPERM for a folder, Linux EISDIR.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        if depth >= DEPTH_MAX {
            lift(folder, &name, top, lifted)?;
            continue;
        }
        let inner = folder_open(folder.as_fd(), &name)?;
        empty(top, &inner, depth + 1, lifted)?;
        drop(inner);
        unlinkat(folder, &name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Moves a folder to the top, under a name that is free there.
fn lift(folder: &OwnedFd, name: &CStr, top: &OwnedFd, lifted: &mut u64) -> Result<(), Errno> {
    loop {
        *lifted += 1;
        match renameat_with(folder, name, top, format!(".lifted-{lifted}"), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            done => return done,
        }
    }
}

/// Makes everything in a tree the daemon's: owner, readable and writable for it, no setuid, setgid or sticky bit.
///
/// `owner`: uid and gid; none when they are the keeper's own anyway.
pub(crate) fn hand_back(folder: &OwnedFd, owner: Option<(u32, u32)>) -> Result<(), Failure> {
    let owner = owner.map(|(uid, gid)| (Uid::from_raw(uid), Gid::from_raw(gid)));
    let top = proc_path(folder);
    let stat = rustix::fs::fstat(folder).step(|| "look at a writable folder")?;
    entry_take(CWD, &top, &stat, owner).step(|| "take a writable folder back")?;
    let folder = folder_open(folder.as_fd(), c".").step(|| "open a writable folder")?;
    tree_take(&folder, owner, 0).step(|| "take a writable folder back")
}

fn tree_take(folder: &OwnedFd, owner: Option<(Uid, Gid)>, depth: usize) -> Result<(), Errno> {
    if depth >= DEPTH_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    for name in names(folder)? {
        let stat = match statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error),
        };
        entry_take(folder.as_fd(), &name, &stat, owner)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            tree_take(&folder_open(folder.as_fd(), &name)?, owner, depth + 1)?;
        }
    }
    Ok(())
}

fn entry_take(folder: BorrowedFd<'_>, name: &CStr, stat: &Stat, owner: Option<(Uid, Gid)>) -> Result<(), Errno> {
    if let Some((uid, gid)) = owner {
        let follow = if folder.as_raw_fd() == CWD.as_raw_fd() { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        chownat(folder, name, Some(uid), Some(gid), follow)?;
    }
    let own = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => 0o700,
        FileType::RegularFile => 0o600,
        // Links have no mode; what else there is, nobody opens.
        _ => return Ok(()),
    };
    let mode = (stat.st_mode & 0o777) | own;
    if mode != stat.st_mode & 0o7777 {
        // By the type seen a moment ago this is no link, and nobody is left in the tree to change that.
        chmodat(folder, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    }
    Ok(())
}

fn names(folder: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Opens a folder to read it; its owner may have closed it to itself.
fn folder_open(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let open = |flags| openat2(parent, name, flags | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve);
    // Emptying needs writing and passing through too, so a folder without them is opened to its owner (a rootless keeper is that).
    let held = open(OFlags::PATH)?;
    let stat = rustix::fs::fstat(&held)?;
    if stat.st_mode & 0o700 != 0o700 {
        chmodat(CWD, proc_path(&held), Mode::from_raw_mode(stat.st_mode & 0o777 | 0o700), AtFlags::empty())?;
    }
    open(OFlags::RDONLY)
}

/// The one way to name an O_PATH descriptor where a path is wanted.
fn proc_path(descriptor: &OwnedFd) -> CString {
    CString::new(format!("/proc/self/fd/{}", descriptor.as_raw_fd())).expect("a number has no NUL")
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
        path::Path,
    };

    use rustix::fs::mkdirat;

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    #[test]
    fn a_tree_goes_and_what_its_links_name_stays() {
        let top = tempfile::tempdir().unwrap();
        let outside = top.path().join("outside");
        fs::create_dir_all(outside.join("kept")).unwrap();
        let tree = top.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::write(tree.join("a/file"), "x").unwrap();
        symlink(&outside, tree.join("a/link")).unwrap();
        symlink("nowhere", tree.join("dangling")).unwrap();
        fs::set_permissions(tree.join("a/b"), PermissionsExt::from_mode(0o000)).unwrap();
        discard(&open(top.path()), c"tree").unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        discard(&open(top.path()), c"tree").unwrap();
        symlink(&outside, &tree).unwrap();
        discard(&open(top.path()), c"tree").unwrap();
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn a_tree_deeper_than_any_path_goes_too() {
        let top = tempfile::tempdir().unwrap();
        let mut at = open(top.path());
        for _ in 0..2_000 {
            mkdirat(&at, c"deep", Mode::RWXU).unwrap();
            at = folder_open(at.as_fd(), c"deep").unwrap();
        }
        drop(at);
        discard(&open(top.path()), c"deep").unwrap();
        assert!(!top.path().join("deep").exists());
    }

    #[test]
    fn a_tree_given_back_is_readable_and_harmless() {
        let top = tempfile::tempdir().unwrap();
        let (folder, file) = (top.path().join("in"), top.path().join("in/file"));
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "x").unwrap();
        let outside = top.path().join("outside");
        fs::write(&outside, "x").unwrap();
        fs::set_permissions(&outside, PermissionsExt::from_mode(0o400)).unwrap();
        symlink(&outside, folder.join("link")).unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o6011)).unwrap();
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o1000)).unwrap();
        hand_back(&open_path(&folder), None).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&folder), mode(&file), mode(&outside)), (0o700, 0o611, 0o400));
    }

    fn open_path(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }
}
