//! A clone's walls: every probe denied in it, nothing of its siblings and its template to be seen, limits of its own.

use std::time::{Duration, Instant};

use sandbox::{Limits, Sandbox, Spec};

use crate::{
    clone_hostile::end,
    clone_state::stopped,
    clones::{cloned, get, python, release},
    suite::{Suite, collect},
    walls::probe_by,
};

pub fn checks(suite: &mut Suite) {
    if !suite.root {
        return;
    }
    suite.check("every probe is denied in a clone", |suite| {
        let probed = probe_by(suite, |mut spec| {
            spec.env.push(("IN_A_CLONE".to_owned(), "1".to_owned()));
            spec.template = true;
            spec.working_dir = "/app".into();
            let _template = stopped(suite, "probes", &spec);
            let clone = cloned(suite, "probes", "probes-clone");
            let outcome = collect(&clone);
            end(suite, &["probes"]);
            outcome
        });
        println!("  {}", probed.summary);
        assert!(probed.count >= 150, "{}", probed.summary);
        assert_eq!(probed.allowed, [""; 0]);
    });
    suite.check("every probe is denied in a template while it loads", |suite| {
        let probed = probe_by(suite, |mut spec| {
            spec.template = true;
            suite.run_to_end(&spec)
        });
        println!("  {}", probed.summary);
        assert!(probed.count >= 150, "{}", probed.summary);
        // The launcher's pipes.
        let (pipes, allowed): (Vec<_>, Vec<_>) = probed.allowed.iter().partition(|line| line.starts_with("ALLOWED inherited_descriptors"));
        assert_eq!(allowed, [""; 0]);
        assert!(
            pipes.iter().all(|line| line.matches("pipe:").count() == 4 && [3, 4, 5, 6].iter().all(|pipe| line.contains(&format!("{pipe}: 'pipe")))),
            "{pipes:?}"
        );
    });
    suite.check("each thread of a clone is as locked in as a sandbox's", |suite| {
        let (_template, _clones) = family(suite, "locked", 1);
        let fields = say(
            suite,
            "locked-1",
            "{task: dict(line.split(':', 1) for line in open(f'/proc/self/task/{task}/status')) for task in os.listdir('/proc/self/task')}",
        );
        let expected = [
            ("CapInh", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
            ("Uid", "1000\\t1000\\t1000\\t1000"),
            ("Gid", "1000\\t1000\\t1000\\t1000"),
            ("TracerPid", "0"),
        ];
        for (name, value) in expected {
            let seen = fields.matches(&format!("'{name}': '\\t{value}\\n'")).count();
            assert_eq!(seen, 6, "{name}: {fields}");
        }
        assert_eq!(say(suite, "locked-1", "[call(0x1000_0000 | 17) for _ in range(2)] + [in_thread(lambda: call(0x1000_0000 | 17))]"), "[1, 1, 1]");
        end(suite, &["locked-1", "locked"]);
    });
    suite.check("a clone sees nothing of a sibling or of its template", |suite| {
        let (_template, _clones) = family(suite, "sibling", 2);
        for (what, done) in [
            ("open('/tmp/own', 'w').write('x')", "1"),
            ("open('/dev/shm/own', 'w').write('x')", "1"),
            ("kept.append(socket.create_server(('127.0.0.1', 9100)))", "None"),
            ("kept.append(socket.socket(socket.AF_UNIX)) or kept[-1].bind('\\0own') or kept[-1].listen()", "None"),
            ("libc.shmget(77, 4096, 0o1666) >= 0", "True"),
            ("libc.semget(77, 1, 0o1666) >= 0", "True"),
            // Where Landlock holds, nobody makes one.
            ("libc.syscall(240, b'own', 0o102, 0o666, None) >= -1", "True"),
            ("kept.append(subprocess.Popen(['/bin/sleep', '1000']))", "None"),
        ] {
            assert_eq!(say(suite, "sibling-1", what), done, "{what}");
        }
        for (what, seen) in [
            ("os.listdir('/tmp') + os.listdir('/dev/shm')", "[]"),
            ("failed(lambda: socket.create_connection(('127.0.0.1', 9100)))", "'ECONNREFUSED'"),
            ("failed(lambda: socket.socket(socket.AF_UNIX).connect('\\0own'))", "'ECONNREFUSED'"),
            ("[libc.shmget(77, 4096, 0), libc.semget(77, 1, 0), libc.syscall(240, b'own', 2, 0, None)]", "[-1, -1, -1]"),
            ("[int(name) for name in os.listdir('/proc') if name.isdigit()]", "[1]"),
            ("[pid for pid in range(2, 3000) if not failed(lambda: os.kill(pid, 0)) and not os.path.exists(f'/proc/self/task/{pid}')]", "[]"),
            ("failed(lambda: os.kill(-1, 0))", "'ESRCH'"),
            ("socket.gethostname()", "'sibling-2'"),
            ("open('/proc/net/unix').read().count('@')", "0"),
            ("open('/proc/self/cgroup').read().count('tanebi')", "0"),
            ("open('/proc/self/mountinfo').read().count(' /tmp ')", "2"),
        ] {
            assert_eq!(say(suite, "sibling-2", what), seen, "{what}");
        }
        let own = |id: &str| ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"].map(|kind| say(suite, id, &format!("os.readlink('/proc/self/ns/{kind}')")));
        let (one, two) = (own("sibling-1"), own("sibling-2"));
        assert!(one.iter().zip(&two).all(|(one, two)| one != two), "{one:?} {two:?}");
        end(suite, &["sibling-1", "sibling-2", "sibling"]);
    });
    suite.check("a clone's /tmp has its own size", |suite| {
        let (_template, _clones) = family(suite, "sized", 1);
        let spec = evaluator(suite, "x");
        let limits = Limits { tmp_bytes: 2 << 20, ..spec.limits.clone() };
        let small = suite.keeper().clone_of("sized", "sized-small", &limits, &spec.network, false).unwrap();
        release(&small);
        for top in ["/tmp", "/dev/shm"] {
            let sizes = |id: &str| say(suite, id, &format!("os.statvfs('{top}').f_blocks * os.statvfs('{top}').f_frsize"));
            assert_eq!((sizes("sized-small"), sizes("sized-1")), ((2 << 20).to_string(), (64 << 20).to_string()));
            assert_eq!(say(suite, "sized-small", &format!("failed(lambda: open('{top}/x', 'wb').write(bytes(3 << 20)))")), "'ENOSPC'");
            assert_eq!(say(suite, "sized-1", &format!("open('{top}/x', 'wb').write(bytes(3 << 20))")), (3 << 20).to_string());
        }
        end(suite, &["sized-small", "sized-1", "sized"]);
    });
    suite.check("a clone that takes all memory ends alone", |suite| {
        let (_template, mut clones) = family(suite, "memory", 2);
        let before = suite.keeper().usage("memory-2").unwrap().memory_bytes;
        assert!(before > 0);
        send(suite, "memory-1", "[bytearray(1 << 20) for _ in range(4096)]");
        let outcome = collect(&clones.remove(0));
        assert!(outcome.ended.out_of_memory && outcome.ended.signal == Some(9), "{outcome:?}");
        assert!((200 << 20..=256 << 20).contains(&outcome.ended.memory_peak_bytes), "{outcome:?}");
        assert_eq!(say(suite, "memory-2", "6 * 7"), "42");
        let _another = cloned(suite, "memory", "memory-3");
        assert_eq!(say(suite, "memory-3", "6 * 7"), "42");
        assert!(suite.keeper().usage("memory-2").unwrap().memory_bytes < 200 << 20);
        end(suite, &["memory-2", "memory-3", "memory"]);
    });
    suite.check("a clone's limit of processes is its own", |suite| {
        let (_template, _clones) = family(suite, "pids", 2);
        // 64 in all, six of them its threads.
        let many = "forked(1000)";
        let first: i32 = say(suite, "pids-1", many).parse().unwrap();
        assert!((40..=64).contains(&first), "{first}");
        assert_eq!(suite.keeper().usage("pids-1").unwrap().pids as i32, first + 6);
        let second: i32 = say(suite, "pids-2", many).parse().unwrap();
        assert!((40..=64).contains(&second), "{first}, then {second} in its sibling");
        let _third = cloned(suite, "pids", "pids-3");
        assert_eq!(say(suite, "pids-3", "threads(20)"), "20");
        end(suite, &["pids-1", "pids-2", "pids-3", "pids"]);
    });
    suite.check("many clones have all the threads that they may have", |suite| {
        let (_template, clones) = family(suite, "threads", 12);
        for number in 1..=clones.len() {
            assert_eq!(say(suite, &format!("threads-{number}"), "threads(40)"), "40", "clone {number}");
        }
        for number in 1..=clones.len() {
            end(suite, &[&format!("threads-{number}")]);
        }
        end(suite, &["threads"]);
    });
    suite.check("a clone's limits of processes and descriptors are those it was asked for", |suite| {
        let (_template, _clones) = family(suite, "asked", 0);
        let spec = evaluator(suite, "x");
        let limits = Limits { files_open: 100, pids: 20, ..spec.limits.clone() };
        let small = suite.keeper().clone_of("asked", "asked-small", &limits, &spec.network, false).unwrap();
        release(&small);
        assert_eq!(say(suite, "asked-small", "resource.getrlimit(resource.RLIMIT_NOFILE)"), "(100, 100)");
        assert_eq!(say(suite, "asked-small", "resource.getrlimit(resource.RLIMIT_NPROC)"), "(21, 21)");
        let forked: i32 = say(suite, "asked-small", "forked(1000)").parse().unwrap();
        assert!((10..=20).contains(&forked), "{forked}");
        end(suite, &["asked-small", "asked"]);
    });
    suite.check("a clone's share of the CPU is its own", |suite| {
        let (_template, _clones) = family(suite, "share", 2);
        suite.keeper().cpu_limit("share-1", 100).unwrap();
        for id in ["share-1", "share-2"] {
            send(suite, id, "[in_thread(spin, False) for _ in range(1)]");
        }
        std::thread::sleep(Duration::from_millis(200));
        let used = |id: &str| suite.keeper().usage(id).unwrap().cpu;
        let (before, begun) = ((used("share-1"), used("share-2")), Instant::now());
        std::thread::sleep(Duration::from_millis(1000));
        let took = begun.elapsed().as_secs_f64();
        let (one, two) = ((used("share-1") - before.0).as_secs_f64() / took, (used("share-2") - before.1).as_secs_f64() / took);
        println!("  {one:.2} of 0.10, {two:.2} of 1");
        assert!(one < 0.2 && two > 1.5 * one, "{one} {two}");
        end(suite, &["share-1", "share-2", "share"]);
    });
    suite.check("pipes of one clone do not keep others from being made", |suite| {
        let mut spec = evaluator(suite, "pipes");
        spec.env.push(("BYTES_WAIT".to_owned(), "50000".to_owned()));
        let _template = stopped(suite, "pipes", &spec);
        let _first = cloned(suite, "pipes", "pipes-1");
        // All that an unprivileged user may have.
        assert_eq!(
            say(
                suite,
                "pipes-1",
                "[failed(lambda: fcntl.fcntl((kept.append(os.pipe()) or kept[-1])[0], 1031, 1 << 20)) for _ in range(100)].count('EPERM') > 0"
            ),
            "True"
        );
        let begun = Instant::now();
        let second = suite.keeper().clone_of("pipes", "pipes-2", &spec.limits, &spec.network, false);
        println!("  {:?} after {:?}", second.as_ref().map(|_| ()), begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(3));
        end(suite, &["pipes-1", "pipes-2"]);
        let _third = cloned(suite, "pipes", "pipes-3");
        assert_eq!(say(suite, "pipes-3", "len(os.read(waiting, 100000))"), "50000");
        end(suite, &["pipes-3", "pipes"]);
    });
}

/// A template that evaluates, and clones of it.
pub fn family(suite: &Suite, id: &str, count: usize) -> (Sandbox, Vec<Sandbox>) {
    let template = stopped(suite, id, &evaluator(suite, id));
    let clones = (1..=count).map(|number| cloned(suite, id, &format!("{id}-{number}"))).collect();
    (template, clones)
}

/// What an expression is in a clone.
pub fn say(suite: &Suite, id: &str, expression: &str) -> String {
    get(suite, id, &format!("/{}", encoded(expression)))
}

/// Has an expression evaluated; its answer is not waited for.
pub fn send(suite: &Suite, id: &str, expression: &str) {
    use std::io::Write;
    let mut stream = std::net::TcpStream::from(suite.keeper().connect(id, crate::clones::PORT).unwrap());
    stream.set_nonblocking(false).unwrap();
    write!(stream, "GET /{} HTTP/1.0\r\n\r\n", encoded(expression)).unwrap();
    let _ = wait_a_moment(&stream);
}

fn wait_a_moment(stream: &std::net::TcpStream) -> std::io::Result<usize> {
    use std::io::Read;
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    (&*stream).read(&mut [0; 64])
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02x}") }).collect()
}

/// Five threads beside the main one.
pub fn evaluator(suite: &Suite, id: &str) -> Spec {
    let mut spec = python(suite, id);
    spec.files[0].1 = EVALUATOR.as_bytes().to_vec();
    spec
}

const EVALUATOR: &str = r#"
import ctypes, errno, fcntl, os, resource, signal, socket, subprocess, sys, threading, time, urllib.parse

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
kept = []
for _ in range(5):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
if "BYTES_WAIT" in os.environ:
    waiting, filled = os.pipe()
    os.write(filled, bytes(int(os.environ["BYTES_WAIT"])))

def failed(function):
    try:
        function()
    except OSError as error:
        return errno.errorcode[error.errno]

def call(flags):
    """clone(2) with these flags: its errno."""
    return ctypes.get_errno() if libc.syscall(56, flags, 0, 0, 0, 0) == -1 else 0

def in_thread(function, wait=True):
    answer = []
    thread = threading.Thread(target=lambda: answer.append(function()), daemon=True)
    thread.start()
    if wait:
        thread.join()
        return answer[0]

def spin():
    while True:
        pass

def forked(most):
    for count in range(most):
        try:
            if os.fork() == 0:
                os.closerange(3, 4096)
                signal.pause()
        except OSError:
            return count
    return most

def threads(most):
    for count in range(most):
        try:
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        except RuntimeError:
            return count
    return most

server = socket.create_server(("", 8080), backlog=64)
print("ready", flush=True)
while True:
    client, _ = server.accept()
    with client, client.makefile("r") as lines:
        first = lines.readline().split()
        while lines.readline().strip():
            pass
        if len(first) < 2:
            continue
        try:
            answer = repr(eval(urllib.parse.unquote(first[1][1:]), globals()))
        except Exception as error:
            answer = repr(error)
        client.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + answer.encode())
"#;
