//! State that no clone could have, or not rightly: each is refused in words that its owner can do something with, and what was refused
//! is ended without a trace.

use sandbox::{Error, Spec};

use crate::{
    clone_hostile::end,
    clones::{python, rest},
    suite::{LIMIT, Suite, processes_with, readable, wait_for},
};

/// What it is, how a program comes to have it, and what the refusal says.
const REFUSED: &[(&str, &str, &str)] = &[
    ("the root open as a folder", "a = os.open('/', os.O_RDONLY)", "has the folder / open"),
    ("the root open as a path", "a = os.open('/', os.O_PATH)", "has the folder / open"),
    (
        "a TCP connection",
        "a = socket.create_server(('127.0.0.1', 0)); b = socket.create_connection(a.getsockname()); c = a.accept()",
        "has a connection open (descriptor ",
    ),
    (
        "a TCP connection whose other end is gone",
        "a = socket.create_server(('127.0.0.1', 0)); b = socket.create_connection(a.getsockname()); c = a.accept()[0]; c.close(); a.close()",
        "has a connection open (descriptor ",
    ),
    ("a connected UDP socket", "a = socket.socket(type=socket.SOCK_DGRAM); a.connect(('127.0.0.1', 9))", "has a connection open (descriptor "),
    ("a bound UDP socket", "a = socket.socket(type=socket.SOCK_DGRAM); a.bind(('', 5353))", "bound to port 5353"),
    ("a bound TCP socket that does not listen", "a = socket.socket(); a.bind(('', 5354))", "bound to port 5354"),
    ("a unix listener with a path", "a = socket.socket(socket.AF_UNIX); a.bind('/tmp/s'); a.listen(); os.unlink('/tmp/s')", "listens on a unix socket"),
    ("an abstract unix listener", "a = socket.socket(socket.AF_UNIX); a.bind('\\0name'); a.listen()", "listens on a unix socket"),
    ("a bound unix socket", "a = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); a.bind('\\0name')", "unix socket with a name"),
    (
        "a connection of unix sockets",
        "a = socket.socket(socket.AF_UNIX); a.bind('\\0name'); a.listen(); b = socket.socket(socket.AF_UNIX); b.connect('\\0name'); c = a.accept()[0]; a.close()",
        "unix socket with a name",
    ),
    ("bytes in a socket pair", "a, b = socket.socketpair(); a.send(b'x')", "something waits in a socket pair"),
    ("a descriptor on its way through a socket pair", "a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [0])", "something waits in a socket pair"),
    ("a socket pair that is shut down one way", "a, b = socket.socketpair(); a.shutdown(socket.SHUT_WR)", "shut down"),
    ("a pipe without a writer", "a, b = os.pipe(); os.close(b)", "one end of a pipe"),
    ("a pipe without a reader", "a, b = os.pipe(); os.close(a)", "one end of a pipe"),
    ("a pipe with much in it", "a, b = os.pipe(); fcntl.fcntl(a, 1031, 1 << 20); os.write(b, bytes(100000))", "pipe with much in it"),
    ("a FIFO", "os.mkfifo('/tmp/f'); a = os.open('/tmp/f', os.O_RDWR); os.unlink('/tmp/f')", "/tmp/f"),
    ("a memfd", "a = os.memfd_create('mine')", "memfd:mine"),
    ("a memfd that is only mapped", "a = os.memfd_create('mine'); os.truncate(a, 4096); b = mmap.mmap(a, 4096); os.close(a); a = None", "memfd:mine"),
    ("an inotify", "a = libc.inotify_init1(0); assert a >= 0", "inotify"),
    ("a pidfd", "a = os.pidfd_open(os.getpid())", "pidfd"),
    ("a lock of a file by flock", "a = open('/usr/bin/env'); fcntl.flock(a, fcntl.LOCK_SH)", "holds a lock on /usr/bin/env"),
    ("a lock of a file by fcntl", "a = open('/usr/bin/env'); fcntl.lockf(a, fcntl.LOCK_SH)", "holds a lock on /usr/bin/env"),
    ("a file in /tmp open for writing", "a = open('/tmp/f', 'w'); os.unlink('/tmp/f')", "/tmp/f (deleted) open"),
    ("a file in /tmp open for reading", "open('/tmp/f', 'w').close(); a = open('/tmp/f'); os.unlink('/tmp/f')", "/tmp/f (deleted) open"),
    ("a file without a name", "a = os.open('/tmp', os.O_TMPFILE | os.O_RDWR)", "/tmp/"),
    ("a file in /dev/shm", "a = open('/dev/shm/f', 'w'); os.unlink('/dev/shm/f')", "/dev/shm/f (deleted) open"),
    ("a file left in /tmp", "open('/tmp/left', 'w').close()", "has made /tmp/left"),
    ("a folder left in /dev/shm", "os.mkdir('/dev/shm/left')", "has made /dev/shm/left"),
    ("/tmp itself, open", "a = os.open('/tmp', os.O_RDONLY)", "has /tmp open"),
    ("/tmp itself, open as a path", "a = os.open('/tmp', os.O_PATH)", "has /tmp open"),
    ("/dev/shm itself, open", "a = os.open('/dev/shm', os.O_RDONLY | os.O_DIRECTORY)", "has /dev/shm open"),
    ("/proc, open", "a = os.open('/proc', os.O_RDONLY | os.O_DIRECTORY)", "has /proc open"),
    ("a folder of /proc, open as a path", "a = os.open('/proc/self/task', os.O_PATH)", "open"),
    ("a file of /proc, open", "a = open('/proc/self/status')", "status open"),
    ("a namespace, open", "a = open('/proc/self/ns/net')", "net:["),
    ("a working folder in /tmp", "os.chdir('/tmp')", "working folder is in /tmp or /proc"),
    ("a working folder in /proc", "os.chdir('/proc/self')", "working folder is in /tmp or /proc"),
    (
        "a file mapped and written to",
        "a = open('/tmp/m', 'w+b'); a.truncate(4096); b = mmap.mmap(a.fileno(), 4096); a.close(); os.unlink('/tmp/m')",
        "/tmp/m (deleted)",
    ),
    (
        "a file mapped that may be written to later",
        "a = open('/tmp/m', 'w+b'); a.truncate(4096); b = libc.mmap(None, 4096, 1, 1, a.fileno(), 0); a.close(); os.unlink('/tmp/m')",
        "/tmp/m (deleted)",
    ),
    ("System V memory that is attached", "assert libc.shmat(libc.shmget(7, 4096, 0o1600), None, 0) > 0", "System V memory"),
    ("System V memory that is not attached", "assert libc.shmget(7, 4096, 0o1600) >= 0", "System V"),
    ("System V semaphores", "assert libc.semget(7, 1, 0o1600) >= 0", "System V"),
    ("a System V message queue", "assert libc.msgget(7, 0o1600) >= 0", "System V"),
    ("a POSIX message queue that is read", "a = libc.syscall(240, b'q', 0o100, 0o600, None); assert a >= 0", "message queue"),
    ("a POSIX message queue that is written", "a = libc.syscall(240, b'q', 0o102, 0o600, None); assert a >= 0", "message queue"),
    ("a POSIX timer", "assert libc.timer_create(1, None, ctypes.create_string_buffer(8)) == 0", "POSIX timer"),
    ("a timer that has run out", "a = libc.timerfd_create(1, 0); libc.timerfd_settime(a, 0, struct.pack('4q', 0, 0, 0, 1), None); time.sleep(.01)", "run out"),
    ("an epoll with what is closed", "a = select.epoll(); b = os.eventfd(0); a.register(b); c = os.dup(b); os.close(b)", "polls something that it has closed"),
    (
        "an epoll with a number that is another's now",
        "a = select.epoll(); b = os.eventfd(0); a.register(b); c = os.dup(b); os.close(b); d = os.eventfd(0); assert d == b",
        "polls something that it has closed",
    ),
    ("a child", "a = subprocess.Popen(['/bin/sleep', '1000'])", "has a child process"),
    ("a child that has ended", "a = subprocess.Popen(['/bin/true']); time.sleep(.1)", "has a child process"),
    (
        "an orphan",
        "a = os.fork()\nif a == 0:\n    if os.fork() == 0: os.execv('/bin/sleep', ['sleep', '1000'])\n    os._exit(0)\nos.waitpid(a, 0)",
        "another process",
    ),
    ("a signal that waits", "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); os.kill(os.getpid(), signal.SIGUSR1)", "a signal waits for it"),
    (
        "a signal that waits for a thread",
        "def f(): signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); signal.pthread_kill(threading.get_ident(), signal.SIGUSR1); time.sleep(1000)\nthreading.Thread(target=f, daemon=True).start(); time.sleep(.05)",
        "a signal waits for it",
    ),
    ("standard output that is closed", "os.dup2(1, 50); os.close(1); sys.stdout = open(50, 'w')", "descriptor"),
    ("standard error that is a file", "os.dup2(os.open('/dev/null', os.O_WRONLY), 2)", "descriptor 2 is /dev/null"),
    ("more than 256 threads", "for _ in range(260): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()", "more than 256 threads"),
    ("a word of its launcher", "os.write(6, b'refused it is not made for this\\n')", "it is not made for this"),
    ("a word that no launcher knows", "os.write(6, b'mount /\\n')", "its launcher says \"mount /\""),
    ("an end of a launcher's pipe that is closed", "os.close(3)", "one end of a pipe"),
];

/// What a program cannot even come to have.
const DENIED: &str = "\
assert libc.syscall(323, 0) == -1 and ctypes.get_errno() == 1, 'userfaultfd'
assert libc.syscall(425, 1, ctypes.create_string_buffer(120)) == -1 and ctypes.get_errno() == 38, 'io_uring'
assert libc.syscall(447, 0) == -1, 'memfd_secret'
";

const HEADER: &str = "import ctypes, fcntl, mmap, os, select, signal, socket, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
";

pub fn checks(suite: &mut Suite) {
    if !suite.root {
        return;
    }
    for (number, (what, how, words)) in REFUSED.iter().enumerate() {
        suite.check(&format!("a template is refused with {what}"), |suite| {
            let id = format!("refused-{number}");
            let spec = program(suite, &id, how);
            let sandbox = suite.keeper().start(&spec).unwrap();
            wait_for(&sandbox.stdout, "ready");
            let answer = suite.keeper().template(&id);
            end(suite, &[&id]);
            assert!(processes_with(&format!("/app/{id}.py")).is_empty() && processes_with("sleep\u{0}1000").is_empty(), "something goes on");
            match answer {
                Err(Error::Refused(why)) => assert!(why.contains(words), "{why}"),
                other => panic!("{other:?}"),
            }
            // Its name is free again.
            suite.keeper().start(&suite.shell(&id, "true")).unwrap();
            end(suite, &[&id]);
        });
    }
    suite.check("a template cannot come to have what the filter denies", |suite| {
        let sandbox = suite.keeper().start(&program(suite, "denied", DENIED)).unwrap();
        assert!(readable(&sandbox.stdout, LIMIT));
        assert_eq!((rest(&sandbox.stdout).as_str(), rest(&sandbox.stderr).as_str()), ("ready\n", ""));
        suite.keeper().template("denied").unwrap();
        end(suite, &["denied"]);
    });
    suite.check("a template is made once, of what runs, and a clone has a name of its own", |suite| {
        let sandbox = suite.keeper().start(&program(suite, "once", "")).unwrap();
        wait_for(&sandbox.stdout, "ready");
        let Spec { limits, network, .. } = program(suite, "x", "");
        let clone = |id: &str| suite.keeper().clone_of("once", id, &limits, &network, false);
        assert!(matches!(clone("once-0"), Err(Error::NoSandbox(_))), "it is no template yet");
        suite.keeper().template("once").unwrap();
        assert!(matches!(suite.keeper().template("once"), Err(Error::Refused(why)) if why.contains("is a template already")));
        assert!(matches!(suite.keeper().template("nobody"), Err(Error::NoSandbox(_))));
        let first = clone("once-1").unwrap();
        assert!(matches!(clone("once-1"), Err(Error::Refused(why)) if why.contains("runs already")));
        assert!(matches!(clone("once"), Err(Error::Refused(why)) if why.contains("runs already")));
        assert!(matches!(
            suite.keeper().clone_of("once", "once-2", &sandbox::Limits { memory_bytes: 1, ..limits.clone() }, &network, false),
            Err(Error::Refused(_))
        ));
        assert!(matches!(suite.keeper().template("once-1"), Err(Error::Refused(_))), "a clone is no template");
        drop(first);
        end(suite, &["once-1", "once"]);
        assert!(matches!(clone("once-3"), Err(Error::NoSandbox(_))));
    });
}

fn program(suite: &Suite, id: &str, how: &str) -> Spec {
    let mut spec = python(suite, id);
    let path = format!("/app/{id}.py");
    spec.files = vec![((&path).into(), format!("{HEADER}{how}\nprint('ready', flush=True)\ntime.sleep(1000)\n").into_bytes())];
    *spec.command.last_mut().expect("the program's path") = path;
    spec.limits.pids = 512;
    spec
}
