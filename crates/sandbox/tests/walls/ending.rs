//! Freezing, ending, and what is left when the daemon or the keeper is killed: nothing.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::suite::{Suite, as_fork, collect, config, keeper_pid, processes_with, readable, until, wait_for};
use sandbox::{Error, drop_privileges, fork_keeper};

pub fn checks(suite: &mut Suite) {
    suite.check("a frozen sandbox does nothing until it is thawed", |suite| {
        if !suite.walls().freezer {
            let sandbox = suite.keeper().start(&suite.shell("freeze-0", "sleep 1000")).unwrap();
            let refused = suite.keeper().freeze("freeze-0", true).expect_err("no freezer").to_string();
            assert!(refused.contains("hint: "), "{refused}");
            suite.keeper().end("freeze-0").unwrap();
            return drop(sandbox);
        }
        let sandbox = suite.keeper().start(&suite.shell("freeze-1", "(while :; do echo a; sleep 0.01; done) & while :; do echo b; sleep 0.01; done")).unwrap();
        wait_for(&sandbox.stdout, "b");
        for _ in 0..3 {
            suite.keeper().freeze("freeze-1", true).unwrap();
            let before = suite.keeper().usage("freeze-1").unwrap().cpu;
            drain(&sandbox.stdout);
            assert!(!readable(&sandbox.stdout, Duration::from_millis(200)));
            assert_eq!(suite.keeper().usage("freeze-1").unwrap().cpu, before);
            suite.keeper().freeze("freeze-1", false).unwrap();
            wait_for(&sandbox.stdout, "a");
        }
        // A shell that forks all the time: the kernel of version 1 loses one of its processes now and then.
        for _ in 0..100 {
            suite.keeper().freeze("freeze-1", true).unwrap();
            suite.keeper().freeze("freeze-1", false).unwrap();
            drain(&sandbox.stdout);
        }
        suite.keeper().end("freeze-1").unwrap();
    });
    suite.check("a frozen sandbox ends without running again", |suite| {
        if !suite.walls().freezer {
            return;
        }
        let sandbox = suite
            .keeper()
            .start(&suite.shell("freeze-2", "trap 'echo ran' TERM; (while :; do sleep 0.01; done) & echo up; while :; do sleep 0.01; done"))
            .unwrap();
        wait_for(&sandbox.stdout, "up");
        suite.keeper().freeze("freeze-2", true).unwrap();
        suite.keeper().signal("freeze-2", 15).unwrap();
        suite.keeper().end("freeze-2").unwrap();
        let outcome = collect(&sandbox);
        assert_eq!((outcome.stdout.as_str(), outcome.ended.signal, outcome.ended.setup_error), ("", Some(9), None));
    });
    suite.check("ended twice is ended once", |suite| {
        let sandbox = suite.keeper().start(&suite.shell("end-1", "sleep 1000")).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| suite.keeper().end("end-1").unwrap());
            }
        });
        suite.keeper().end("end-1").unwrap();
        suite.keeper().end("never-there").unwrap();
        assert_eq!(collect(&sandbox).ended.signal, Some(9));
        assert!(matches!(suite.keeper().usage("end-1"), Err(Error::NoSandbox(id)) if id == "end-1"));
    });
    suite.check("ended while it starts, nothing is left", |suite| {
        for round in 0..20 {
            let id = format!("early-{round}");
            std::thread::scope(|scope| {
                let start = scope.spawn(|| suite.keeper().start(&suite.shell(&id, "sleep 1000 # early")));
                std::thread::sleep(Duration::from_micros(300 * round));
                suite.keeper().end(&id).unwrap();
                // The end may have come before the start.
                if start.join().unwrap().is_ok() {
                    suite.keeper().end(&id).unwrap();
                }
            });
        }
        assert!(processes_with("# early").is_empty());
    });
    suite.check("a hundred sandboxes later the keeper holds what it held", |suite| {
        let keeper = keeper_pid();
        suite.run_to_end(&suite.shell("before", "true"));
        let held = || (fds(keeper), cgroups(&suite.dir.join("keeper/cgroups")), children(keeper));
        let before = held();
        let own = fds(std::process::id() as i32);
        for round in 0..100 {
            let mut spec = suite.shell("again", if round % 3 == 0 { "exit 1" } else { "sleep 1000" });
            spec.network = sandbox::Network { redirected: true, metadata: true };
            if round % 7 == 0 {
                spec.command[0] = "/absent".to_owned();
                suite.keeper().start(&spec).map(drop).expect_err("no such program");
                continue;
            }
            let sandbox = suite.keeper().start(&spec).unwrap();
            if suite.root {
                assert_eq!(fds(std::process::id() as i32), own.map(|own| own + 7));
            }
            suite.keeper().end("again").unwrap();
            collect(&sandbox);
        }
        until("the keeper has let go of everything", || held() == before);
        assert_eq!(fds(std::process::id() as i32), own);
    });
    suite.check("the keeper is not to be looked into and does not heed an interrupt", |suite| {
        let keeper = keeper_pid();
        let pid = rustix::process::Pid::from_raw(keeper).unwrap();
        for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM, rustix::process::Signal::HUP] {
            rustix::process::kill_process(pid, signal).unwrap();
        }
        suite.run_to_end(&suite.shell("after-signals", "true")).expect_code(0);
        if !suite.root {
            assert!(fs::read(format!("/proc/{keeper}/environ")).is_err());
        }
        assert_eq!(fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap_or_default(), "");
    });
    suite.check("a daemon that is killed takes everything with it", |suite| {
        let dir = dir(suite, "killed-daemon");
        let freezer = suite.walls().freezer;
        let (reader, writer) = std::io::pipe().unwrap();
        // SAFETY: the child uses only the keeper that it forks, and no lock of this process's threads: they have ended.
        let nix::unistd::ForkResult::Parent { child } = (unsafe { nix::unistd::fork() }).unwrap() else {
            drop(reader);
            let keeper = fork_keeper(config(&dir, suite.root)).unwrap();
            let one = keeper.start(&suite.shell("killed-1", "sleep 1000 # killed-daemon")).unwrap();
            let two = keeper.start(&suite.shell("killed-2", "(setsid sleep 1000 &) ; sleep 1000 # killed-daemon")).unwrap();
            if freezer {
                keeper.freeze("killed-2", true).unwrap();
            }
            use std::io::Write;
            (&writer).write_all(b"up").unwrap();
            std::thread::sleep(Duration::from_secs(1000));
            drop((one, two));
            std::process::exit(0);
        };
        drop(writer);
        wait_for(&OwnedFd::from(reader), "up");
        assert!(processes_with("# killed-daemon").len() >= 2);
        nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(child, None).unwrap();
        until("its sandboxes are gone", || processes_with("# killed-daemon").is_empty());
        until("its cgroups are gone", || cgroups(&dir.join("keeper/cgroups")).is_empty());
        until("its keeper is gone", || fs::File::open(dir.join("keeper")).is_ok_and(|folder| folder.try_lock().is_ok()));
    });
    suite.check("a keeper that is killed takes its sandboxes with it, and the next one cleans up", |suite| {
        let dir = dir(suite, "killed-keeper");
        let grouped = suite.walls().cgroup_version > 0;
        let (passed, failed) = as_fork("killed-keeper", || {
            let keeper = fork_keeper(config(&dir, suite.root)).unwrap();
            let gone = keeper.gone().unwrap();
            let sandbox = keeper.start(&suite.shell("killed-3", "sleep 1000 # killed-keeper")).unwrap();
            assert!(!readable(&gone, Duration::ZERO));
            let left = cgroups(&dir.join("keeper/cgroups"));
            assert_eq!(left.is_empty(), !grouped);
            rustix::process::kill_process(rustix::process::Pid::from_raw(keeper_pid()).unwrap(), rustix::process::Signal::KILL).unwrap();
            assert!(readable(&gone, Duration::from_secs(20)));
            until("its sandboxes are gone", || processes_with("# killed-keeper").is_empty());
            assert!(matches!(keeper.start(&suite.shell("killed-4", "true")), Err(Error::Gone)));
            assert!(matches!(keeper.usage("killed-3"), Err(Error::Gone)));
            drop((keeper, sandbox));
            let next = fork_keeper(config(&dir, suite.root)).unwrap();
            assert!(left.iter().all(|folder| !folder.exists()), "{left:?}");
            next.start(&suite.shell("killed-3", "true")).unwrap();
            drop(next);
            (1, 0)
        });
        assert_eq!((passed, failed), (1, 0));
    });
    suite.check("a daemon without privileges has none, and its keeper serves it", |suite| {
        let dir = dir(suite, "dropped");
        let (passed, failed) = as_fork("dropped", || {
            let keeper = fork_keeper(config(&dir, suite.root)).unwrap();
            drop_privileges(65534, 65534).unwrap();
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
            assert_eq!((field("Uid:"), field("Gid:")), ("65534\t65534\t65534\t65534".to_owned(), "65534\t65534\t65534\t65534".to_owned()));
            for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
                assert_eq!(field(set), "0000000000000000");
            }
            assert_eq!((field("NoNewPrivs:"), field("Groups:")), ("1".to_owned(), String::new()));
            assert!(!suite.root || field("CapBnd:") == "0000000000000000");
            assert!(nix::unistd::setuid(0.into()).is_err());
            let sandbox = keeper.start(&suite.shell("dropped-1", "exit 4")).unwrap();
            collect(&sandbox).expect_code(4);
            assert!(matches!(fork_keeper(config(&dir, false)), Err(Error::Hinted { .. } | Error::Step { .. })), "the folder is another's");
            (1, 0)
        });
        assert_eq!((passed, failed), (1, 0));
    });
    suite.check("with threads there is no keeper and no dropping", |suite| {
        std::thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || receiver.recv());
            assert!(matches!(fork_keeper(config(&suite.dir.join("never"), suite.root)), Err(Error::Refused(_))));
            assert!(matches!(drop_privileges(65534, 65534), Err(Error::Refused(_))));
            drop(sender);
        });
    });
}

/// A folder for a keeper of a check's own.
fn dir(suite: &Suite, name: &str) -> PathBuf {
    let dir = suite.dir.join(name);
    fs::create_dir_all(dir.join("staging")).unwrap();
    dir
}

fn drain(stream: &OwnedFd) {
    let mut part = [0; 4096];
    while rustix::io::read(stream, &mut part).is_ok_and(|length| length > 0) {}
}

/// How many descriptors a process has open, where that can be seen.
fn fds(pid: i32) -> Option<usize> {
    fs::read_dir(format!("/proc/{pid}/fd")).ok().map(Iterator::count)
}

fn children(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default()
}

/// The cgroups that a keeper noted and those in them.
fn cgroups(note: &Path) -> Vec<PathBuf> {
    let noted = fs::read_to_string(note).unwrap_or_default();
    let there = noted.lines().map(PathBuf::from).filter(|folder| folder.exists());
    there
        .flat_map(|folder| {
            fs::read_dir(&folder)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.is_dir())
                .chain([folder.clone()])
                .collect::<Vec<_>>()
        })
        .collect()
}
