//! The daemon's side: forking the keeper, and calls on it from any thread.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{PidfdFlags, geteuid, getpid, pidfd_open};

use crate::{
    descriptor,
    error::Error,
    message::{self, Ends, HostWalls, Reply, Request},
    process, service,
    spec::{Limits, Network, Sandbox, Spec, Usage},
    walls::{self, Walls},
};

/// What the keeper needs to know once, when it is forked.
#[derive(Clone, Debug)]
pub struct KeeperConfig {
    /// Folder of the keeper's own (mount points, cgroup notes), 0700. Made when missing; its parent must be there.
    pub dir: PathBuf,
    /// Host folders under which writable mounts and `discard` are allowed (the daemon's staging folders).
    pub writable_under: Vec<PathBuf>,
    /// The uid and gid that the daemon will have; the keeper accepts no other peer.
    pub daemon_uid: u32,
    /// See `daemon_uid`.
    pub daemon_gid: u32,
}

/// Forks the keeper. Must be called while the process has one thread. Returns the daemon's end.
///
/// The keeper ends every sandbox and exits when the daemon is gone (pidfd), and the other way round: [`Keeper::gone`] is readable then.
/// The keeper ignores SIGINT and SIGTERM: when it ends is the daemon's to decide, by dropping the [`Keeper`] or by ending.
///
/// # Errors
/// `Refused` when there are more threads; else the step of setting up that failed. No process is left then.
pub fn fork_keeper(config: KeeperConfig) -> Result<Keeper, Error> {
    if process::threads().map_err(|error| Error::step("count the threads", error))? != 1 {
        return Err(Error::Refused("the keeper is forked before the first thread is started".to_owned()));
    }
    let pair = || descriptor::message_pair().map_err(|error| Error::step("make a socket pair", error));
    let (requests, keepers_end) = pair()?;
    let (ready, keepers_ready) = pair()?;
    let daemon = pidfd_open(getpid(), PidfdFlags::empty()).map_err(|error| Error::step("open the daemon's pidfd", error))?;
    let setup = service::Setup { config, requests: keepers_end, daemon_pid: getpid(), daemon, started_uid: geteuid().as_raw() };
    let child = process::fork(|| service::run(setup, keepers_ready)).map_err(|error| Error::step("fork the keeper", error))?;
    let keeper = Keeper { requests, process: child.pidfd, walls: Mutex::new(None) };
    match message::reply_receive(&ready) {
        Ok(_) => Ok(keeper),
        // Dropping `keeper` waits for the process.
        Err(error) => Err(error),
    }
}

/// The daemon's side. Calls block (a few ms to start); safe from many threads at once.
///
/// Dropping it ends every sandbox, and returns when the keeper has undone all and exited.
#[derive(Debug)]
pub struct Keeper {
    requests: OwnedFd,
    process: OwnedFd,
    walls: Mutex<Option<Walls>>,
}

/// How long the keeper may take to undo everything when it is dropped.
const UNDO_LIMIT: Duration = Duration::from_secs(30);

impl Keeper {
    /// Makes a sandbox and runs its command; returns when the command has become its program.
    ///
    /// # Errors
    /// `Refused` names the field of the spec; else the step that failed. Nothing is left of the sandbox then.
    pub fn start(&self, spec: &Spec) -> Result<Sandbox, Error> {
        Ok(self.start_as(spec, false)?.0)
    }

    /// Starts one that looks at its walls.
    pub(crate) fn start_look(&self, spec: &Spec) -> Result<(Sandbox, HostWalls), Error> {
        self.start_as(spec, true)
    }

    fn start_as(&self, spec: &Spec, look: bool) -> Result<(Sandbox, HostWalls), Error> {
        // Checked here too: for a clear answer without the way there and back.
        spec.check().map_err(Error::Refused)?;
        let mut spec = spec.clone();
        let files: Vec<Vec<u8>> = spec.files.iter_mut().map(|(_, content)| std::mem::take(content)).collect();
        let file_sizes = files.iter().map(Vec::len).collect();
        let id = spec.id.clone();
        let (reply, descriptors) = self.call_with(Request::Start { spec: Box::new(spec), file_sizes, look }, &files)?;
        let Reply::Started(ends) = reply else {
            return Err(unexpected());
        };
        let host = ends.host.clone();
        let sandbox = sandbox_from(id, &ends, descriptors.into_iter()).ok_or_else(unexpected)?;
        Ok((sandbox, host))
    }

    /// A TCP connection to 127.0.0.1:port made inside the sandbox's namespace: non-blocking, TCP_NODELAY.
    ///
    /// # Errors
    /// A `Step` whose source is of kind `ConnectionRefused` as long as nothing listens there.
    pub fn connect(&self, id: &str, port: u16) -> Result<OwnedFd, Error> {
        let (_, descriptors) = self.call(Request::Connect { id: id.to_owned(), port })?;
        descriptors.into_iter().next().ok_or_else(unexpected)
    }

    /// What the launcher of a sandbox that will be a template has written to its said pipe so far.
    pub fn said(&self, id: &str) -> Result<Vec<String>, Error> {
        match self.call(Request::Said { id: id.to_owned() })?.0 {
            Reply::Said(lines) => Ok(lines),
            _ => Err(unexpected()),
        }
    }

    /// Stops a sandbox that was started with [`Spec::template`], for good: it is only cloned from now on.
    ///
    /// # Errors
    /// `Refused` says which state of it cannot be cloned, in words for the owner of the function. The sandbox is useless then.
    pub fn template(&self, id: &str) -> Result<(), Error> {
        self.call(Request::Template { id: id.to_owned() }).map(drop)
    }

    /// Makes a clone of a template: a sandbox of its own, armed ([`Sandbox::release`]).
    ///
    /// `ahead`: it will wait for a request; then it touches, while it is made, the memory that requests touch ([`Keeper::learn`]).
    ///
    /// # Errors
    /// `NoSandbox` when the template is gone; else the step that failed. Nothing is left of the clone then.
    pub fn clone_of(&self, template: &str, id: &str, limits: &Limits, network: &Network, ahead: bool) -> Result<Sandbox, Error> {
        let request = Request::Clone { template: template.to_owned(), id: id.to_owned(), limits: limits.clone(), network: network.clone(), ahead };
        let (Reply::Started(ends), descriptors) = self.call(request)? else {
            return Err(unexpected());
        };
        sandbox_from(id.to_owned(), &ends, descriptors.into_iter()).ok_or_else(unexpected)
    }

    /// Looks at what memory a clone has touched, when it has answered a request: clones that are made ahead begin with it.
    pub fn learn(&self, id: &str) -> Result<(), Error> {
        self.call(Request::Learn { id: id.to_owned() }).map(drop)
    }

    /// How many connections to `port` the command has not accepted; 0 when nothing listens there.
    pub fn unaccepted(&self, id: &str, port: u16) -> Result<u32, Error> {
        match self.call(Request::Unaccepted { id: id.to_owned(), port })?.0 {
            Reply::Unaccepted(count) => Ok(count),
            _ => Err(unexpected()),
        }
    }

    /// Sends a signal to the command (not to init).
    pub fn signal(&self, id: &str, signal: i32) -> Result<(), Error> {
        self.call(Request::Signal { id: id.to_owned(), signal }).map(drop)
    }

    /// Freezes or thaws everything in it; returns when it is so.
    ///
    /// # Errors
    /// Where the host gives no freezer ([`Walls::freezer`]).
    pub fn freeze(&self, id: &str, frozen: bool) -> Result<(), Error> {
        self.call(Request::Freeze { id: id.to_owned(), frozen }).map(drop)
    }

    /// Changes its share of the CPU; 1000 is one.
    pub fn cpu_limit(&self, id: &str, cpu_millis: u32) -> Result<(), Error> {
        self.call(Request::CpuLimit { id: id.to_owned(), cpu_millis }).map(drop)
    }

    /// What it uses now.
    pub fn usage(&self, id: &str) -> Result<Usage, Error> {
        match self.call(Request::Usage { id: id.to_owned() })?.0 {
            Reply::Usage(usage) => Ok(usage),
            _ => Err(unexpected()),
        }
    }

    /// Ends it at once and undoes everything: processes, cgroup, mounts. Done twice is done once.
    pub fn end(&self, id: &str) -> Result<(), Error> {
        self.call(Request::End { id: id.to_owned() }).map(drop)
    }

    /// Removes a tree under `writable_under` whatever uid owns what is in it; never follows links. Gone already is fine.
    pub fn discard(&self, path: &Path) -> Result<(), Error> {
        self.call(Request::Discard { path: path.to_owned() }).map(drop)
    }

    /// Readable (poll) when the keeper is gone.
    pub fn gone(&self) -> Result<OwnedFd, Error> {
        self.process.try_clone().map_err(|error| Error::step("duplicate the keeper's pidfd", error))
    }

    /// Which walls this host gives, measured by making them; once.
    pub fn walls(&self) -> Result<Walls, Error> {
        let mut known = self.walls.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            *known = Some(walls::measure(self)?);
        }
        Ok(known.clone().expect("it was measured"))
    }

    fn call(&self, request: Request) -> Result<(Reply, Vec<OwnedFd>), Error> {
        self.call_with(request, &[])
    }

    fn call_with(&self, request: Request, files: &[Vec<u8>]) -> Result<(Reply, Vec<OwnedFd>), Error> {
        let (own, keepers) = descriptor::message_pair().map_err(|error| Error::step("make a socket pair for a call", error))?;
        message::request_send(&self.requests, keepers.as_fd(), request, files)?;
        // The keeper's must be the only one, so that its end is this socket's end.
        drop(keepers);
        match message::reply_receive(&own) {
            Err(Error::Gone) if !descriptor::readable(&self.process, Some(Duration::ZERO)).unwrap_or(true) => {
                Err(Error::Refused("it did not take the request; it may be out of descriptors".to_owned()))
            }
            other => other,
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // The keeper sees its other end close and undoes everything.
        let _ = rustix::net::shutdown(&self.requests, rustix::net::Shutdown::Both);
        match descriptor::readable(&self.process, Some(UNDO_LIMIT)) {
            Ok(true) => {
                // Not ours to reap in a fork of the daemon.
                let _ = process::reap(&self.process);
            }
            _ => tracing::error!("the keeper does not end"),
        }
    }
}

fn sandbox_from(id: String, ends: &Ends, mut descriptors: impl Iterator<Item = OwnedFd>) -> Option<Sandbox> {
    let (stdout, stderr, ended) = (descriptors.next()?, descriptors.next()?, descriptors.next()?);
    let mut next = |there: bool| {
        if there { descriptors.next().map(Some) } else { Some(None) }
    };
    Some(Sandbox {
        id,
        stdout,
        stderr,
        ended,
        outbound: next(ends.outbound)?,
        dns_udp: next(ends.dns_udp)?,
        dns_tcp: next(ends.dns_tcp)?,
        metadata: next(ends.metadata)?,
        release: next(ends.release)?,
        changing: descriptors.take(ends.changing).collect(),
    })
}

fn unexpected() -> Error {
    Error::step("read the keeper's reply", io::Error::from(io::ErrorKind::InvalidData))
}
