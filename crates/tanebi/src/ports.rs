//! The ports that the server listens on: the asked one, or the default, or the next free one, remembered.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    path::Path,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// How many ports after a taken default are tried.
const TRIES: u16 = 100;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// What was taken last time, so that URLs stay the same.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Remembered {
    #[serde(default)]
    listen: Option<SocketAddr>,
    #[serde(default)]
    tls_listen: Option<SocketAddr>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Plain,
    Tls,
}

/// Binds. `given`: the operator asked for this address, and gets it or an error; port 0 takes last time's port if it is free.
///
/// # Errors
/// When the asked port is taken (its holder is named), or no port near the default is free.
pub fn bind(file: &Path, which: Port, asked: SocketAddr, given: bool) -> Result<TcpListener> {
    let mut remembered: Remembered = std::fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let slot = match which {
        Port::Plain => &mut remembered.listen,
        Port::Tls => &mut remembered.tls_listen,
    };
    let last = slot.filter(|last| last.ip() == asked.ip() && (asked.port() == 0 || !given));
    let listener = match last.and_then(|last| listen(last).ok()) {
        Some(listener) => listener,
        None => first_free(asked, given)?,
    };
    let address = listener.local_addr()?;
    if *slot != Some(address) {
        *slot = Some(address);
        crate::ca::write_private(file, &serde_json::to_vec(&remembered)?)?;
    }
    Ok(listener)
}

fn first_free(asked: SocketAddr, given: bool) -> Result<TcpListener> {
    match listen(asked) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == ErrorKind::AddrInUse && given => {
            bail!("{asked} is taken by {}. Stop it, or choose another with --listen / --tls-listen", holder(asked))
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            for port in asked.port() + 1..=asked.port() + TRIES {
                if let Ok(listener) = listen(SocketAddr::new(asked.ip(), port)) {
                    eprintln!("port {} is taken by {}; using {port} from now on", asked.port(), holder(asked));
                    return Ok(listener);
                }
            }
            bail!("{asked} is taken by {} and none of the {TRIES} ports after it is free", holder(asked))
        }
        Err(error) => Err(error).with_context(|| format!("listening on {asked}")),
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM.nonblocking().cloexec(), None)?;
    // A port in TIME_WAIT after our own restart is ours; one with a listener stays taken.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Who listens on `address`, as far as /proc tells.
fn holder(address: SocketAddr) -> String {
    holder_find(address.port()).unwrap_or_else(|| "another process".to_owned())
}

fn holder_find(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|text| {
            text.lines()
                .skip(1)
                .filter_map(|line| {
                    let fields: Vec<_> = line.split_ascii_whitespace().collect();
                    // local address, state 0A = LISTEN, inode.
                    let local = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
                    (local == port && *fields.get(3)? == "0A").then(|| format!("socket:[{}]", fields[9]))
                })
                .collect::<Vec<_>>()
        })
        .collect();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let holds = descriptors.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| inodes.iter().any(|i| target.as_os_str() == i.as_str())));
        if holds {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_default_moves_on_and_is_remembered_a_taken_wish_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ports.json");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let asked = taken.local_addr().unwrap();
        let error = bind(&file, Port::Plain, asked, true).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        let other = bind(&file, Port::Plain, asked, false).unwrap();
        let moved = other.local_addr().unwrap();
        assert_ne!(moved, asked);
        drop((other, taken));
        assert_eq!(bind(&file, Port::Plain, asked, false).unwrap().local_addr().unwrap(), moved);
    }

    #[test]
    fn port_zero_stays_the_same_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ports.json");
        let zero = "127.0.0.1:0".parse().unwrap();
        let first = bind(&file, Port::Tls, zero, true).unwrap().local_addr().unwrap();
        assert_eq!(bind(&file, Port::Tls, zero, true).unwrap().local_addr().unwrap(), first);
    }
}
