//! From a fork of the daemon to the keeper: everything that is done once.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use nix::sys::{
    signal::{SigSet, Signal as NixSignal},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::epoll,
    fs::{CWD, Mode, OFlags, openat},
    mount::{MountPropagationFlags, mount_change},
    net::sockopt::set_socket_passcred,
    process::{
        DumpableBehavior, Pid, Resource, Rlimit, Signal, getegid, geteuid, getppid, getrlimit, set_dumpable_behavior, set_parent_process_death_signal,
        setrlimit, setsid, umask,
    },
    stdio::{dup2_stdin, dup2_stdout},
    thread::UnshareFlags,
};

use super::{Daemon, Service, Source};
use crate::{
    cgroup::Groups,
    descriptor,
    error::{Failure, Step},
    folder::Folder,
    keeper::KeeperConfig,
    mutation::{Layer, without},
    privilege,
    seccomp::Filter,
    slot::Slots,
};

/// What the daemon hands its fork.
pub(crate) struct Setup {
    pub config: KeeperConfig,
    /// The keeper's end.
    pub requests: OwnedFd,
    pub daemon_pid: Pid,
    pub daemon: OwnedFd,
    pub started_uid: u32,
}

/// Becomes the keeper.
pub(super) fn prepare(setup: Setup, ready: &OwnedFd) -> Result<Service, Failure> {
    let Setup { config, requests, daemon_pid, daemon, started_uid } = setup;
    descriptor::close_all_but(&[requests.as_fd(), ready.as_fd(), daemon.as_fd()]).step(|| "close the daemon's descriptors")?;
    standard_streams_leave()?;
    let _ = rustix::thread::set_name(c"tanebi-keeper");
    setsid().step(|| "leave the daemon's session")?;
    umask(Mode::from_raw_mode(0o022));
    let signals = signals_set()?;

    let folder = Folder::open(&config.dir)?;
    let root = privilege::is_root();
    // Before the user namespace, from inside which the daemon could not be looked at.
    let groups = Groups::discover(&folder.cgroup_note());
    if !root {
        user_namespace_make()?;
    }
    // Also a network namespace: the keeper has nothing to say on the host's, and without root it could not come back to it.
    let network = if without(Layer::Network) { UnshareFlags::empty() } else { UnshareFlags::NEWNET };
    unshare(UnshareFlags::NEWNS | network).step(|| "make a mount and a network namespace")?;
    // Nothing mounted in here is seen outside, and the other way round what the operator mounts later is not seen here.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).step(|| "make all mounts private")?;
    let namespace = openat(CWD, "/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(|| "open the own network namespace")?;
    open_files_raise()?;
    if root {
        privilege::keeper_limit()?;
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step(|| "make the keeper not dumpable")?;
    // After the last change of credentials, which would undo it.
    set_parent_process_death_signal(Some(Signal::USR2)).step(|| "watch the daemon")?;
    if getppid() != Some(daemon_pid) {
        return Err(Failure::new("watch the daemon, which is gone", rustix::io::Errno::SRCH));
    }

    set_socket_passcred(&requests, true).step(|| "ask for the daemon's credentials")?;
    let mut service = Service {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC).step(|| "make an epoll")?,
        sources: Default::default(),
        timers: Default::default(),
        token: 0,
        requests,
        daemon: Daemon { pid: daemon_pid, pidfd: daemon, uids: [started_uid, config.daemon_uid], gid: config.daemon_gid },
        signals,
        namespace,
        folder,
        writable_under: config.writable_under.iter().map(|folder| real_path(folder)).collect(),
        filter: Filter::compile(),
        groups,
        slots: slots(root),
        root,
        held: Default::default(),
        by_id: Default::default(),
        helpers: Default::default(),
        connections: Default::default(),
        stopping: None,
    };
    service.sources_add().step(|| "watch the daemon")?;
    Ok(service)
}

impl Service {
    fn sources_add(&mut self) -> std::io::Result<()> {
        let watched = [(self.requests.as_fd(), Source::Requests), (self.daemon.pidfd.as_fd(), Source::Daemon), (self.signals.as_fd(), Source::Signals)];
        for (descriptor, source) in watched {
            self.token += 1;
            epoll::add(&self.epoll, descriptor, epoll::EventData::new_u64(self.token), epoll::EventFlags::IN)?;
            self.sources.insert(self.token, source);
        }
        Ok(())
    }
}

/// Standard input and output are the daemon's; standard error stays, for what the keeper has to say.
fn standard_streams_leave() -> Result<(), Failure> {
    let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step(|| "open /dev/null")?;
    dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).step(|| "leave standard input and output")
}

/// What asks the daemon to end is the daemon's to decide; its death arrives as SIGUSR2, read from a descriptor.
fn signals_set() -> Result<SignalFd, Failure> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE, libc::SIGUSR1] {
        // SAFETY: signal(2) with SIG_IGN installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let mut death = SigSet::empty();
    death.add(NixSignal::SIGUSR2);
    death.thread_block().step(|| "block SIGUSR2")?;
    SignalFd::with_flags(&death, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).step(|| "make a signalfd")
}

/// Without root: a user namespace in which the keeper may do as root does, with the one id it has.
fn user_namespace_make() -> Result<(), Failure> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    // A process that was another user before is not dumpable, and then its maps belong to root.
    set_dumpable_behavior(DumpableBehavior::Dumpable).step(|| "become dumpable")?;
    unshare(UnshareFlags::NEWUSER).step(|| "make a user namespace").map_err(|failure| {
        failure
            .hint_on(&[libc::EPERM, libc::EACCES], "sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0, or run as root")
            .hint_on(&[libc::ENOSPC, libc::EUSERS], "raise sysctl user.max_user_namespaces")
    })?;
    let write = |file: &str, text: String| fs::write(file, text).step(|| format!("write {file}"));
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

fn unshare(flags: UnshareFlags) -> std::io::Result<()> {
    // SAFETY: only CLONE_FILES would be unsafe (descriptors of other threads); namespaces are not, and there is one thread.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// A handful of descriptors a sandbox; and a sandbox's own limit can be no higher than the keeper's.
fn open_files_raise() -> Result<(), Failure> {
    let wanted = 1 << 20;
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: Some(wanted), maximum: Some(wanted) };
    let up_to_hard = Rlimit { current: now.maximum, maximum: now.maximum };
    // Only root goes above the hard limit, and nobody above sysctl fs.nr_open.
    setrlimit(Resource::Nofile, raised).or_else(|_| setrlimit(Resource::Nofile, up_to_hard)).step(|| "raise the limit of open files")
}

fn slots(root: bool) -> Slots {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let own = || Slots::own([&read("/proc/self/uid_map"), &read("/proc/self/gid_map")], [&read("/etc/subuid"), &read("/etc/subgid")]);
    if root { own() } else { None }.unwrap_or_else(Slots::shared)
}

/// The operator may have named it by a link (/var/run); what the daemon names below it may not have any.
fn real_path(folder: &std::path::Path) -> PathBuf {
    fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned())
}
