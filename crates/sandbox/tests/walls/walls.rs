//! Every probe denied, and what is said about the walls is what they are.

use std::{
    fs,
    io::Write,
    net::{TcpListener, UdpSocket},
    os::{linux::net::SocketAddrExt, unix::net::UnixListener},
};

use sandbox::Spec;

use crate::suite::{Outcome, Suite, mount};

pub fn checks(suite: &mut Suite) {
    suite.check("every probe is denied", |suite| {
        let probed = probe(suite);
        println!("  {}", probed.summary);
        assert!(probed.count >= 150, "{}", probed.summary);
        // Linux before 6.12 has no Landlock that keeps signals from init, which as pid 1 ignores them anyway.
        let scoped = suite.keeper().walls().unwrap().landlock_abi >= 6;
        let excused = |line: &String| !scoped && ["signal_init", "kill_init"].iter().any(|probe| line.contains(probe));
        let allowed: Vec<&String> = probed.allowed.iter().filter(|line| !excused(line)).collect();
        assert_eq!(allowed, [""; 0]);
    });
    suite.check("the walls are told as they are", |suite| {
        let walls = suite.keeper().walls().unwrap();
        println!("  {walls:?}");
        assert_eq!(walls.root, suite.root);
        assert!(walls.seccomp && walls.network_redirect);
        assert_eq!(walls.own_uid, suite.root);
        if suite.root {
            assert!(walls.memory_limit && walls.cpu_limit && walls.pids_limit && walls.freezer && walls.cgroup_version > 0);
        } else {
            assert_eq!(walls.memory_limit, !walls.missing.iter().any(|line| line.contains("limit of memory")));
        }
        for (there, word) in [(walls.own_uid, "uid"), (walls.memory_limit, "memory"), (walls.cpu_limit, "cpu"), (walls.freezer, "freezing")] {
            assert_eq!(there, !walls.missing.iter().any(|line| line.contains(word)), "{word}: {:?}", walls.missing);
        }
        assert_eq!(suite.keeper().walls().unwrap().missing, walls.missing);
    });
    suite.check("the command's uid on the host is its own", |suite| {
        let first = suite.keeper().start(&suite.shell("uid-1", "sleep 1000 # uid-of-1")).unwrap();
        let second = suite.keeper().start(&suite.shell("uid-2", "sleep 1000 # uid-of-2")).unwrap();
        let uid = |word: &str| {
            let pid = crate::suite::processes_with(word)[0];
            std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}")).unwrap())
        };
        let (one, two, own) = (uid("uid-of-1"), uid("uid-of-2"), rustix::process::geteuid().as_raw());
        if suite.root {
            assert!(one >= 200_000 && two >= 200_000 && one != two);
        } else {
            assert_eq!((one, two), (own, own));
        }
        suite.keeper().end("uid-1").unwrap();
        suite.keeper().end("uid-2").unwrap();
        drop((first, second));
    });
}

/// What the probes said.
pub struct Probed {
    pub summary: String,
    pub count: usize,
    pub allowed: Vec<String>,
}

/// Runs the probes in an ordinary sandbox.
pub fn probe(suite: &Suite) -> Probed {
    probe_by(suite, |spec| suite.run_to_end(&spec))
}

/// Runs the probes with everything on the host that they look for.
pub fn probe_by(suite: &Suite, run: impl FnOnce(Spec) -> Outcome) -> Probed {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = listener.try_clone().unwrap();
    std::thread::spawn(move || {
        for stream in answering.incoming().flatten() {
            let _ = (&stream).write_all(b"of the host");
        }
    });
    let name = format!("tanebi-walls-{}", std::process::id());
    let abstract_socket = UnixListener::bind_addr(&std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let key = 0x7a6e_0000 | (std::process::id() as i32 & 0xffff);
    // SAFETY: System V calls with numbers; no memory is attached.
    let segment = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | 0o666) };
    assert!(segment >= 0);
    let secret = suite.dir.join("secret-of-the-host");
    fs::write(&secret, "secret").unwrap();
    // Connecting UDP sends nothing: it only picks the address that would be used.
    let outward = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()));
    let address = outward.map_or("127.0.0.1".to_owned(), |address| address.ip().to_string());

    let mut spec = suite.python("probes", include_str!("probes.py"));
    spec.mounts.push(mount("/usr/share", "/app/share"));
    let host_name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    spec.env.extend(
        [
            ("HOST_PORT", port.to_string()),
            ("HOST_ADDRESS", address),
            ("HOST_ABSTRACT", name),
            ("HOST_SHM", key.to_string()),
            ("HOST_PID", std::process::id().to_string()),
            ("HOST_NAME", host_name.trim().to_owned()),
            ("HOST_FILE", secret.display().to_string()),
            ("HOST_DIR", suite.dir.display().to_string()),
            ("KEEPER_DIR", suite.dir.join("keeper").display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let outcome = run(spec);
    // SAFETY: as above.
    unsafe { libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut()) };
    drop(abstract_socket);
    assert_eq!(outcome.ended.code, Some(0), "{outcome:#?}");
    let allowed = outcome.stdout.lines().filter(|line| line.starts_with("ALLOWED")).map(str::to_owned).collect();
    let summary = outcome.stdout.lines().last().unwrap_or_default().to_owned();
    Probed { count: outcome.stdout.lines().count() - 1, summary, allowed }
}
