//! The rules of `crate::landlock` as the kernel takes them: in a clone they are made by system calls, not by the library.

use std::path::{Path, PathBuf};

use landlock::{ABI, Access, AccessFs, BitFlags};

use crate::landlock::kernel_abi;

pub(super) struct Rules {
    /// struct landlock_ruleset_attr: handled file rights, network rights, scopes; as much of it as the kernel knows.
    pub attribute: Vec<u8>,
    pub paths: Vec<Rule>,
}

pub(super) struct Rule {
    pub path: &'static str,
    pub rights: u64,
}

/// `None`: the kernel has no Landlock. Instances have no writable mounts beside their own folders and devices.
pub(super) fn rules(writable: &[PathBuf]) -> Option<Rules> {
    debug_assert!(writable.is_empty() || writable.iter().all(|path| path.starts_with(Path::new("/"))));
    let version = kernel_abi();
    let abi = match version {
        0 => return None,
        1 => ABI::V1,
        2 => ABI::V2,
        3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        _ => ABI::V6,
    };
    let bits = |rights: BitFlags<AccessFs>| rights.bits();
    let all = AccessFs::from_all(abi);
    let device = (AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev) & all;
    let mut attribute = bits(all).to_ne_bytes().to_vec();
    if version >= 4 {
        attribute.extend(0u64.to_ne_bytes());
    }
    if version >= 6 {
        // Abstract unix sockets and signals: all clones have come from one domain, so each closes itself off from the others.
        attribute.extend(3u64.to_ne_bytes());
    }
    let mut paths = vec![Rule { path: "/", rights: bits(AccessFs::from_read(abi)) }];
    paths.extend(["/tmp", "/dev/shm"].map(|path| Rule { path, rights: bits(all) }));
    paths.extend(["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"].map(|path| Rule { path, rights: bits(device) }));
    Some(Rules { attribute, paths })
}
