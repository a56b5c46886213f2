//! Walls around what strangers wrote.
//!
//! **Invariant:** the only `unsafe` and the only privileged system calls; no async runtime, no network protocol; every effect has an undo.
//!
//! Three processes make a sandbox. The *keeper* (`service`) is forked from the daemon before any thread exists, keeps the
//! privileges and serves the daemon over one socket; it has one thread and never waits. For each start it forks a *starter*
//! (`starter`), which may wait: it makes the cgroup, opens what will be mounted and clones the sandbox's *init* (`init`) into
//! namespaces of its own. Init builds network and root, locks the walls, forks the command and reports how that ended.
//!
//! Read in this order: `spec`, `keeper`, `service`, `starter`, `init`, `root`, `network`, `seccomp`, `cgroup`; then `template`, how one is cloned.

mod cgroup;
mod descriptor;
mod error;
mod folder;
mod init;
mod keeper;
mod landlock;
mod message;
mod mutation;
mod netlink;
mod network;
mod nft;
mod privilege;
mod process;
mod root;
mod seccomp;
mod service;
mod slice;
mod slot;
mod spec;
mod starter;
mod template;
mod tree;
mod walls;

pub use error::Error;
pub use keeper::{Keeper, KeeperConfig, fork_keeper};
pub use network::original_destination;
pub use privilege::drop_privileges;
pub use slice::slice_set;
pub use spec::{CHANGING_BYTES_MAX, Ended, Limits, Mount, Network, Sandbox, Spec, Usage, Volume};
pub use walls::Walls;
