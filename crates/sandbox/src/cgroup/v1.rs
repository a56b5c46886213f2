//! Version 1: a hierarchy a controller, the group's folder in each.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::event::EventfdFlags;

use super::{Given, Places, field, folder_make, number, read, write};
use crate::{
    error::{Failure, Step},
    spec::{Limits, Usage},
};

/// The keeper's folder in each hierarchy that it may write to.
pub(super) struct Hierarchies {
    controllers: Controllers,
}

/// A folder a controller; several controllers may share one.
#[derive(Clone, Default)]
struct Controllers {
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    pids: Option<PathBuf>,
    freezer: Option<PathBuf>,
}

impl Controllers {
    fn folders(&self) -> Vec<PathBuf> {
        let all = [&self.freezer, &self.pids, &self.memory, &self.cpu, &self.cpuacct];
        let mut folders: Vec<PathBuf> = all.into_iter().flatten().cloned().collect();
        folders.dedup();
        folders
    }

    fn below(&self, name: &str) -> Self {
        let below = |folder: &Option<PathBuf>| folder.as_ref().map(|folder| folder.join(name));
        Self { memory: below(&self.memory), cpu: below(&self.cpu), cpuacct: below(&self.cpuacct), pids: below(&self.pids), freezer: below(&self.freezer) }
    }
}

impl Hierarchies {
    /// Makes the keeper's folder in each hierarchy; `None` when none can be.
    pub fn make(own: &Places, name: &str, missing: &mut Vec<String>) -> Option<Self> {
        let mut controllers = Controllers::default();
        let places = [
            ("freezer", "freezing", &mut controllers.freezer),
            ("pids", "the limit of processes", &mut controllers.pids),
            ("memory", "the limit of memory", &mut controllers.memory),
            ("cpu", "the limit of cpu", &mut controllers.cpu),
            ("cpuacct", "counting cpu time", &mut controllers.cpuacct),
        ];
        for (controller, what, place) in places {
            let Some(parent) = own.controller(controller) else {
                missing.push(format!("{what}: the cgroup controller {controller} is not mounted"));
                continue;
            };
            let folder = parent.join(name);
            match folder_make(&folder) {
                Ok(()) => *place = Some(folder),
                // Mounted together with one before it.
                Err(failure) if failure.errno == libc::EEXIST => *place = Some(folder),
                Err(failure) => missing.push(format!("{what}: {}; run as root", failure.line())),
            }
        }
        if controllers.memory.as_ref().is_some_and(|folder| !folder.join("memory.memsw.limit_in_bytes").exists()) {
            missing.push("the limit of swap: the kernel does not count it (swapaccount=1)".to_owned());
        }
        let any = !controllers.folders().is_empty();
        any.then_some(Self { controllers })
    }

    pub fn group(&self, name: &str) -> Group {
        Group { controllers: self.controllers.below(name) }
    }

    pub fn given(&self) -> Given {
        let Controllers { memory, cpu, pids, freezer, .. } = &self.controllers;
        Given { version: 1, memory: memory.is_some(), cpu: cpu.is_some(), pids: pids.is_some(), freezer: freezer.is_some() }
    }

    pub fn folders(&self) -> Vec<PathBuf> {
        self.controllers.folders()
    }
}

pub(crate) struct Group {
    controllers: Controllers,
}

impl Group {
    pub fn make(&self, limits: &Limits) -> Result<(), Failure> {
        for folder in self.folders() {
            folder_make(&folder)?;
        }
        if let Some(memory) = &self.controllers.memory {
            let bytes = limits.memory_bytes.to_string();
            write(&memory.join("memory.limit_in_bytes"), &bytes)?;
            // Memory and swap together, so after the limit of memory alone.
            let with_swap = memory.join("memory.memsw.limit_in_bytes");
            if with_swap.exists() {
                write(&with_swap, &bytes)?;
            }
        }
        if let Some(pids) = &self.controllers.pids {
            // Init is one more, and so is the starter for a moment.
            write(&pids.join("pids.max"), &(limits.pids + 2).to_string())?;
        }
        Ok(())
    }

    pub fn cpu_quota(&self, quota_us: u64, period_us: u64) -> Result<(), Failure> {
        let Some(cpu) = &self.controllers.cpu else {
            return Ok(());
        };
        write(&cpu.join("cpu.cfs_period_us"), &period_us.to_string())?;
        write(&cpu.join("cpu.cfs_quota_us"), &quota_us.to_string())
    }

    pub fn usage(&self) -> Result<Usage, Failure> {
        let read = |folder: &Option<PathBuf>, file: &str| folder.as_ref().map_or(Ok(0), |folder| number(&folder.join(file)));
        Ok(Usage {
            cpu: Duration::from_nanos(read(&self.controllers.cpuacct, "cpuacct.usage")?),
            memory_bytes: read(&self.controllers.memory, "memory.usage_in_bytes")?,
            pids: u32::try_from(read(&self.controllers.pids, "pids.current")?).unwrap_or(u32::MAX),
        })
    }

    /// An event descriptor that the kernel's out-of-memory handling of this group writes to.
    pub fn memory_alarm(&self) -> Result<Option<OwnedFd>, Failure> {
        let Some(memory) = &self.controllers.memory else {
            return Ok(None);
        };
        let alarm = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).step(|| "make an event descriptor")?;
        let control = memory.join("memory.oom_control");
        let control = std::fs::File::open(&control).step(|| format!("open {}", control.display()))?;
        let wanted = format!("{} {}", alarm.as_raw_fd(), control.as_raw_fd());
        write(&memory.join("cgroup.event_control"), &wanted)?;
        Ok(Some(alarm))
    }

    pub fn memory_history(&self) -> (u64, u64) {
        let Some(memory) = &self.controllers.memory else {
            return (0, 0);
        };
        let peak = number(&memory.join("memory.max_usage_in_bytes")).unwrap_or(0);
        let control = read(&memory.join("memory.oom_control")).unwrap_or_default();
        (peak, field(&control, "oom_kill").unwrap_or(0))
    }

    pub fn freeze(&self, frozen: bool) -> Result<(), Failure> {
        let Some(freezer) = &self.controllers.freezer else {
            return Ok(());
        };
        write(&freezer.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })
    }

    pub fn is_frozen(&self) -> Result<bool, Failure> {
        let Some(freezer) = &self.controllers.freezer else {
            return Ok(false);
        };
        // FREEZING until the last process has stopped; reading the file makes the kernel look.
        Ok(read(&freezer.join("freezer.state"))?.trim() == "FROZEN")
    }

    pub fn folders(&self) -> Vec<PathBuf> {
        self.controllers.folders()
    }

    pub fn freezer(&self) -> Option<&Path> {
        self.controllers.freezer.as_deref()
    }
}
