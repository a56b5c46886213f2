//! Floods over HTTP/2 without TLS, frame by frame: the connection is cut, memory stays, others are served meanwhile.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Tanebi, http1};

use super::{QUIET, daemon, resident_bytes};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HOST: &str = "accounts.google.com";
const PATH: &str = "/.well-known/openid-configuration";
/// What a flood may send before it must have been cut, in bytes.
const SENT_MAX: usize = 64 << 20;
/// What all floods together may leave in the daemon's memory.
const GROWTH_MAX_BYTES: u64 = 64 << 20;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// One part of a flood: the frames of round `n`.
type Round = fn(n: u32) -> Vec<u8>;
type Flood = (&'static str, fn() -> Vec<u8>, Round);

/// Name, what opens the flood, what is repeated.
const FLOODS: [Flood; 9] = [
    ("rapid reset", Vec::new, |n| [request(stream(n), END_STREAM | END_HEADERS), frame(RST_STREAM, 0, stream(n), &8_u32.to_be_bytes())].concat()),
    ("headers without an end, reset by a bad frame", Vec::new, |n| {
        [request(stream(n), END_HEADERS), frame(WINDOW_UPDATE, 0, stream(n), &0_u32.to_be_bytes())].concat()
    }),
    ("CONTINUATION", || request(1, END_STREAM), |_| frame(CONTINUATION, 0, 1, &field("x", &"a".repeat(1000)))),
    ("empty CONTINUATION", || request(1, END_STREAM), |_| frame(CONTINUATION, 0, 1, b"")),
    ("PING", Vec::new, |n| frame(PING, 0, 0, &u64::from(n).to_be_bytes())),
    ("SETTINGS", Vec::new, |_| frame(SETTINGS, 0, 0, b"")),
    ("PRIORITY", Vec::new, |n| frame(PRIORITY, 0, stream(n), &[0, 0, 0, 0, 1])),
    ("empty DATA", || request(1, END_HEADERS), |_| frame(DATA, 0, 1, b"")),
    ("RST_STREAM of streams that never were", Vec::new, |n| frame(RST_STREAM, 0, stream(n), &8_u32.to_be_bytes())),
];

pub(super) fn http2_floods() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let well = || http1::call(tanebi.listen, "GET", PATH, HOST, &[], b"").is_ok_and(|answer| answer.status == 200);
    ensure!(well(), "a good request before the floods");
    // The same frames, once: the floods fail for being floods.
    let good = talk(&tanebi, &[PREFACE, &frame(SETTINGS, 0, 0, b""), &request(1, END_STREAM | END_HEADERS)].concat())?;
    ensure!(good.windows(6).any(|bytes| bytes == b"issuer"), "one good request over HTTP/2: {:?}", String::from_utf8_lossy(&good));

    let before = resident_bytes(daemon(&tanebi)?)?;
    for (name, opening, round) in FLOODS {
        std::thread::scope(|scope| -> Result<()> {
            let cut = scope.spawn(|| flood(&tanebi, &opening(), round));
            let began = Instant::now();
            ensure!(well(), "a good request during {name}");
            ensure!(began.elapsed() < Duration::from_secs(10), "a good request during {name} took {:?}", began.elapsed());
            let (sent, took) = cut.join().expect("no panic").with_context(|| name.to_owned())?;
            println!("  {name}: cut after {} KiB, {:.1} s", sent >> 10, took.as_secs_f64());
            Ok(())
        })?;
    }
    ensure!(well(), "a good request after the floods");
    let grown = resident_bytes(daemon(&tanebi)?)?.saturating_sub(before);
    println!("  {} floods cut, the daemon grew by {} MiB", FLOODS.len(), grown >> 20);
    ensure!(grown < GROWTH_MAX_BYTES, "the daemon grew by {} MiB", grown >> 20);
    Ok(())
}

/// Sends until the other side closes. How much it took, and how long.
fn flood(tanebi: &Tanebi, opening: &[u8], round: Round) -> Result<(usize, Duration)> {
    let began = Instant::now();
    let mut socket = TcpStream::connect(tanebi.listen)?;
    socket.set_write_timeout(Some(QUIET))?;
    let mut reading = socket.try_clone()?;
    // What comes back is read, so that the flood is not held up by answers that nobody takes.
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        while matches!(reading.read(&mut buffer), Ok(1..)) {}
    });
    let mut sent = 0;
    socket.write_all(PREFACE)?;
    socket.write_all(&frame(SETTINGS, 0, 0, b""))?;
    socket.write_all(opening)?;
    for n in 0_u32.. {
        let bytes: Vec<u8> = (n * 50..(n + 1) * 50).flat_map(round).collect();
        match socket.write_all(&bytes) {
            Ok(()) => sent += bytes.len(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => bail!("after {sent} bytes it neither takes more nor closes"),
            Err(_) => break,
        }
        ensure!(sent < SENT_MAX, "it took {sent} bytes");
        ensure!(began.elapsed() < QUIET, "it took {sent} bytes in {QUIET:?} and did not close");
        // It has closed, which a write tells only the second time.
        if reader.is_finished() {
            break;
        }
    }
    let took = began.elapsed();
    drop(socket);
    reader.join().expect("no panic");
    Ok((sent, took))
}

/// Sends and reads until nothing comes for a while.
fn talk(tanebi: &Tanebi, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut socket = TcpStream::connect(tanebi.listen)?;
    socket.set_read_timeout(Some(QUIET))?;
    socket.write_all(bytes)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 65536];
    while !answer.windows(6).any(|bytes| bytes == b"issuer") {
        match socket.read(&mut buffer)? {
            0 => break,
            n => answer.extend_from_slice(&buffer[..n]),
        }
    }
    Ok(answer)
}

/// The n-th stream that a client opens.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

/// RFC 9113, 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames of tests are short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The HEADERS frame of a GET.
fn request(stream: u32, flags: u8) -> Vec<u8> {
    let head = [field(":method", "GET"), field(":scheme", "http"), field(":authority", HOST), field(":path", PATH)].concat();
    frame(HEADERS, flags, stream, &head)
}

/// A literal field without indexing (RFC 7541, 6.2.2), its texts as they are.
fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0][..], &text(name), &text(value)].concat()
}

fn text(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut left = text.len();
    if left < 127 {
        out.push(u8::try_from(left).expect("below 127"));
    } else {
        out.push(127);
        left -= 127;
        while left >= 128 {
            out.push(u8::try_from(left % 128).expect("below 128") | 128);
            left /= 128;
        }
        out.push(u8::try_from(left).expect("below 128"));
    }
    out.extend_from_slice(text.as_bytes());
    out
}
