//! Control groups: what each sandbox may use and what it used, freezing it, and knowing that all of it is gone.
//!
//! The keeper's subtree is `tanebi-<pid>-<random>` below the group it was started in, so whatever limits that group has hold for all
//! sandboxes together. Each sandbox is one group in it. Version 1 (a hierarchy a controller) and version 2 are two files of one
//! shape. What the host does not give is left out here and said in [`crate::Walls::missing`].
//!
//! The subtree's folders are written to a note in the keeper's folder, by which the next keeper removes what a killed one left.

mod v1;
mod v2;

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    error::{Failure, Step},
    mutation::{Layer, without},
    spec::{Limits, Usage},
};

/// The name of every subtree of a keeper starts so.
const PREFIX: &str = "tanebi-";
const CPU_PERIOD_US: u64 = 100_000;

/// What the host gives, found once by the keeper.
pub(crate) struct Groups {
    kind: Kind,
    /// One line each.
    pub missing: Vec<String>,
}

enum Kind {
    None,
    V1(v1::Hierarchies),
    V2(v2::Subtree),
}

/// Which limits the groups enforce.
#[derive(Clone, Copy, Default)]
pub(crate) struct Given {
    pub version: u8,
    pub memory: bool,
    pub cpu: bool,
    pub pids: bool,
    pub freezer: bool,
}

impl Groups {
    /// Removes what a dead keeper left, then makes this keeper's subtree.
    pub fn discover(note: &Path) -> Self {
        leftovers_remove(note);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = Places::parse(&mounts, &memberships);
        // The pid alone can come again, in another pid namespace even at the same time.
        let random = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
        let name = format!("{PREFIX}{}-{}", std::process::id(), random.get(..8).unwrap_or("0"));
        let mut missing = Vec::new();
        let kind = if without(Layer::Cgroup) { Kind::None } else { Self::kind(&own, &name, &mut missing) };
        let groups = Self { kind, missing };
        // Without its note a killed keeper's empty folders would stay; that is no reason not to start.
        let text: String = groups.folders().iter().map(|folder| format!("{}\n", folder.display())).collect();
        if let Err(error) = fs::write(note, text) {
            tracing::warn!(%error, note = %note.display(), "cannot note the cgroups");
        }
        groups
    }

    fn kind(own: &Places, name: &str, missing: &mut Vec<String>) -> Kind {
        // On a hybrid host version 2 is mounted without the controllers that count.
        if let Some(folder) = &own.unified
            && v2::controllers(folder).iter().any(|controller| controller == "memory" || controller == "pids")
        {
            return v2::Subtree::make(folder, own.top.as_deref(), name, missing).map_or(Kind::None, Kind::V2);
        }
        if own.controllers.is_empty() {
            missing.push("limits of memory, cpu and pids and freezing: no cgroup is mounted (mount -t cgroup2 none /sys/fs/cgroup)".to_owned());
            return Kind::None;
        }
        v1::Hierarchies::make(own, name, missing).map_or(Kind::None, Kind::V1)
    }

    /// The group of a sandbox; nothing is made yet.
    pub fn group(&self, name: &str) -> Group {
        match &self.kind {
            Kind::None => Group::None,
            Kind::V1(hierarchies) => Group::V1(hierarchies.group(name)),
            Kind::V2(subtree) => Group::V2(subtree.group(name)),
        }
    }

    pub fn given(&self) -> Given {
        match &self.kind {
            Kind::None => Given::default(),
            Kind::V1(hierarchies) => hierarchies.given(),
            Kind::V2(subtree) => subtree.given(),
        }
    }

    /// The keeper's own folders, inner ones first.
    fn folders(&self) -> Vec<PathBuf> {
        match &self.kind {
            Kind::None => Vec::new(),
            Kind::V1(hierarchies) => hierarchies.folders(),
            Kind::V2(subtree) => subtree.folders(),
        }
    }

    /// Removes the keeper's subtree, after its last sandbox.
    pub fn remove(&self) {
        if let Kind::V2(subtree) = &self.kind {
            subtree.leave();
        }
        for folder in self.folders() {
            if let Err(error) = folder_remove(&folder) {
                tracing::warn!(%error, folder = %folder.display(), "cannot remove a cgroup");
            }
        }
    }
}

/// One sandbox's group.
pub(crate) enum Group {
    None,
    V1(v1::Group),
    V2(v2::Group),
}

impl Group {
    /// Makes it with all limits but the CPU's: setting a sandbox up must not wait for its share.
    pub fn make(&self, limits: &Limits) -> Result<(), Failure> {
        match self {
            Self::None => Ok(()),
            Self::V1(group) => group.make(limits),
            Self::V2(group) => group.make(limits),
        }
    }

    /// Moves the calling process into it.
    pub fn enter(&self) -> Result<(), Failure> {
        self.folders().iter().try_for_each(|folder| write(&folder.join("cgroup.procs"), "0"))
    }

    /// Moves another process into it.
    pub fn put(&self, pid: i32) -> Result<(), Failure> {
        self.folders().iter().try_for_each(|folder| write(&folder.join("cgroup.procs"), &pid.to_string()))
    }

    pub fn cpu_limit(&self, cpu_millis: u32) -> Result<(), Failure> {
        let quota = u64::from(cpu_millis) * CPU_PERIOD_US / 1000;
        match self {
            Self::None => Ok(()),
            Self::V1(group) => group.cpu_quota(quota, CPU_PERIOD_US),
            Self::V2(group) => group.cpu_quota(quota, CPU_PERIOD_US),
        }
    }

    pub fn usage(&self) -> Result<Usage, Failure> {
        match self {
            Self::None => Ok(Usage::default()),
            Self::V1(group) => group.usage(),
            Self::V2(group) => group.usage(),
        }
    }

    /// Nobody's memory is limited by it any more. Where that cannot be, the limit stays.
    pub fn memory_unlimit(&self) {
        let files: &[&str] = match self {
            Self::None => return,
            // Memory and swap together first: it must not be less than memory alone.
            Self::V1(_) => &["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"],
            Self::V2(_) => &["memory.max"],
        };
        let value = if matches!(self, Self::V1(_)) { "-1" } else { "max" };
        for folder in self.folders() {
            for file in files.iter().map(|file| folder.join(file)).filter(|file| file.exists()) {
                let _ = write(&file, value);
            }
        }
    }

    /// Readable when it has gone over its memory; `None` where the kernel then ends the whole group by itself, or nobody counts.
    pub fn memory_alarm(&self) -> Result<Option<OwnedFd>, Failure> {
        match self {
            Self::None | Self::V2(_) => Ok(None),
            Self::V1(group) => group.memory_alarm(),
        }
    }

    /// The most memory it used at one time, and how many processes the kernel ended for it. 0 where not counted.
    pub fn memory_history(&self) -> (u64, u64) {
        match self {
            Self::None => (0, 0),
            Self::V1(group) => group.memory_history(),
            Self::V2(group) => group.memory_history(),
        }
    }

    /// Asks for freezing or thawing; [`Group::is_frozen`] says when it is done.
    pub fn freeze(&self, frozen: bool) -> Result<(), Failure> {
        match self {
            Self::None => Ok(()),
            Self::V1(group) => group.freeze(frozen),
            Self::V2(group) => group.freeze(frozen),
        }
    }

    pub fn is_frozen(&self) -> Result<bool, Failure> {
        match self {
            Self::None => Ok(false),
            Self::V1(group) => group.is_frozen(),
            Self::V2(group) => group.is_frozen(),
        }
    }

    /// Ends every process in it that the end of its init would not: frozen ones.
    pub fn kill(&self) {
        if let Self::V2(group) = self
            && group.kill().is_ok()
        {
            return;
        }
        // A frozen process of version 1 dies when it is thawed; with the signal waiting it runs no instruction of its own. One
        // that is not frozen dies with its init, whom the caller kills.
        if let Self::V1(group) = self
            && let Some(folder) = group.freezer()
            && read(&folder.join("freezer.state")).is_ok_and(|state| state.trim() != "THAWED")
        {
            processes_kill(folder);
            let _ = self.freeze(false);
        }
    }

    /// Removes it; fails with EBUSY as long as the kernel is still clearing a process away. Gone already is fine.
    pub fn remove(&self) -> io::Result<()> {
        self.folders().iter().try_for_each(|folder| folder_remove(folder))
    }

    fn folders(&self) -> Vec<PathBuf> {
        match self {
            Self::None => Vec::new(),
            Self::V1(group) => group.folders(),
            Self::V2(group) => vec![group.folder().to_owned()],
        }
    }
}

/// Where the cgroup file systems are mounted and which group in them is ours.
#[derive(Debug, Default, PartialEq, Eq)]
struct Places {
    /// Version 1: controller and the folder of our own group.
    controllers: Vec<(String, PathBuf)>,
    /// Version 2.
    unified: Option<PathBuf>,
    /// Version 2's root, where the mount shows it.
    top: Option<PathBuf>,
}

impl Places {
    /// From the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`, proc(5) and cgroups(7).
    fn parse(mounts: &str, memberships: &str) -> Self {
        let mut places = Self::default();
        for line in memberships.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            for mount in mounts.lines().filter_map(CgroupMount::parse) {
                let ours = mount.folder(path);
                if controllers.is_empty() && mount.version == 2 {
                    places.unified.get_or_insert(ours);
                    if mount.root == "/" {
                        places.top.get_or_insert_with(|| mount.point.into());
                    }
                } else if mount.version == 1 {
                    let named = controllers.split(',').filter(|name| mount.options.contains(name));
                    for name in named {
                        if !places.controllers.iter().any(|(known, _)| known == name) {
                            places.controllers.push((name.to_owned(), ours.clone()));
                        }
                    }
                }
            }
        }
        places
    }

    fn controller(&self, name: &str) -> Option<&Path> {
        self.controllers.iter().find(|(known, _)| known == name).map(|(_, folder)| folder.as_path())
    }
}

struct CgroupMount<'a> {
    version: u8,
    root: &'a str,
    point: &'a str,
    options: Vec<&'a str>,
}

impl<'a> CgroupMount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ');
        let (root, point) = (left.nth(3)?, left.next()?);
        let mut right = right.split(' ');
        let version = match right.next()? {
            "cgroup" => 1,
            "cgroup2" => 2,
            _ => return None,
        };
        Some(Self { version, root, point, options: right.nth(1)?.split(',').collect() })
    }

    /// The folder of a group, of which the mount may show only a part.
    fn folder(&self, path: &str) -> PathBuf {
        let below = if self.root == "/" { Some(path) } else { path.strip_prefix(self.root) };
        Path::new(self.point).join(below.unwrap_or_default().trim_start_matches('/'))
    }
}

/// Removes the subtrees that the note of an earlier keeper names, with whatever still runs in them.
fn leftovers_remove(note: &Path) {
    let Ok(text) = fs::read_to_string(note) else {
        return;
    };
    let deadline = Instant::now() + Duration::from_secs(2);
    for folder in text.lines().map(Path::new) {
        let ours = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if !ours || !folder.starts_with("/sys/fs/cgroup") {
            continue;
        }
        loop {
            let inner = fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
            // A daemon's leaf may hold a living one.
            let leaf = folder.to_string_lossy().ends_with(v2::LEAF_END);
            for group in inner.map(|entry| entry.path()).chain([folder.to_owned()]) {
                if !leaf {
                    processes_kill(&group);
                    let _ = write(&group.join("freezer.state"), "THAWED");
                }
                let _ = folder_remove(&group);
            }
            if leaf || !folder.exists() || Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if folder.exists() && !folder.to_string_lossy().ends_with(v2::LEAF_END) {
            tracing::warn!(folder = %folder.display(), "a dead keeper's cgroup cannot be removed");
        }
    }
}

/// Kills the processes of one group; a frozen one gets no new ones meanwhile.
fn processes_kill(folder: &Path) {
    let own = std::process::id() as i32;
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != own).filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn folder_make(folder: &Path) -> Result<(), Failure> {
    fs::create_dir(folder).step(|| format!("make the cgroup {}", folder.display()))
}

fn folder_remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write(file: &Path, value: &str) -> Result<(), Failure> {
    // Not fs::write: a control file is never created or truncated.
    let written = fs::OpenOptions::new().write(true).open(file).and_then(|mut open| io::Write::write_all(&mut open, value.as_bytes()));
    written.step(|| format!("write {value} to {}", file.display()))
}

fn read(file: &Path) -> Result<String, Failure> {
    fs::read_to_string(file).step(|| format!("read {}", file.display()))
}

fn number(file: &Path) -> Result<u64, Failure> {
    let text = read(file)?;
    text.trim().parse().map_err(|_| Failure::new(format!("read a number in {}", file.display()), rustix::io::Errno::INVAL))
}

/// The number beside a name, one pair a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_group_is_found_in_every_layout() {
        #[track_caller]
        fn check(mounts: &str, memberships: &str, controllers: &[(&str, &str)], unified: Option<&str>) {
            let expect = Places {
                controllers: controllers.iter().map(|(name, folder)| ((*name).to_owned(), PathBuf::from(folder))).collect(),
                unified: unified.map(PathBuf::from),
                top: unified
                    .filter(|folder| folder.starts_with("/sys/fs/cgroup"))
                    .map(|folder| if folder.contains("unified") { "/sys/fs/cgroup/unified" } else { "/sys/fs/cgroup" }.into()),
            };
            assert_eq!(Places::parse(mounts, memberships), expect);
        }
        let v2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        check(v2, "0::/user.slice/a.scope\n", &[], Some("/sys/fs/cgroup/user.slice/a.scope"));
        check(v2, "0::/\n", &[], Some("/sys/fs/cgroup/"));
        check("1 1 0:1 / /proc rw - proc proc rw\n", "0::/\n", &[], None);
        let v1 = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                  32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let cpu = "/sys/fs/cgroup/cpu,cpuacct/x";
        check(
            v1,
            "4:memory:/a/b\n1:cpu,cpuacct:/x\n0::/\n",
            &[("memory", "/sys/fs/cgroup/memory/a/b"), ("cpu", cpu), ("cpuacct", cpu)],
            Some("/sys/fs/cgroup/unified/"),
        );
        // A container sees its own part of the tree as the mount's root.
        let part = "35 31 0:32 /docker/1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        check(part, "4:memory:/docker/1\n", &[("memory", "/sys/fs/cgroup/memory/")], None);
        check(part, "4:memory:/docker/1/in\n", &[("memory", "/sys/fs/cgroup/memory/in")], None);
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        assert_eq!(field("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
        assert_eq!(field("low 0\n", "oom_kill"), None);
    }
}
