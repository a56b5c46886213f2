//! The disk as a file system of the kernel's, by FUSE. It only translates.
//!
//! Writes go through to the disk at once (no writeback cache), so the disk knows what is volatile. Files are cached for
//! reading and can be mapped shared, as SQLite does with its `-shm` file. Locks are the kernel's own. `syncfs` does not reach
//! a FUSE file system that is mounted like this one: the kernel answers it by itself.
//!
//! Nothing in the process that serves the file system may use it: a thread that waits for its own process could then not
//! be ended.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::sched::{CloneFlags, unshare};
use parking_lot::{Mutex, MutexGuard};
use rustix::{
    io::Errno,
    mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount},
};

use crate::disk::{Disk, Kind};

/// Only the disk changes what it holds, so what the kernel has seen stays true.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);

/// Gives the calling thread, and what it starts, mounts of its own: they end with it, however it ends.
pub fn mounts_own() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(mount_change("/", private)?)
}

/// A mounted disk. Unmounted on drop.
pub struct Mount {
    session: Option<BackgroundSession>,
    disk: Arc<Mutex<Disk>>,
    folder: tempfile::TempDir,
}

impl Mount {
    pub fn new(disk: Disk) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let disk = Arc::new(Mutex::new(disk));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("power-cut".into())];
        let file_system = FileSystem { disk: disk.clone(), listings: Mutex::default() };
        let session = fuser::spawn_mount(file_system, folder.path(), &config)?;
        Ok(Self { session: Some(session), disk, folder })
    }

    /// Where the store lies.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The disk as it is now. What serves it waits meanwhile.
    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock()
    }

    /// Unmounts, with nothing synced by it. All processes that used it must have ended.
    pub fn end(mut self) -> io::Result<Disk> {
        self.unmount()?;
        Ok(std::mem::replace(&mut *self.disk.lock(), Disk::new(None)))
    }

    fn unmount(&mut self) -> io::Result<()> {
        let Some(session) = self.session.take() else {
            return Ok(());
        };
        unmount(self.folder.path(), UnmountFlags::DETACH)?;
        session.join()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.unmount();
    }
}

struct FileSystem {
    disk: Arc<Mutex<Disk>>,
    /// What an open folder held when it was opened, so that names removed meanwhile move no others.
    listings: Mutex<Listings>,
}

#[derive(Default)]
struct Listings {
    open: HashMap<u64, Vec<(OsString, u64, Kind)>>,
    next: u64,
}

fn attributes(disk: &Disk, node: u64) -> Result<FileAttr, Errno> {
    let about = disk.about(node)?;
    Ok(FileAttr {
        ino: INodeNo(node),
        size: about.size as u64,
        blocks: about.size.div_ceil(512) as u64,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: file_type(about.kind),
        perm: (about.mode & 0o7777) as u16,
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Folder => FileType::Directory,
        Kind::Link => FileType::Symlink,
    }
}

fn code(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}

fn entry_reply(disk: &Disk, node: Result<u64, Errno>, reply: ReplyEntry) {
    match node.and_then(|node| attributes(disk, node)) {
        Ok(attributes) => reply.entry(&FOR_EVER, &attributes, Generation(0)),
        Err(error) => reply.error(code(error)),
    }
}

fn empty_reply(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(code(error)),
    }
}

impl Filesystem for FileSystem {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = self.disk.lock();
        entry_reply(&disk, disk.lookup(parent.0, name), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attributes(&self.disk.lock(), ino.0) {
            Ok(attributes) => reply.attr(&FOR_EVER, &attributes),
            Err(error) => reply.error(code(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.disk.lock();
        let changed =
            mode.map_or(Ok(()), |mode| disk.mode_set(ino.0, mode & 0o7777)).and_then(|()| size.map_or(Ok(()), |size| disk.resize(ino.0, size as usize)));
        match changed.and_then(|()| attributes(&disk, ino.0)) {
            Ok(attributes) => reply.attr(&FOR_EVER, &attributes),
            Err(error) => reply.error(code(error)),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.disk.lock().link_target(ino.0) {
            Ok(target) => reply.data(target.as_os_str().as_encoded_bytes()),
            Err(error) => reply.error(code(error)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let mut disk = self.disk.lock();
        let made = disk.folder_make(parent.0, name, mode & 0o7777);
        entry_reply(&disk, made, reply);
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let mut disk = self.disk.lock();
        let made = disk.link_make(parent.0, name, target.to_owned());
        entry_reply(&disk, made, reply);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, _flags: i32, reply: ReplyCreate) {
        let mut disk = self.disk.lock();
        let made = disk.file_make(parent.0, name, mode & 0o7777);
        match made.and_then(|node| attributes(&disk, node)) {
            Ok(attributes) => reply.created(&FOR_EVER, &attributes, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(code(error)),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty_reply(self.disk.lock().file_remove(parent.0, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty_reply(self.disk.lock().folder_remove(parent.0, name), reply);
    }

    fn rename(&self, _: &Request, parent: INodeNo, name: &OsStr, newparent: INodeNo, newname: &OsStr, flags: RenameFlags, reply: ReplyEmpty) {
        let result = if flags.is_empty() { self.disk.lock().rename(parent.0, name, newparent.0, newname) } else { Err(Errno::INVAL) };
        empty_reply(result, reply);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, size: u32, _: OpenFlags, _: Option<LockOwner>, reply: ReplyData) {
        match self.disk.lock().read(ino.0, offset as usize, size as usize) {
            Ok(bytes) => reply.data(bytes),
            Err(error) => reply.error(code(error)),
        }
    }

    fn write(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, data: &[u8], _: WriteFlags, _: OpenFlags, _: Option<LockOwner>, reply: ReplyWrite) {
        match self.disk.lock().write(ino.0, offset as usize, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(code(error)),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, datasync: bool, reply: ReplyEmpty) {
        empty_reply(self.disk.lock().file_sync(ino.0, datasync), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        empty_reply(self.disk.lock().folder_sync(ino.0), reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.disk.lock().list(ino.0) {
            Ok(list) => {
                let mut listings = self.listings.lock();
                listings.next += 1;
                let handle = listings.next;
                listings.open.insert(handle, list);
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(code(error)),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listings = self.listings.lock();
        let names = listings.open.get(&fh.0).into_iter().flatten();
        let dots = [".", ".."].map(|name| (OsStr::new(name), ino.0, Kind::Folder));
        let names = names.map(|(name, node, kind)| (name.as_os_str(), *node, *kind));
        let all = dots.into_iter().chain(names).enumerate();
        for (index, (name, node, kind)) in all.skip(offset as usize) {
            if reply.add(INodeNo(node), index as u64 + 1, file_type(kind), name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings.lock().open.remove(&fh.0);
        reply.ok();
    }
}
