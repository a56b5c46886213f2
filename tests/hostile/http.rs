//! Crooked and slow HTTP/1 on the plain port, against a service and against an API: refused, and the next request is well.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Tanebi, http1, repository};

use super::{Faults, QUIET, answers, host};

/// A path that only a smuggled request asks for; the function under test tells the path that it was called with.
const SMUGGLED: &str = "/smuggled";
const WORKERS: usize = 16;
/// How long a second answer is waited for after the first.
const SECOND: Duration = Duration::from_secs(2);

pub(super) fn http_limits() -> Result<()> {
    let tanebi = Tanebi::start()?;
    tanebi.deploy("f", &repository().join("tests/serving"), "--function function --allow-unauthenticated")?;
    answers(&tanebi, "f")?;
    let mut tried = 0;
    for (host, path) in [(host(&tanebi, "f"), "/x"), ("accounts.google.com".to_owned(), "/.well-known/openid-configuration")] {
        let well = || -> Result<()> {
            let answer = http1::call(tanebi.listen, "GET", path, &host, &[], b"")?;
            ensure!(answer.status == 200, "a good request to {host}: {answer:?}");
            Ok(())
        };
        well()?;
        let crooked = crooked(&host, path);
        let (next, faults) = (AtomicUsize::new(0), Faults::default());
        // Beside each other: some are only ended by their time limit.
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    while let Some((name, bytes)) = crooked.get(next.fetch_add(1, Ordering::Relaxed)) {
                        faults.check(&format!("{name} at {host}"), is_refused(tanebi.listen, bytes, MAY_BE_ANSWERED.contains(&name.as_str())));
                    }
                });
            }
        });
        faults.none()?;
        tried += crooked.len();
        well()?;
    }
    early(&tanebi)?;
    slow(&tanebi)?;
    answers(&tanebi, "f")?;
    println!("  {tried} crooked requests refused");
    ensure!(tried >= 80, "only {tried} crooked requests");
    Ok(())
}

/// Name and bytes of requests that must be refused.
fn crooked(host: &str, path: &str) -> Vec<(String, Vec<u8>)> {
    let smuggled = format!("GET {SMUGGLED} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let get = |fields: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
    let post = |fields: &str, body: &str| format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n{body}");
    let line = |line: &str| format!("{line}\r\nHost: {host}\r\n\r\n");
    let both = format!("0\r\n\r\n{smuggled}");
    let many: String = (0..150).map(|n| format!("X-{n}: 1\r\n")).collect();
    let mut rows: Vec<(&str, String)> = vec![
        // Sizes.
        ("a field of 100 KiB", get(&format!("X-Long: {}\r\n", "a".repeat(100 << 10)))),
        ("a name of 100 KiB", get(&format!("{}: 1\r\n", "a".repeat(100 << 10)))),
        ("a target of 100 KiB", line(&format!("GET /{} HTTP/1.1", "a".repeat(100 << 10)))),
        ("a method of 100 KiB", line(&format!("{} / HTTP/1.1", "A".repeat(100 << 10)))),
        ("150 fields", get(&many)),
        ("many fields, 100 KiB together", get(&(0..90).map(|n| format!("X-{n}: {}\r\n", "a".repeat(1200))).collect::<String>())),
        // Lines.
        ("a bare CR in a value", get("X-A: 1\rX-B: 2\r\n")),
        ("a bare CR as line end", format!("GET {path} HTTP/1.1\rHost: {host}\r\r")),
        ("a folded field", get("X-A: 1\r\n 2\r\n")),
        ("a folded field by a tab", get("X-A: 1\r\n\t2\r\n")),
        ("a folded Transfer-Encoding", post("Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n", &both)),
        ("space before a colon", get("X-A : 1\r\n")),
        ("space before Content-Length's colon", post("Content-Length : 5\r\n", "12345")),
        ("space before the first field", format!("GET {path} HTTP/1.1\r\n Host: {host}\r\n\r\n")),
        ("a field without a colon", get("X-A\r\n")),
        ("a field without a name", get(": 1\r\n")),
        ("NUL in a value", get("X-A: a\0b\r\n")),
        ("NUL in a name", get("X\0A: 1\r\n")),
        ("NUL in the target", line("GET /\0 HTTP/1.1")),
        ("a control character in a name", get("X\x01: 1\r\n")),
        ("a space in a name", get("X A: 1\r\n")),
        // Lengths and encodings.
        ("Content-Length and Transfer-Encoding", post(&format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", both.len()), &both)),
        ("Transfer-Encoding and Content-Length", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", &both)),
        ("two differing lengths", post("Content-Length: 5\r\nContent-Length: 50\r\n", &format!("12345{smuggled}"))),
        ("differing lengths in one field", post("Content-Length: 5, 50\r\n", &format!("12345{smuggled}"))),
        ("a negative length", post("Content-Length: -5\r\n", "12345")),
        ("a length with a sign", post("Content-Length: +5\r\n", &format!("12345{smuggled}"))),
        ("a length in hexadecimal", post("Content-Length: 0x5\r\n", "12345")),
        ("a length that is no number", post("Content-Length: five\r\n", "12345")),
        ("an empty length", post("Content-Length:\r\n", "")),
        ("a length beyond 64 bits", post("Content-Length: 99999999999999999999\r\n", "12345")),
        ("an unknown encoding", post("Transfer-Encoding: gzip\r\n", &both)),
        ("chunked not last", post("Transfer-Encoding: chunked, identity\r\n", &both)),
        ("xchunked", post("Transfer-Encoding: xchunked\r\n", &both)),
        ("an empty encoding", post("Transfer-Encoding:\r\n", &both)),
        ("a length and an unknown encoding", post("Content-Length: 5\r\nTransfer-Encoding: x\r\n", &format!("12345{smuggled}"))),
        ("chunked in HTTP/1.0", format!("POST {path} HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n{both}")),
        // Hosts.
        ("no Host", format!("GET {path} HTTP/1.1\r\n\r\n")),
        ("an empty Host", format!("GET {path} HTTP/1.1\r\nHost:\r\n\r\n")),
        ("two Hosts", get("Host: localhost\r\n")),
        ("the same Host twice", get(&format!("Host: {host}\r\n"))),
        ("user information in Host", format!("GET {path} HTTP/1.1\r\nHost: u@{host}\r\n\r\n")),
        ("another host as user", format!("GET {path} HTTP/1.1\r\nHost: {host}@evil.example\r\n\r\n")),
        ("user information in the target", line(&format!("GET http://u:p@{host}{path} HTTP/1.1"))),
        ("target and Host disagree", format!("GET http://localhost{path} HTTP/1.1\r\nHost: {host}\r\n\r\n")),
        ("target and Host disagree, the other way", line(&format!("GET http://evil.example{path} HTTP/1.1"))),
        ("two hosts in Host", format!("GET {path} HTTP/1.1\r\nHost: {host}, evil.example\r\n\r\n")),
        ("a path in Host", format!("GET {path} HTTP/1.1\r\nHost: {host}/x\r\n\r\n")),
        ("a space in Host", format!("GET {path} HTTP/1.1\r\nHost: {host} evil.example\r\n\r\n")),
        ("a port that is none", format!("GET {path} HTTP/1.1\r\nHost: {host}:port\r\n\r\n")),
        // Request lines.
        ("HTTP/0.9", format!("GET {path}\r\n")),
        ("HTTP/3.0", line(&format!("GET {path} HTTP/3.0"))),
        ("HTTP/1.2.3", line(&format!("GET {path} HTTP/1.2.3"))),
        ("a lower-case protocol", line(&format!("GET {path} http/1.1"))),
        ("spaces in the target", line("GET /a b HTTP/1.1")),
        ("no target", line("GET HTTP/1.1")),
        ("no method", line(&format!(" {path} HTTP/1.1"))),
        ("a target that is no path", line("GET x HTTP/1.1")),
        ("CONNECT without a port", format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n")),
        ("another scheme", line(&format!("GET gopher://evil.example{path} HTTP/1.1"))),
        ("garbage", "\u{7f}\u{1}\u{2}\u{3}garbage\r\n\r\n".to_owned()),
    ];
    // Chunks whose sizes other readers take.
    for size in ["x", "-1", "+5", "0x5", "5 5", "FFFFFFFFFFFFFFFFF", "", " 5", "5_0"] {
        rows.push(("a chunk's size", post("Transfer-Encoding: chunked\r\nConnection: close\r\n", &format!("{size}\r\n12345\r\n0\r\n\r\n"))));
    }
    rows.push(("a chunk longer than its size", post("Transfer-Encoding: chunked\r\nConnection: close\r\n", "3\r\n12345\r\n0\r\n\r\n")));
    rows.push(("a chunk ended by LF and another", post("Transfer-Encoding: chunked\r\nConnection: close\r\n", "5\r\n12345X\n0\r\n\r\n")));
    rows.push((
        "an endless chunk extension",
        post("Transfer-Encoding: chunked\r\nConnection: close\r\n", &format!("5;{}\r\n12345\r\n0\r\n\r\n", "a".repeat(1 << 20))),
    ));
    let mut rows: Vec<(String, Vec<u8>)> = rows.into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes())).collect();
    rows.push(("TLS on the plain port".to_owned(), [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0xAA; 600][..]].concat()));
    rows.push(("bytes above 127".to_owned(), vec![0xff; 2000]));
    rows
}

/// Requests that RFC 9112, 6.3, lets a server answer by their Transfer-Encoding, when it closes the connection afterwards.
const MAY_BE_ANSWERED: [&str; 3] = ["Content-Length and Transfer-Encoding", "Transfer-Encoding and Content-Length", "chunked in HTTP/1.0"];

/// Closed without an answer, or one answer of the 4xx kind: never a second one, never the smuggled request's.
/// One that `may_be_answered` is the last of its connection.
fn is_refused(address: SocketAddr, bytes: &[u8], may_be_answered: bool) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(QUIET))?;
    // It may have closed before all was sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut buffer = [0; 16384];
    let mut closed = true;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                ensure!(!answer.is_empty(), "neither answered nor closed in {QUIET:?}");
                closed = false;
                break;
            }
            // A reset is a refusal too.
            Err(_) => break,
        }
        stream.set_read_timeout(Some(SECOND))?;
    }
    let text = String::from_utf8_lossy(&answer);
    if answer.is_empty() {
        return Ok(());
    }
    let head = text.lines().next().unwrap_or_default();
    let is_refusal = head.starts_with("HTTP/1.1 4") || head.starts_with("HTTP/1.0 4");
    ensure!(is_refusal || may_be_answered && closed, "answered {head:?}: {text}");
    ensure!(text.matches("HTTP/1.").count() == 1 && !text.contains(SMUGGLED), "more than one answer: {text}");
    Ok(())
}

/// A body that is too large by what its head says is refused before it is sent.
fn early(tanebi: &Tanebi) -> Result<()> {
    let host = host(tanebi, "f");
    for (length, expect) in [((32 << 20) + 1, 413), (1_u64 << 40, 413)] {
        let began = Instant::now();
        let mut stream = TcpStream::connect(tanebi.listen)?;
        stream.set_read_timeout(Some(QUIET))?;
        stream.write_all(format!("POST /length HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n").as_bytes())?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).with_context(|| format!("a body of {length} bytes is refused before it comes"))?;
        ensure!(head == *format!("HTTP/1.1 {expect}").as_bytes(), "{:?}", String::from_utf8_lossy(&head));
        ensure!(began.elapsed() < QUIET, "{:?}", began.elapsed());
    }
    Ok(())
}

/// Who says nothing, or too slowly, is cut after about ten seconds; others are served meanwhile.
fn slow(tanebi: &Tanebi) -> Result<()> {
    let name = host(tanebi, "f");
    let head = format!("GET /x HTTP/1.1\r\nHost: {name}\r\nX-Slow: ");
    let cases: [(&str, SocketAddr, &[u8], &[u8]); 8] = [
        ("nothing", tanebi.listen, b"", b""),
        ("P", tanebi.listen, b"P", b""),
        ("half a preface of HTTP/2", tanebi.listen, b"PRI * HTTP/2.0\r\n\r\nSM", b""),
        ("a preface and no settings", tanebi.listen, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""),
        ("half a head", tanebi.listen, head.as_bytes(), b""),
        ("a head, letter by letter", tanebi.listen, head.as_bytes(), b"a"),
        ("nothing on the TLS port", tanebi.tls_listen, b"", b""),
        ("half a hello of TLS", tanebi.tls_listen, &[0x16, 3, 1, 2, 0, 1, 0], b""),
    ];
    std::thread::scope(|scope| {
        let slow: Vec<_> = cases.iter().map(|case| (case.0, scope.spawn(|| cut_after(case.1, case.2, case.3)))).collect();
        for _ in 0..20 {
            answers(tanebi, "f")?;
        }
        for (name, cut) in slow {
            let after = cut.join().expect("no panic").with_context(|| name.to_owned())?;
            println!("  {name}: cut after {:.1} s", after.as_secs_f64());
            ensure!(after >= Duration::from_secs(5), "{name}: cut already after {after:?}");
        }
        Ok(())
    })
}

/// Sends `first`, then `drip` each half second, until the other side closes.
fn cut_after(address: SocketAddr, first: &[u8], drip: &[u8]) -> Result<Duration> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(first)?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut buffer = [0; 4096];
    while began.elapsed() < QUIET {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(began.elapsed()),
            // What it says before it closes.
            Ok(_) => continue,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return Ok(began.elapsed()),
        }
        if !drip.is_empty() && stream.write_all(drip).is_err() {
            return Ok(began.elapsed());
        }
    }
    bail!("not cut in {QUIET:?}")
}
