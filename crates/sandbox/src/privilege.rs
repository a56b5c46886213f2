//! Giving privileges up: the daemon's all of them, the keeper's those it never needs, a sandbox's every one.

use rustix::{
    fs::{Gid, Uid},
    process::geteuid,
};
use rustix::{
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
        set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use crate::{
    error::{Error, Failure, Step},
    process,
};

/// Gives up every privilege of this process for good: uid, gid, groups, capabilities, no_new_privs, not dumpable. Without root: what is left of it.
///
/// Without root the uid and gid stay what they are. Must be called while the process has one thread: the kernel keeps
/// capabilities per thread.
///
/// # Errors
/// `Refused` when there are more threads, or when a root process is asked to stay root; else the failed step. After an error
/// the process is in between and must end.
pub fn drop_privileges(uid: u32, gid: u32) -> Result<(), Error> {
    if process::threads().map_err(|error| Error::step("count the threads", error))? != 1 {
        return Err(Error::Refused("privileges are dropped before the first thread is started".to_owned()));
    }
    if geteuid().is_root() {
        if uid == 0 || gid == 0 {
            return Err(Error::Refused("the daemon's uid and gid cannot be 0".to_owned()));
        }
        bounding_set_limit(CapabilitySet::empty())?;
        identity_set(uid, gid, true)?;
    }
    capabilities_drop()?;
    set_no_new_privs(true).step(|| "set no_new_privs")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step(|| "make the process not dumpable")?;
    Ok(())
}

/// Becomes this uid and gid, with no other group. `groups`: whether the groups may be changed (not in a rootless namespace).
pub(crate) fn identity_set(uid: u32, gid: u32, groups: bool) -> Result<(), Failure> {
    if groups {
        set_thread_groups(&[]).step(|| "leave all groups")?;
    }
    let (gid, uid) = (Gid::from_raw(gid), Uid::from_raw(uid));
    set_thread_res_gid(gid, gid, gid).step(|| format!("become gid {gid}"))?;
    set_thread_res_uid(uid, uid, uid).step(|| format!("become uid {uid}"))
}

/// Empties every set of this thread but the bounding set.
pub(crate) fn capabilities_drop() -> Result<(), Failure> {
    let none = CapabilitySet::empty();
    clear_ambient_capability_set().step(|| "clear the ambient capabilities")?;
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).step(|| "drop the capabilities")
}

/// Takes all but these out of the bounding set, so that no exec brings them back.
pub(crate) fn bounding_set_limit(kept: CapabilitySet) -> Result<(), Failure> {
    // By number: also those that a newer kernel has. EINVAL: it has no more.
    for number in 0..64u32 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => {
                return Err(Failure::new(format!("drop capability {number} from the bounding set"), error));
            }
        }
    }
    Ok(())
}

/// Leaves a root keeper only what makes and ends sandboxes: no modules, clocks, raw devices, reboot, audit, BPF.
pub(crate) fn keeper_limit() -> Result<(), Failure> {
    let kept = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::KILL
        | CapabilitySet::SETGID
        | CapabilitySet::SETUID
        | CapabilitySet::SETPCAP
        | CapabilitySet::SETFCAP
        | CapabilitySet::NET_ADMIN
        | CapabilitySet::NET_BIND_SERVICE
        | CapabilitySet::SYS_ADMIN
        | CapabilitySet::SYS_CHROOT
        | CapabilitySet::SYS_PTRACE
        | CapabilitySet::SYS_RESOURCE;
    let now = capabilities(None).step(|| "read the capabilities")?.permitted;
    bounding_set_limit(kept)?;
    let left = now & kept;
    set_capabilities(None, CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() }).step(|| "limit the keeper's capabilities")
}

/// Whether this process can make sandboxes with uids of their own.
pub(crate) fn is_root() -> bool {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::SETPCAP | CapabilitySet::CHOWN;
    geteuid().is_root() && capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}
