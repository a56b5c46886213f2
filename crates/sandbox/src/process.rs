//! Making processes: a plain fork, and a clone into new namespaces; both with a pidfd, both ending in `_exit`.
//!
//! Nothing here may be called by a process with more than one thread: the child goes on in the same memory and allocates.

use std::{
    io,
    os::fd::{AsFd, FromRawFd, OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal, waitid};

/// A process that this one made and that it alone reaps.
pub(crate) struct Child {
    /// As the maker sees it.
    pub pid: i32,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
}

/// How many threads this process has.
pub(crate) fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Forks; the child runs `body` and exits with what it returns.
pub(crate) fn fork(body: impl FnOnce() -> i32) -> io::Result<Child> {
    // SAFETY: fork(2). This process has one thread (the module's rule), so no lock is held by a thread the child lacks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => exit_with(body),
        pid => {
            let known = Pid::from_raw(pid).expect("fork gives the parent a positive pid");
            match pidfd_open(known, PidfdFlags::empty()) {
                Ok(pidfd) => Ok(Child { pid, pidfd }),
                Err(error) => {
                    // Not reaped by anybody yet, so the pid is still that child's.
                    let _ = rustix::process::kill_process(known, Signal::KILL);
                    let _ = rustix::process::waitpid(Some(known), rustix::process::WaitOptions::empty());
                    Err(error.into())
                }
            }
        }
    }
}

/// Clones into the namespaces of `flags` (CLONE_NEW*) as a sibling: the child's parent is the caller's parent.
///
/// That lets a starter end while what it made stays the keeper's own child.
pub(crate) fn clone_sibling(flags: i32, body: impl FnOnce() -> i32) -> io::Result<Child> {
    let mut pidfd: RawFd = -1;
    let arguments = libc::clone_args {
        flags: (flags | libc::CLONE_PIDFD | libc::CLONE_PARENT) as u64,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: 0,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // SAFETY: clone3(2) without CLONE_VM is a fork: the child has its own copy of this memory. One thread (the module's rule).
    // `arguments` and `pidfd` live across the call. The C library's idea of the thread id is stale in the child, which only
    // its pthread signalling would notice; init does not use that.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) } {
        -1 => Err(io::Error::last_os_error()),
        0 => exit_with(body),
        pid => {
            // SAFETY: the kernel stored a fresh descriptor there (CLONE_PIDFD) and nobody else knows it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid: pid as i32, pidfd })
        }
    }
}

/// Runs the child's part and ends the process, without the parent's destructors, exit handlers or unwinding.
fn exit_with(body: impl FnOnce() -> i32) -> ! {
    let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(101);
    // SAFETY: _exit(2) does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Reaps a child when it has ended; `None` while it has not.
pub(crate) fn reap(pidfd: impl AsFd) -> io::Result<Option<WaitIdStatus>> {
    Ok(waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?)
}

/// Sends SIGKILL; a process that is gone already is fine.
pub(crate) fn kill(pidfd: impl AsFd) {
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
}
