//! The starter: a fork of the keeper that makes one sandbox and ends. What may wait is done here, so that the keeper never does.
//!
//! It has the keeper's privileges and host view, and hands init everything that needs those: the cgroup both are in, detached
//! mounts, the uid map. What it made, the keeper undoes: it knows the group and is init's parent.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use rustix::process::{DumpableBehavior, chdir, set_dumpable_behavior};
use serde::{Deserialize, Serialize};

use crate::{
    cgroup::Group,
    descriptor,
    error::{Failure, Step},
    init::{self, Plan},
    mutation::{Layer, without},
    process,
    root::{Trees, USER},
    seccomp::Filter,
    spec::Spec,
};

/// What a starter is given; it has the keeper's memory, so nothing is copied.
pub(crate) struct Order<'a> {
    pub spec: &'a Spec,
    /// Look at the walls instead of running the command.
    pub look: bool,
    pub group: &'a Group,
    /// The host uid and gid of the sandbox; none: the keeper's own.
    pub uid: Option<u32>,
    pub mount_point: PathBuf,
    pub writable_under: &'a [PathBuf],
    pub filter: &'a Filter,
    /// Whether a cgroup limits the memory.
    pub memory_counted: bool,
    /// To the keeper.
    pub report: OwnedFd,
}

/// What starter and init tell the keeper, in this order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// By the starter, with init's pidfd.
    Born,
    /// By init, with stdout, stderr, network namespace, the command's pidfd, the listeners that are, and the files that change.
    /// Of a template the last is the reader of its said pipe.
    ///
    /// By an engine for a clone, with the pidfd of the clone and, last, the daemon's end of its release; and what pid it has in the
    /// template's namespace.
    Running { outbound: bool, dns_udp: bool, dns_tcp: bool, metadata: bool, changing: usize, said: bool, clone: Option<i32> },
    /// By either.
    Failed(Failure),
    /// By init.
    Exited { code: Option<i32>, signal: Option<i32> },
    /// By the init of a template, with its pid there.
    CloneExited { pid: i32, code: Option<i32>, signal: Option<i32> },
}

impl Report {
    pub fn send(&self, socket: impl AsFd, descriptors: &[std::os::fd::BorrowedFd<'_>]) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(self).expect("a report holds only text and numbers");
        descriptor::send(socket, &bytes, descriptors, true)
    }
}

/// The starter's whole life; what it returns is its exit code.
pub(crate) fn run(order: Order<'_>) -> i32 {
    match sandbox_make(&order) {
        Ok(()) => 0,
        Err(failure) => {
            // The keeper being gone is no reason to do anything else but end.
            let _ = Report::Failed(failure).send(&order.report, &[]);
            1
        }
    }
}

fn sandbox_make(order: &Order<'_>) -> Result<(), Failure> {
    descriptor::close_all_but(&[order.report.as_fd()]).step(|| "close the keeper's descriptors")?;
    chdir(&order.mount_point).step(|| format!("go to {}", order.mount_point.display()))?;
    if order.uid.is_none() {
        // The kernel lets nobody but root write the maps of a process that is not dumpable. Init is not, from its first step on.
        set_dumpable_behavior(DumpableBehavior::Dumpable).step(|| "become dumpable")?;
    }
    // When the host runs out of memory, functions go before the daemon. Not being able to say so is no reason not to start.
    let _ = fs::write("/proc/self/oom_score_adj", "800");
    order.group.make(&order.spec.limits)?;
    order.group.enter()?;
    let trees = Trees::open(order.spec, order.writable_under, order.uid)?;

    let (mapped, go) = descriptor::pipe().step(|| "make a pipe")?;
    let report = order.report.as_fd();
    let child = process::clone_sibling(namespaces(), || {
        init::run(Plan {
            spec: order.spec,
            look: order.look,
            trees,
            filter: order.filter,
            report,
            mapped: mapped.as_fd(),
            own_uid: order.uid.is_some(),
            memory_counted: order.memory_counted,
        })
    });
    let init = child.step(|| "make the namespaces").map_err(|failure| {
        failure
            .hint_on(
                &[libc::EPERM, libc::EACCES],
                "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0",
            )
            .hint_on(&[libc::ENOSPC, libc::EUSERS], "raise sysctl user.max_user_namespaces and user.max_net_namespaces")
    })?;
    Report::Born.send(report, &[init.pidfd.as_fd()]).step(|| "report init")?;
    maps_write(init.pid, order.uid)?;
    rustix::io::write(&go, b"g").step(|| "let init go on")?;
    Ok(())
}

fn namespaces() -> i32 {
    let mut flags = libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP;
    for (layer, flag) in [(Layer::Network, libc::CLONE_NEWNET), (Layer::Ipc, libc::CLONE_NEWIPC), (Layer::Uts, libc::CLONE_NEWUTS)] {
        if !without(layer) {
            flags |= flag;
        }
    }
    flags
}

/// One id each: inside 1000, outside the sandbox's own. There is no root inside.
fn maps_write(pid: i32, uid: Option<u32>) -> Result<(), Failure> {
    let (uid, gid) = match uid {
        Some(own) => (own, own),
        None => {
            // Without this the kernel lets nobody but root write a gid map.
            let file = format!("/proc/{pid}/setgroups");
            fs::write(&file, "deny").step(|| format!("write {file}"))?;
            (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
        }
    };
    for (map, id) in [("uid_map", uid), ("gid_map", gid)] {
        let file = format!("/proc/{pid}/{map}");
        fs::write(&file, format!("{USER} {id} 1")).step(|| format!("write {file}"))?;
    }
    Ok(())
}
