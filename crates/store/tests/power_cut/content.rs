//! What the working process writes, as a function of round, task and number: so that the checking process knows it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use store::{Expect, Write};

/// Bytes that no other label has. A cheap generator: this runs unoptimised, and often.
pub fn bytes(label: &str, count: usize) -> Vec<u8> {
    let mut state = u64::from_le_bytes(Sha256::digest(label)[..8].try_into().expect("a digest has 32 bytes"));
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

pub fn head_key(round: u64, task: u64) -> String {
    format!("head/{round:04}-{task}")
}

pub fn records_prefix(round: u64, task: u64) -> String {
    format!("record/{round:04}-{task}/")
}

/// What commit `number`, from 1, puts: three records.
pub fn records(round: u64, task: u64, number: u64) -> [(String, Vec<u8>); 3] {
    ["left", "middle", "right"].map(|side| {
        let key = format!("{}{number:06}-{side}", records_prefix(round, task));
        // Every fourth is large: commits span many pages, and the WAL soon has the 1000 that bring about a checkpoint.
        let count = if number % 4 == 2 { 60_000 } else { 20 + number as usize * 37 % 500 };
        let value = bytes(&key, count);
        (key, value)
    })
}

/// The commit whose records commit `number` deletes.
fn deleted_by(number: u64) -> Option<u64> {
    (number % 4 == 3).then(|| number - 2)
}

/// Commit `number`: puts its records, may delete earlier ones, and counts up the task's head, which `previous` wrote.
pub fn commit(round: u64, task: u64, number: u64, previous: Option<u64>) -> Vec<Write> {
    let mut writes =
        vec![Write { key: head_key(round, task), expect: previous.map_or(Expect::Absent, Expect::Revision), value: Some(number.to_string().into_bytes()) }];
    writes.extend(records(round, task, number).map(|(key, value)| Write { key, expect: Expect::Absent, value: Some(value) }));
    if let Some(deleted) = deleted_by(number) {
        writes.extend(records(round, task, deleted).map(|(key, _)| Write::delete(key, Expect::Any)));
    }
    writes
}

/// All records of a task after its first `count` commits: key, value and the number of the commit.
pub fn records_after(round: u64, task: u64, count: u64) -> BTreeMap<String, (Vec<u8>, u64)> {
    let mut all = BTreeMap::new();
    for number in 1..=count {
        let is_deleted = (number + 2 <= count) && deleted_by(number + 2) == Some(number);
        if !is_deleted {
            all.extend(records(round, task, number).map(|(key, value)| (key, (value, number))));
        }
    }
    all
}

pub fn blob(round: u64, number: u64) -> Vec<u8> {
    bytes(&format!("blob {round} {number}"), (number as usize + 1) * 7919 % 80_000)
}

pub fn log_name(round: u64, task: u64) -> String {
    format!("log/{round:04}-{task}")
}

/// One thing that is done to a log.
pub enum LogStep {
    Append(Vec<Vec<u8>>),
    Trim(u64),
    Delete,
}

/// A log as it must be found. One that was deleted is as one that nobody appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub first: u64,
    pub entries: BTreeMap<u64, Vec<u8>>,
}

impl Log {
    pub const EMPTY: Self = Self { first: 1, entries: BTreeMap::new() };

    /// The number that the next entry gets.
    pub fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub fn apply(&mut self, step: LogStep) {
        match step {
            LogStep::Append(entries) => self.entries.extend((self.next()..).zip(entries)),
            LogStep::Trim(up_to) => {
                let first = self.next().min(up_to.saturating_add(1));
                self.entries.retain(|number, _| *number >= first);
                self.first = self.first.max(first);
            }
            LogStep::Delete => *self = Self::EMPTY,
        }
    }
}

/// Step `step`, from 1, of a task that has brought its log to `log`.
pub fn log_step(round: u64, task: u64, step: u64, log: &Log) -> LogStep {
    // Not all at the same point: one has entries while another has none.
    match (step + task * 7) % 16 {
        0 => LogStep::Delete,
        5 => LogStep::Trim(log.first + log.entries.len() as u64 / 2),
        // The log is empty then, and its numbers go on.
        10 => LogStep::Trim(u64::MAX),
        _ => LogStep::Append((0..1 + step % 3).map(|index| log_entry(round, task, step, index)).collect()),
    }
}

fn log_entry(round: u64, task: u64, step: u64, index: u64) -> Vec<u8> {
    match (step + index) % 5 {
        // In a blob, and the same one for all tasks.
        1 => bytes(&format!("log entry {round} {step} {index}"), LOG_INLINE_MAX + 1 + step as usize * 41 % 9000),
        // The largest that a row takes: the WAL soon has the 1000 pages that bring about a checkpoint.
        3 => bytes(&format!("log entry {round} {task} {step} {index}"), LOG_INLINE_MAX),
        _ => bytes(&format!("log entry {round} {task} {step} {index}"), step as usize * 37 % 500),
    }
}

/// Larger entries of a log lie in blobs.
pub const LOG_INLINE_MAX: usize = 64 << 10;

/// A tree of files: path below its root, and what is there.
pub type Tree = BTreeMap<PathBuf, Entry>;

#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    Folder { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: PathBuf },
}

/// The file that says which layer it is.
pub const LAYER_NAME: &str = "name";

/// A layer of 8 to 20 entries, as it must be found.
pub fn layer(round: u64, number: u64) -> Tree {
    let label = format!("{round} {number}");
    let file = |mode, content| Entry::File { mode, content };
    let folder = || Entry::Folder { mode: 0o755 };
    let source = bytes(&format!("layer {label}"), number as usize * 4001 % 40_000);
    let link = Entry::Link { target: "bin/run".into() };
    let mut tree = Tree::from([
        (LAYER_NAME.into(), file(0o644, label.clone().into_bytes())),
        ("main.py".into(), file(0o644, source)),
        ("bin".into(), folder()),
        ("bin/run".into(), file(0o755, b"#!/bin/sh\n".to_vec())),
        ("empty".into(), file(0o644, Vec::new())),
        ("lib".into(), folder()),
        ("lib/void".into(), folder()),
        ("link".into(), link),
    ]);
    for part in 0..number % 7 {
        let content = bytes(&format!("part {label} {part}"), 600);
        tree.insert(format!("lib/{part}").into(), folder());
        tree.insert(format!("lib/{part}/part.py").into(), file(0o644, content));
    }
    tree
}

/// Fills `root`. Modes are not yet those that a layer has: giving them is the store's part.
pub fn tree_write(root: &Path, tree: &Tree) -> io::Result<()> {
    for (path, entry) in tree {
        let path = root.join(path);
        match entry {
            Entry::Folder { .. } => fs::create_dir(&path)?,
            Entry::Link { target } => symlink(target, &path)?,
            Entry::File { mode, content } => {
                let mode = if *mode == 0o755 { 0o700 } else { 0o600 };
                let mut options = fs::OpenOptions::new();
                let options = options.write(true).create_new(true).mode(mode);
                options.open(&path)?.write_all(content)?;
            }
        }
    }
    Ok(())
}

pub fn tree_read(root: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let about = entry.metadata()?;
            let mode = about.permissions().mode() & 0o7777;
            let found = if about.is_dir() {
                folders.push(path.clone());
                Entry::Folder { mode }
            } else if about.is_symlink() {
                Entry::Link { target: fs::read_link(entry.path())? }
            } else {
                let content = fs::read(entry.path())?;
                Entry::File { mode, content }
            };
            tree.insert(path, found);
        }
    }
    Ok(tree)
}
