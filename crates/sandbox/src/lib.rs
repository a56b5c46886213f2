//! Walls around what strangers wrote.
//!
//! **Invariant:** the only `unsafe` and the only privileged system calls; no async runtime, no network protocol; every effect has an undo.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// What the keeper needs to know once, when it is forked.
#[derive(Clone, Debug)]
pub struct KeeperConfig {
    /// Folder of the keeper's own (mount points, cgroup notes), 0700.
    pub dir: PathBuf,
    /// Host folders under which writable mounts and `discard` are allowed (the daemon's staging folders).
    pub writable_under: Vec<PathBuf>,
    /// The uid and gid that the daemon will have; the keeper accepts no other peer.
    pub daemon_uid: u32,
    pub daemon_gid: u32,
}

/// Forks the keeper. Must be called while the process has one thread. Returns the daemon's end.
///
/// The keeper ends every sandbox and exits when the daemon is gone (pidfd), and the other way round: `Keeper::gone` is readable then.
pub fn fork_keeper(config: KeeperConfig) -> Result<Keeper, Error> {
    todo!()
}

/// Gives up every privilege of this process for good: uid, gid, groups, capabilities, no_new_privs, not dumpable. Without root: what is left of it.
pub fn drop_privileges(uid: u32, gid: u32) -> Result<(), Error> {
    todo!()
}

/// The daemon's side. Calls block (a few ms to start); safe from many threads at once.
pub struct Keeper {}

/// What a sandbox is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Names cgroup and host name; letters, digits and hyphens, at most 63.
    pub id: String,
    /// Everything visible in its root, in order. `/proc`, `/dev` (null, zero, full, random, urandom, shm, pts-less), `/tmp` are always there.
    pub mounts: Vec<Mount>,
    /// Small files laid read-only into the root: `/etc/resolv.conf`, CA bundles, ...; absolute path, content.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// Absolute path first. Runs as child of the sandbox's own init (pid 1).
    pub command: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    pub working_dir: PathBuf,
    pub limits: Limits,
    pub network: Network,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// On the host. Opened by the keeper, never through a link.
    pub source: PathBuf,
    /// In the sandbox.
    pub target: PathBuf,
    /// A writable one must lie under `KeeperConfig::writable_under` and becomes the sandbox's uid's; nosuid,nodev always.
    pub writable: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limits {
    pub memory_bytes: u64,
    /// 1000 is one CPU.
    pub cpu_millis: u32,
    pub pids: u32,
    pub files_open: u32,
    /// Of the tmpfs at /tmp, which counts as memory too.
    pub tmp_bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Network {
    /// Whether outbound TCP and DNS are led to the listeners of [`Sandbox`]; else there is a loopback and nothing else.
    pub redirected: bool,
    /// Also listen on 169.254.169.254:80 for the metadata server.
    pub metadata: bool,
}

/// A running sandbox's ends, all of them non-blocking and close-on-exec.
pub struct Sandbox {
    pub id: String,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// Readable once: [`Ended`] as JSON, then end of file.
    pub ended: OwnedFd,
    /// TCP listener inside the sandbox's namespace that all outbound TCP arrives at; SO_ORIGINAL_DST (see [`original_destination`]) tells where it was going.
    pub outbound: Option<OwnedFd>,
    /// UDP and TCP sockets that all DNS arrives at.
    pub dns_udp: Option<OwnedFd>,
    pub dns_tcp: Option<OwnedFd>,
    pub metadata: Option<OwnedFd>,
}

/// How a sandbox's command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// The kernel ended it for going over its memory.
    pub out_of_memory: bool,
    pub memory_peak_bytes: u64,
    /// Why the sandbox could not be made or the command not be run, when that is so.
    pub setup_error: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub cpu: Duration,
    pub memory_bytes: u64,
    pub pids: u32,
}

impl Keeper {
    pub fn start(&self, spec: &Spec) -> Result<Sandbox, Error> {
        todo!()
    }
    /// A TCP connection to 127.0.0.1:port made inside the sandbox's namespace.
    pub fn connect(&self, id: &str, port: u16) -> Result<OwnedFd, Error> {
        todo!()
    }
    /// Sends a signal to the command (not to init).
    pub fn signal(&self, id: &str, signal: i32) -> Result<(), Error> {
        todo!()
    }
    /// Freezes or thaws everything in it.
    pub fn freeze(&self, id: &str, frozen: bool) -> Result<(), Error> {
        todo!()
    }
    pub fn cpu_limit(&self, id: &str, cpu_millis: u32) -> Result<(), Error> {
        todo!()
    }
    pub fn usage(&self, id: &str) -> Result<Usage, Error> {
        todo!()
    }
    /// Ends it at once and undoes everything: processes, cgroup, mounts. Done twice is done once.
    pub fn end(&self, id: &str) -> Result<(), Error> {
        todo!()
    }
    /// Removes a tree under `writable_under` whatever uid owns what is in it; never follows links.
    pub fn discard(&self, path: &Path) -> Result<(), Error> {
        todo!()
    }
    /// Readable (poll) when the keeper is gone.
    pub fn gone(&self) -> Result<OwnedFd, Error> {
        todo!()
    }
    /// Which walls this host gives, measured by making them.
    pub fn walls(&self) -> Result<Walls, Error> {
        todo!()
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Walls {
    pub root: bool,
    /// 0 none, 1, 2.
    pub cgroup_version: u8,
    pub memory_limit: bool,
    pub cpu_limit: bool,
    pub pids_limit: bool,
    pub freezer: bool,
    pub own_uid: bool,
    pub landlock_abi: u32,
    pub seccomp: bool,
    pub network_redirect: bool,
    /// One line each: what is missing and what would give it.
    pub missing: Vec<String>,
}

/// Where a redirected connection was going (SO_ORIGINAL_DST).
pub fn original_destination(connection: std::os::fd::BorrowedFd<'_>) -> std::io::Result<std::net::SocketAddr> {
    todo!()
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{step}: {source}")]
    Step { step: String, source: std::io::Error },
    #[error("the keeper refused: {0}")]
    Refused(String),
    #[error("the keeper is gone")]
    Gone,
    #[error("no sandbox {0}")]
    NoSandbox(String),
}
