//! A folder written and read through descriptors only.
//!
//! Every step goes from an open directory to one name in it, never following a link and never joining strings to a path
//! that the kernel would resolve again: what others write beside us cannot lead us out. Used for sources (written from
//! archives) and for what sandboxes leave behind (read as data). Does not decide what is allowed: callers do.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags},
    io::Errno,
};

/// Bytes of one name, the limit of Linux file systems.
pub(crate) const NAME_MAX_BYTES: usize = 255;
/// Folders above a file in a tree.
pub(crate) const DEPTH_MAX: usize = 64;
/// Bytes of a whole relative path.
pub(crate) const PATH_MAX_BYTES: usize = 1024;

const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);
const DIRECTORY_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Why a path of an archive is not one that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    #[error("its name is empty")]
    Empty,
    #[error("its path is absolute")]
    Absolute,
    #[error("its path has a `..` in it")]
    Parent,
    #[error("its path has a backslash in it")]
    Backslash,
    #[error("its path has a control character in it")]
    Control,
    #[error("its path is not UTF-8")]
    NotUtf8,
    #[error("a name in its path is longer than 255 bytes")]
    NameTooLong,
    #[error("its path is longer than 1024 bytes")]
    PathTooLong,
    #[error("it lies more than 64 folders deep")]
    TooDeep,
}

/// A relative path whose parts are plain names: no `..`, no link tricks, bounded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TreePath(Vec<String>);

impl TreePath {
    /// `./` and doubled slashes are taken out; the root itself (`./`) has no parts.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, PathFault> {
        if bytes.is_empty() {
            return Err(PathFault::Empty);
        }
        if bytes.iter().any(|b| *b < 0x20 || *b == 0x7f) {
            return Err(PathFault::Control);
        }
        if bytes.contains(&b'\\') {
            return Err(PathFault::Backslash);
        }
        if bytes[0] == b'/' {
            return Err(PathFault::Absolute);
        }
        if bytes.len() > PATH_MAX_BYTES {
            return Err(PathFault::PathTooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| PathFault::NotUtf8)?;
        let mut parts = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => return Err(PathFault::Parent),
                name if name.len() > NAME_MAX_BYTES => return Err(PathFault::NameTooLong),
                name => parts.push(name.to_owned()),
            }
        }
        if parts.len() > DEPTH_MAX {
            return Err(PathFault::TooDeep);
        }
        Ok(Self(parts))
    }

    /// Folder parts and the last name; `None` for the root.
    fn split(&self) -> Option<(&[String], &str)> {
        let (name, parents) = self.0.split_last()?;
        Some((parents, name))
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// How many folders lie above it.
    pub(crate) fn depth(&self) -> usize {
        self.0.len().saturating_sub(1)
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// What stands in the way of an entry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("there is an entry of this name already")]
    Taken,
    #[error("a file or a link lies where its folder should be")]
    NotAFolder,
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for WriteError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EXIST => WriteError::Taken,
            Errno::NOTDIR | Errno::LOOP => WriteError::NotAFolder,
            other => WriteError::Io(other.into()),
        }
    }
}

/// Writes below one folder. Directories are 0755, files 0755 or 0644.
pub(crate) struct TreeWriter {
    root: OwnedFd,
    /// The folders above the last entry, from the root down, at most [`DEPTH_MAX`]: archives list what lies together together,
    /// and a walk from the root for each entry of a deep tree takes as long as the tree is deep.
    last: Vec<(String, OwnedFd)>,
    /// Folders made, named or implied.
    folders: usize,
}

impl TreeWriter {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self { root: rustix::fs::open(folder, DIRECTORY_FLAGS, Mode::empty())?, last: Vec::new(), folders: 0 })
    }

    /// How many folders were made so far.
    pub(crate) fn folders(&self) -> usize {
        self.folders
    }

    /// A folder that may be there already.
    pub(crate) fn folder(&mut self, path: &TreePath) -> Result<(), WriteError> {
        self.parent(&path.0).map(drop)
    }

    pub(crate) fn file(&mut self, path: &TreePath, executable: bool) -> Result<File, WriteError> {
        let (parents, name) = path.split().ok_or(WriteError::Taken)?;
        let mode = if executable { 0o755 } else { 0o644 };
        let parent = self.parent(parents)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(mode))?;
        // The umask of the process must not decide what an instance may read.
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
        Ok(File::from(fd))
    }

    /// Moves a file here, by its name in a folder. False: it must be copied, for it lies on another file system.
    fn take(&mut self, folder: &OwnedFd, file: &File, path: &TreePath, executable: bool) -> Result<bool, WriteError> {
        let (parents, name) = path.split().ok_or(WriteError::Taken)?;
        let mode = if executable { 0o755 } else { 0o644 };
        let parent = self.parent(parents)?;
        match rustix::fs::renameat_with(folder, name, parent, name, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
        Ok(true)
    }

    pub(crate) fn link(&mut self, path: &TreePath, target: &str) -> Result<(), WriteError> {
        let (parents, name) = path.split().ok_or(WriteError::Taken)?;
        let parent = self.parent(parents)?;
        Ok(rustix::fs::symlinkat(target, parent, name)?)
    }

    /// Removes a file or link that may be there.
    pub(crate) fn remove(&mut self, path: &TreePath) -> Result<(), WriteError> {
        let (parents, name) = path.split().ok_or(WriteError::Taken)?;
        let parent = self.parent(parents)?;
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The folder of these parts, made where it is missing.
    fn parent(&mut self, parts: &[String]) -> Result<&OwnedFd, WriteError> {
        let known = self.last.iter().zip(parts).take_while(|((name, _), part)| name == *part).count();
        self.last.truncate(known);
        for part in &parts[known..] {
            let above = self.last.last().map_or(&self.root, |(_, folder)| folder);
            let is_new = match rustix::fs::mkdirat(above, part.as_str(), DIRECTORY_MODE) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(errno) => return Err(errno.into()),
            };
            self.folders += usize::from(is_new);
            let folder = rustix::fs::openat(above, part.as_str(), DIRECTORY_FLAGS, Mode::empty())?;
            if is_new {
                rustix::fs::fchmod(&folder, DIRECTORY_MODE)?;
            }
            self.last.push((part.clone(), folder));
        }
        Ok(self.last.last().map_or(&self.root, |(_, folder)| folder))
    }
}

/// Reads below one folder.
pub(crate) struct TreeReader {
    root: OwnedFd,
}

/// One thing in a folder.
pub(crate) enum Node {
    Folder(OwnedFd),
    File {
        file: File,
        size: u64,
        mode: u32,
        /// How many names it has.
        names: u64,
    },
    Link(Vec<u8>),
    /// A device, socket or pipe.
    Other,
}

impl TreeReader {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self { root: rustix::fs::open(folder, DIRECTORY_FLAGS, Mode::empty())? })
    }

    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// A regular file's content. `None` when there is no regular file of this path, or a link on the way.
    /// # Errors
    /// `FileTooLarge` above `limit` bytes.
    pub(crate) fn read(&self, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some((file, size)) = self.file(path)? else {
            return Ok(None);
        };
        if size > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = Vec::with_capacity(size as usize);
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    pub(crate) fn has_file(&self, path: &str) -> io::Result<bool> {
        Ok(self.file(path)?.is_some())
    }

    /// A regular file, opened. `None` when there is no regular file of this path, or a link on the way.
    pub(crate) fn open_file(&self, path: &str) -> io::Result<Option<(File, u64)>> {
        self.file(path)
    }

    /// Names in a folder, sorted. `None` when there is no such folder, or a link on the way.
    pub(crate) fn names_in(&self, path: &str, limit: usize) -> io::Result<Option<Vec<Vec<u8>>>> {
        let Ok(path) = TreePath::parse(path.as_bytes()) else {
            return Ok(None);
        };
        let mut folder = self.root.try_clone()?;
        for part in &path.0 {
            match rustix::fs::openat(&folder, part.as_str(), DIRECTORY_FLAGS, Mode::empty()) {
                Ok(next) => folder = next,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        }
        names(&folder, limit).map(Some)
    }

    /// Gives `each` the content of every file whose name `wants` takes, but in folders at the top named in `without`. Larger ones
    /// than `limit` bytes are passed over.
    pub(crate) fn files_below(&self, without: &[&str], wants: impl Fn(&str) -> bool, limit: u64, mut each: impl FnMut(String, Vec<u8>)) -> io::Result<()> {
        let mut open = vec![(self.root.try_clone()?, String::new(), 0)];
        while let Some((folder, above, depth)) = open.pop() {
            for name in names(&folder, model::limits::SOURCE_ENTRIES_MAX)? {
                match node(&folder, OsStr::from_bytes(&name))? {
                    Node::Folder(next) if depth < DEPTH_MAX && !(depth == 0 && without.iter().any(|without| without.as_bytes() == name)) => {
                        open.push((next, format!("{above}{}/", String::from_utf8_lossy(&name)), depth + 1));
                    }
                    Node::File { file, size, .. } if size <= limit && std::str::from_utf8(&name).is_ok_and(&wants) => {
                        let mut bytes = Vec::with_capacity(size as usize);
                        file.take(limit).read_to_end(&mut bytes)?;
                        each(format!("{above}{}", String::from_utf8_lossy(&name)), bytes);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Whether there is a file whose name ends so, in any folder that has not one of these names.
    pub(crate) fn has_file_below(&self, without: &[&str], ending: &str) -> io::Result<bool> {
        let mut open = vec![(self.root.try_clone()?, 0)];
        while let Some((folder, depth)) = open.pop() {
            for name in names(&folder, model::limits::SOURCE_ENTRIES_MAX)? {
                match node(&folder, OsStr::from_bytes(&name))? {
                    Node::Folder(next) if depth < DEPTH_MAX && !without.iter().any(|without| without.as_bytes() == name) => open.push((next, depth + 1)),
                    Node::File { .. } if name.ends_with(ending.as_bytes()) => return Ok(true),
                    _ => {}
                }
            }
        }
        Ok(false)
    }

    fn file(&self, path: &str) -> io::Result<Option<(File, u64)>> {
        let Ok(path) = TreePath::parse(path.as_bytes()) else {
            return Ok(None);
        };
        let Some((parents, name)) = path.split() else {
            return Ok(None);
        };
        let mut folder = self.root.try_clone()?;
        for part in parents {
            match rustix::fs::openat(&folder, part.as_str(), DIRECTORY_FLAGS, Mode::empty()) {
                Ok(next) => folder = next,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        }
        match node(&folder, OsStr::new(name)) {
            Ok(Node::File { file, size, .. }) => Ok(Some((file, size))),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Names in a folder, sorted, at most `limit`.
pub(crate) fn names(folder: &OwnedFd, limit: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if names.len() == limit {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many entries"));
        }
        names.push(name.to_vec());
    }
    names.sort();
    Ok(names)
}

/// Opens one name of a folder. What it is is asked of the descriptor, so that it cannot change in between.
pub(crate) fn node(folder: &OwnedFd, name: &OsStr) -> io::Result<Node> {
    let looked = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(looked.st_mode) {
        FileType::Symlink => Ok(Node::Link(rustix::fs::readlinkat(folder, name, Vec::new())?.into_bytes())),
        FileType::Directory => Ok(Node::Folder(rustix::fs::openat(folder, name, DIRECTORY_FLAGS, Mode::empty())?)),
        FileType::RegularFile => {
            // NONBLOCK: were it swapped for a pipe just now, opening must not hang.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(folder, name, flags, Mode::empty())?;
            let stat = rustix::fs::fstat(&fd)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Ok(Node::Other);
            }
            #[allow(clippy::useless_conversion, reason = "its width is the platform's")]
            Ok(Node::File { file: File::from(fd), size: u64::try_from(stat.st_size).unwrap_or(0), mode: stat.st_mode, names: u64::from(stat.st_nlink) })
        }
        _ => Ok(Node::Other),
    }
}

/// What a copy may hold.
#[derive(Clone, Debug)]
pub(crate) struct CopyRules {
    pub(crate) bytes_max: u64,
    pub(crate) entries_max: usize,
    /// Absolute link targets are kept when they lie below one of these; relative ones must stay in the tree.
    pub(crate) links_below: Vec<String>,
    /// Names at the top that are left out.
    pub(crate) without: Vec<&'static str>,
}

/// Why a tree that a sandbox wrote is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("{path:?}: {why}")]
    Refused { path: String, why: String },
    #[error("more than {0} MiB")]
    TooLarge(u64),
    #[error("more than {0} files")]
    TooMany(usize),
    #[error("{path:?}: {source}")]
    Io { path: String, source: io::Error },
}

/// What a copy held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) bytes: u64,
    pub(crate) entries: usize,
}

/// Copies a tree that others wrote, as data: regular files, folders, harmless links; anything else is refused.
pub(crate) fn copy(from: &Path, to: &mut TreeWriter, rules: &CopyRules) -> Result<Copied, CopyError> {
    transfer(from, to, rules, false)
}

/// As [`copy`], for a tree whose writers have all ended and that nobody needs any more: its files are moved.
///
/// What has another name, which others may have open, or an attribute that a copy would not have, is copied.
pub(crate) fn take(from: &Path, to: &mut TreeWriter, rules: &CopyRules) -> Result<Copied, CopyError> {
    transfer(from, to, rules, true)
}

fn transfer(from: &Path, to: &mut TreeWriter, rules: &CopyRules, is_ours: bool) -> Result<Copied, CopyError> {
    let reader = TreeReader::open(from).map_err(|source| CopyError::Io { path: String::new(), source })?;
    let mut copied = Copied::default();
    folder_transfer(reader.root(), &mut Vec::new(), to, rules, is_ours, &mut copied)?;
    Ok(copied)
}

fn folder_transfer(
    folder: &OwnedFd,
    above: &mut Vec<String>,
    to: &mut TreeWriter,
    rules: &CopyRules,
    is_ours: bool,
    copied: &mut Copied,
) -> Result<(), CopyError> {
    let here = |above: &[String], name: &str| {
        let mut path = above.join("/");
        if !path.is_empty() {
            path.push('/');
        }
        path + name
    };
    let listed = names(folder, rules.entries_max).map_err(|source| CopyError::Io { path: here(above, ""), source })?;
    for name in listed {
        let shown = here(above, &String::from_utf8_lossy(&name));
        if above.is_empty() && rules.without.iter().any(|without| without.as_bytes() == name) {
            continue;
        }
        copied.entries += 1;
        if copied.entries > rules.entries_max {
            return Err(CopyError::TooMany(rules.entries_max));
        }
        let refused = |why: &str| CopyError::Refused { path: shown.clone(), why: why.to_owned() };
        let failed = |source: io::Error| CopyError::Io { path: shown.clone(), source };
        let path = TreePath::parse(shown.as_bytes()).map_err(|fault| refused(&fault.to_string()))?;
        match node(folder, OsStr::from_bytes(&name)).map_err(failed)? {
            Node::Folder(next) => {
                to.folder(&path).map_err(|e| refused(&e.to_string()))?;
                above.push(String::from_utf8_lossy(&name).into_owned());
                folder_transfer(&next, above, to, rules, is_ours, copied)?;
                above.pop();
            }
            Node::File { file, size, mode, names } => {
                if mode & 0o6000 != 0 {
                    return Err(refused("it is set-user-id or set-group-id"));
                }
                if copied.bytes.saturating_add(size) > rules.bytes_max {
                    return Err(CopyError::TooLarge(rules.bytes_max >> 20));
                }
                let is_executable = mode & 0o111 != 0;
                if is_ours && names == 1 && !has_attributes(&file) && to.take(folder, &file, &path, is_executable).map_err(|e| refused(&e.to_string()))? {
                    copied.bytes += size;
                    continue;
                }
                let mut target = to.file(&path, is_executable).map_err(|e| refused(&e.to_string()))?;
                let written = io::copy(&mut file.take(size), &mut target).map_err(failed)?;
                copied.bytes += written;
            }
            Node::Link(target) => {
                let target = String::from_utf8(target).map_err(|_| refused("its link target is not UTF-8"))?;
                if !link_stays(&path, &target) && !link_below(&target, &rules.links_below) {
                    return Err(refused(&format!("it is a link that leads out, to {target:?}")));
                }
                to.link(&path, &target).map_err(|e| refused(&e.to_string()))?;
            }
            Node::Other => return Err(refused("it is neither file, folder nor link")),
        }
    }
    Ok(())
}

/// Whether a file has extended attributes, or may have some that cannot be seen.
fn has_attributes(file: &File) -> bool {
    let mut names = [0_u8; 256];
    match rustix::fs::flistxattr(file, &mut names[..]) {
        Ok(length) => length > 0,
        Err(errno) => errno != Errno::OPNOTSUPP,
    }
}

/// Whether a relative link stays inside its tree whatever other links of the tree that passed this test do.
///
/// Leading `..` are counted from the link's own folder, which has no link above it; a `..` after a name could step out
/// of where another link leads, so it is refused.
pub(crate) fn link_stays(path: &TreePath, target: &str) -> bool {
    if target.is_empty() || target.len() > PATH_MAX_BYTES || target.starts_with('/') || target.contains('\\') {
        return false;
    }
    if target.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return false;
    }
    let mut ups = 0;
    let mut named = false;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if named => return false,
            ".." => ups += 1,
            _ => named = true,
        }
    }
    ups <= path.depth()
}

fn link_below(target: &str, allowed: &[String]) -> bool {
    !target.split('/').any(|part| part == "..") && allowed.iter().any(|root| target.strip_prefix(root.as_str()).is_some_and(|rest| rest.starts_with('/')))
}

/// Path and size of every regular file below, for telling whether two trees differ.
pub(crate) fn sizes(folder: &Path, entries_max: usize) -> io::Result<BTreeMap<Vec<u8>, u64>> {
    fn walk(folder: &OwnedFd, above: &[u8], found: &mut BTreeMap<Vec<u8>, u64>, max: usize) -> io::Result<()> {
        for name in names(folder, max)? {
            let mut path = above.to_vec();
            path.push(b'/');
            path.extend_from_slice(&name);
            match node(folder, OsStr::from_bytes(&name))? {
                Node::Folder(next) => walk(&next, &path, found, max)?,
                Node::File { size, .. } => {
                    if found.len() == max {
                        return Err(io::ErrorKind::QuotaExceeded.into());
                    }
                    found.insert(path, size);
                }
                Node::Link(_) | Node::Other => {}
            }
        }
        Ok(())
    }
    let mut found = BTreeMap::new();
    walk(&TreeReader::open(folder)?.root, b"", &mut found, entries_max)?;
    Ok(found)
}

/// Free bytes of the file system that a folder lies on.
pub(crate) fn free_bytes(folder: impl AsFd) -> io::Result<u64> {
    let stat = rustix::fs::fstatvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests;
