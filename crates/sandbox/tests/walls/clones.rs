//! Live fork: processes with threads, locks, sockets and pipes are stopped, and their clones go on as if nothing had happened, each
//! behind walls of its own.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use sandbox::{Error, Sandbox, Spec};

use crate::suite::{LIMIT, Suite, collect, readable, until, wait_for};

pub const PORT: u16 = 8080;

pub fn checks(suite: &mut Suite) {
    if !suite.root {
        suite.check("without root a template is refused in words", |suite| {
            let mut spec = suite.shell("template-nobody", "echo ready; sleep 1000");
            spec.template = true;
            let sandbox = suite.keeper().start(&spec).unwrap();
            wait_for(&sandbox.stdout, "ready");
            let refused = suite.keeper().template("template-nobody").unwrap_err();
            assert!(matches!(&refused, Error::Refused(why) if why.contains("without root")), "{refused}");
            suite.keeper().end("template-nobody").unwrap();
        });
        return;
    }
    suite.check("a Python server is cloned and its clones answer", |suite| {
        let _template = template(suite, "t-python", &python(suite, "t-python"));
        let mut answers = Vec::new();
        for number in 0..5 {
            let id = format!("c-python-{number}");
            let clone = cloned(suite, "t-python", &id);
            let first = get(suite, &id, "/");
            assert_eq!(get(suite, &id, "/"), first.replace("request 1", "request 2"));
            answers.push((clone, first));
        }
        for (number, (clone, answer)) in answers.into_iter().enumerate() {
            // The counter is the clone's own; so are host name, pid and /tmp.
            assert_eq!(answer, format!("request 1 of c-python-{number} pid 1 in /tmp: [] thread True loaded 1"));
            suite.keeper().signal(&format!("c-python-{number}"), 15).unwrap();
            let outcome = collect(&clone).expect_code(3);
            assert_eq!(outcome.stdout, "ended\n");
        }
        suite.keeper().end("t-python").unwrap();
    });
    suite.check("a signal to a whole group stays in one clone", |suite| {
        let template_sandbox = template(suite, "t-group", &python(suite, "t-group"));
        let first = cloned(suite, "t-group", "c-group-1");
        let second = cloned(suite, "t-group", "c-group-2");
        assert!(get(suite, "c-group-1", "/kill-group").is_empty());
        assert_eq!(collect(&first).ended.code, Some(3));
        assert!(get(suite, "c-group-2", "/").starts_with("request 1"));
        let third = cloned(suite, "t-group", "c-group-3");
        assert!(get(suite, "c-group-3", "/").starts_with("request 1"));
        for id in ["c-group-2", "c-group-3", "t-group"] {
            suite.keeper().end(id).unwrap();
        }
        drop((template_sandbox, second, third));
    });
    suite.check("clones cost milliseconds", |suite| {
        let _template = template(suite, "t-cost", &python(suite, "t-cost"));
        let mut times = Vec::new();
        for number in 0..50 {
            let id = format!("c-cost-{number}");
            let begun = Instant::now();
            let clone = suite.keeper().clone_of("t-cost", &id, &suite.spec("", &["/x"]).limits, &suite.spec("", &["/x"]).network, true).unwrap();
            let armed = begun.elapsed();
            release(&clone);
            get(suite, &id, "/");
            times.push((armed, begun.elapsed()));
            suite.keeper().end(&id).unwrap();
        }
        times.sort_unstable();
        println!("  armed {:?}, answered {:?} (medians of {})", times[times.len() / 2].0, times[times.len() / 2].1, times.len());
        suite.keeper().end("t-cost").unwrap();
    });
}

/// A program that is started as a template, is ready, and is stopped.
pub fn template(suite: &Suite, id: &str, spec: &Spec) -> Sandbox {
    let sandbox = suite.keeper().start(spec).unwrap();
    wait_for(&sandbox.stdout, "ready");
    until("it listens", || suite.keeper().connect(id, PORT).is_ok());
    // The connection above is seen to be closed.
    std::thread::sleep(Duration::from_millis(200));
    suite.keeper().template(id).unwrap_or_else(|error| panic!("{error}; {:?}", rest(&sandbox.stderr)));
    sandbox
}

pub fn rest(stream: &OwnedFd) -> String {
    let mut part = [0; 4096];
    rustix::io::read(stream, &mut part).map_or(String::new(), |length| String::from_utf8_lossy(&part[..length]).into_owned())
}

/// A clone that has been let go.
pub fn cloned(suite: &Suite, template: &str, id: &str) -> Sandbox {
    let spec = suite.spec("", &["/x"]);
    let clone = suite.keeper().clone_of(template, id, &spec.limits, &spec.network, false).unwrap();
    release(&clone);
    clone
}

pub fn release(clone: &Sandbox) {
    let release = clone.release.as_ref().expect("a clone is armed");
    rustix::io::write(release, b"g").unwrap();
    assert!(readable(release, LIMIT));
    assert_eq!(rustix::io::read(release, &mut [0u8; 1]).unwrap(), 1, "it was let go");
}

/// The body of the answer to a GET.
pub fn get(suite: &Suite, id: &str, path: &str) -> String {
    let mut stream = TcpStream::from(suite.keeper().connect(id, PORT).unwrap());
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    // What ends in the middle of an answer answers nothing.
    let _ = stream.read_to_string(&mut answer);
    answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned())
}

pub fn python(suite: &Suite, id: &str) -> Spec {
    let mut spec = suite.python(id, SERVER);
    spec.template = true;
    spec.working_dir = "/app".into();
    spec
}

const SERVER: &str = r#"
import http.server, os, queue, signal, socket, sys, threading

loaded = [0]
count = 0
asked, told = queue.Queue(), queue.Queue()

def worker():
    while True:
        told.put(asked.get() + 1)

threading.Thread(target=worker, daemon=True).start()
for _ in range(5):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
loaded[0] += 1

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global count
        count += 1
        if self.path == "/kill-group":
            os.kill(0, signal.SIGTERM)
            return
        asked.put(41)
        body = f"request {count} of {socket.gethostname()} pid {os.getpid()} in /tmp: {os.listdir('/tmp')} thread {told.get() == 42} loaded {loaded[0]}"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *_):
        pass

def end(*_):
    print("ended", flush=True)
    os._exit(3)

signal.signal(signal.SIGTERM, end)
server = http.server.ThreadingHTTPServer(("", 8080), Handler)
print("ready", flush=True)
server.serve_forever()
"#;
