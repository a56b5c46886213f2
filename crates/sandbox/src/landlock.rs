//! Landlock: a second wall around files, and the only one around signals, that holds even when a mount is wrong.
//!
//! Everything may be read and executed; written only /tmp, /dev/shm, writable mounts and the harmless devices. Abstract unix
//! sockets and signals stay among the command and its children: its init, for one, cannot be signalled. Kernels that know less
//! of it give less (the official crate's best effort); which version the kernel has is told in [`crate::Walls`].

use std::path::Path;

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope};

/// The newest version whose every right is considered here.
const CONSIDERED: ABI = ABI::V6;

/// Closes the wall around this thread and all that it makes. `writable`: targets of writable mounts.
pub(crate) fn restrict<'a>(writable: impl Iterator<Item = &'a Path>) -> Result<(), String> {
    restrict_to(writable).map_err(|error| error.to_string())
}

/// Closes the part of it that is about signals and abstract unix sockets. A template mounts a /tmp for each clone, which a process that
/// is bound by rules about files may not; each clone is bound by them before it goes on.
pub(crate) fn scope() -> Result<(), String> {
    let scoped = || -> Result<(), Box<dyn std::error::Error>> {
        Ruleset::default().set_compatibility(CompatLevel::BestEffort).scope(Scope::from_all(CONSIDERED))?.create()?.restrict_self()?;
        Ok(())
    };
    scoped().map_err(|error| error.to_string())
}

fn restrict_to<'a>(writable: impl Iterator<Item = &'a Path>) -> Result<(), Box<dyn std::error::Error>> {
    let all = AccessFs::from_all(CONSIDERED);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::from_all(CONSIDERED))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::from_read(CONSIDERED)))?;
    for path in [Path::new("/tmp"), Path::new("/dev/shm")].into_iter().chain(writable) {
        // A mount of one file takes only the rights that a file has.
        let rights = if path.is_dir() { all } else { AccessFs::from_file(CONSIDERED) };
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(path)?, rights))?;
    }
    for path in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"] {
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(path)?, device))?;
    }
    ruleset.restrict_self()?;
    Ok(())
}

/// The kernel's version of Landlock; 0: none.
pub(crate) fn kernel_abi() -> u32 {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: landlock_create_ruleset(2) with this flag reads no memory and only returns a number.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, LANDLOCK_CREATE_RULESET_VERSION) };
    u32::try_from(version).unwrap_or(0)
}
