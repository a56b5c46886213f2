//! A disk with a volatile cache, in memory: what is seen, what is durable, and what a power cut leaves.
//!
//! The rules are those of a journaling file system such as ext4, and stricter where that one gives more than POSIX asks:
//!
//! - A write or a change of size is volatile until fsync or fdatasync of that file. At a cut each unsynced write is there,
//!   lost or torn: each sector of 512 bytes holds any of the contents it had since the last sync, whatever the sectors
//!   beside it and other files hold. So writes are also reordered. The size is any that the file had since then. What a
//!   grown file has not got back reads as zeros, never as what another file left.
//! - A mode is volatile until fsync (not fdatasync) of the file or folder.
//! - A name (create, mkdir, symlink, rename, unlink, rmdir) is volatile until fsync of its folder; fsync of the file does
//!   not help its name (ext4 does more). A fsync of one folder says nothing about others (ext4: all earlier ones too). At a
//!   cut a prefix or any subset of the unsynced ones is there.
//! - One operation on names is atomic, a rename between two folders too, and operations on the same name keep their order:
//!   that is what a journal gives. After a rename, fsync of either folder makes it durable.
//! - What no durable name leads to is gone.
//!
//! Not modelled: a fsync that fails, bits that rot, a disk that is full, hard links, extended attributes, times.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use rand::{RngExt as _, rngs::StdRng};
use rustix::io::Errno;

pub const ROOT: u64 = 1;
/// What a disk writes whole or not at all, in bytes.
pub const SECTOR: usize = 512;

/// SQLite writes to these files themselves only in a checkpoint, once they are made.
const DATABASES: [&str; 2] = ["state.db", "logs.db"];

/// A sync that the disk answers and does not do: shows that the test would see a store that forgets this one.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "unsafe-no-fsync", expect(dead_code, reason = "a store without syncs needs no disk without them"))]
pub enum Lie {
    /// Of `state.db`: what a checkpoint moves there from the WAL.
    Database,
    /// Of `state.db-wal`: what makes a commit durable.
    Wal,
    /// The same of `logs.db`.
    LogDatabase,
    LogWal,
    /// Of blobs, that is of files named `blob-...` when they are made.
    Blobs,
    /// Of all other files: those of layers.
    Layers,
    Folders,
}

impl Lie {
    fn is_about_file(self, name: &OsStr) -> bool {
        let name = name.as_encoded_bytes();
        let is_blob = name.starts_with(b"blob-");
        match self {
            Lie::Database => name == b"state.db",
            Lie::Wal => name == b"state.db-wal",
            Lie::LogDatabase => name == b"logs.db",
            Lie::LogWal => name == b"logs.db-wal",
            Lie::Blobs => is_blob,
            Lie::Layers => !DATABASES.iter().any(|database| name.starts_with(database.as_bytes())) && !is_blob,
            Lie::Folders => false,
        }
    }
}

fn is_database(name: &OsStr) -> bool {
    DATABASES.iter().any(|database| name == *database)
}

pub struct Disk {
    nodes: HashMap<u64, Node>,
    node_next: u64,
    /// Operations on names that are not durable, oldest first.
    names: Vec<NameChange>,
    lie: Option<Lie>,
}

struct Node {
    body: Body,
    mode: u32,
    mode_durable: u32,
    /// The name it was made under.
    name: OsString,
}

enum Body {
    File(FileBody),
    Folder(FolderBody),
    Link(PathBuf),
}

#[derive(Default)]
struct FileBody {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// What makes `now` of `durable`, oldest first.
    unsynced: Vec<Edit>,
}

#[derive(Default)]
struct FolderBody {
    now: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
}

enum Edit {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

/// A name in a folder.
type Slot = (u64, OsString);

/// One atomic operation: what each of its names leads to afterwards.
struct NameChange(Vec<(Slot, Option<u64>)>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    File,
    Folder,
    Link,
}

/// What `stat` tells.
pub struct About {
    pub kind: Kind,
    pub mode: u32,
    pub size: usize,
}

/// How much a cut had to decide about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Toll {
    /// Unsynced writes, changes of size and operations on names.
    pub unsynced: usize,
    /// Those of them that are not there, or not wholly.
    pub dropped: usize,
    /// Cuts that found unsynced writes to `state.db`.
    pub in_checkpoint: usize,
}

impl Disk {
    pub fn new(lie: Option<Lie>) -> Self {
        let root = Node { body: Body::Folder(FolderBody::default()), mode: 0o755, mode_durable: 0o755, name: OsString::new() };
        Self { nodes: HashMap::from([(ROOT, root)]), node_next: ROOT + 1, names: Vec::new(), lie }
    }

    pub fn lookup(&self, folder: u64, name: &OsStr) -> Result<u64, Errno> {
        self.folder(folder)?.now.get(name).copied().ok_or(Errno::NOENT)
    }

    pub fn about(&self, node: u64) -> Result<About, Errno> {
        let node = self.node(node)?;
        let (kind, size) = match &node.body {
            Body::File(file) => (Kind::File, file.now.len()),
            Body::Folder(_) => (Kind::Folder, 0),
            Body::Link(target) => (Kind::Link, target.as_os_str().len()),
        };
        Ok(About { kind, mode: node.mode, size })
    }

    pub fn list(&self, folder: u64) -> Result<Vec<(OsString, u64, Kind)>, Errno> {
        self.folder(folder)?.now.iter().map(|(name, node)| Ok((name.clone(), *node, self.about(*node)?.kind))).collect()
    }

    pub fn link_target(&self, node: u64) -> Result<&PathBuf, Errno> {
        match &self.node(node)?.body {
            Body::Link(target) => Ok(target),
            _ => Err(Errno::INVAL),
        }
    }

    pub fn read(&self, node: u64, offset: usize, count: usize) -> Result<&[u8], Errno> {
        let Body::File(file) = &self.node(node)?.body else {
            return Err(Errno::ISDIR);
        };
        let from = offset.min(file.now.len());
        Ok(&file.now[from..(from + count).min(file.now.len())])
    }

    pub fn write(&mut self, node: u64, offset: usize, bytes: &[u8]) -> Result<(), Errno> {
        let bytes = bytes.to_vec();
        self.edit(node, Edit::Write { offset, bytes })
    }

    pub fn resize(&mut self, node: u64, size: usize) -> Result<(), Errno> {
        self.edit(node, Edit::Resize(size))
    }

    fn edit(&mut self, node: u64, edit: Edit) -> Result<(), Errno> {
        let Body::File(file) = &mut self.node_mut(node)?.body else {
            return Err(Errno::ISDIR);
        };
        edit.apply(&mut file.now);
        file.unsynced.push(edit);
        Ok(())
    }

    pub fn mode_set(&mut self, node: u64, mode: u32) -> Result<(), Errno> {
        self.node_mut(node)?.mode = mode;
        Ok(())
    }

    pub fn file_make(&mut self, folder: u64, name: &OsStr, mode: u32) -> Result<u64, Errno> {
        self.make(folder, name, mode, Body::File(FileBody::default()))
    }

    pub fn folder_make(&mut self, folder: u64, name: &OsStr, mode: u32) -> Result<u64, Errno> {
        self.make(folder, name, mode, Body::Folder(FolderBody::default()))
    }

    pub fn link_make(&mut self, folder: u64, name: &OsStr, target: PathBuf) -> Result<u64, Errno> {
        self.make(folder, name, 0o777, Body::Link(target))
    }

    fn make(&mut self, folder: u64, name: &OsStr, mode: u32, body: Body) -> Result<u64, Errno> {
        if self.folder(folder)?.now.contains_key(name) {
            return Err(Errno::EXIST);
        }
        let number = self.node_next;
        self.node_next += 1;
        let node = Node { body, mode, mode_durable: mode, name: name.to_owned() };
        self.nodes.insert(number, node);
        self.names_change(vec![((folder, name.to_owned()), Some(number))]);
        Ok(number)
    }

    pub fn file_remove(&mut self, folder: u64, name: &OsStr) -> Result<(), Errno> {
        let node = self.lookup(folder, name)?;
        if self.about(node)?.kind == Kind::Folder {
            return Err(Errno::ISDIR);
        }
        self.names_change(vec![((folder, name.to_owned()), None)]);
        Ok(())
    }

    pub fn folder_remove(&mut self, folder: u64, name: &OsStr) -> Result<(), Errno> {
        let node = self.lookup(folder, name)?;
        if !self.folder(node)?.now.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.names_change(vec![((folder, name.to_owned()), None)]);
        Ok(())
    }

    pub fn rename(&mut self, from: u64, name: &OsStr, to: u64, name_new: &OsStr) -> Result<(), Errno> {
        let node = self.lookup(from, name)?;
        let is_folder = self.about(node)?.kind == Kind::Folder;
        match self.lookup(to, name_new) {
            Ok(there) if there == node => return Ok(()),
            Ok(there) => match (is_folder, self.about(there)?.kind == Kind::Folder) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) if !self.folder(there)?.now.is_empty() => {
                    return Err(Errno::NOTEMPTY);
                }
                _ => {}
            },
            Err(_) => {}
        }
        self.names_change(vec![((from, name.to_owned()), None), ((to, name_new.to_owned()), Some(node))]);
        Ok(())
    }

    fn names_change(&mut self, change: Vec<(Slot, Option<u64>)>) {
        for ((folder, name), node) in &change {
            self.names_of(*folder, |body| &mut body.now, name, *node);
        }
        self.names.push(NameChange(change));
    }

    fn names_of(&mut self, folder: u64, which: fn(&mut FolderBody) -> &mut BTreeMap<OsString, u64>, name: &OsStr, node: Option<u64>) {
        let Some(Node { body: Body::Folder(body), .. }) = self.nodes.get_mut(&folder) else {
            unreachable!("names stand in folders");
        };
        match node {
            Some(node) => which(body).insert(name.to_owned(), node),
            None => which(body).remove(name),
        };
    }

    /// fsync, or with `data_only` fdatasync.
    pub fn file_sync(&mut self, node: u64, data_only: bool) -> Result<(), Errno> {
        let lie = self.lie;
        let node = self.node_mut(node)?;
        if lie.is_some_and(|lie| lie.is_about_file(&node.name)) {
            return Ok(());
        }
        if let Body::File(file) = &mut node.body {
            for edit in file.unsynced.drain(..) {
                edit.apply(&mut file.durable);
            }
        }
        if !data_only {
            node.mode_durable = node.mode;
        }
        Ok(())
    }

    pub fn folder_sync(&mut self, folder: u64) -> Result<(), Errno> {
        if matches!(self.lie, Some(Lie::Folders)) {
            return Ok(());
        }
        let node = self.node_mut(folder)?;
        node.mode_durable = node.mode;
        let chosen = self.names.iter().map(|change| change.0.iter().any(|((in_folder, _), _)| *in_folder == folder)).collect();
        self.names_settle(chosen);
        Ok(())
    }

    /// Makes the chosen changes durable, and those before them that are about the same names. The others stay.
    fn names_settle(&mut self, mut chosen: Vec<bool>) {
        let mut slots = BTreeSet::new();
        for (change, chosen) in self.names.iter().zip(&mut chosen).rev() {
            *chosen |= change.0.iter().any(|(slot, _)| slots.contains(slot));
            if *chosen {
                slots.extend(change.0.iter().map(|(slot, _)| slot.clone()));
            }
        }
        for (change, chosen) in std::mem::take(&mut self.names).into_iter().zip(chosen) {
            if !chosen {
                self.names.push(change);
                continue;
            }
            for ((folder, name), node) in &change.0 {
                self.names_of(*folder, |body| &mut body.durable, name, *node);
            }
        }
    }

    /// What is found after the power was cut now.
    pub fn cut(mut self, random: &mut StdRng) -> (Self, Toll) {
        let luck = random.random_bool(0.5).then(|| luck(random));
        let mut toll = Toll { unsynced: self.names.len(), ..Toll::default() };
        let chosen = if random.random_bool(0.5) {
            let prefix = random.random_range(0..=self.names.len());
            (0..self.names.len()).map(|index| index < prefix).collect()
        } else {
            let luck = luck.unwrap_or_else(|| self::luck(random));
            self.names.iter().map(|_| random.random_bool(luck)).collect()
        };
        self.names_settle(chosen);
        toll.dropped = self.names.len();

        let mut disk = Self { nodes: HashMap::new(), node_next: self.node_next, names: Vec::new(), lie: self.lie };
        let mut found = vec![ROOT];
        while let Some(number) = found.pop() {
            // No folder has two names, so nothing is found twice.
            let Some(mut node) = self.nodes.remove(&number) else {
                continue;
            };
            let luck = luck.unwrap_or_else(|| self::luck(random));
            match &mut node.body {
                Body::File(file) => {
                    let (content, dropped) = file.survivor(luck, random);
                    toll.unsynced += file.unsynced.len();
                    toll.dropped += dropped;
                    let is_checkpoint = is_database(&node.name) && !file.unsynced.is_empty();
                    toll.in_checkpoint += usize::from(is_checkpoint);
                    *file = FileBody { now: content.clone(), durable: content, unsynced: Vec::new() };
                }
                Body::Folder(folder) => {
                    folder.now = folder.durable.clone();
                    found.extend(folder.durable.values());
                }
                Body::Link(_) => {}
            }
            if random.random_bool(luck) {
                node.mode_durable = node.mode;
            }
            node.mode = node.mode_durable;
            disk.nodes.insert(number, node);
        }
        (disk, toll)
    }

    /// Whether a checkpoint has begun and is not synced.
    pub fn is_in_checkpoint(&self) -> bool {
        self.nodes.values().any(|node| is_database(&node.name) && matches!(&node.body, Body::File(file) if !file.unsynced.is_empty()))
    }

    fn node(&self, node: u64) -> Result<&Node, Errno> {
        self.nodes.get(&node).ok_or(Errno::STALE)
    }

    fn node_mut(&mut self, node: u64) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&node).ok_or(Errno::STALE)
    }

    fn folder(&self, node: u64) -> Result<&FolderBody, Errno> {
        match &self.node(node)?.body {
            Body::Folder(folder) => Ok(folder),
            _ => Err(Errno::NOTDIR),
        }
    }
}

/// How probable it is that something unsynced survives: all, nothing, or between.
fn luck(random: &mut StdRng) -> f64 {
    [0.0, 0.1, 0.5, 0.9, 1.0][random.random_range(0..5)]
}

impl Edit {
    /// Answers with the bytes whose content changed, of those that lie in the file before or after.
    fn apply(&self, content: &mut Vec<u8>) -> std::ops::Range<usize> {
        match self {
            Edit::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
                *offset..end
            }
            Edit::Resize(size) => {
                let before = content.len();
                content.resize(*size, 0);
                // Growing adds zeros, which are there without being written.
                *size..before.max(*size)
            }
        }
    }
}

impl FileBody {
    /// One content that a cut may leave, and how many edits it lacks or has torn.
    fn survivor(&self, luck: f64, random: &mut StdRng) -> (Vec<u8>, usize) {
        let mut now = self.durable.clone();
        let mut kept = self.durable.clone();
        let mut sizes = vec![now.len()];
        let mut dropped = 0;
        for edit in &self.unsynced {
            let changed = edit.apply(&mut now);
            sizes.push(now.len());
            let is_whole = random.random_bool(luck);
            let is_torn = !is_whole && luck > 0.0 && random.random_bool(0.5);
            dropped += usize::from(!is_whole);
            for sector in changed.start / SECTOR..changed.end.div_ceil(SECTOR) {
                if is_whole || is_torn && random.random_bool(0.5) {
                    sector_copy(&now, &mut kept, sector);
                }
            }
        }
        let size = if random.random_bool(luck) {
            now.len()
        } else if luck > 0.0 {
            sizes[random.random_range(0..sizes.len())]
        } else {
            self.durable.len()
        };
        kept.resize(size, 0);
        (kept, dropped)
    }
}

/// Behind the end of a file lie zeros.
fn sector_copy(from: &[u8], to: &mut Vec<u8>, sector: usize) {
    let start = sector * SECTOR;
    let bytes = &from[start.min(from.len())..(start + SECTOR).min(from.len())];
    if to.len() < start + bytes.len() {
        to.resize(start + bytes.len(), 0);
    }
    if start < to.len() {
        let end = to.len().min(start + SECTOR);
        to[start..end].fill(0);
        to[start..start + bytes.len()].copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    /// What 400 cuts make of the disk that `make` makes, each seen by `see`.
    fn outcomes<T: Ord>(make: fn(&mut Disk), see: fn(&Disk) -> T) -> BTreeSet<T> {
        (0..400)
            .map(|seed| {
                let mut disk = Disk::new(None);
                make(&mut disk);
                see(&disk.cut(&mut StdRng::seed_from_u64(seed)).0)
            })
            .collect()
    }

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    fn content(disk: &Disk, path: &str) -> Option<Vec<u8>> {
        let mut node = ROOT;
        for part in path.split('/') {
            node = disk.lookup(node, name(part)).ok()?;
        }
        disk.read(node, 0, usize::MAX >> 1).ok().map(<[u8]>::to_vec)
    }

    #[test]
    fn what_is_synced_survives() {
        let found = outcomes(
            |disk| {
                let file = disk.file_make(ROOT, name("a"), 0o600).unwrap();
                disk.write(file, 700, b"hello").unwrap();
                disk.resize(file, 703).unwrap();
                disk.mode_set(file, 0o644).unwrap();
                disk.file_sync(file, false).unwrap();
                disk.folder_sync(ROOT).unwrap();
            },
            |disk| {
                let mode = disk.about(disk.lookup(ROOT, name("a")).unwrap()).unwrap().mode;
                (content(disk, "a"), mode)
            },
        );
        let expect = [vec![0; 700], b"hel".to_vec()].concat();
        assert_eq!(found, BTreeSet::from([(Some(expect), 0o644)]));
    }

    #[test]
    fn unsynced_writes_are_kept_lost_torn_and_reordered() {
        let found = outcomes(
            |disk| {
                let file = disk.file_make(ROOT, name("a"), 0o600).unwrap();
                disk.write(file, 0, &[b'-'; 3 * SECTOR]).unwrap();
                disk.file_sync(file, true).unwrap();
                disk.folder_sync(ROOT).unwrap();
                disk.write(file, 0, &[b'1'; 2 * SECTOR]).unwrap();
                disk.write(file, 2 * SECTOR, &[b'2'; SECTOR]).unwrap();
            },
            |disk| {
                let bytes = content(disk, "a").unwrap();
                let sectors = bytes.chunks(SECTOR);
                sectors.inspect(|sector| assert!(sector.iter().all(|byte| *byte == sector[0]))).map(|sector| char::from(sector[0])).collect::<String>()
            },
        );
        let expect = ["---", "--2", "-1-", "-12", "1--", "1-2", "11-", "112"];
        assert_eq!(found, expect.map(str::to_owned).into());
    }

    #[test]
    fn a_new_size_is_as_volatile_as_a_write() {
        let found = outcomes(
            |disk| {
                let file = disk.file_make(ROOT, name("a"), 0o600).unwrap();
                disk.write(file, 0, b"1234").unwrap();
                disk.file_sync(file, true).unwrap();
                disk.folder_sync(ROOT).unwrap();
                disk.resize(file, 0).unwrap();
                disk.write(file, 0, b"ab").unwrap();
            },
            |disk| content(disk, "a").unwrap(),
        );
        for expect in [&b"1234"[..], b"", b"ab"] {
            assert!(found.contains(expect), "{expect:?} in {found:?}");
        }
    }

    #[test]
    fn a_name_needs_the_sync_of_its_folder() {
        let found = outcomes(
            |disk| {
                let file = disk.file_make(ROOT, name("a"), 0o600).unwrap();
                disk.write(file, 0, b"1").unwrap();
                disk.file_sync(file, false).unwrap();
            },
            |disk| content(disk, "a"),
        );
        assert_eq!(found, BTreeSet::from([None, Some(b"1".to_vec())]));
    }

    #[test]
    fn a_rename_between_folders_is_whole_or_not_there() {
        let names = |disk: &Disk| ["a/x", "b/y"].map(|path| content(disk, path).is_some());
        let make = |disk: &mut Disk| {
            let a = disk.folder_make(ROOT, name("a"), 0o700).unwrap();
            let b = disk.folder_make(ROOT, name("b"), 0o700).unwrap();
            disk.file_make(a, name("x"), 0o600).unwrap();
            disk.folder_sync(ROOT).unwrap();
            disk.folder_sync(a).unwrap();
            disk.rename(a, name("x"), b, name("y")).unwrap();
        };
        assert_eq!(outcomes(make, names), BTreeSet::from([[true, false], [false, true]]));
        let synced = |disk: &mut Disk| {
            let a = disk.folder_make(ROOT, name("a"), 0o700).unwrap();
            let b = disk.folder_make(ROOT, name("b"), 0o700).unwrap();
            disk.folder_sync(ROOT).unwrap();
            disk.file_make(a, name("x"), 0o600).unwrap();
            disk.rename(a, name("x"), b, name("y")).unwrap();
            disk.folder_sync(b).unwrap();
        };
        assert_eq!(outcomes(synced, names), BTreeSet::from([[false, true]]));
    }
}
