//! Making one clone: from the template's next step to a process that is whole, stopped, and has only to be let go.
//!
//! Three stops in all: the clone is born, the template is back, the clone is armed.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    process::{Pid, PidfdFlags, Resource, Rlimit, pidfd_open, prlimit},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{
    frozen::Frozen,
    routine::{self, ERROR_BYTES, Operation},
    script::{SIZES_BYTES, Script},
    state::{self, SAID},
    trace::{self, Registers, Status},
};
use crate::{
    cgroup::Group,
    descriptor,
    error::{Failure, Step},
    mutation::{Layer, without},
    network::{self, Listeners},
    root::USER,
    spec::{Limits, Network},
};

/// What one clone is given.
pub(super) struct Wanted<'a> {
    pub id: &'a str,
    pub limits: &'a Limits,
    pub network: &'a Network,
    /// Made already.
    pub group: &'a Group,
    /// Where the list goes on at its turn.
    pub turn_to: u64,
}

/// A clone that is stopped right before it goes on.
pub(super) struct Armed {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    pub namespace: OwnedFd,
    pub listeners: Listeners,
    /// Where its launcher says that it is awake.
    pub said: Option<OwnedFd>,
    /// In the template's pid namespace.
    pub inner: i32,
}

/// Makes a clone. On an error nothing of it is left.
///
/// `Err` with `true`: the template itself is unusable now.
pub(super) fn arm(frozen: &Frozen, script: &Script, base: u64, wanted: &Wanted<'_>, acknowledges: bool) -> Result<Armed, (Failure, bool)> {
    let template = |failure| (failure, true);
    name_write(frozen, script, wanted).map_err(template)?;
    let main = &frozen.threads[0];
    let registers = Registers { rip: base, rdi: script.program, rsi: script.error, orig_rax: u64::MAX, eflags: PLAIN_FLAGS, ..main.registers };
    trace::registers_set(main.tid, &registers).and_then(|()| trace::resume(main.tid, 0)).step(|| "let the template go on").map_err(template)?;
    let mut clone = None;
    match born_and_repaired(frozen, script, base, wanted, &mut clone) {
        Ok(()) => {}
        Err((failure, broken)) => {
            if let Some(pid) = clone {
                discard(pid);
            }
            return Err((failure, broken));
        }
    }
    let pid = clone.expect("it was seen to stop");
    ends(script, pid, wanted, acknowledges).map_err(|failure| {
        discard(pid);
        (failure, false)
    })
}

/// Interrupts on, nothing else: no single steps, no alignment checks, upwards.
const PLAIN_FLAGS: u64 = 0x202;

fn name_write(frozen: &Frozen, script: &Script, wanted: &Wanted<'_>) -> Result<(), Failure> {
    let mut name = wanted.id.as_bytes().to_vec();
    name.push(0);
    let mut sizes = format!("size={},nr_inodes={},mode=1777", wanted.limits.tmp_bytes, wanted.limits.tmp_bytes / 4096 + 1024).into_bytes();
    sizes.resize(SIZES_BYTES, 0);
    let written = frozen
        .write(script.name, &name)
        .and_then(|()| frozen.write(script.name_length, &(wanted.id.len() as u32).to_ne_bytes()))
        .and_then(|()| frozen.write(script.sizes, &sizes))
        // What failed for an earlier clone is not this one's failure.
        .and_then(|()| frozen.write(script.error, &[0; ERROR_BYTES]))
        .and_then(|()| frozen.write(script.turn + std::mem::offset_of!(Operation, arguments) as u64, &wanted.turn_to.to_ne_bytes()));
    written.map_err(|refusal| Failure::new(refusal.to_string(), rustix::io::Errno::IO))
}

/// Sees template and clone through their stops. When the clone fails, the template still comes back first.
fn born_and_repaired(frozen: &Frozen, script: &Script, base: u64, wanted: &Wanted<'_>, clone: &mut Option<i32>) -> Result<(), (Failure, bool)> {
    let broken = |failure| (failure, true);
    let mut outcome = None;
    let mut is_back = false;
    while !is_back || outcome.is_none() {
        let Some((pid, status)) = trace::wait(-1, true).step(|| "wait for a clone").map_err(broken)? else { continue };
        if pid == frozen.threads[0].tid {
            is_back = template_stopped(frozen, script, base, status)?;
            if is_back && clone.is_none() {
                // It says so in its own memory when no clone came of it.
                let answer = frozen.number(script.child).map_or(0, |answer| answer as i32);
                if answer < 0 {
                    return Err((Failure::new("clone a template", io::Error::from_raw_os_error(-answer)), false));
                }
            }
        } else if clone.is_none_or(|clone| clone == pid) {
            match clone_stopped(script, base, pid, status, wanted, clone) {
                Ok(false) => {}
                Ok(true) => outcome = Some(Ok(())),
                Err(failure) => {
                    outcome.get_or_insert(Err(failure));
                }
            }
        }
        // Else it is an earlier clone that has ended.
    }
    outcome.unwrap_or(Ok(())).map_err(|failure| (failure, false))
}

/// Whether the template is back.
fn template_stopped(frozen: &Frozen, script: &Script, base: u64, status: Status) -> Result<bool, (Failure, bool)> {
    let tid = frozen.threads[0].tid;
    match status {
        Status::Gone => Err((Failure::new("clone a template, which has ended", rustix::io::Errno::SRCH), true)),
        Status::Stopped { signal: libc::SIGTRAP, event: 0 } => {
            let back = script.program + size_of::<Operation>() as u64;
            stands_at(tid, base, back).map_err(|failure| (failure, true))?;
            Ok(true)
        }
        // Every other one is blocked in it.
        Status::Stopped { signal, event: 0 } => Err((Failure::new(format!("clone a template, which got signal {signal}"), rustix::io::Errno::IO), true)),
        Status::Stopped { .. } => {
            trace::resume(tid, 0).step(|| "let the template go on").map_err(|failure| (failure, true))?;
            Ok(false)
        }
    }
}

/// Whether the clone is armed.
fn clone_stopped(script: &Script, base: u64, pid: i32, status: Status, wanted: &Wanted<'_>, clone: &mut Option<i32>) -> Result<bool, Failure> {
    match status {
        Status::Gone => {
            // Or an earlier one, when this one is not born yet.
            match clone.take() {
                Some(_) => Err(Failure::new("repair a clone, which has ended", rustix::io::Errno::SRCH)),
                None => Ok(false),
            }
        }
        Status::Stopped { event: trace::EVENT_STOP, .. } => {
            if clone.is_none() {
                *clone = Some(pid);
                placed(pid, wanted)?;
            }
            trace::resume(pid, 0).step(|| "let a clone go on")?;
            Ok(false)
        }
        Status::Stopped { signal: libc::SIGTRAP, event: 0 } if clone.is_some() => {
            if !stands_at(pid, base, script.after_turn())? {
                failed_step(script, pid)?;
            }
            Ok(true)
        }
        Status::Stopped { signal, .. } => Err(Failure::new(format!("repair a clone, which got signal {signal}"), rustix::io::Errno::IO)),
    }
}

/// Whether a process that got SIGTRAP stands where the routine stops for this operation; false: where it stops for a failure. Nobody
/// else can say for the routine that it has come this far.
fn stands_at(pid: i32, base: u64, operation: u64) -> Result<bool, Failure> {
    let registers = trace::registers(pid).step(|| "read a clone's registers")?;
    match registers.rip.wrapping_sub(base) {
        at if at == routine::trapped() && registers.r12 == operation => Ok(true),
        at if at == routine::failed() => Ok(false),
        _ => Err(Failure::new("clone a template, which was stopped by another than the engine", rustix::io::Errno::IO)),
    }
}

/// Into its control group, with limits of its own, and the same user again in its own user namespace.
fn placed(pid: i32, wanted: &Wanted<'_>) -> Result<(), Failure> {
    wanted.group.put(pid)?;
    if !without(Layer::Limits) {
        limit(pid, Resource::Nproc, u64::from(wanted.limits.pids) + 1)?;
        limit(pid, Resource::Nofile, wanted.limits.files_open.into())?;
    }
    for map in ["uid_map", "gid_map"] {
        let file = format!("/proc/{pid}/{map}");
        fs::write(&file, format!("{USER} {USER} 1")).step(|| format!("write {file}"))?;
    }
    Ok(())
}

/// Never above what its template has, since raising is for who is privileged on the host.
fn limit(pid: i32, resource: Resource, value: u64) -> Result<(), Failure> {
    match prlimit(Pid::from_raw(pid), resource, Rlimit { current: Some(value), maximum: Some(value) }) {
        Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(Failure::new("limit a clone", error)),
    }
}

/// The clone tells in its own memory what failed.
fn failed_step(script: &Script, pid: i32) -> Result<(), Failure> {
    use std::os::unix::fs::FileExt;
    let mut told = [0; ERROR_BYTES];
    File::open(format!("/proc/{pid}/mem")).and_then(|memory| memory.read_exact_at(&mut told, script.error)).step(|| "read a clone's memory")?;
    let word = |at: usize| u64::from_ne_bytes(told[at..at + 8].try_into().expect("8 bytes"));
    match word(0) {
        0 => Err(Failure::new("repair a clone, which failed without a word", rustix::io::Errno::IO)),
        address => {
            let step = script.steps.get(&address).copied().unwrap_or("repair a clone");
            Err(Failure::new(format!("{step} in a clone"), io::Error::from_raw_os_error(-(word(8) as i64) as i32)))
        }
    }
}

/// What the keeper and the daemon need of it. Its network is built from here, with the code that builds every other.
fn ends(script: &Script, pid: i32, wanted: &Wanted<'_>, acknowledges: bool) -> Result<Armed, Failure> {
    let known = Pid::from_raw(pid).expect("a process that was waited for has a pid");
    let pidfd = pidfd_open(known, PidfdFlags::empty()).step(|| "open a clone's pidfd")?;
    let mut outputs = Vec::new();
    for slot in script.outputs {
        let number = memory_number(pid, slot)?;
        let output = state::taken(&pidfd, number).step(|| "take a clone's output")?;
        descriptor::nonblocking(&output).step(|| "take a clone's output")?;
        outputs.push(output);
    }
    let said = if acknowledges { Some(state::taken(&pidfd, SAID.0).step(|| "take what a clone says")?) } else { None };
    let namespace = openat(CWD, format!("/proc/{pid}/ns/net"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(|| "open a clone's network")?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).step(|| "enter a clone's network")?;
    let listeners = network::build(wanted.network)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).step(|| "read a clone's status")?;
    let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:")).and_then(|pids| {
        // As the host, the template's namespace and the clone's own have it.
        let mut pids = pids.split_ascii_whitespace().rev();
        pids.nth(1)?.parse().ok()
    });
    let (Some(stderr), Some(stdout)) = (outputs.pop(), outputs.pop()) else {
        return Err(Failure::new("take a clone's output", rustix::io::Errno::BADF));
    };
    Ok(Armed { pid, pidfd, stdout, stderr, namespace, listeners, said, inner: inner.unwrap_or(0) })
}

/// A number in a clone's memory, where the routine has put it.
pub(super) fn memory_number(pid: i32, address: u64) -> Result<i32, Failure> {
    use std::os::unix::fs::FileExt;
    let mut bytes = [0; 4];
    File::open(format!("/proc/{pid}/mem")).and_then(|memory| memory.read_exact_at(&mut bytes, address)).step(|| "read a clone's memory")?;
    Ok(i32::from_ne_bytes(bytes))
}

/// Ends a clone that is attached and of whose end nothing has been seen, so that its pid is its own; and sees it gone.
pub(super) fn discard(pid: i32) {
    let Some(known) = Pid::from_raw(pid) else { return };
    let _ = rustix::process::kill_process(known, rustix::process::Signal::KILL);
    gone_see(pid);
}

/// The same for one that may have ended.
pub(super) fn discard_by(pid: i32, pidfd: &OwnedFd) {
    crate::process::kill(pidfd);
    gone_see(pid);
}

fn gone_see(pid: i32) {
    while let Ok(Some((_, status))) = trace::wait(pid, true) {
        if status == Status::Gone {
            return;
        }
    }
}
