//! The sandbox's file system: a tmpfs of nothing but mount points, everything of the host read-only in it.
//!
//! The starter, still privileged and in the keeper's mount namespace, opens what will be mounted ([`Trees::open`]): by path
//! without following a link, as detached copies with their flags set, so that a folder below 0700 ones works and nothing can be
//! swapped afterwards. Init, in namespaces of its own, puts them into place ([`Trees::build`]) and makes that its root. Order of
//! pivot_root(2): the host's root stays visible until everything is mounted, since the kernel lets a user namespace mount a
//! `proc` only where it sees a whole one.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fstat, mkdirat, openat, openat2, readlinkat, symlinkat},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
        move_mount, open_tree, unmount,
    },
    process::{chdir, fchdir, pivot_root},
};

use crate::{
    error::{Failure, Step},
    mutation::{Layer, without},
    spec::{CHANGING_BYTES_MAX, Limits, Network, Spec},
};

/// The uid and gid of the command inside.
pub(crate) const USER: u32 = 1000;

/// What the starter opened.
pub(crate) struct Trees {
    mounts: Vec<Tree>,
    devices: Vec<(&'static str, OwnedFd)>,
    /// Top-level links of the host that its /usr needs: `bin` -> `usr/bin`.
    links: Vec<(&'static str, PathBuf)>,
}

struct Tree {
    /// Detached: belongs to no mount namespace yet.
    mount: OwnedFd,
    target: PathBuf,
    folder: bool,
}

const DEVICES: [(&str, u32); 5] = [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];
const MEMORY_DEVICES: u32 = 1;
const USR_LINKS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

impl Trees {
    /// Opens and clones every source. `uid`: whose the writable ones become.
    pub fn open(spec: &Spec, writable_under: &[PathBuf], uid: Option<u32>) -> Result<Self, Failure> {
        let mut mounts = Vec::new();
        for mount in &spec.mounts {
            let source = if mount.writable {
                let source = beneath_open(writable_under, &mount.source)?;
                if let Some(uid) = uid {
                    own(&source, uid).step(|| format!("give {} to the sandbox", mount.source.display()))?;
                }
                source
            } else {
                // Without O_NOFOLLOW: with O_PATH it would open a link itself instead of refusing it.
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                openat2(CWD, &mount.source, flags, Mode::empty(), resolve)
                    .step(|| format!("open {}", mount.source.display()))
                    .map_err(|failure| failure.hint_on(&[libc::ELOOP], "name the real path: links are never followed"))?
            };
            let kind = FileType::from_raw_mode(fstat(&source).step(|| format!("look at {}", mount.source.display()))?.st_mode);
            if !matches!(kind, FileType::Directory | FileType::RegularFile) {
                let step = format!("mount {}, which is neither a folder nor a file", mount.source.display());
                return Err(Failure::new(step, rustix::io::Errno::INVAL));
            }
            let mut attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
            if !mount.writable && !without(Layer::ReadOnly) {
                attributes |= MOUNT_ATTR_RDONLY;
            }
            let tree = tree_clone(&source, attributes).step(|| format!("clone the mount of {}", mount.source.display()))?;
            mounts.push(Tree { mount: tree, target: mount.target.clone(), folder: kind == FileType::Directory });
        }
        let devices = DEVICES.iter().map(|(name, minor)| Ok((*name, device_open(name, *minor)?))).collect::<Result<_, Failure>>()?;
        Ok(Self { mounts, devices, links: links_read(spec) })
    }

    /// All that is open here.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.mounts.iter().map(|tree| tree.mount.as_fd()).chain(self.devices.iter().map(|(_, device)| device.as_fd())).collect()
    }

    /// Builds the root on the current folder, makes it the root of this mount namespace and lets go of the host's.
    /// The files that change come back open for writing.
    pub fn build(&self, spec: &Spec) -> Result<Vec<OwnedFd>, Failure> {
        let root = tmpfs(root_size(spec), root_inodes(spec), "755", MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV)
            .step(|| "make the root tmpfs")?;
        place(&root, CWD, Path::new(".")).step(|| "mount the root")?;
        let root = Root { fd: root };
        self.skeleton(&root, &spec.limits)?;
        for tree in &self.mounts {
            let at = if tree.folder { root.folder(&tree.target)? } else { root.file(&tree.target)? };
            place_on(&tree.mount, &at).step(|| format!("mount on {}", tree.target.display()))?;
        }
        for volume in &spec.volumes {
            let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            let step = || format!("mount the volume {}", volume.target.display());
            let mount = tmpfs(volume.bytes, volume.bytes / 4096 + 1024, "1777", flags).step(step)?;
            place_on(&mount, &root.folder(&volume.target)?).step(step)?;
        }
        root.texts(spec)?;
        let changing = root.changing(&spec.changing)?;
        let proc = proc_mount()
            .step(|| "make proc")
            .map_err(|failure| failure.hint_on(&[libc::EPERM], "the host's own /proc must be wholly visible: in a container, run it with /proc unmasked"))?;
        place_on(&proc, &root.folder(Path::new("/proc"))?).step(|| "mount proc")?;
        if !without(Layer::ReadOnly) {
            mount_attributes(&root.fd, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0).step(|| "make the root read-only")?;
        }
        root.enter()?;
        Ok(changing)
    }

    /// What every root has, before the spec's mounts: `/dev`, `/tmp` and the links beside `/usr`.
    fn skeleton(&self, root: &Root, limits: &Limits) -> Result<(), Failure> {
        for (name, device) in &self.devices {
            let at = root.file(&Path::new("/dev").join(name))?;
            place_on(device, &at).step(|| format!("mount /dev/{name}"))?;
        }
        for (link, to) in [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")] {
            root.link(&format!("dev/{link}"), Path::new(to))?;
        }
        for (link, to) in &self.links {
            root.link(link, to)?;
        }
        // Wheels and compilers execute what they put in /tmp; shared memory never needs that.
        let plain = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        for (path, flags) in [("/tmp", plain), ("/dev/shm", plain | MountAttrFlags::MOUNT_ATTR_NOEXEC)] {
            let inodes = limits.tmp_bytes / 4096 + 1024;
            let mount = tmpfs(limits.tmp_bytes, inodes, "1777", flags).step(|| format!("make the tmpfs of {path}"))?;
            place_on(&mount, &root.folder(Path::new(path))?).step(|| format!("mount {path}"))?;
        }
        Ok(())
    }
}

/// Opens a folder for writing on behalf of the daemon: strictly under one of its own.
pub(crate) fn beneath_open(writable_under: &[PathBuf], path: &Path) -> Result<OwnedFd, Failure> {
    let step = || format!("open the writable folder {}", path.display());
    if writable_under.iter().any(|top| top == path) {
        return Err(Failure::new(step(), rustix::io::Errno::PERM).hint("name a folder in it: a staging folder itself is nobody's to give"));
    }
    staging_open(writable_under, path)?.ok_or_else(|| Failure::new(step(), rustix::io::Errno::NOENT))
}

/// Opens one of the daemon's staging folders or a folder in one. `None`: it is not there.
pub(crate) fn staging_open(writable_under: &[PathBuf], path: &Path) -> Result<Option<OwnedFd>, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let step = || format!("open the folder {}", path.display());
    let Some((top, inner)) = writable_under.iter().find_map(|top| Some((top, path.strip_prefix(top).ok()?))) else {
        return Err(Failure::new(step(), rustix::io::Errno::PERM).hint("it must lie under one of the keeper's writable folders"));
    };
    let opened = openat2(CWD, top, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).and_then(|top| {
        let inner = if inner.as_os_str().is_empty() { Path::new(".") } else { inner };
        openat2(&top, inner, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV)
    });
    match opened {
        Ok(folder) => Ok(Some(folder)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(Failure::new(step(), error)),
    }
}

fn own(folder: &OwnedFd, uid: u32) -> io::Result<()> {
    Ok(chownat(folder, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)), AtFlags::EMPTY_PATH)?)
}

fn device_open(name: &str, minor: u32) -> Result<OwnedFd, Failure> {
    let step = || format!("open the host's /dev/{name}");
    let path = Path::new("/dev").join(name);
    let device = openat2(CWD, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS).step(step)?;
    let stat = fstat(&device).step(step)?;
    let expected = rustix::fs::makedev(MEMORY_DEVICES, minor);
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != expected {
        return Err(Failure::new(format!("{}: not the memory device {MEMORY_DEVICES}:{minor}", step()), rustix::io::Errno::NODEV));
    }
    tree_clone(&device, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC).step(step)
}

/// What of `/bin`, `/lib`, ... is a link on the host, when its `/usr` is mounted and the spec has no mount of its own there.
fn links_read(spec: &Spec) -> Vec<(&'static str, PathBuf)> {
    if !spec.mounts.iter().any(|mount| mount.target == Path::new("/usr")) {
        return Vec::new();
    }
    let taken = |name: &str| spec.mounts.iter().any(|mount| mount.target.starts_with(Path::new("/").join(name)));
    USR_LINKS
        .into_iter()
        .filter(|name| !taken(name))
        .filter_map(|name| {
            let to = readlinkat(CWD, Path::new("/").join(name), Vec::new()).ok()?;
            Some((name, PathBuf::from(OsStr::from_bytes(to.to_bytes()))))
        })
        .collect()
}

/// Room for the files of the spec and the mount points.
fn root_size(spec: &Spec) -> u64 {
    let files: u64 = spec.files.iter().map(|(_, content)| content.len().next_multiple_of(4096) as u64).sum();
    files + spec.changing.len() as u64 * CHANGING_BYTES_MAX + (1 << 20)
}

/// Each path makes at most as many folders as it has slashes.
fn root_inodes(spec: &Spec) -> u64 {
    let volumes = spec.volumes.iter().map(|volume| &volume.target);
    let paths = spec.mounts.iter().map(|mount| &mount.target).chain(volumes).chain(spec.files.iter().map(|(path, _)| path));
    paths.map(|path| path.components().count() as u64).sum::<u64>() + 64
}

/// The root while it is built; every path in it is walked without following links.
struct Root {
    fd: OwnedFd,
}

const STRAIGHT: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

impl Root {
    /// Opens a folder, made with those above it when missing. A step at a time: what is in a mount could be a link.
    fn folder(&self, path: &Path) -> Result<OwnedFd, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |folder: BorrowedFd<'_>, name: &OsStr| openat2(folder, name, flags, Mode::empty(), STRAIGHT).map_err(|error| self.not_made(path, error));
        let mut at = open(self.fd.as_fd(), OsStr::new("."))?;
        for name in path.strip_prefix("/").unwrap_or(path) {
            match mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
                // On a read-only mount it may be there: opening it tells.
                Ok(()) | Err(rustix::io::Errno::EXIST | rustix::io::Errno::ROFS) => {}
                Err(error) => return Err(self.not_made(path, error)),
            }
            at = open(at.as_fd(), name)?;
        }
        Ok(at)
    }

    fn not_made(&self, path: &Path, error: rustix::io::Errno) -> Failure {
        let hint = "it lies inside an earlier mount, which must then have it already";
        Failure::new(format!("make the folder {} in the root", path.display()), error).hint_on(&[libc::ENOENT, libc::EACCES], hint)
    }

    /// Makes an empty file, to be mounted on, unless it is there.
    fn file(&self, path: &Path) -> Result<OwnedFd, Failure> {
        let step = || format!("make the file {} in the root", path.display());
        let folder = self.folder(path.parent().unwrap_or(Path::new("/")))?;
        let name = path.file_name().unwrap_or_default();
        let made = openat(&folder, name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, Mode::from_raw_mode(0o444));
        match made {
            Ok(_) | Err(rustix::io::Errno::EXIST) => {}
            // On a read-only mount the file may be there: opening it tells.
            Err(rustix::io::Errno::ROFS) => {}
            Err(error) => return Err(Failure::new(step(), error)),
        }
        openat2(&folder, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), STRAIGHT).step(step)
    }

    fn link(&self, name: &str, to: &Path) -> Result<(), Failure> {
        symlinkat(to, &self.fd, name).step(|| format!("make the link {name} in the root"))
    }

    /// Writes the spec's files, then the minimal ones of `/etc` where neither a file nor a mount is.
    fn texts(&self, spec: &Spec) -> Result<(), Failure> {
        for (path, content) in &spec.files {
            self.text(path, content)?;
        }
        for (path, content) in etc(&spec.id, &spec.network) {
            let path = Path::new(path);
            let covered = spec.mounts.iter().any(|mount| path.starts_with(&mount.target));
            if !covered && !spec.files.iter().any(|(file, _)| file == path) {
                self.text(path, content.as_bytes())?;
            }
        }
        Ok(())
    }

    fn text(&self, path: &Path, content: &[u8]) -> Result<(), Failure> {
        let step = || format!("write the file {}", path.display());
        let folder = self.folder(path.parent().unwrap_or(Path::new("/")))?;
        let (own, there) = (fstat(&self.fd).step(step)?, fstat(&folder).step(step)?);
        if own.st_dev != there.st_dev {
            return Err(Failure::new(step(), rustix::io::Errno::XDEV).hint("files are laid into the root itself, not into a mount"));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&folder, path.file_name().unwrap_or_default(), flags, Mode::from_raw_mode(0o444)).step(step)?;
        io::Write::write_all(&mut std::fs::File::from(file), content).step(step)
    }

    /// Opens files for writing by a mount of the same files that is nowhere and stays writable when the root no longer is.
    fn changing(&self, paths: &[PathBuf]) -> Result<Vec<OwnedFd>, Failure> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let aside = open_tree(&self.fd, "", flags).step(|| "clone the root's mount")?;
        let open = |path: &PathBuf| {
            let inside = path.strip_prefix("/").unwrap_or(path);
            openat2(&aside, inside, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty(), STRAIGHT).step(|| format!("open the file {}", path.display()))
        };
        paths.iter().map(open).collect()
    }

    /// pivot_root(2) with both on the same place: the old root ends up above the new one and is let go.
    fn enter(&self) -> Result<(), Failure> {
        fchdir(&self.fd).step(|| "go to the new root")?;
        pivot_root(".", ".").step(|| "pivot_root")?;
        unmount(".", UnmountFlags::DETACH).step(|| "let go of the host's root")?;
        chdir("/").step(|| "go to /")
    }
}

/// Just enough for programs that ask who they are and where names are looked up.
fn etc(id: &str, network: &Network) -> [(&'static str, String); 4] {
    let metadata = if network.metadata { "169.254.169.254 metadata.google.internal metadata\n" } else { "" };
    [
        ("/etc/passwd", format!("root:x:0:0:root:/root:/sbin/nologin\nuser:x:{USER}:{USER}:user:/tmp:/bin/sh\n")),
        ("/etc/group", format!("root:x:0:\nuser:x:{USER}:\n")),
        ("/etc/hosts", format!("127.0.0.1 localhost\n::1 localhost\n127.0.0.1 {id}\n{metadata}")),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
    ]
}

fn tmpfs(bytes: u64, inodes: u64, mode: &str, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "size", bytes.to_string())?;
    fsconfig_set_string(&fs, "nr_inodes", inodes.to_string())?;
    fsconfig_set_string(&fs, "mode", mode)?;
    fsconfig_create(&fs)?;
    Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Shows the sandbox's processes only, and of those only what the reader could trace: not init.
fn proc_mount() -> io::Result<OwnedFd> {
    let fs = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if !without(Layer::HideProcesses) {
        fsconfig_set_string(&fs, "hidepid", "2")?;
    }
    fsconfig_create(&fs)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_RDONLY;
    Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn place(mount: &OwnedFd, folder: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    Ok(move_mount(mount, "", folder, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn place_on(mount: &OwnedFd, at: &OwnedFd) -> io::Result<()> {
    Ok(move_mount(mount, "", at, "", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)?)
}

/// A detached copy of what is mounted at and below an open path.
fn tree_clone(source: &OwnedFd, attributes: u64) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(source, "", flags)?;
    mount_attributes(&tree, attributes, libc::AT_RECURSIVE)?;
    Ok(tree)
}

const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;
const MOUNT_ATTR_NOEXEC: u64 = 8;

fn mount_attributes(mount: impl AsFd, set: u64, flags: i32) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: mount_setattr(2) reads the empty path and `attributes`, whose size it is told; both live across the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
