//! What the checks share: a keeper, a plain spec to vary, running a command to its end.

use std::{
    fs,
    io::Read,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{PermissionsExt, chown},
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sandbox::{Ended, Keeper, KeeperConfig, Limits, Mount, Network, Sandbox, Spec, Walls, fork_keeper};

pub const PYTHON_312: &str = "/root/.pyenv/versions/3.12.1";
/// Generous: the machine may be building eight other things.
pub const LIMIT: Duration = Duration::from_secs(60);
const NOBODY: u32 = 65534;

/// One keeper and the checks made on it.
pub struct Suite {
    pub name: &'static str,
    pub root: bool,
    pub dir: PathBuf,
    /// Where the host's Python 3.12 can be opened by this suite's keeper.
    pub python: PathBuf,
    keeper: Option<Keeper>,
    filter: Option<String>,
    passed: u32,
    failed: u32,
}

/// Runs a suite in a fork and adds up what it says.
pub fn as_fork(name: &str, suite: impl FnOnce() -> (u32, u32)) -> (u32, u32) {
    let (mut reader, writer) = std::io::pipe().expect("pipe");
    // SAFETY: this process has one thread, so the child may go on as it likes.
    match unsafe { nix::unistd::fork() }.expect("fork") {
        nix::unistd::ForkResult::Child => {
            drop(reader);
            let counted = catch_unwind(AssertUnwindSafe(suite)).unwrap_or((0, 1));
            use std::io::Write;
            let _ = write!(&writer, "{} {}", counted.0, counted.1);
            std::process::exit(0);
        }
        nix::unistd::ForkResult::Parent { child } => {
            drop(writer);
            let mut said = String::new();
            let _ = reader.read_to_string(&mut said);
            let _ = nix::sys::wait::waitpid(child, None);
            let mut numbers = said.split(' ').filter_map(|word| word.parse().ok());
            match (numbers.next(), numbers.next()) {
                (Some(passed), Some(failed)) => (passed, failed),
                _ => {
                    println!("{name}: the suite died");
                    (0, 1)
                }
            }
        }
    }
}

/// Leaves root for good. Python 3.12 lies below /root, so it is first mounted where nobody may go.
pub fn become_nobody() {
    rustix_unshare_mounts();
    let at = Path::new("/var/tmp/tanebi-walls-python");
    let _ = fs::create_dir(at);
    let bound = Command::new("mount").args(["--bind", PYTHON_312]).arg(at).status();
    assert!(bound.is_ok_and(|status| status.success()), "bind Python where nobody can open it");
    let (gid, uid) = (rustix::fs::Gid::from_raw(NOBODY), rustix::fs::Uid::from_raw(NOBODY));
    rustix::thread::set_thread_groups(&[]).expect("groups");
    rustix::thread::set_thread_res_gid(gid, gid, gid).expect("gid");
    rustix::thread::set_thread_res_uid(uid, uid, uid).expect("uid");
}

fn rustix_unshare_mounts() {
    use rustix::{
        mount::{MountPropagationFlags, mount_change},
        thread::{UnshareFlags, unshare_unsafe},
    };
    // SAFETY: a mount namespace; no descriptor table is split.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("unshare");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private mounts");
}

impl Suite {
    pub fn new(name: &'static str, filter: Option<String>) -> Self {
        let root = rustix::process::geteuid().is_root();
        let dir = tempfile::Builder::new().prefix("walls-").tempdir_in("/var/tmp").expect("temporary folder").keep();
        fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).expect("mode");
        fs::create_dir(dir.join("staging")).expect("staging");
        if root {
            chown(dir.join("staging"), Some(NOBODY), Some(NOBODY)).expect("staging is the daemon's");
        }
        let python = if root { PYTHON_312.into() } else { "/var/tmp/tanebi-walls-python".into() };
        let keeper = fork_keeper(config(&dir, root)).unwrap_or_else(|error| panic!("{name}: fork the keeper: {error}"));
        Self { name, root, dir, python, keeper: Some(keeper), filter, passed: 0, failed: 0 }
    }

    pub fn run(mut self, checks: impl FnOnce(&mut Self)) -> (u32, u32) {
        checks(&mut self);
        let keeper = self.keeper.take();
        self.check("dropping the keeper ends it", |_| {
            let gone = keeper.as_ref().unwrap().gone().unwrap();
            drop(keeper);
            assert!(readable(&gone, Duration::ZERO));
        });
        self.check("nothing of the keeper's cgroups is left", |suite| {
            let note = fs::read_to_string(suite.dir.join("keeper/cgroups")).unwrap();
            assert!(note.lines().all(|folder| !Path::new(folder).exists()), "{note}");
        });
        let _ = fs::remove_dir_all(&self.dir);
        (self.passed, self.failed)
    }

    pub fn keeper(&self) -> &Keeper {
        self.keeper.as_ref().expect("until the last check")
    }

    /// What this host gives: a keeper without root can have cgroups too, handed to it by systemd.
    pub fn walls(&self) -> Walls {
        self.keeper().walls().unwrap()
    }

    pub fn check(&mut self, name: &str, body: impl FnOnce(&Self)) {
        if self.filter.as_ref().is_some_and(|word| !word.split('|').any(|word| name.contains(word))) {
            return;
        }
        let begun = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(|| body(self))).is_ok();
        println!("{}: {name} ... {} ({} ms)", self.name, if passed { "ok" } else { "FAILED" }, begun.elapsed().as_millis());
        *(if passed { &mut self.passed } else { &mut self.failed }) += 1;
    }

    /// `/usr` and what a shell needs.
    pub fn spec(&self, id: &str, command: &[&str]) -> Spec {
        Spec {
            id: id.to_owned(),
            mounts: vec![mount("/usr", "/usr")],
            files: Vec::new(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            working_dir: "/tmp".into(),
            limits: Limits { memory_bytes: 256 << 20, cpu_millis: 2000, pids: 64, files_open: 256, tmp_bytes: 64 << 20 },
            network: Network { redirected: false, metadata: false },
            volumes: Vec::new(),
            changing: Vec::new(),
            template: false,
        }
    }

    pub fn shell(&self, id: &str, script: &str) -> Spec {
        self.spec(id, &["/bin/sh", "-c", script])
    }

    /// Python 3.12 with this text as its program.
    pub fn python(&self, id: &str, program: &str) -> Spec {
        let mut spec = self.spec(id, &[&format!("{PYTHON_312}/bin/python3.12"), "-B", "/app/main.py"]);
        spec.mounts.push(Mount { source: self.python.clone(), target: PYTHON_312.into(), writable: false });
        spec.files.push(("/app/main.py".into(), program.as_bytes().to_vec()));
        spec
    }

    /// Starts, collects what it writes, waits for its end.
    pub fn run_to_end(&self, spec: &Spec) -> Outcome {
        let sandbox = self.keeper().start(spec).unwrap_or_else(|error| panic!("start {}: {error}", spec.id));
        collect(&sandbox)
    }

    pub fn staging(&self) -> PathBuf {
        self.dir.join("staging")
    }
}

pub fn config(dir: &Path, root: bool) -> KeeperConfig {
    let ids = |own: u32| if root { NOBODY } else { own };
    KeeperConfig {
        dir: dir.join("keeper"),
        writable_under: vec![dir.join("staging")],
        daemon_uid: ids(rustix::process::geteuid().as_raw()),
        daemon_gid: ids(rustix::process::getegid().as_raw()),
    }
}

pub fn mount(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Mount {
    Mount { source: source.into(), target: target.into(), writable: false }
}

/// What a command wrote and how it ended.
#[derive(Debug)]
pub struct Outcome {
    pub stdout: String,
    pub stderr: String,
    pub ended: Ended,
}

impl Outcome {
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.ended.code, Some(code), "{self:#?}");
        self
    }
}

pub fn collect(sandbox: &Sandbox) -> Outcome {
    let mut streams = [&sandbox.stdout, &sandbox.stderr, &sandbox.ended].map(|stream| (Some(stream.as_fd()), Vec::new()));
    let deadline = Instant::now() + LIMIT;
    while streams.iter().any(|(stream, _)| stream.is_some()) {
        let left = deadline.checked_duration_since(Instant::now()).unwrap_or_else(|| panic!("{} does not end", sandbox.id));
        let open: Vec<_> = streams.iter().filter_map(|(stream, _)| *stream).collect();
        let mut polled: Vec<_> = open.iter().map(|stream| PollFd::new(stream, PollFlags::IN)).collect();
        let left = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos().into() };
        let _ = poll(&mut polled, Some(&left));
        for (stream, text) in &mut streams {
            let Some(open) = stream else { continue };
            let mut part = [0; 4096];
            match rustix::io::read(*open, &mut part) {
                Ok(0) => *stream = None,
                Ok(length) => text.extend(&part[..length]),
                Err(rustix::io::Errno::AGAIN) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    let [stdout, stderr, ended] = streams.map(|(_, text)| String::from_utf8_lossy(&text).into_owned());
    Outcome { stdout, stderr, ended: serde_json::from_str(&ended).unwrap_or_else(|error| panic!("{ended:?}: {error}")) }
}

/// Reads what is written until it holds `mark`.
#[track_caller]
pub fn wait_for(stream: &OwnedFd, mark: &str) -> String {
    let mut text = String::new();
    let deadline = Instant::now() + LIMIT;
    while !text.contains(mark) {
        let left = deadline.checked_duration_since(Instant::now()).unwrap_or_else(|| panic!("no {mark:?} in {text:?}"));
        readable(stream, left);
        let mut part = [0; 4096];
        match rustix::io::read(stream, &mut part) {
            Ok(0) => panic!("ended before {mark:?}: {text:?}"),
            Ok(length) => text.push_str(&String::from_utf8_lossy(&part[..length])),
            Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => panic!("{error}"),
        }
    }
    text
}

pub fn readable(descriptor: impl AsFd, limit: Duration) -> bool {
    let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
    let limit = Timespec { tv_sec: limit.as_secs() as _, tv_nsec: limit.subsec_nanos().into() };
    matches!(poll(&mut polled, Some(&limit)), Ok(1))
}

/// By the kernel's own call: the C library refuses the two signals that it keeps for its threads.
pub fn signal_ignore(signal: i32) {
    let ignore = [libc::SIG_IGN as u64, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: rt_sigaction(2) reads at most 32 bytes of `ignore` and writes nothing.
    let done = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, ignore.as_ptr(), std::ptr::null::<u64>(), 8usize) };
    assert_eq!(done, 0, "ignore signal {signal}");
}

/// Asks again until it is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The host's processes that a test can recognise by a word in their command line.
pub fn processes_with(word: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let own = std::process::id() as i32;
    pids.filter(|pid| *pid != own && fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))).collect()
}

/// The keeper that this process forked.
pub fn keeper_pid() -> i32 {
    let own = std::process::id().to_string();
    let is_keeper = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.starts_with("Name:\ttanebi-keeper\n") && status.contains(&format!("PPid:\t{own}\n"))
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_keeper).expect("the keeper is a child of this process")
}
