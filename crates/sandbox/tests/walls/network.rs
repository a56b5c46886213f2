//! The network: nothing but loopback, or everything led to the daemon; and the daemon's way in.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use crate::suite::{LIMIT, Suite, collect, readable, until, wait_for};
use sandbox::{Error, original_destination};

pub fn checks(suite: &mut Suite) {
    suite.check("TCP to anywhere arrives with where it was going", |suite| {
        for (target, expect) in [("93.184.216.34", "93.184.216.34:443"), ("2606:2800:220:1::1", "[2606:2800:220:1::1]:443"), ("10.0.0.1", "10.0.0.1:443")] {
            let program = format!(
                "import socket\ns = socket.create_connection(({target:?}, 443), 20)\ns.sendall(b'ping')\nassert s.getpeername()[:2] == ({target:?}, 443)\nprint(s.recv(9).decode())"
            );
            let mut spec = suite.python("out-1", &program);
            spec.network.redirected = true;
            let sandbox = suite.keeper().start(&spec).unwrap();
            let listener = TcpListener::from(sandbox.outbound.as_ref().unwrap().try_clone().unwrap());
            let mut connection = accept(&listener);
            assert_eq!(original_destination(connection.as_fd()).unwrap(), expect.parse::<SocketAddr>().unwrap());
            let mut ping = [0; 4];
            connection.read_exact(&mut ping).unwrap();
            connection.write_all(b"pong").unwrap();
            assert_eq!(collect(&sandbox).expect_code(0).stdout, "pong\n");
        }
    });
    suite.check("DNS to any server arrives, over UDP and TCP", |suite| {
        let program = "import socket\n\
            for family, server in ((socket.AF_INET, '8.8.8.8'), (socket.AF_INET6, '2001:4860:4860::8888'), (socket.AF_INET, '127.0.0.1')):\n\
            \x20u = socket.socket(family, socket.SOCK_DGRAM); u.settimeout(20); u.connect((server, 53)); u.send(b'q'); assert u.recv(9) == b'answer'\n\
            t = socket.create_connection(('1.1.1.1', 53), 20); t.sendall(b'q'); print(t.recv(9).decode())";
        let mut spec = suite.python("dns-1", program);
        spec.network.redirected = true;
        let sandbox = suite.keeper().start(&spec).unwrap();
        let udp = UdpSocket::from(sandbox.dns_udp.as_ref().unwrap().try_clone().unwrap());
        for _ in 0..3 {
            assert!(readable(&udp, LIMIT));
            let (_, from) = udp.recv_from(&mut [0; 9]).unwrap();
            udp.send_to(b"answer", from).unwrap();
        }
        let tcp = TcpListener::from(sandbox.dns_tcp.as_ref().unwrap().try_clone().unwrap());
        let mut connection = accept(&tcp);
        assert_eq!(original_destination(connection.as_fd()).unwrap(), "1.1.1.1:53".parse().unwrap());
        connection.write_all(b"tcp").unwrap();
        drop(connection);
        assert_eq!(collect(&sandbox).expect_code(0).stdout, "tcp\n");
    });
    suite.check("getaddrinfo asks the resolver that resolv.conf names", |suite| {
        let mut spec = suite.python("dns-2", "import socket\nprint(socket.gethostbyname('example.org'))");
        spec.files.push(("/etc/resolv.conf".into(), b"nameserver 169.254.169.254\n".to_vec()));
        spec.network = sandbox::Network { redirected: true, metadata: true };
        let sandbox = suite.keeper().start(&spec).unwrap();
        let udp = UdpSocket::from(sandbox.dns_udp.as_ref().unwrap().try_clone().unwrap());
        assert!(readable(&udp, LIMIT));
        let mut query = [0; 512];
        let (length, from) = udp.recv_from(&mut query).unwrap();
        let mut answer = query[..length].to_vec();
        answer[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
        answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x5d\xb8\xd8\x22");
        udp.send_to(&answer, from).unwrap();
        assert_eq!(collect(&sandbox).expect_code(0).stdout, "93.184.216.34\n");
    });
    suite.check("the metadata server is reached by address and by name", |suite| {
        let program =
            "import socket\nfor host in ('169.254.169.254', 'metadata.google.internal'):\n print(socket.create_connection((host, 80), 20).recv(9).decode())";
        let mut spec = suite.python("metadata-1", program);
        spec.network = sandbox::Network { redirected: true, metadata: true };
        let sandbox = suite.keeper().start(&spec).unwrap();
        let listener = TcpListener::from(sandbox.metadata.as_ref().unwrap().try_clone().unwrap());
        for _ in 0..2 {
            accept(&listener).write_all(b"hello").unwrap();
        }
        assert_eq!(collect(&sandbox).expect_code(0).stdout, "hello\nhello\n");
    });
    suite.check("the metadata address without a metadata server is an outbound one", |suite| {
        let mut spec = suite.python("metadata-2", "import socket\nsocket.create_connection(('169.254.169.254', 80), 20)");
        spec.network.redirected = true;
        let sandbox = suite.keeper().start(&spec).unwrap();
        assert!(sandbox.metadata.is_none());
        let listener = TcpListener::from(sandbox.outbound.as_ref().unwrap().try_clone().unwrap());
        assert_eq!(original_destination(accept(&listener).as_fd()).unwrap(), "169.254.169.254:80".parse().unwrap());
        collect(&sandbox).expect_code(0);
    });
    suite.check("other UDP goes nowhere and is told so at once", |suite| {
        let program = "import socket\nu = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(20); u.connect(('8.8.8.8', 443)); u.send(b'x')\n\
            try: u.recv(9)\nexcept ConnectionRefusedError: print('refused')";
        let mut spec = suite.python("udp-1", program);
        spec.network.redirected = true;
        assert_eq!(suite.run_to_end(&spec).expect_code(0).stdout, "refused\n");
    });
    suite.check("a connection made straight to the listener is not taken for a redirected one", |suite| {
        let program = "import socket, sys\n\
            ports = {int(l.split()[1].rsplit(':', 1)[1], 16) for f in ('/proc/net/tcp', '/proc/net/tcp6') for l in open(f).readlines()[1:] if l.split()[3] == '0A'}\n\
            held = []\n\
            for host in ('127.0.0.1', '::1', '127.0.0.2'):\n\
            \x20for port in ports:\n\
            \x20\x20held.append(socket.create_connection((host, port), 20))\n\
            print(len(ports))\nsys.stdout.flush()\nsys.stdin.close()\nimport time; time.sleep(1000)";
        let mut spec = suite.python("straight-1", program);
        spec.network.redirected = true;
        let sandbox = suite.keeper().start(&spec).unwrap();
        wait_for(&sandbox.stdout, "2\n");
        let listener = TcpListener::from(sandbox.outbound.as_ref().unwrap().try_clone().unwrap());
        for _ in 0..3 {
            let error = original_destination(accept(&listener).as_fd()).expect_err("it was going nowhere else");
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}");
        }
        suite.keeper().end("straight-1").unwrap();
    });
    suite.check("without redirection there is a loopback and nothing else", |suite| {
        let program = "import socket\n\
            l = socket.create_server(('127.0.0.1', 0)); socket.create_connection(l.getsockname(), 5)\n\
            l = socket.create_server(('::1', 0), family=socket.AF_INET6); socket.create_connection(l.getsockname()[:2], 5)\n\
            for host in ('8.8.8.8', '2001:4860:4860::8888', '169.254.169.254'):\n\
            \x20try: socket.create_connection((host, 80), 5); print('reached', host)\n\
            \x20except OSError as e: print(e.errno)";
        let outcome = suite.run_to_end(&suite.python("none-1", program)).expect_code(0);
        assert_eq!(outcome.stdout, format!("{0}\n{0}\n{0}\n", unreachable_errno()));
    });
    suite.check("the daemon connects into a sandbox as soon as something listens", |suite| {
        let program = "import socket, time\ntime.sleep(0.3)\nl = socket.create_server(('0.0.0.0', 8080))\nwhile True:\n c, _ = l.accept(); c.sendall(c.recv(9).upper()); c.close()";
        let sandbox = suite.keeper().start(&suite.python("in-1", program)).unwrap();
        let refused = suite.keeper().connect("in-1", 8080).expect_err("nothing listens yet");
        assert!(matches!(&refused, Error::Step { source, .. } if source.kind() == std::io::ErrorKind::ConnectionRefused), "{refused}");
        until("it listens", || suite.keeper().connect("in-1", 8080).is_ok());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let mut stream = std::net::TcpStream::from(suite.keeper().connect("in-1", 8080).unwrap());
                        stream.set_nonblocking(false).unwrap();
                        assert!(stream.nodelay().unwrap());
                        stream.write_all(b"hello").unwrap();
                        let mut back = String::new();
                        stream.read_to_string(&mut back).unwrap();
                        assert_eq!(back, "HELLO");
                    }
                });
            }
        });
        let begun = Instant::now();
        for _ in 0..100 {
            suite.keeper().connect("in-1", 8080).unwrap();
        }
        println!("  connect: {:?} each", begun.elapsed() / 100);
        suite.keeper().end("in-1").unwrap();
        drop(sandbox);
        assert!(matches!(suite.keeper().connect("in-1", 8080), Err(Error::NoSandbox(_))));
    });
    suite.check("connections that nobody accepts are counted", |suite| {
        let program = "import socket\nl = socket.create_server(('', 8080)); print('up', flush=True)\nimport time\n\
            time.sleep(2)\nwhile True: l.accept()[0]";
        let sandbox = suite.keeper().start(&suite.python("queue-1", program)).unwrap();
        wait_for(&sandbox.stdout, "up");
        assert_eq!(suite.keeper().unaccepted("queue-1", 8080).unwrap(), 0);
        let held = [suite.keeper().connect("queue-1", 8080).unwrap(), suite.keeper().connect("queue-1", 8080).unwrap()];
        assert_eq!(suite.keeper().unaccepted("queue-1", 8080).unwrap(), 2);
        assert_eq!(suite.keeper().unaccepted("queue-1", 8081).unwrap(), 0);
        until("they are accepted", || suite.keeper().unaccepted("queue-1", 8080).unwrap() == 0);
        drop(held);
        suite.keeper().end("queue-1").unwrap();
    });
    suite.check("a connection is not kept waiting by a start", |suite| {
        let server = "import socket\nl = socket.create_server(('', 8080)); print('up', flush=True)\nwhile True: l.accept()[0].close()";
        let sandbox = suite.keeper().start(&suite.python("beside-1", server)).unwrap();
        wait_for(&sandbox.stdout, "up");
        std::thread::scope(|scope| {
            let starts: Vec<_> =
                (0..4).map(|number| scope.spawn(move || suite.run_to_end(&suite.python(&format!("beside-start-{number}"), "print(1)")))).collect();
            let mut worst = Duration::ZERO;
            while starts.iter().any(|start| !start.is_finished()) {
                let begun = Instant::now();
                let connection = suite.keeper().connect("beside-1", 8080).unwrap();
                worst = worst.max(begun.elapsed());
                // One after the other: a full queue of the server would be another delay.
                assert!(readable(&connection, LIMIT));
            }
            println!("  worst connect beside four starts: {worst:?}");
        });
        suite.keeper().end("beside-1").unwrap();
    });
}

fn accept(listener: &TcpListener) -> std::net::TcpStream {
    assert!(readable(listener, LIMIT), "nobody connects");
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

fn unreachable_errno() -> i32 {
    rustix::io::Errno::NETUNREACH.raw_os_error()
}
