//! Version 2: one hierarchy, a controller at a time handed down to it.
//!
//! A group that hands controllers down can have no processes of its own (but the root). So the daemon and the keeper first move
//! from the group they were started in to a leaf `tanebi-<pid>-<random>-daemon` beside the sandboxes'. That needs a group of their own:
//! a systemd unit with `Delegate=yes`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, getpid};

use super::{Given, PREFIX, field, folder_make, folder_remove, number, read, write};
use crate::{
    error::Failure,
    spec::{Limits, Usage},
};

const DELEGATE: &str =
    "give it a cgroup of its own: systemd-run --user --scope -p Delegate=yes tanebi serve";
pub(super) const LEAF_END: &str = "-daemon";

/// The controllers that a group is given from above.
pub(super) fn controllers(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// The keeper's part of the hierarchy.
pub(super) struct Subtree {
    /// The group that daemon and keeper were started in.
    parent: PathBuf,
    /// Holds the sandboxes' groups.
    folder: PathBuf,
    /// Holds daemon and keeper, unless the parent is the root, which may have processes.
    leaf: Option<PathBuf>,
    handed_down: Vec<&'static str>,
}

impl Subtree {
    pub fn make(own: &Path, name: &str, daemon: Pid, missing: &mut Vec<String>) -> Option<Self> {
        let parent = parent_of(own);
        let folder = parent.join(name);
        if let Err(failure) = folder_make(&folder) {
            missing.push(format!(
                "limits of memory, cpu and processes: {}; {DELEGATE}",
                failure.line()
            ));
            return None;
        }
        let mut subtree = Self {
            parent,
            folder,
            leaf: None,
            handed_down: Vec::new(),
        };
        // Only the root has no type.
        if subtree.parent.join("cgroup.type").exists()
            && let Err(failure) = subtree.move_out(name, daemon)
        {
            missing.push(format!(
                "limits of memory, cpu and processes: {}; {DELEGATE}",
                failure.line()
            ));
        }
        for controller in ["memory", "cpu", "pids"] {
            let word = format!("+{controller}");
            let handed = [&subtree.parent, &subtree.folder]
                .iter()
                .try_for_each(|group| write(&group.join("cgroup.subtree_control"), &word));
            match handed {
                Ok(()) => subtree.handed_down.push(controller),
                Err(failure) => missing.push(format!(
                    "the limit of {controller}: {}; {DELEGATE}",
                    failure.line()
                )),
            }
        }
        Some(subtree)
    }

    fn move_out(&mut self, name: &str, daemon: Pid) -> Result<(), Failure> {
        let leaf = self.parent.join(format!("{name}{LEAF_END}"));
        folder_make(&leaf)?;
        self.leaf = Some(leaf.clone());
        for pid in [daemon, getpid()] {
            write(
                &leaf.join("cgroup.procs"),
                &pid.as_raw_nonzero().to_string(),
            )?;
        }
        Ok(())
    }

    pub fn group(&self, name: &str) -> Group {
        Group {
            folder: self.folder.join(name),
            memory: self.has("memory"),
            cpu: self.has("cpu"),
            pids: self.has("pids"),
        }
    }

    fn has(&self, controller: &str) -> bool {
        self.handed_down.contains(&controller)
    }

    pub fn given(&self) -> Given {
        // The freezer is no controller but part of every group, since Linux 5.2.
        Given {
            version: 2,
            memory: self.has("memory"),
            cpu: self.has("cpu"),
            pids: self.has("pids"),
            freezer: true,
        }
    }

    /// Takes the controllers back and returns to the parent, so that the leaf can go when the daemon has ended.
    pub fn leave(&self) {
        let _ = folder_remove(&self.folder);
        for controller in &self.handed_down {
            let _ = write(
                &self.parent.join("cgroup.subtree_control"),
                &format!("-{controller}"),
            );
        }
        if self.leaf.is_some() {
            let _ = write(&self.parent.join("cgroup.procs"), "0");
        }
    }

    pub fn folders(&self) -> Vec<PathBuf> {
        [Some(&self.folder), self.leaf.as_ref()]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }
}

/// Our own group, or the one above it when ours is the leaf that an earlier keeper of the same daemon made.
fn parent_of(own: &Path) -> PathBuf {
    let name = own.file_name().unwrap_or_default().to_string_lossy();
    match own.parent() {
        Some(above) if name.starts_with(PREFIX) && name.ends_with(LEAF_END) => above.to_owned(),
        _ => own.to_owned(),
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
            write(
                &self.folder.join("memory.max"),
                &limits.memory_bytes.to_string(),
            )?;
            let swap = self.folder.join("memory.swap.max");
            if swap.exists() {
                write(&swap, "0")?;
            }
            // All of it ends, not one process of it that the rest then misses.
            write(&self.folder.join("memory.oom.group"), "1")?;
        }
        if self.pids {
            // Init is one more, and so is the starter for a moment.
            write(
                &self.folder.join("pids.max"),
                &(limits.pids + 2).to_string(),
            )?;
        }
        Ok(())
    }

    pub fn cpu_quota(&self, quota_us: u64, period_us: u64) -> Result<(), Failure> {
        if !self.cpu {
            return Ok(());
        }
        write(
            &self.folder.join("cpu.max"),
            &format!("{quota_us} {period_us}"),
        )
    }

    pub fn usage(&self) -> Result<Usage, Failure> {
        // Time is counted in every group, controller or not.
        let stat = read(&self.folder.join("cpu.stat"))?;
        let optional = |given: bool, file: &str| {
            if given {
                number(&self.folder.join(file))
            } else {
                Ok(0)
            }
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
        write(
            &self.folder.join("cgroup.freeze"),
            if frozen { "1" } else { "0" },
        )
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
