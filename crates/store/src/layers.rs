//! Trees of files named by the hash of their content: the read-only parts of an instance's root.
//!
//! A tree is filled in `staging/`, then hashed, made durable and renamed to `layers/<digest>`. Only regular files,
//! folders and symbolic links belong into one; owners and times are not part of the hash and are left as they are.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    fs::{self, File, Permissions},
    io::{self, Read as _},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};

use crate::{
    blobs::{is_digest, names},
    durable::{file_sync, file_system_sync, folder_make, folder_sync, touch, touched},
    error::Error,
    trash::Bin,
};

/// Entries of one layer, at most: 20 000 come from a source archive, dependencies bring more.
const ENTRIES_MAX: usize = 1_000_000;
/// Up to here each file has its own fsync; above, one sync of the whole file system is faster.
const FSYNC_MAX: usize = 64;

/// Trees of files named by the hash of their content: read-only parts of an instance's root.
/// Hash: SHA-256 over the sorted entries (path, kind, mode 0755/0644, link target, content hash).
pub struct Layers {
    place: Arc<Place>,
}

struct Place {
    folder: PathBuf,
    staging: PathBuf,
    bin: Bin,
    count: AtomicU64,
    /// Held for reading while a name is given or touched, for writing while one is taken away.
    names: RwLock<()>,
}

impl Place {
    /// A name in `staging/` that nothing has.
    fn staged(&self) -> PathBuf {
        self.staging.join(format!("layer-{}", self.count.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Layers {
    pub(crate) fn open(folder: &Path, staging: &Path, bin: Bin) -> Result<Self, Error> {
        folder_make(folder, 0o700)?;
        let place = Place { folder: folder.to_owned(), staging: staging.to_owned(), bin, count: AtomicU64::new(0), names: RwLock::new(()) };
        Ok(Self { place: Arc::new(place) })
    }

    /// A new empty folder (0755) on the same file system, to fill and then `commit` or let drop.
    pub fn staging(&self) -> Result<Staging, Error> {
        let path = self.place.staged();
        fs::DirBuilder::new().mode(0o755).create(&path).map_err(|error| Error::io("create folder", &path, error))?;
        mode_set(&path, 0o755)?;
        Ok(Staging { path, place: self.place.clone() })
    }

    /// The folder of a layer that is there.
    pub fn path(&self, digest: &str) -> Option<PathBuf> {
        if !is_digest(digest) {
            return None;
        }
        let path = self.place.folder.join(digest);
        path.is_dir().then_some(path)
    }

    /// Says that the layer is needed: to a sweep it is as one that was committed now. Whether it is there.
    pub fn touch(&self, digest: &str) -> Result<bool, Error> {
        if !is_digest(digest) {
            return Ok(false);
        }
        let _naming = self.place.names.read();
        touch(&self.place.folder.join(digest))
    }

    /// When the layer was committed or touched last; `None` when there is none.
    pub fn touched(&self, digest: &str) -> Result<Option<SystemTime>, Error> {
        if is_digest(digest) { touched(&self.place.folder.join(digest)) } else { Ok(None) }
    }

    /// Removes the layers that are not in `keep` and were neither committed nor touched since `since`; how many.
    ///
    /// One that is committed or touched meanwhile stays, or is there again when that answers. Their names are gone with the
    /// answer, their files soon after it.
    pub fn sweep(&self, keep: &HashSet<String>, since: SystemTime) -> Result<usize, Error> {
        let place = &self.place;
        let mut taken = Vec::new();
        for digest in names(&place.folder)? {
            let path = place.folder.join(&digest);
            if keep.contains(&digest) || touched(&path)?.is_none_or(|time| time >= since) {
                continue;
            }
            let staged = place.staged();
            let _naming = place.names.write();
            // Asked again: nobody can commit it now.
            if touched(&path)?.is_some_and(|time| time < since) {
                fs::rename(&path, &staged).map_err(|error| Error::io("rename", &path, error))?;
                taken.push(staged);
            }
        }
        if !taken.is_empty() {
            // A name that a power cut brings back must not name half a tree.
            folder_sync(&place.folder)?;
            folder_sync(&place.staging)?;
        }
        taken.iter().for_each(|path| place.bin.throw(path));
        Ok(taken.len())
    }
}

/// A tree being filled. Removed when it is dropped, or soon after.
pub struct Staging {
    path: PathBuf,
    place: Arc<Place>,
}

impl Staging {
    /// The folder to fill.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hashes the tree, makes it durable, gives it its name (or drops it when that layer exists). Returns the digest.
    ///
    /// Modes become 0755 or, for a file that nobody may execute, 0644. A file with another name elsewhere (hard link) gets
    /// content of its own, so that nothing outside can change it.
    ///
    /// # Errors
    /// [`Error::Layer`] with the path of what is no regular file, folder or symbolic link.
    pub fn commit(self) -> Result<String, Error> {
        let entries = tree_read(&self.path)?;
        let digest = tree_digest(&entries);
        tree_sync(&self.path, &entries)?;
        let target = self.place.folder.join(&digest);
        {
            let _naming = self.place.names.read();
            match fs::rename(&self.path, &target) {
                Ok(()) => {}
                // It is there; who made it made it durable first, but its name perhaps not yet.
                Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {}
                Err(error) => return Err(Error::io("rename to", &target, error)),
            }
            touch(&target)?;
        }
        folder_sync(&self.place.folder)?;
        Ok(digest)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.place.bin.throw(&self.path);
    }
}

/// One entry of a tree, with its path below the tree's root.
struct Entry {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    Folder,
    File { executable: bool, content: [u8; 32] },
    Link { target: PathBuf },
}

/// All entries below `root`, by the bytes of their paths; their modes are normalised on the way.
fn tree_read(root: &Path) -> Result<Vec<Entry>, Error> {
    mode_set(root, 0o755)?;
    let mut entries = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let full = root.join(&folder);
        for name in folder_read(&full)? {
            let path = folder.join(name);
            let kind = entry_read(&root.join(&path), &path)?;
            if matches!(kind, Kind::Folder) {
                folders.push(path.clone());
            }
            if entries.len() == ENTRIES_MAX {
                return Err(Error::Layer { path, reason: "the tree has more than 1 000 000 entries" });
            }
            entries.push(Entry { path, kind });
        }
    }
    entries.sort_unstable_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
    Ok(entries)
}

/// All names at once: what is replaced while a folder is read may come twice or not at all.
fn folder_read(path: &Path) -> Result<Vec<OsString>, Error> {
    let names = fs::read_dir(path).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.file_name())).collect());
    names.map_err(|error| Error::io("read folder", path, error))
}

fn entry_read(full: &Path, path: &Path) -> Result<Kind, Error> {
    let about = fs::symlink_metadata(full).map_err(|error| Error::io("stat", full, error))?;
    if about.is_symlink() {
        let target = fs::read_link(full).map_err(|error| Error::io("read link", full, error))?;
        return Ok(Kind::Link { target });
    }
    if about.is_dir() {
        mode_set(full, 0o755)?;
        return Ok(Kind::Folder);
    }
    if !about.is_file() {
        let reason = "is no regular file, folder or symbolic link; a layer can hold nothing else";
        return Err(Error::Layer { path: path.to_owned(), reason });
    }
    if about.nlink() > 1 {
        file_unlink(full)?;
    }
    let executable = about.mode() & 0o111 != 0;
    // Before reading: a file that its owner may not read is nothing special in an archive.
    mode_set(full, if executable { 0o755 } else { 0o644 })?;
    Ok(Kind::File { executable, content: file_hash(full)? })
}

fn mode_set(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|error| Error::io("chmod", path, error))
}

/// Gives a file that has several names content of its own under this one.
fn file_unlink(path: &Path) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or(OsStr::new("")).to_owned();
    name.push(".tanebi-copy");
    // A name that is too long or taken is an error, not overwritten.
    let copy = path.with_file_name(name);
    let fail = |error| Error::io("copy to", &copy, error);
    let mut source = File::open(path).map_err(fail)?;
    let mut target = File::create_new(&copy).map_err(fail)?;
    io::copy(&mut source, &mut target).map_err(fail)?;
    let times = source.metadata().and_then(|about| about.modified()).map_err(fail)?;
    // A Python cache names the time of its source.
    target.set_modified(times).map_err(fail)?;
    fs::rename(&copy, path).map_err(fail)
}

fn file_hash(path: &Path) -> Result<[u8; 32], Error> {
    let fail = |error| Error::io("read", path, error);
    let mut file = File::open(path).map_err(fail)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer).map_err(fail)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Persisted in images: a change here gives every tree another name.
fn tree_digest(entries: &[Entry]) -> String {
    let mut hash = Sha256::new();
    // Lengths stand before what they measure, so that no two trees are written alike.
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for entry in entries {
        field(entry.path.as_os_str().as_bytes());
        match &entry.kind {
            Kind::Folder => field(b"folder 0755"),
            Kind::File { executable, content } => {
                field(if *executable { b"file 0755" } else { b"file 0644" });
                field(content);
            }
            Kind::Link { target } => {
                field(b"link");
                field(target.as_os_str().as_bytes());
            }
        }
    }
    hex::encode(hash.finalize())
}

fn tree_sync(root: &Path, entries: &[Entry]) -> Result<(), Error> {
    if entries.len() > FSYNC_MAX {
        return file_system_sync(root);
    }
    for entry in entries {
        let full = root.join(&entry.path);
        match entry.kind {
            Kind::Folder => folder_sync(&full)?,
            Kind::File { .. } => {
                let file = File::open(&full).map_err(|error| Error::io("open", &full, error))?;
                file_sync(&file, &full)?;
            }
            // A link's target is made durable with the folder that holds it.
            Kind::Link { .. } => {}
        }
    }
    folder_sync(root)
}
