//! HTTP/1.1 by hand, for what no client would send, and for answers byte for byte.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};

/// Sends `bytes` and reads until the other side closes or says nothing for `quiet`.
pub fn raw(address: SocketAddr, bytes: &[u8], quiet: Duration) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(quiet))?;
    // A server that refuses early may have closed already.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return Ok(answer),
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
        }
    }
}

/// An answer, taken apart.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first field of that name (lower case).
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()))
    }
}

/// One request on a connection of its own. `fields` are lines without ends.
pub fn call(address: SocketAddr, method: &str, target: &str, host: &str, fields: &[&str], body: &[u8]) -> Result<Answer> {
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for field in fields {
        request.push_str(field);
        request.push_str("\r\n");
    }
    if !body.is_empty() || method == "POST" {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(body);
    parse(&raw(address, &bytes, Duration::from_secs(90))?)
}

pub fn parse(bytes: &[u8]) -> Result<Answer> {
    let at = bytes.windows(4).position(|w| w == b"\r\n\r\n").with_context(|| format!("no answer in {:?}", String::from_utf8_lossy(bytes)))?;
    let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
    let status = head.split(' ').nth(1).context("a status")?.parse()?;
    let body = &bytes[at + 4..];
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok(Answer { status, head, body: if chunked { unchunk(body) } else { body.to_vec() } })
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = bytes.windows(2).position(|w| w == b"\r\n") {
        let Ok(size) = usize::from_str_radix(String::from_utf8_lossy(&bytes[..at]).trim(), 16) else { break };
        let rest = &bytes[at + 2..];
        if size == 0 || rest.len() < size {
            break;
        }
        body.extend_from_slice(&rest[..size]);
        bytes = rest.get(size + 2..).unwrap_or_default();
    }
    body
}
