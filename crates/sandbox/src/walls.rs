//! Which walls this host gives: measured by making a sandbox and looking, from inside and from outside.

use std::{
    fs,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    descriptor,
    error::{Error, Failure},
    keeper::Keeper,
    landlock,
    message::HostWalls,
    spec::{Limits, Network, Sandbox, Spec},
};

/// The walls around every sandbox on this host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Walls {
    /// Whether the keeper is root.
    pub root: bool,
    /// 0 none, 1, 2.
    pub cgroup_version: u8,
    /// Whether a sandbox's memory is limited as a whole.
    pub memory_limit: bool,
    /// Whether its share of the CPU is.
    pub cpu_limit: bool,
    /// Whether its processes and threads are counted by a cgroup (a limit by its user namespace is always there).
    pub pids_limit: bool,
    /// Whether it can be frozen.
    pub freezer: bool,
    /// Whether each has a uid of its own on the host.
    pub own_uid: bool,
    /// The kernel's version of Landlock; 0: none.
    pub landlock_abi: u32,
    /// Whether the system call filters hold.
    pub seccomp: bool,
    /// Whether outbound TCP arrives at the daemon's listener.
    pub network_redirect: bool,
    /// One line each: what is missing and what would give it.
    pub missing: Vec<String>,
}

/// What a process in the place of the command sees.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Seen {
    seccomp: bool,
    capabilities: bool,
    landlock_abi: u32,
    network_redirect: bool,
}

/// How long a look from inside may take, on a host that is busy.
const LOOK_LIMIT: Duration = Duration::from_secs(20);

/// Looks from inside, tells on standard output, then stays to be looked at. Returns only what made telling impossible.
pub(crate) fn look() -> Failure {
    let text = match serde_json::to_vec(&seen()) {
        Ok(text) => text,
        Err(error) => return Failure::new("say what is seen", error),
    };
    if let Err(error) = rustix::io::write(rustix::stdio::stdout(), &text) {
        return Failure::new("write what is seen", error);
    }
    // Exec closes this end otherwise; the others that wait for that must go on.
    if let Err(error) = descriptor::close_all_but(&[]) {
        return Failure::new("close all descriptors", error);
    }
    loop {
        rustix::event::pause();
    }
}

fn seen() -> Seen {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default().to_owned();
    let none = |name: &str| !field(name).is_empty() && field(name).bytes().all(|digit| digit == b'0');
    // SAFETY: unshare(2) touches no memory; if it were to succeed, this process had one more namespace for its short life.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
    let refused = unshared == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM);
    // A documentation address: nothing but the redirection answers there.
    let elsewhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    Seen {
        seccomp: refused && field("Seccomp:") == "2",
        capabilities: !["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"].into_iter().all(none),
        landlock_abi: landlock::kernel_abi(),
        network_redirect: TcpStream::connect_timeout(&elsewhere, Duration::from_secs(1)).is_ok(),
    }
}

/// Makes a sandbox that looks, freezes it, asks for its usage, ends it.
pub(crate) fn measure(keeper: &Keeper) -> Result<Walls, Error> {
    let mut missing = Vec::new();
    let (sandbox, host) = match keeper.start_look(&spec(true)) {
        Ok(started) => started,
        Err(error) => {
            missing.push(format!("leading outbound connections to the daemon: {error}"));
            keeper.start_look(&spec(false))?
        }
    };
    let looked = look_collect(keeper, &sandbox, host, missing);
    keeper.end(&sandbox.id)?;
    looked
}

fn look_collect(keeper: &Keeper, sandbox: &Sandbox, host: HostWalls, mut missing: Vec<String>) -> Result<Walls, Error> {
    let seen = seen_read(sandbox)?;
    let usage = keeper.usage(&sandbox.id)?;
    let freezer = host.freezer && keeper.freeze(&sandbox.id, true).and_then(|()| keeper.freeze(&sandbox.id, false)).is_ok();
    if seen.capabilities {
        return Err(Error::Refused("a sandbox of this host has capabilities".to_owned()));
    }
    let walls = Walls {
        root: host.root,
        cgroup_version: host.cgroup_version,
        memory_limit: host.memory_limit && usage.memory_bytes > 0,
        cpu_limit: host.cpu_limit,
        pids_limit: host.pids_limit && usage.pids > 0,
        freezer,
        own_uid: host.own_uid,
        landlock_abi: seen.landlock_abi,
        seccomp: seen.seccomp,
        network_redirect: seen.network_redirect,
        missing: Vec::new(),
    };
    missing.extend(host.missing);
    let lines = [
        (walls.own_uid, "a host uid for each sandbox: all run as the keeper's own, apart by namespaces only; run as root"),
        (walls.memory_limit, "one limit of memory for all of a sandbox: each process has one of twice that and 256 MiB instead"),
        (walls.landlock_abi > 0, "Landlock: Linux 5.13 with lsm=landlock,... has it; mounts and namespaces hold alone"),
        (walls.landlock_abi == 0 || walls.landlock_abi >= 6, "Landlock's scope of signals and abstract sockets: Linux 6.12 has it; namespaces hold alone"),
        (walls.seccomp, "system call filters: the kernel needs CONFIG_SECCOMP_FILTER"),
    ];
    missing.extend(lines.into_iter().filter(|(there, _)| !there).map(|(_, line)| line.to_owned()));
    Ok(Walls { missing, ..walls })
}

fn seen_read(sandbox: &Sandbox) -> Result<Seen, Error> {
    let step = |error: std::io::Error| Error::step("look at the walls from inside", error);
    let mut stdout = fs::File::from(sandbox.stdout.try_clone().map_err(step)?);
    let deadline = Instant::now() + LOOK_LIMIT;
    let mut text = Vec::new();
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        descriptor::readable(&stdout, Some(left)).map_err(step)?;
        let mut part = [0; 512];
        match stdout.read(&mut part) {
            Ok(0) => break,
            Ok(length) => text.extend(&part[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(step(error)),
        }
        if let Ok(seen) = serde_json::from_slice(&text) {
            return Ok(seen);
        }
    }
    Err(step(std::io::ErrorKind::TimedOut.into()))
}

/// A sandbox with nothing in it.
fn spec(redirected: bool) -> Spec {
    Spec {
        id: "walls".to_owned(),
        mounts: Vec::new(),
        files: Vec::new(),
        command: vec!["/looks-instead".to_owned()],
        env: Vec::new(),
        working_dir: "/".into(),
        limits: Limits { memory_bytes: 64 << 20, cpu_millis: 1000, pids: 16, files_open: 64, tmp_bytes: 1 << 20 },
        network: Network { redirected, metadata: false },
        volumes: Vec::new(),
        changing: Vec::new(),
        template: false,
    }
}
