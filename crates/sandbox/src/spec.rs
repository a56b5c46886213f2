//! What a sandbox is made of, what the daemon holds of a running one, and which specs are refused before anything is done.

use std::{
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// What a sandbox is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Names the host; letters, digits and hyphens, at most 63. One running sandbox an id.
    pub id: String,
    /// Everything visible in its root, in order. `/proc`, `/dev` (null, zero, full, random, urandom, shm, pts-less), `/tmp` are always there.
    pub mounts: Vec<Mount>,
    /// Empty folders of their own in memory, writable.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// Small files laid read-only into the root: `/etc/resolv.conf`, CA bundles, ...; absolute path, content.
    ///
    /// They win over the minimal `/etc/{passwd,group,hosts,nsswitch.conf}` that every root has, and cannot lie inside a mount.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// Those of `files` whose content will be replaced while the sandbox runs ([`Sandbox::changing`]). Read-only inside as the others.
    #[serde(default)]
    pub changing: Vec<PathBuf>,
    /// Absolute path first. Runs as child of the sandbox's own init (pid 1).
    pub command: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Where the command starts, in the sandbox.
    pub working_dir: PathBuf,
    /// What it may use.
    pub limits: Limits,
    /// What it may reach.
    pub network: Network,
    /// Whether it will be made a template ([`crate::Keeper::template`]) and never be an instance itself.
    ///
    /// The rules about files ([`crate::Walls`], Landlock) come with each clone then, since they name a clone's own /tmp; the command
    /// has the descriptors 3 to 6 (the wake and the said pipe of docs/internals/sandbox.md).
    #[serde(default)]
    pub template: bool,
}

/// One folder or file of the host that is visible inside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// On the host. Opened by the keeper, never through a link. Mounts below it come along.
    pub source: PathBuf,
    /// In the sandbox.
    pub target: PathBuf,
    /// A writable one must lie under `KeeperConfig::writable_under` and becomes the sandbox's uid's; nosuid,nodev always.
    ///
    /// When the sandbox has ended, everything in it belongs to the daemon again (setuid and setgid bits gone, readable and
    /// writable for it) before [`Ended`] is told and before [`crate::Keeper::end`] returns.
    pub writable: bool,
}

/// An empty folder in memory. What is in it counts as the sandbox's memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Volume {
    /// In the sandbox. Inside a mount it must be there already.
    pub target: PathBuf,
    /// At least 64 KiB.
    pub bytes: u64,
}

/// What a sandbox may use. None of them can be left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// At least 8 MiB. What is in its tmpfs counts.
    pub memory_bytes: u64,
    /// 1000 is one CPU; at least 10.
    pub cpu_millis: u32,
    /// Processes and threads at the same time.
    pub pids: u32,
    /// Descriptors in one process; 16 to 1048576.
    pub files_open: u32,
    /// Of the tmpfs at /tmp, which counts as memory too; `/dev/shm` has the same size. At least 64 KiB.
    pub tmp_bytes: u64,
}

/// What a sandbox may reach.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Network {
    /// Whether outbound TCP and DNS are led to the listeners of [`Sandbox`]; else there is a loopback and nothing else.
    pub redirected: bool,
    /// Also listen on 169.254.169.254:80 for the metadata server.
    pub metadata: bool,
}

/// A running sandbox's ends, all of them non-blocking and close-on-exec.
#[derive(Debug)]
pub struct Sandbox {
    /// As in the [`Spec`].
    pub id: String,
    /// What the command and its children write.
    pub stdout: OwnedFd,
    /// What the command and its children write.
    pub stderr: OwnedFd,
    /// Readable once: [`Ended`] as JSON, then end of file.
    pub ended: OwnedFd,
    /// TCP listener inside the sandbox's namespace that all outbound TCP arrives at; SO_ORIGINAL_DST (see [`crate::original_destination`]) tells where it was going.
    pub outbound: Option<OwnedFd>,
    /// UDP socket that all DNS arrives at, whatever server it was sent to; answer with `sendto` the sender.
    pub dns_udp: Option<OwnedFd>,
    /// TCP listener for DNS.
    pub dns_tcp: Option<OwnedFd>,
    /// TCP listener on 169.254.169.254:80.
    pub metadata: Option<OwnedFd>,
    /// Of a clone: it is armed, and goes on when a byte is written here. It may be spoken to when a byte has come back, which may be
    /// there from the start. Closed before it was let go, the clone is ended.
    pub release: Option<OwnedFd>,
    /// [`Spec::changing`], in its order: what is written here is what is read inside. Each may grow to [`CHANGING_BYTES_MAX`] bytes.
    pub changing: Vec<OwnedFd>,
}

/// How a sandbox's command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// What it exited with.
    pub code: Option<i32>,
    /// The signal that ended it; 9 also when it was ended from outside.
    pub signal: Option<i32>,
    /// The kernel ended it for going over its memory.
    pub out_of_memory: bool,
    /// The most it used at one time; 0 where the host gives no memory cgroup.
    pub memory_peak_bytes: u64,
    /// Why the sandbox could not be made, run or undone, when that is so.
    pub setup_error: Option<String>,
}

/// What a sandbox uses now. Zero where the host gives no cgroup to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Since its start.
    pub cpu: Duration,
    /// Now.
    pub memory_bytes: u64,
    /// Processes and threads, its init included.
    pub pids: u32,
}

/// Room for each file that changes.
pub const CHANGING_BYTES_MAX: u64 = 64 << 10;
const MEMORY_BYTES_MIN: u64 = 8 << 20;
const TMP_BYTES_MIN: u64 = 64 << 10;
const CPU_MILLIS_MIN: u32 = 10;
const ENTRIES_MAX: usize = 200;

impl Spec {
    /// Why this spec cannot be started, if so; names the field.
    pub(crate) fn check(&self) -> Result<(), String> {
        id_check(&self.id)?;
        // The sources are open descriptors between starter and init.
        if self.mounts.len() > ENTRIES_MAX || self.files.len() > ENTRIES_MAX || self.volumes.len() > ENTRIES_MAX {
            return Err(format!("mounts, files, volumes: at most {ENTRIES_MAX} each"));
        }
        // A template's clones are given /tmp and /dev/shm of their own, and nothing else.
        if self.template && !self.volumes.is_empty() {
            return Err("volumes: a template has none".to_owned());
        }
        if self.template && !self.changing.is_empty() {
            return Err("changing: a template has none".to_owned());
        }
        for volume in &self.volumes {
            path_check("volumes.target", &volume.target)?;
            if ["/proc", "/dev", "/tmp"].iter().any(|own| volume.target.starts_with(own)) {
                return Err(format!("volumes.target {}: every sandbox has its own", volume.target.display()));
            }
            if volume.bytes < TMP_BYTES_MIN || volume.bytes > i64::MAX as u64 {
                return Err(format!("volumes.bytes {}: at least {TMP_BYTES_MIN}", volume.bytes));
            }
        }
        for mount in &self.mounts {
            path_check("mounts.source", &mount.source)?;
            path_check("mounts.target", &mount.target)?;
            if ["/proc", "/sys", "/dev"].iter().any(|kernel| mount.source.starts_with(kernel)) {
                return Err(format!("mounts.source {}: the kernel's own file systems are not mounted", mount.source.display()));
            }
            if ["/proc", "/dev"].iter().any(|own| mount.target.starts_with(own)) || mount.target == Path::new("/tmp") {
                return Err(format!("mounts.target {}: every sandbox has its own", mount.target.display()));
            }
        }
        for (path, _) in &self.files {
            path_check("files", path)?;
            if ["/proc", "/dev", "/tmp"].iter().any(|own| path.starts_with(own)) {
                return Err(format!("files {}: not in /proc, /dev or /tmp", path.display()));
            }
        }
        if let Some(path) = self.changing.iter().find(|path| !self.files.iter().any(|(file, _)| file == *path)) {
            return Err(format!("changing {}: it is none of the files", path.display()));
        }
        match self.command.first() {
            None => return Err("command: empty".to_owned()),
            Some(program) if !program.starts_with('/') => {
                return Err(format!("command {program:?}: the program's path must be absolute"));
            }
            Some(_) => {}
        }
        if self.command.iter().any(|word| word.contains('\0')) {
            return Err("command: contains a NUL".to_owned());
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(format!("env {name:?}: a name without = and NUL, a value without NUL"));
            }
        }
        if self.working_dir != Path::new("/") {
            path_check("working_dir", &self.working_dir)?;
        }
        self.limits.check()
    }
}

impl Limits {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.memory_bytes < MEMORY_BYTES_MIN || self.memory_bytes > i64::MAX as u64 {
            return Err(format!("limits.memory_bytes {}: at least {MEMORY_BYTES_MIN}", self.memory_bytes));
        }
        cpu_check(self.cpu_millis)?;
        if self.pids == 0 || self.pids > 1 << 22 {
            return Err(format!("limits.pids {}: 1 to 4194304", self.pids));
        }
        if !(16..=1 << 20).contains(&self.files_open) {
            return Err(format!("limits.files_open {}: 16 to 1048576", self.files_open));
        }
        // A tmpfs of size 0 would be one without a limit.
        if self.tmp_bytes < TMP_BYTES_MIN || self.tmp_bytes > i64::MAX as u64 {
            return Err(format!("limits.tmp_bytes {}: at least {TMP_BYTES_MIN}", self.tmp_bytes));
        }
        Ok(())
    }
}

pub(crate) fn id_check(id: &str) -> Result<(), String> {
    let id_ok = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if id.is_empty() || id.len() > 63 || !id_ok {
        return Err(format!("id {id:?}: 1 to 63 letters, digits and hyphens"));
    }
    Ok(())
}

pub(crate) fn cpu_check(cpu_millis: u32) -> Result<(), String> {
    if (CPU_MILLIS_MIN..=1_000_000).contains(&cpu_millis) { Ok(()) } else { Err(format!("limits.cpu_millis {cpu_millis}: {CPU_MILLIS_MIN} to 1000000")) }
}

/// Absolute, below the root, nothing but names.
fn path_check(field: &str, path: &Path) -> Result<(), String> {
    let text = path.as_os_str().as_encoded_bytes();
    let names = path.components().skip(1).all(|component| matches!(component, Component::Normal(_)));
    if !path.is_absolute() || path.components().count() < 2 || !names || text.contains(&0) || text.len() > 3000 {
        return Err(format!("{field} {path:?}: an absolute path below / without `..`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec {
            id: "a-1".to_owned(),
            mounts: vec![Mount { source: "/usr".into(), target: "/usr".into(), writable: false }],
            volumes: vec![Volume { target: "/cache".into(), bytes: 64 << 10 }],
            files: vec![("/etc/resolv.conf".into(), Vec::new())],
            changing: vec!["/etc/resolv.conf".into()],
            command: vec!["/usr/bin/true".to_owned()],
            env: vec![("PORT".to_owned(), "8080".to_owned())],
            working_dir: "/".into(),
            limits: Limits { memory_bytes: 64 << 20, cpu_millis: 1000, pids: 64, files_open: 256, tmp_bytes: 1 << 20 },
            network: Network { redirected: false, metadata: false },
            template: false,
        }
    }

    #[test]
    fn a_spec_that_cannot_be_meant_is_refused_by_field() {
        #[track_caller]
        fn check(change: impl FnOnce(&mut Spec), expect: Option<&str>) {
            let mut spec = spec();
            change(&mut spec);
            let refused = spec.check().err();
            assert_eq!(refused.is_some(), expect.is_some(), "{refused:?}");
            if let (Some(refused), Some(expect)) = (refused, expect) {
                assert!(refused.starts_with(expect), "{refused}");
            }
        }
        check(|_| {}, None);
        check(|spec| spec.id.clear(), Some("id"));
        check(|spec| spec.id = "a/b".to_owned(), Some("id"));
        check(|spec| spec.id = "a".repeat(64), Some("id"));
        check(|spec| spec.mounts[0].source = "usr".into(), Some("mounts.source"));
        check(|spec| spec.mounts[0].source = "/usr/../root".into(), Some("mounts.source"));
        check(|spec| spec.mounts[0].source = "/proc/1/root".into(), Some("mounts.source"));
        check(|spec| spec.mounts[0].target = "/".into(), Some("mounts.target"));
        check(|spec| spec.mounts[0].target = "/proc/x".into(), Some("mounts.target"));
        check(|spec| spec.mounts[0].target = "/tmp".into(), Some("mounts.target"));
        check(|spec| spec.mounts[0].target = "/tmp/in".into(), None);
        check(|spec| spec.volumes[0].target = "/tmp/cache".into(), Some("volumes.target"));
        check(|spec| spec.volumes[0].bytes = 0, Some("volumes.bytes"));
        check(|spec| spec.template = true, Some("volumes"));
        check(|spec| (spec.template, spec.volumes) = (true, Vec::new()), Some("changing"));
        check(|spec| spec.changing[0] = "/etc/hosts".into(), Some("changing"));
        check(|spec| spec.files[0].0 = "/dev/null".into(), Some("files"));
        check(|spec| spec.command.clear(), Some("command"));
        check(|spec| spec.command[0] = "true".to_owned(), Some("command"));
        check(|spec| spec.command.push("a\0b".to_owned()), Some("command"));
        check(|spec| spec.env[0].0 = "A=B".to_owned(), Some("env"));
        check(|spec| spec.working_dir = "relative".into(), Some("working_dir"));
        check(|spec| spec.limits.memory_bytes = 1, Some("limits.memory_bytes"));
        check(|spec| spec.limits.cpu_millis = 0, Some("limits.cpu_millis"));
        check(|spec| spec.limits.pids = 0, Some("limits.pids"));
        check(|spec| spec.limits.files_open = 3, Some("limits.files_open"));
        check(|spec| spec.limits.tmp_bytes = 0, Some("limits.tmp_bytes"));
    }
}
