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
    process::{Pid, PidfdFlags, pidfd_open},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{
    frozen::Frozen,
    routine::{ERROR_BYTES, Operation},
    script::{SIZES_BYTES, Script},
    state::{self, SAID},
    trace::{self, Registers, Status},
};
use crate::{
    cgroup::Group,
    descriptor,
    error::{Failure, Step},
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
    let registers =
        Registers { rip: base, rdi: script.program, rsi: script.error, orig_rax: u64::MAX, eflags: main.registers.eflags & !DIRECTION, ..main.registers };
    trace::registers_set(main.tid, &registers).and_then(|()| trace::resume(main.tid, 0)).step(|| "let the template go on").map_err(template)?;
    let mut clone = None;
    match born_and_repaired(frozen, script, wanted, &mut clone) {
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

const DIRECTION: u64 = 0x400;

fn name_write(frozen: &Frozen, script: &Script, wanted: &Wanted<'_>) -> Result<(), Failure> {
    let mut name = wanted.id.as_bytes().to_vec();
    name.push(0);
    let mut sizes = format!("size={},nr_inodes={},mode=1777", wanted.limits.tmp_bytes, wanted.limits.tmp_bytes / 4096 + 1024).into_bytes();
    sizes.resize(SIZES_BYTES, 0);
    let written = frozen
        .write(script.name, &name)
        .and_then(|()| frozen.write(script.name_length, &(wanted.id.len() as u32).to_ne_bytes()))
        .and_then(|()| frozen.write(script.sizes, &sizes))
        .and_then(|()| frozen.write(script.turn + std::mem::offset_of!(Operation, arguments) as u64, &wanted.turn_to.to_ne_bytes()));
    written.map_err(|refusal| Failure::new(refusal.to_string(), rustix::io::Errno::IO))
}

fn born_and_repaired(frozen: &Frozen, script: &Script, wanted: &Wanted<'_>, clone: &mut Option<i32>) -> Result<(), (Failure, bool)> {
    let (mut is_back, mut is_armed) = (false, false);
    while !is_back || !is_armed {
        let (pid, status) = match trace::wait(-1, true) {
            Ok(Some(changed)) => changed,
            Ok(None) => continue,
            Err(error) => return Err((Failure::new("wait for a clone", error), true)),
        };
        let is_template = pid == frozen.threads[0].tid;
        match status {
            Status::Gone if is_template => return Err((Failure::new("clone a template, which has ended", rustix::io::Errno::SRCH), true)),
            Status::Gone if Some(pid) == *clone => {
                *clone = None;
                return Err((Failure::new("repair a clone, which has ended", rustix::io::Errno::SRCH), false));
            }
            // An earlier clone's end, or that of another of the template's threads, which is the template's.
            Status::Gone => {}
            Status::Stopped { signal: libc::SIGTRAP, event: 0 } if is_template => {
                is_back = true;
                if clone.is_none() {
                    let answer = frozen.number(script.child).map_or(0, |answer| answer as i32);
                    if answer < 0 {
                        return Err((Failure::new("clone a template", io::Error::from_raw_os_error(-answer)), false));
                    }
                }
            }
            // All others are blocked in it.
            Status::Stopped { signal, event: 0 } if is_template => {
                return Err((Failure::new(format!("clone a template, which got signal {signal}"), rustix::io::Errno::IO), true));
            }
            Status::Stopped { .. } if is_template => trace::resume(pid, 0).step(|| "let the template go on").map_err(|failure| (failure, true))?,
            Status::Stopped { event: trace::EVENT_STOP, .. } => {
                if clone.is_none() {
                    *clone = Some(pid);
                    placed(pid, wanted).map_err(|failure| (failure, false))?;
                }
                trace::resume(pid, 0).step(|| "let a clone go on").map_err(|failure| (failure, false))?;
            }
            Status::Stopped { signal: libc::SIGTRAP, event: 0 } if Some(pid) == *clone => {
                failed_step(script, pid).map_err(|failure| (failure, false))?;
                is_armed = true;
            }
            Status::Stopped { signal, .. } => return Err((Failure::new(format!("repair a clone, which got signal {signal}"), rustix::io::Errno::IO), false)),
        }
    }
    Ok(())
}

/// Into its control group, and the same user again in its own user namespace.
fn placed(pid: i32, wanted: &Wanted<'_>) -> Result<(), Failure> {
    wanted.group.put(pid)?;
    for map in ["uid_map", "gid_map"] {
        let file = format!("/proc/{pid}/{map}");
        fs::write(&file, format!("{USER} {USER} 1")).step(|| format!("write {file}"))?;
    }
    Ok(())
}

/// The clone tells in its own memory what failed.
fn failed_step(script: &Script, pid: i32) -> Result<(), Failure> {
    use std::os::unix::fs::FileExt;
    let mut told = [0; ERROR_BYTES];
    File::open(format!("/proc/{pid}/mem")).and_then(|memory| memory.read_exact_at(&mut told, script.error)).step(|| "read a clone's memory")?;
    let word = |at: usize| u64::from_ne_bytes(told[at..at + 8].try_into().expect("8 bytes"));
    match word(0) {
        0 => Ok(()),
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

fn memory_number(pid: i32, address: u64) -> Result<i32, Failure> {
    use std::os::unix::fs::FileExt;
    let mut bytes = [0; 4];
    File::open(format!("/proc/{pid}/mem")).and_then(|memory| memory.read_exact_at(&mut bytes, address)).step(|| "read a clone's memory")?;
    Ok(i32::from_ne_bytes(bytes))
}

/// Ends a clone that is still attached, and sees it gone.
pub(super) fn discard(pid: i32) {
    let Some(known) = Pid::from_raw(pid) else { return };
    let _ = rustix::process::kill_process(known, rustix::process::Signal::KILL);
    while let Ok(Some((_, status))) = trace::wait(pid, true) {
        if status == Status::Gone {
            return;
        }
    }
}
