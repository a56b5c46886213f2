//! The sandbox's pid 1: builds network and root from inside, locks every wall, forks the command, reaps, reports, ends.
//!
//! The same forked process from the first to the last step, no exec. The walls are closed before the command is forked, so that
//! they hold for both; Landlock in the command alone, so that it cannot signal its init. When the command ends, init ends, and
//! with it the kernel ends all that is left in the pid namespace.

use std::{
    ffi::CString,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::sys::signal::SigSet;
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    process::{
        DumpableBehavior, Resource, Rlimit, Signal, WaitOptions, chdir, getrlimit, set_dumpable_behavior, set_parent_process_death_signal, setrlimit, setsid,
        umask, wait,
    },
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
    system::sethostname,
    thread::CapabilitySet,
};

use crate::{
    descriptor,
    error::{Failure, Step},
    landlock,
    mutation::{Layer, without},
    network::{self, Listeners},
    privilege,
    process::{self, Child},
    root::{Trees, USER},
    seccomp::Filter,
    spec::{Limits, Spec},
    starter::Report,
    template, walls,
};

/// What init is given; it has the starter's memory.
pub(crate) struct Plan<'a> {
    pub spec: &'a Spec,
    /// Look at the walls instead of running the command.
    pub look: bool,
    pub trees: Trees,
    pub filter: &'a Filter,
    /// To the keeper.
    pub report: BorrowedFd<'a>,
    /// Brings a byte when the uid map is written.
    pub mapped: BorrowedFd<'a>,
    /// Whether uid and groups are the sandbox's own and not the keeper's.
    pub own_uid: bool,
    /// Whether a cgroup limits the memory.
    pub memory_counted: bool,
}

/// Init's whole life; what it returns is its exit code.
pub(crate) fn run(plan: Plan<'_>) -> i32 {
    let (report, is_template) = (plan.report, plan.spec.template);
    match command_start(plan) {
        Ok(command) => watch(command, is_template, report),
        Err(failure) => {
            // The keeper being gone is no reason to do anything else but end.
            let _ = Report::Failed(failure).send(report, &[]);
            1
        }
    }
}

/// Reaps until the command has ended, and of a template until its clones have; tells how each ended.
fn watch(command: i32, is_template: bool, report: BorrowedFd<'_>) -> i32 {
    loop {
        match rustix::io::retry_on_intr(|| wait(WaitOptions::empty())) {
            // A stop, which only a tracee tells, is no end.
            Ok(Some((pid, status))) if status.exited() || status.signaled() => {
                let (pid, code, signal) = (pid.as_raw_nonzero().get(), status.exit_status(), status.terminating_signal());
                let is_command = pid == command;
                if is_command {
                    let _ = Report::Exited { code, signal }.send(report, &[]);
                } else if is_template {
                    let _ = Report::CloneExited { pid, code, signal }.send(report, &[]);
                }
                if is_command && !is_template {
                    return 0;
                }
            }
            Ok(_) => {}
            // No child is left.
            Err(_) => return i32::from(!is_template),
        }
    }
}

/// Everything up to the command's exec. Returns its pid in here.
fn command_start(plan: Plan<'_>) -> Result<i32, Failure> {
    // Above all the other end of `mapped`, so that the starter's death is seen as an end of file.
    let mut kept = plan.trees.descriptors();
    kept.extend([plan.report, plan.mapped]);
    descriptor::close_all_but(&kept).step(|| "close the starter's descriptors")?;
    let _ = rustix::thread::set_name(c"tanebi-init");

    let listeners = network::build(&plan.spec.network)?;
    let mut byte = [0];
    if rustix::io::retry_on_intr(|| rustix::io::read(plan.mapped, &mut byte)).step(|| "wait for the uid map")? == 0 {
        return Err(Failure::new("wait for the uid map, which the starter did not write", rustix::io::Errno::CANCELED));
    }
    identity_take(plan.own_uid)?;
    // The host's /proc is still there; the sandbox's own will not show init.
    let namespace = openat(CWD, "/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(|| "open the network namespace")?;
    let changing = plan.trees.build(plan.spec)?;
    if !without(Layer::Uts) {
        sethostname(plan.spec.id.as_bytes()).step(|| "set the host name")?;
    }
    let output = Output::open(plan.spec.template)?;
    if !without(Layer::Limits) {
        limits_set(&plan.spec.limits, plan.memory_counted, plan.spec.template)?;
    }
    if !without(Layer::Capabilities) {
        privilege::bounding_set_limit(CapabilitySet::empty())?;
        privilege::capabilities_drop()?;
    }
    if !without(Layer::Seccomp) {
        plan.filter.install().step(|| "install the system call filter")?;
    }
    let command = command_fork(&plan, &output)?;
    running_report(plan.report, &output, &namespace, &command, &listeners, &changing)?;
    Ok(command.pid)
}

/// Becomes the sandbox's user, dies with the keeper, and is nobody's to look into.
fn identity_take(own_uid: bool) -> Result<(), Failure> {
    privilege::identity_set(USER, USER, own_uid)?;
    // Both are undone by a change of uid, so they come after it. A keeper that is gone already is noticed at the next report.
    set_parent_process_death_signal(Some(Signal::KILL)).step(|| "die with the keeper")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step(|| "make init not dumpable")
}

/// Where the command writes. Made here, since who made a pipe owns it: the command may open `/dev/stdout` by name.
struct Output {
    stdout: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
    /// Where a template's launcher writes. The keeper reads it at this reader, which is surely a pipe's.
    said: Option<(OwnedFd, OwnedFd)>,
}

impl Output {
    /// Also lets go of what the keeper had as 0, 1 and 2.
    fn open(is_template: bool) -> Result<Self, Failure> {
        let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step(|| "open /dev/null")?;
        dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).and_then(|()| dup2_stderr(&null)).step(|| "set standard input and output")?;
        let pipe = || -> io::Result<_> {
            let (reader, writer) = descriptor::pipe()?;
            descriptor::nonblocking(&reader)?;
            Ok((reader, writer))
        };
        let said = if is_template { Some(descriptor::pipe().step(|| "make a launcher's pipe")?) } else { None };
        Ok(Self { stdout: pipe().step(|| "make the stdout pipe")?, stderr: pipe().step(|| "make the stderr pipe")?, said })
    }
}

/// As many clones of a template as there can be sandboxes.
const CLONES: u64 = 4096;

fn limits_set(limits: &Limits, memory_counted: bool, is_template: bool) -> Result<(), Failure> {
    let set = |name: &str, resource, value: u64| {
        let exact = Rlimit { current: Some(value), maximum: Some(value) };
        setrlimit(resource, exact).step(|| format!("set the limit {name} to {value}"))
    };
    set("core", Resource::Core, 0)?;
    set("nofile", Resource::Nofile, limits.files_open.into())
        .map_err(|failure| failure.hint_on(&[libc::EPERM], "raise the hard limit of open files (ulimit -Hn) that tanebi is started with"))?;
    // Counted in the sandbox's own user namespace; holds where no cgroup does. Init is one more.
    let own = u64::from(limits.pids) + 1;
    // All clones of a template count in its namespace too: as many as there may be, each then has a limit of its own.
    let all = if is_template { getrlimit(Resource::Nproc).maximum.unwrap_or(u64::MAX).min(own * CLONES) } else { own };
    set("nproc", Resource::Nproc, all)?;
    set("nice", Resource::Nice, 0)?;
    set("rtprio", Resource::Rtprio, 0)?;
    let locked = getrlimit(Resource::Memlock).maximum.unwrap_or(u64::MAX).min(8 << 20);
    set("memlock", Resource::Memlock, locked)?;
    if !memory_counted {
        // A process at a time, and only what it can write. Thread stacks count in full, so it cannot be tight.
        set("data", Resource::Data, limits.memory_bytes.saturating_mul(2).saturating_add(256 << 20))?;
    }
    Ok(())
}

/// Forks the command and waits until it has become its program.
fn command_fork(plan: &Plan<'_>, output: &Output) -> Result<Child, Failure> {
    let (reader, low) = descriptor::pipe().step(|| "make a pipe")?;
    // Out of the way of a launcher's pipes, which have fixed numbers.
    let writer = rustix::io::fcntl_dupfd_cloexec(&low, ASIDE).step(|| "make a pipe")?;
    drop(low);
    let child = process::fork(|| {
        let failure = command_run(plan, output);
        let _ = rustix::io::write(&writer, &serde_json::to_vec(&failure).expect("a failure holds only text and numbers"));
        127
    })
    .step(|| "fork the command")?;
    drop(writer);
    // End of file: exec closed the other end.
    let mut told = Vec::new();
    std::fs::File::from(reader).read_to_end(&mut told).step(|| "wait for exec")?;
    if told.is_empty() {
        return Ok(child);
    }
    Err(serde_json::from_slice(&told).unwrap_or_else(|error| Failure::new("start the command", io::Error::from(error))))
}

/// The command's own last steps. Returns only when one of them failed.
fn command_run(plan: &Plan<'_>, output: &Output) -> Failure {
    let spec = plan.spec;
    let prepared = (|| {
        signals_default();
        setsid().step(|| "make a session")?;
        umask(Mode::from_raw_mode(0o022));
        if !without(Layer::Landlock) && spec.template {
            landlock::scope().map_err(|error| Failure::new(format!("close Landlock: {error}"), rustix::io::Errno::PERM))?;
        } else if !without(Layer::Landlock) {
            let mounts = spec.mounts.iter().filter(|mount| mount.writable).map(|mount| mount.target.as_path());
            let writable = mounts.chain(spec.volumes.iter().map(|volume| volume.target.as_path()));
            landlock::restrict(writable).map_err(|error| Failure::new(format!("close Landlock: {error}"), rustix::io::Errno::PERM))?;
        }
        dup2_stdout(&output.stdout.1).and_then(|()| dup2_stderr(&output.stderr.1)).step(|| "set standard output")?;
        if spec.template {
            launcher_pipes(output).step(|| "make a launcher's pipes")?;
        }
        if without(Layer::Descriptors) {
            let _ = rustix::io::fcntl_setfd(plan.report, rustix::io::FdFlags::empty());
        } else {
            descriptor::close_rest_on_exec().step(|| "close all other descriptors")?;
        }
        if spec.template {
            launcher_pipes_keep().step(|| "keep a launcher's pipes")?;
        }
        if plan.look {
            return Ok(());
        }
        chdir(&spec.working_dir).step(|| format!("go to the working folder {}", spec.working_dir.display()))
    })();
    match prepared {
        Err(failure) => failure,
        Ok(()) if plan.look => walls::look(),
        Ok(()) => program_become(spec),
    }
}

/// Above every number that has a meaning, and below the lowest limit of descriptors that a sandbox can have.
const ASIDE: i32 = 8;

/// The wake and the said pipe, at the numbers that launchers know. Whatever was there is init's, and this is its fork.
fn launcher_pipes(output: &Output) -> io::Result<()> {
    // Made elsewhere first, so that putting one in its place does not overwrite another.
    let aside = |end: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(end, ASIDE);
    let wake = descriptor::pipe()?;
    let said = output.said.as_ref().ok_or(io::ErrorKind::NotFound)?;
    let ends = [(aside(&wake.0)?, aside(&wake.1)?), (aside(&said.0)?, aside(&said.1)?)];
    for ((reader, writer), (from, to)) in [template::WAKE, template::SAID].into_iter().zip(ends) {
        for (end, number) in [(&from, reader), (&to, writer)] {
            descriptor::put(end, number)?;
        }
    }
    Ok(())
}

fn launcher_pipes_keep() -> io::Result<()> {
    for (reader, writer) in [template::WAKE, template::SAID] {
        descriptor::keep_on_exec(reader)?;
        descriptor::keep_on_exec(writer)?;
    }
    Ok(())
}

fn program_become(spec: &Spec) -> Failure {
    let words = |words: &mut dyn Iterator<Item = String>| words.map(CString::new).collect::<Result<Vec<_>, _>>();
    let mut env: Vec<String> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if without(Layer::Environment) {
        env.extend(std::env::vars().map(|(name, value)| format!("{name}={value}")));
    }
    let program = spec.command.first().map_or("", String::as_str);
    match (words(&mut spec.command.iter().cloned()), words(&mut env.into_iter())) {
        (Ok(command), Ok(env)) if !command.is_empty() => match nix::unistd::execve(&command[0], &command, &env) {
            Ok(never) => match never {},
            Err(error) => {
                let missing = Path::new(program).exists();
                let failure = Failure::exec(program, io::Error::from(error));
                if missing { failure.hint_on(&[libc::ENOENT], "the program is there, its interpreter or loader is not") } else { failure }
            }
        },
        _ => Failure::new(format!("run {program}, whose arguments contain a NUL"), rustix::io::Errno::INVAL),
    }
}

/// The Rust runtime ignores SIGPIPE, the keeper ignores more, and whoever started the daemon may have ignored any; a program
/// expects none of it.
fn signals_default() {
    // The kernel's own sigaction: handler, flags, restorer, mask; all zero is SIG_DFL. The C library's would not touch 32 and 33,
    // which it keeps for its threads.
    const NUMBERS_BYTES: usize = 8;
    let default = [0u64; 8];
    for signal in 1..=64 {
        // SAFETY: rt_sigaction(2) reads at most 32 bytes of `default`, writes nothing, and SIG_DFL installs no handler. SIGKILL
        // and SIGSTOP cannot be set, which they need not be.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), NUMBERS_BYTES) };
    }
    let _ = SigSet::empty().thread_set_mask();
}

fn running_report(
    report: BorrowedFd<'_>,
    output: &Output,
    namespace: &OwnedFd,
    command: &Child,
    listeners: &Listeners,
    changing: &[OwnedFd],
) -> Result<(), Failure> {
    let Listeners { outbound, dns_udp, dns_tcp, metadata } = listeners;
    let mut descriptors = vec![output.stdout.0.as_fd(), output.stderr.0.as_fd(), namespace.as_fd(), command.pidfd.as_fd()];
    descriptors.extend([outbound, dns_udp, dns_tcp, metadata].into_iter().flatten().map(AsFd::as_fd));
    descriptors.extend(changing.iter().map(AsFd::as_fd));
    descriptors.extend(output.said.iter().map(|(reader, _)| reader.as_fd()));
    let running = Report::Running {
        outbound: outbound.is_some(),
        dns_udp: dns_udp.is_some(),
        dns_tcp: dns_tcp.is_some(),
        metadata: metadata.is_some(),
        changing: changing.len(),
        said: output.said.is_some(),
        clone: None,
    };
    running.send(report, &descriptors).step(|| "report the sandbox")
}
