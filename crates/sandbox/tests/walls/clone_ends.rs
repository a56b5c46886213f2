//! How clones, templates and engines end, by themselves, when asked to and when killed; and that nothing of two hundred of them is left.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use sandbox::{Error, Sandbox};

use crate::{
    clone_hostile::end,
    clone_state::stopped,
    clone_walls::{evaluator, family, say},
    clones::{PORT, cloned, release},
    suite::{LIMIT, Suite, collect, keeper_pid, readable, until},
};

pub fn checks(suite: &mut Suite) {
    if !suite.root {
        return;
    }
    suite.check("two hundred clones leave nothing behind", |suite| {
        let (_template, _clones) = family(suite, "many-clones", 1);
        let engine = engine_pid();
        let one = |number: u32| {
            let id = format!("many-clones-{number}");
            let clone = cloned(suite, "many-clones", &id);
            if number.is_multiple_of(20) {
                assert_eq!(say(suite, &id, "threads(3) + forked(2)"), "5");
            }
            end(suite, &[&id]);
            drop(clone);
        };
        (2..12).for_each(one);
        // What is undone a moment later is.
        std::thread::sleep(Duration::from_millis(300));
        let before = Left::now(engine);
        (12..212).for_each(one);
        let deadline = Instant::now() + Duration::from_secs(10);
        while Left::now(engine) != before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(Left::now(engine), before);
        assert_eq!(say(suite, "many-clones-1", "6 * 7"), "42");
        end(suite, &["many-clones-1", "many-clones"]);
        until("the engine is gone", || !Path::new(&format!("/proc/{engine}")).exists());
    });
    suite.check("clones live on when their template is ended, and the keeper rests", |suite| {
        let (_template, mut clones) = family(suite, "outlive", 3);
        let engine = engine_pid();
        end(suite, &["outlive"]);
        until("the engine is gone", || !Path::new(&format!("/proc/{engine}")).exists());
        assert!(matches!(clone_of(suite, "outlive", "outlive-4"), Err(Error::NoSandbox(_))));
        let before = ticks(keeper_pid());
        std::thread::sleep(Duration::from_millis(500));
        assert!(ticks(keeper_pid()) - before < 10, "the keeper spins");
        for number in 1..=3 {
            assert_eq!(say(suite, &format!("outlive-{number}"), "threads(5)"), "5");
        }
        // How they end is told all the same.
        ask(suite, "outlive-1", "os._exit(7)");
        assert_eq!(collect(&clones.remove(0)).expect_code(7).ended.setup_error, None);
        end(suite, &["outlive-2", "outlive-3"]);
        // Its name is free when the last is gone.
        until("another of that name", || suite.keeper().start(&suite.shell("outlive", "true")).is_ok());
        end(suite, &["outlive"]);
    });
    suite.check("armed clones end with their template", |suite| {
        let (_template, _clones) = family(suite, "armed", 0);
        let armed: Vec<Sandbox> = (0..3).map(|number| clone_of(suite, "armed", &format!("armed-{number}")).unwrap()).collect();
        end(suite, &["armed"]);
        for clone in &armed {
            let outcome = collect(clone);
            assert_eq!((outcome.ended.signal, outcome.stdout.as_str()), (Some(9), ""), "{outcome:?}");
        }
    });
    suite.check("an armed clone whose release end is closed is ended", |suite| {
        let (_template, _clones) = family(suite, "closed", 0);
        let mut armed = clone_of(suite, "closed", "closed-1").unwrap();
        drop(armed.release.take());
        let outcome = collect(&armed);
        assert_eq!((outcome.ended.signal, outcome.stdout.as_str()), (Some(9), ""));
        let _next = cloned(suite, "closed", "closed-1");
        assert_eq!(say(suite, "closed-1", "6 * 7"), "42");
        end(suite, &["closed-1", "closed"]);
    });
    suite.check("an armed clone runs nothing, can be ended, and others are made meanwhile", |suite| {
        let (_template, _clones) = family(suite, "waits", 0);
        let waiting = clone_of(suite, "waits", "waits-1").unwrap();
        // Taken by the kernel; nobody answers.
        let connection = std::net::TcpStream::from(suite.keeper().connect("waits-1", PORT).unwrap());
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(suite.keeper().unaccepted("waits-1", PORT).unwrap(), 1);
        assert!(suite.keeper().usage("waits-1").unwrap().pids >= 6);
        let _other = cloned(suite, "waits", "waits-2");
        let begun = Instant::now();
        end(suite, &["waits-1"]);
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert_eq!(collect(&waiting).ended.signal, Some(9));
        drop(connection);
        let _third = cloned(suite, "waits", "waits-1");
        assert_eq!((say(suite, "waits-1", "1"), say(suite, "waits-2", "2")), ("1".to_owned(), "2".to_owned()));
        end(suite, &["waits-1", "waits-2", "waits"]);
    });
    suite.check("when an engine is killed its clones serve on and a new template can be made", |suite| {
        let (template, mut clones) = family(suite, "killed", 2);
        let armed = clone_of(suite, "killed", "killed-armed").unwrap();
        kill(engine_pid());
        assert_eq!(collect(&armed).ended.signal, Some(9));
        until("the template is gone", || matches!(clone_of(suite, "killed", "killed-x"), Err(Error::NoSandbox(_))));
        assert!(matches!(suite.keeper().usage("killed"), Err(Error::NoSandbox(_))));
        let before = ticks(keeper_pid());
        std::thread::sleep(Duration::from_millis(300));
        assert!(ticks(keeper_pid()) - before < 10, "the keeper spins");
        assert_eq!(say(suite, "killed-1", "threads(5)"), "5");
        let (_next, _clone) = family(suite, "killed-next", 1);
        assert_eq!(say(suite, "killed-next-1", "6 * 7"), "42");
        ask(suite, "killed-1", "os._exit(3)");
        collect(&clones.remove(0)).expect_code(3);
        end(suite, &["killed-2", "killed-next-1", "killed-next"]);
        // It is told of the template when nothing of it runs any more.
        assert_eq!(collect(&template).ended.signal, Some(9));
    });
    suite.check("a clone that is killed is told as killed", |suite| {
        let (_template, mut clones) = family(suite, "hit", 2);
        kill(first_of(suite, "hit-1"));
        let outcome = collect(&clones.remove(0));
        assert_eq!((outcome.ended.code, outcome.ended.signal, outcome.ended.out_of_memory, outcome.ended.setup_error), (None, Some(9), false, None));
        let armed = clone_of(suite, "hit", "hit-armed").unwrap();
        kill(first_of(suite, "hit-armed"));
        let outcome = collect(&armed);
        assert_eq!((outcome.ended.signal, outcome.ended.setup_error), (Some(9), None));
        assert_eq!(say(suite, "hit-2", "6 * 7"), "42");
        let _next = cloned(suite, "hit", "hit-3");
        assert_eq!(say(suite, "hit-3", "6 * 7"), "42");
        end(suite, &["hit-2", "hit-3", "hit"]);
    });
    suite.check("when a template is killed its engine ends and its clones serve on", |suite| {
        let (template, mut clones) = family(suite, "shot", 1);
        let armed = clone_of(suite, "shot", "shot-armed").unwrap();
        let clone = first_of(suite, "shot-1");
        let status = fs::read_to_string(format!("/proc/{clone}/status")).unwrap();
        let init: &str = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
        let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
        let first = children.split_whitespace().next().unwrap().parse().unwrap();
        let engine = engine_pid();
        kill(first);
        until("the engine is gone", || !Path::new(&format!("/proc/{engine}")).exists());
        assert_eq!(collect(&armed).ended.signal, Some(9));
        assert!(matches!(clone_of(suite, "shot", "shot-2"), Err(Error::NoSandbox(_))));
        assert_eq!(say(suite, "shot-1", "threads(5)"), "5");
        ask(suite, "shot-1", "os._exit(3)");
        collect(&clones.remove(0)).expect_code(3);
        assert_eq!(collect(&template).ended.signal, Some(9));
    });
    suite.check("when the init of a template is killed all its clones end and are told", |suite| {
        let (template, clones) = family(suite, "init", 2);
        let clone = first_of(suite, "init-1");
        let status = fs::read_to_string(format!("/proc/{clone}/status")).unwrap();
        let init = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap().parse().unwrap();
        kill(init);
        for sandbox in clones.iter().chain([&template]) {
            assert_eq!(collect(sandbox).ended.signal, Some(9));
        }
        let (_next, _clones) = family(suite, "init", 1);
        end(suite, &["init-1", "init"]);
    });
    suite.check("exit codes and faults of a clone are told", |suite| {
        let (_template, _clones) = family(suite, "code", 0);
        for (number, (what, code, signal)) in [
            ("os._exit(0)", Some(0), None),
            ("os._exit(255)", Some(255), None),
            ("in_thread(lambda: os._exit(4))", Some(4), None),
            ("ctypes.string_at(1)", None, Some(libc::SIGSEGV)),
            ("signal.signal(signal.SIGTERM, lambda *_: os._exit(9)) and None or os.kill(1, 15)", Some(9), None),
            ("os.execv('/bin/sh', ['sh', '-c', 'exit 6'])", Some(6), None),
        ]
        .into_iter()
        .enumerate()
        {
            let id = format!("code-{number}");
            let clone = cloned(suite, "code", &id);
            ask(suite, &id, what);
            let outcome = collect(&clone);
            assert_eq!((outcome.ended.code, outcome.ended.signal, outcome.ended.setup_error), (code, signal, None), "{what}");
        }
        end(suite, &["code"]);
    });
    suite.check("a signal of the daemon reaches a clone's handler, also one that came while it was armed", |suite| {
        let mut spec = evaluator(suite, "term");
        let program = String::from_utf8(spec.files[0].1.clone()).unwrap();
        spec.files[0].1 = program.replace("kept = []", "kept = []\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(33))").into_bytes();
        let _template = stopped(suite, "term", &{
            // Well into its accept.
            spec.env.push(("READY_LATE".to_owned(), "1".to_owned()));
            spec
        });
        let clone = cloned(suite, "term", "term-1");
        // It runs: a signal in the moment of its letting go may be heeded only when its accept ends (docs/internals/sandbox.md).
        assert_eq!(say(suite, "term-1", "1"), "1");
        suite.keeper().signal("term-1", libc::SIGTERM).unwrap();
        collect(&clone).expect_code(33);
        // Which thread would take it is chance.
        for number in 2..12 {
            let id = format!("term-{number}");
            let armed = clone_of(suite, "term", &id).unwrap();
            suite.keeper().signal(&id, libc::SIGTERM).unwrap();
            std::thread::sleep(Duration::from_millis(5));
            assert!(!readable(&armed.ended, Duration::ZERO));
            release(&armed);
            assert!(readable(&armed.ended, Duration::from_secs(5)), "{id} does not end");
            collect(&armed).expect_code(33);
        }
        end(suite, &["term"]);
    });
    // docs/internals/sandbox.md, "What differs from an ordinary instance".
    suite.check("a clone is the first process of its namespace, with what that means", |suite| {
        let (_template, mut clones) = family(suite, "first", 2);
        for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGUSR1] {
            assert_eq!(say(suite, "first-1", &format!("os.kill(os.getpid(), {signal})")), "None");
        }
        let orphans = "[subprocess.run(['/bin/sh', '-c', '(/bin/true &) ; exit 5']).returncode for _ in range(3)]";
        assert_eq!(say(suite, "first-1", orphans), "[5, 5, 5]");
        let dead = "sum(') Z ' in open(f'/proc/{name}/stat').read() for name in os.listdir('/proc') if name.isdigit())";
        until("they are dead", || say(suite, "first-1", dead) == "3");
        assert_eq!(say(suite, "first-1", &format!("[os.wait() and 1 for _ in range(3)] and {dead}")), "0");
        ask(suite, "first-1", "os.abort()");
        assert_eq!(collect(&clones.remove(0)).ended.signal, Some(libc::SIGSEGV));
        suite.keeper().signal("first-2", libc::SIGTERM).unwrap();
        assert_eq!(collect(&clones.remove(0)).ended.signal, Some(libc::SIGKILL));
        end(suite, &["first"]);
    });
    suite.check("orphans in a clone end with it", |suite| {
        let (_template, mut clones) = family(suite, "orphan", 1);
        assert_eq!(say(suite, "orphan-1", "subprocess.run(['/bin/sh', '-c', '(sleep 1000 & sleep 1000 &) ; exit 5']).returncode"), "5");
        ask(suite, "orphan-1", "os._exit(0)");
        collect(&clones.remove(0)).expect_code(0);
        assert!(crate::suite::processes_with("sleep\u{0}1000\u{0}").is_empty());
        end(suite, &["orphan"]);
    });
    suite.check("twenty clones are asked for at once", |suite| {
        let (_template, _clones) = family(suite, "crowd", 0);
        std::thread::scope(|scope| {
            for number in 0..20 {
                scope.spawn(move || {
                    let id = format!("crowd-{number}");
                    let _clone = cloned(suite, "crowd", &id);
                    assert_eq!(say(suite, &id, "[socket.gethostname(), threads(5)]"), format!("['{id}', 5]"));
                    end(suite, &[&id]);
                });
            }
        });
        end(suite, &["crowd"]);
    });
    suite.check("a clone is frozen and thawed", |suite| {
        let (_template, _clones) = family(suite, "ice", 2);
        assert_eq!(say(suite, "ice-1", "[in_thread(spin, False) for _ in range(1)] and 1"), "1");
        for _ in 0..3 {
            suite.keeper().freeze("ice-1", true).unwrap();
            let before = suite.keeper().usage("ice-1").unwrap().cpu;
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(suite.keeper().usage("ice-1").unwrap().cpu, before);
            assert_eq!(say(suite, "ice-2", "6 * 7"), "42");
            suite.keeper().freeze("ice-1", false).unwrap();
            assert_eq!(say(suite, "ice-1", "6 * 7"), "42");
        }
        suite.keeper().freeze("ice-1", true).unwrap();
        end(suite, &["ice-1"]);
        // Armed, it is stopped already.
        let armed = clone_of(suite, "ice", "ice-3").unwrap();
        suite.keeper().freeze("ice-3", true).unwrap();
        suite.keeper().freeze("ice-3", false).unwrap();
        release(&armed);
        assert_eq!(say(suite, "ice-3", "6 * 7"), "42");
        let armed = clone_of(suite, "ice", "ice-4").unwrap();
        suite.keeper().freeze("ice-4", true).unwrap();
        end(suite, &["ice-4"]);
        assert_eq!(collect(&armed).ended.signal, Some(9));
        end(suite, &["ice-2", "ice-3", "ice"]);
    });
}

/// A suite of its own, which ends with its keeper dropped while these are there.
pub fn left_running(suite: &mut Suite) {
    suite.check("a template, a clone and an armed clone are there when the keeper is dropped", |suite| {
        let (template, clones) = family(suite, "left", 2);
        let armed = clone_of(suite, "left", "left-armed").unwrap();
        let refused = suite.keeper().start(&evaluator(suite, "left-loading")).unwrap();
        suite.keeper().freeze("left-2", true).unwrap();
        std::mem::forget((template, clones, armed, refused));
    });
}

/// What there is of things that could be left.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    keeper_descriptors: usize,
    engine_descriptors: usize,
    keeper_mounts: usize,
    cgroups: usize,
    /// Of the keeper and of all below it, dead ones too.
    processes: usize,
    namespaces: usize,
}

impl Left {
    fn now(engine: i32) -> Self {
        let keeper = keeper_pid();
        let count = |folder: String| fs::read_dir(folder).map_or(0, Iterator::count);
        let all: Vec<i32> = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let below: Vec<i32> = all.into_iter().filter(|pid| is_below(*pid, keeper)).collect();
        let mut namespaces = BTreeSet::new();
        for pid in &below {
            for kind in ["net", "mnt", "ipc", "uts", "pid", "user", "cgroup"] {
                namespaces.extend(fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok());
            }
        }
        Self {
            keeper_descriptors: count(format!("/proc/{keeper}/fd")),
            engine_descriptors: count(format!("/proc/{engine}/fd")),
            keeper_mounts: fs::read_to_string(format!("/proc/{keeper}/mountinfo")).unwrap().lines().count(),
            cgroups: cgroups(keeper),
            processes: below.len(),
            namespaces: namespaces.len(),
        }
    }
}

/// The groups below the keeper's own, which the engine's place shows.
fn cgroups(keeper: i32) -> usize {
    let mut count = 0;
    let mut folders = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                count += usize::from(entry.path().to_string_lossy().contains(&format!("tanebi-{keeper}")));
                folders.push(entry.path());
            }
        }
    }
    count
}

fn is_below(pid: i32, top: i32) -> bool {
    let mut now = pid;
    while now > 1 {
        if now == top {
            return true;
        }
        let stat = fs::read_to_string(format!("/proc/{now}/stat")).unwrap_or_default();
        now = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    }
    false
}

/// The newest engine.
fn engine_pid() -> i32 {
    let keeper = format!("PPid:\t{}\n", keeper_pid());
    let is_engine = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.starts_with("Name:\ttanebi-template\n") && status.contains(&keeper)
    };
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(is_engine).max().expect("an engine is a child of the keeper")
}

/// The first process of a sandbox, on the host, by the name of its host.
fn first_of(suite: &Suite, id: &str) -> i32 {
    let _ = suite;
    let keeper = keeper_pid();
    let all: Vec<i32> = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let is_it = |pid: &&i32| is_below(**pid, keeper) && host_name(**pid).is_some_and(|name| name == id);
    *all.iter().find(is_it).expect("it runs")
}

/// By a thread that enters the process's UTS namespace and ends.
fn host_name(pid: i32) -> Option<String> {
    use std::os::fd::AsFd;
    let namespace = fs::File::open(format!("/proc/{pid}/ns/uts")).ok()?;
    let looked = std::thread::spawn(move || {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(rustix::thread::LinkNameSpaceType::HostNameAndNISDomainName)).ok()?;
        Some(rustix::system::uname().nodename().to_string_lossy().into_owned())
    });
    looked.join().ok()?
}

fn kill(pid: i32) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
}

fn clone_of(suite: &Suite, template: &str, id: &str) -> Result<Sandbox, Error> {
    let spec = suite.spec("", &["/x"]);
    suite.keeper().clone_of(template, id, &spec.limits, &spec.network, false)
}

/// Has an expression evaluated that does not answer.
fn ask(suite: &Suite, id: &str, expression: &str) {
    let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| crate::clone_walls::send(suite, id, expression)));
    assert!(answer.is_ok());
    let _ = LIMIT;
}

/// Hundredths of a second that a process has used.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}
