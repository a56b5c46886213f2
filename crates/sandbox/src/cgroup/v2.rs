//! Version 2: one hierarchy, a controller at a time handed down to it.
//!
//! A group that hands controllers down can have no processes of its own (but the root). So the processes of tanebi first move from
//! the group they were started in to a leaf `tanebi-<pid>-<random>-daemon` beside the sandboxes' groups. Where others are in that
//! group too (a login's shell), that is not enough; then root uses the root of the hierarchy, as Docker without systemd does, and
//! everybody else needs a group of their own: a systemd unit with `Delegate=yes`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Given, PREFIX, field, folder_make, folder_remove, number, read, write};
use crate::{
    error::{Failure, Step},
    spec::{Limits, Usage},
};

const DELEGATE: &str = "give it a cgroup of its own: systemd-run --user --scope -p Delegate=yes tanebi serve";
pub(super) const LEAF_END: &str = "-daemon";
const WANTED: [&str; 3] = ["memory", "cpu", "pids"];

/// The controllers that a group is given from above.
pub(super) fn controllers(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// The keeper's part of the hierarchy.
pub(super) struct Subtree {
    /// Has the sandboxes' folder and the leaf in it.
    parent: PathBuf,
    /// Holds the sandboxes' groups.
    folder: PathBuf,
    /// Holds the processes of tanebi that were in the parent, unless that is the root, which may have some.
    leaf: Option<PathBuf>,
    /// The pids that were moved there.
    moved: Vec<String>,
    handed_down: Vec<&'static str>,
}

impl Subtree {
    /// Makes the keeper's folder with as many controllers as there are; `None` when not even a folder can be made.
    ///
    /// `own`: the group that this process is in; `top`: the root of the hierarchy, where it can be seen.
    pub fn make(own: &Path, top: Option<&Path>, name: &str, missing: &mut Vec<String>) -> Option<Self> {
        let own = parent_of(own);
        let mut refused = None;
        for parent in [Some(own), top.filter(|top| *top != own)].into_iter().flatten() {
            match Self::make_in(parent, name) {
                Ok(subtree) => {
                    let absent = WANTED.iter().filter(|wanted| !subtree.has(wanted));
                    missing.extend(absent.map(|controller| format!("the limit of {controller}: {} is given no such controller", parent.display())));
                    return Some(subtree);
                }
                Err(failure) => refused = refused.or(Some(failure)),
            }
        }
        // Without controllers a group can still be frozen and ended as a whole.
        let line = refused.map(|failure| failure.line()).unwrap_or_default();
        let bare = Self { parent: own.to_owned(), folder: own.join(name), leaf: None, moved: Vec::new(), handed_down: Vec::new() };
        let made = folder_make(&bare.folder).is_ok();
        let freezing = if made { "" } else { " and freezing" };
        missing.push(format!("limits of memory, cpu and pids{freezing}: {line}; {DELEGATE}"));
        made.then_some(bare)
    }

    fn make_in(parent: &Path, name: &str) -> Result<Self, Failure> {
        let mut subtree = Self { parent: parent.to_owned(), folder: parent.join(name), leaf: None, moved: Vec::new(), handed_down: Vec::new() };
        folder_make(&subtree.folder)?;
        match subtree.hand_down(name) {
            Ok(()) => Ok(subtree),
            Err(failure) => {
                subtree.leave();
                subtree.folders().iter().for_each(|folder| drop(folder_remove(folder)));
                Err(failure)
            }
        }
    }

    fn hand_down(&mut self, name: &str) -> Result<(), Failure> {
        // Only the root has no type.
        if self.parent.join("cgroup.type").exists() {
            let leaf = self.parent.join(format!("{name}{LEAF_END}"));
            folder_make(&leaf)?;
            self.leaf = Some(leaf.clone());
            for pid in own_processes(&self.parent)? {
                write(&leaf.join("cgroup.procs"), &pid)?;
                self.moved.push(pid);
            }
        }
        let given = controllers(&self.parent);
        for controller in WANTED {
            if given.iter().any(|given| given == controller) {
                let word = format!("+{controller}");
                write(&self.parent.join("cgroup.subtree_control"), &word)?;
                self.handed_down.push(controller);
                write(&self.folder.join("cgroup.subtree_control"), &word)?;
            }
        }
        Ok(())
    }

    pub fn group(&self, name: &str) -> Group {
        Group { folder: self.folder.join(name), memory: self.has("memory"), cpu: self.has("cpu"), pids: self.has("pids") }
    }

    fn has(&self, controller: &str) -> bool {
        self.handed_down.contains(&controller)
    }

    pub fn given(&self) -> Given {
        // The freezer is no controller but part of every group, since Linux 5.2.
        Given { version: 2, memory: self.has("memory"), cpu: self.has("cpu"), pids: self.has("pids"), freezer: true }
    }

    /// Takes the controllers back, as far as nobody else needs them, and returns to the parent.
    pub fn leave(&self) {
        let _ = folder_remove(&self.folder);
        let Some(leaf) = &self.leaf else { return };
        for controller in &self.handed_down {
            let _ = write(&self.parent.join("cgroup.subtree_control"), &format!("-{controller}"));
        }
        // Only those that are still there: a pid may be another's by now.
        let there = read(&leaf.join("cgroup.procs")).unwrap_or_default();
        for pid in there.lines().filter(|pid| self.moved.iter().any(|moved| moved == pid)) {
            let _ = write(&self.parent.join("cgroup.procs"), pid);
        }
    }

    pub fn folders(&self) -> Vec<PathBuf> {
        [Some(&self.folder), self.leaf.as_ref()].into_iter().flatten().cloned().collect()
    }
}

/// The pids in a group that run this same program: keeper, daemon, and what watches over them.
fn own_processes(group: &Path) -> Result<Vec<String>, Failure> {
    use std::os::unix::fs::MetadataExt;
    let program = |pid: &str| fs::metadata(format!("/proc/{pid}/exe")).map(|file| (file.dev(), file.ino()));
    let own = program("self").step(|| "look at the own program")?;
    let pids = read(&group.join("cgroup.procs"))?;
    let is_own = |pid: &&str| program(pid).is_ok_and(|other| other == own);
    Ok(pids.lines().filter(is_own).map(str::to_owned).collect())
}

/// Our own group, or the one above it when ours is the leaf that an earlier keeper of the same daemon made.
fn parent_of(own: &Path) -> &Path {
    let name = own.file_name().unwrap_or_default().to_string_lossy();
    match own.parent() {
        Some(above) if name.starts_with(PREFIX) && name.ends_with(LEAF_END) => above,
        _ => own,
    }
}

pub(crate) struct Group {
    folder: PathBuf,
    memory: bool,
    cpu: bool,
    pids: bool,
}

impl Group {
    pub fn make(&self, limits: &Limits) -> Result<(), Failure> {
        folder_make(&self.folder)?;
        if self.memory {
            write(&self.folder.join("memory.max"), &limits.memory_bytes.to_string())?;
            let swap = self.folder.join("memory.swap.max");
            if swap.exists() {
                write(&swap, "0")?;
            }
            // All of it ends, not one process of it that the rest then misses.
            write(&self.folder.join("memory.oom.group"), "1")?;
        }
        if self.pids {
            // Init is one more, and so is the starter for a moment.
            write(&self.folder.join("pids.max"), &(limits.pids + 2).to_string())?;
        }
        Ok(())
    }

    pub fn cpu_quota(&self, quota_us: u64, period_us: u64) -> Result<(), Failure> {
        if !self.cpu {
            return Ok(());
        }
        write(&self.folder.join("cpu.max"), &format!("{quota_us} {period_us}"))
    }

    pub fn usage(&self) -> Result<Usage, Failure> {
        // Time is counted in every group, controller or not.
        let stat = read(&self.folder.join("cpu.stat"))?;
        let optional = |given: bool, file: &str| {
            if given { number(&self.folder.join(file)) } else { Ok(0) }
        };
        Ok(Usage {
            cpu: Duration::from_micros(field(&stat, "usage_usec").unwrap_or(0)),
            memory_bytes: optional(self.memory, "memory.current")?,
            pids: u32::try_from(optional(self.pids, "pids.current")?).unwrap_or(u32::MAX),
        })
    }

    pub fn memory_history(&self) -> (u64, u64) {
        if !self.memory {
            return (0, 0);
        }
        // memory.peak is there since Linux 5.19.
        let peak = number(&self.folder.join("memory.peak")).unwrap_or(0);
        let events = read(&self.folder.join("memory.events")).unwrap_or_default();
        (peak, field(&events, "oom_kill").unwrap_or(0))
    }

    pub fn freeze(&self, frozen: bool) -> Result<(), Failure> {
        write(&self.folder.join("cgroup.freeze"), if frozen { "1" } else { "0" })
    }

    pub fn is_frozen(&self) -> Result<bool, Failure> {
        Ok(field(&read(&self.folder.join("cgroup.events"))?, "frozen") == Some(1))
    }

    /// All at once, frozen or not; since Linux 5.14.
    pub fn kill(&self) -> Result<(), Failure> {
        write(&self.folder.join("cgroup.kill"), "1")
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
