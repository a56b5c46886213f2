//! The keeper's own process: takes the daemon's requests and sees to every sandbox until it is undone.
//!
//! One thread and one epoll; nothing in here waits for a sandbox, a tree or a cgroup. What may wait is forked off (`starter`,
//! `tree`) or asked again by a timer. Ends when the daemon is gone or has closed its socket, after undoing everything.

mod engine;
mod held;
mod setup;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::signalfd::SignalFd;
use rustix::{
    event::{Timespec, epoll},
    net::UCred,
    process::{Pid, Signal, getppid, pidfd_send_signal},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

pub(crate) use setup::Setup;

use self::held::Held;
use crate::{
    cgroup::Groups,
    descriptor,
    error::{Failure, Step},
    folder::Folder,
    message::{self, HostWalls, Incoming, Reply, Request},
    network,
    process::{self, Child},
    root,
    seccomp::Filter,
    slot::Slots,
    spec::cpu_check,
    template::{self, CloneRequest},
    tree,
};

/// Set-up may wait for a disk; longer than this it hangs.
const START_LIMIT: Duration = Duration::from_secs(30);
/// A connection inside one namespace is there at once unless the listener's queue is full.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const FREEZE_LIMIT: Duration = Duration::from_secs(2);
/// The kernel clears a group's last process away a little after it ended.
const REMOVE_LIMIT: Duration = Duration::from_secs(5);
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Reading trees is work for a disk; more at once only makes each slower.
const HELPERS_MAX: usize = 64;

/// The keeper's whole life; what it returns is its exit code.
///
/// `ready`: where one reply says that it serves, or why not.
pub(crate) fn run(setup: Setup, ready: OwnedFd) -> i32 {
    match setup::prepare(setup, &ready) {
        Ok(mut service) => {
            message::answer(&ready, &Reply::Done);
            drop(ready);
            match service.serve() {
                Ok(()) => 0,
                Err(failure) => {
                    tracing::error!(failure = failure.line(), "the keeper fails");
                    service.groups.remove();
                    1
                }
            }
        }
        Err(failure) => {
            message::answer(&ready, &Reply::Failed(failure));
            1
        }
    }
}

/// Everything the keeper has.
pub(crate) struct Service {
    epoll: OwnedFd,
    sources: HashMap<u64, Source>,
    timers: BTreeMap<(Instant, u64), Timer>,
    /// The last token given to a source, timer or sandbox; none is given twice.
    token: u64,
    requests: OwnedFd,
    daemon: Daemon,
    signals: SignalFd,
    /// The keeper's own network namespace, to come back to.
    namespace: OwnedFd,
    folder: Folder,
    writable_under: Vec<PathBuf>,
    filter: Filter,
    groups: Groups,
    slots: Slots,
    root: bool,
    held: HashMap<u64, Held>,
    by_id: HashMap<String, u64>,
    helpers: HashMap<u64, Helper>,
    connections: HashMap<u64, Connection>,
    stopping: Option<Instant>,
}

/// The one peer.
struct Daemon {
    pid: Pid,
    pidfd: OwnedFd,
    /// The uid it had when it forked the keeper and the one that it was going to take.
    uids: [u32; 2],
    gid: u32,
}

/// What became readable.
#[derive(Clone, Copy)]
enum Source {
    Requests,
    Daemon,
    Signals,
    /// From starter and init of this sandbox.
    Report(u64),
    Starter(u64),
    Init(u64),
    /// An engine's first word, or its end.
    Engine(u64),
    /// Over its memory.
    Memory(u64),
    /// By its own token.
    Helper,
    /// By its own token: writable.
    Connection,
}

enum Timer {
    StartLimit(u64),
    Remove { number: u64, deadline: Instant },
    Frozen(Freezing),
    ConnectLimit(u64),
    Memory(u64),
    EngineLimit(u64),
    EngineEnd(u64),
}

/// A freeze or thaw that is asked for and not yet so.
struct Freezing {
    number: u64,
    id: String,
    frozen: bool,
    reply: OwnedFd,
    deadline: Instant,
    tries: u32,
}

/// A fork of the keeper that works on a tree.
struct Helper {
    child: Child,
    /// What failed, if anything, as JSON.
    said: OwnedFd,
    purpose: Purpose,
}

enum Purpose {
    Discard { reply: OwnedFd },
    HandBack { number: u64 },
}

struct Connection {
    socket: OwnedFd,
    reply: OwnedFd,
}

impl Service {
    /// Serves until there is nothing left to undo.
    fn serve(&mut self) -> Result<(), Failure> {
        let mut events = Vec::with_capacity(64);
        while !self.is_done() {
            let wait = self.next_wait();
            events.clear();
            rustix::io::retry_on_intr(|| epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), wait.as_ref())).step(|| "wait for events")?;
            for event in &events {
                let token = event.data.u64();
                if let Some(source) = self.sources.get(&token).copied() {
                    self.happened(source, token);
                }
            }
            self.timers_run();
        }
        self.groups.remove();
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.stopping.is_some_and(|deadline| (self.held.is_empty() && self.helpers.is_empty()) || Instant::now() > deadline)
    }

    fn next_wait(&self) -> Option<Timespec> {
        let timer = self.timers.first_key_value().map(|((at, _), _)| *at);
        let next = [timer, self.stopping].into_iter().flatten().min()?;
        let wait = next.saturating_duration_since(Instant::now());
        Some(Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos().into() })
    }

    fn happened(&mut self, source: Source, token: u64) {
        match source {
            Source::Requests => self.requests_take(),
            Source::Daemon => self.stop(),
            Source::Signals => {
                // PDEATHSIG: the thread that forked the keeper is gone, with it the daemon, or so it was meant.
                let _ = self.signals.read_signal();
                if getppid() != Some(self.daemon.pid) {
                    self.stop();
                }
            }
            Source::Report(number) => self.reports_take(number),
            Source::Starter(number) | Source::Init(number) => self.child_ended(number),
            Source::Engine(number) => self.engine_spoke(number),
            Source::Memory(number) => self.memory_alarmed(number, token),
            Source::Helper => self.helper_ended(token),
            Source::Connection => self.connection_settle(token, None),
        }
    }

    /// Ends everything; what is started afterwards is not.
    fn stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Instant::now() + STOP_LIMIT);
        for (token, descriptor) in [(Source::Requests, self.requests.as_fd()), (Source::Daemon, self.daemon.pidfd.as_fd())] {
            let _ = epoll::delete(&self.epoll, descriptor);
            self.sources.retain(|_, source| std::mem::discriminant(source) != std::mem::discriminant(&token));
        }
        let numbers: Vec<u64> = self.held.keys().copied().collect();
        for number in numbers {
            self.kill(number);
        }
    }

    fn token(&mut self) -> u64 {
        self.token += 1;
        self.token
    }

    fn timer(&mut self, after: Duration, timer: Timer) {
        let token = self.token();
        self.timers.insert((Instant::now() + after, token), timer);
    }

    fn timers_run(&mut self) {
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= Instant::now()
        {
            match entry.remove() {
                Timer::StartLimit(number) => self.start_overdue(number),
                Timer::Remove { number, deadline } => self.remove(number, deadline),
                Timer::Frozen(freezing) => self.frozen_settle(freezing),
                Timer::Memory(number) => self.memory_settle(number),
                Timer::EngineLimit(number) => self.engine_overdue(number),
                Timer::EngineEnd(number) => self.engine_kill(number),
                Timer::ConnectLimit(token) => self.connection_settle(token, Some(rustix::io::Errno::TIMEDOUT.into())),
            }
        }
    }

    fn watch(&mut self, descriptor: impl AsFd, source: Source, flags: epoll::EventFlags) -> io::Result<u64> {
        let token = self.token();
        epoll::add(&self.epoll, descriptor, epoll::EventData::new_u64(token), flags)?;
        self.sources.insert(token, source);
        Ok(token)
    }

    fn unwatch(&mut self, token: u64, descriptor: impl AsFd) {
        // A fork may still hold the same open file, so closing it here would not be enough.
        let _ = epoll::delete(&self.epoll, descriptor);
        self.sources.remove(&token);
    }

    fn requests_take(&mut self) {
        // Some at a time, so that sandboxes that end are seen to in between.
        for _ in 0..32 {
            match descriptor::receive(&self.requests, message::REQUEST_MAX, false) {
                Ok(None) => return self.stop(),
                Ok(Some(received)) => {
                    if !received.sender.as_ref().is_some_and(|sender| self.is_daemon(sender)) {
                        tracing::error!("a request of another process than the daemon is dropped");
                        continue;
                    }
                    match message::request_read(received) {
                        Ok(incoming) => self.request_serve(incoming),
                        Err(why) => tracing::error!(why, "a request cannot be read"),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return tracing::error!(%error, "a request cannot be received"),
            }
        }
    }

    fn is_daemon(&self, sender: &UCred) -> bool {
        sender.pid == self.daemon.pid && self.daemon.uids.contains(&sender.uid.as_raw())
    }

    fn request_serve(&mut self, incoming: Incoming) {
        let Incoming { request, reply } = incoming;
        let answer = match request {
            Request::Start { spec, look, .. } => return self.start(*spec, look, reply),
            Request::Connect { id, port } => return self.connect(&id, port, reply),
            Request::Freeze { id, frozen } => return self.freeze(&id, frozen, reply),
            Request::End { id } => return self.end(&id, reply),
            Request::Template { id } => return self.template_make(&id, reply),
            Request::Clone { template, id, limits, network, ahead } => {
                let request = CloneRequest { number: self.token(), id, limits, network, ahead };
                return self.clone_make(&template, request, reply);
            }
            Request::Learn { id } => self.learn(&id),
            Request::Said { id } => match self.running(&id) {
                Ok(Held { said: Some(said), .. }) => match template::said_so_far(said) {
                    Ok(lines) => Reply::Said(lines),
                    Err(error) => Reply::failed(format!("read what the launcher of {id} said"), error),
                },
                Ok(_) => Reply::NoSandbox(id),
                Err(reply) => reply,
            },
            Request::Discard { path } => return self.discard(&path, reply),
            Request::Signal { id, signal } => self.signal(&id, signal),
            Request::CpuLimit { id, cpu_millis } => self.cpu_limit(&id, cpu_millis),
            Request::Unaccepted { id, port } => self.unaccepted(&id, port),
            Request::Usage { id } => match self.running(&id) {
                Ok(held) => held.group.usage().map_or_else(Reply::Failed, Reply::Usage),
                Err(reply) => reply,
            },
        };
        message::answer(&reply, &answer);
    }

    fn running(&self, id: &str) -> Result<&Held, Reply> {
        let held = self.by_id.get(id).and_then(|number| self.held.get(number));
        held.filter(|held| held.is_running()).ok_or_else(|| Reply::NoSandbox(id.to_owned()))
    }

    fn signal(&self, id: &str, signal: i32) -> Reply {
        let Some(named) = Signal::from_named_raw(signal) else {
            return Reply::Refused(format!("signal {signal}: 1 to 31"));
        };
        match self.running(id) {
            Ok(held @ Held { command: Some(command), .. }) => match pidfd_send_signal(command, held.effective(named)) {
                // It ended, and that is about to be told.
                Ok(()) | Err(rustix::io::Errno::SRCH) => Reply::Done,
                Err(error) => Reply::failed(format!("send signal {signal} to the command of {id}"), error),
            },
            Ok(_) => Reply::NoSandbox(id.to_owned()),
            Err(reply) => reply,
        }
    }

    fn cpu_limit(&self, id: &str, cpu_millis: u32) -> Reply {
        match (cpu_check(cpu_millis), self.running(id)) {
            (Err(refused), _) => Reply::Refused(refused),
            (Ok(()), Ok(held)) => held.group.cpu_limit(cpu_millis).map_or_else(Reply::Failed, |()| Reply::Done),
            (Ok(()), Err(reply)) => reply,
        }
    }

    fn unaccepted(&self, id: &str, port: u16) -> Reply {
        match self.running(id) {
            Ok(Held { namespace: Some(namespace), .. }) => match self.within(namespace, || network::unaccepted(port)) {
                Ok(count) => Reply::Unaccepted(count),
                Err(error) => Reply::failed(format!("count the connections that wait at port {port} of {id}"), error),
            },
            Ok(_) => Reply::NoSandbox(id.to_owned()),
            Err(refusal) => refusal,
        }
    }

    fn connect(&mut self, id: &str, port: u16, reply: OwnedFd) {
        let made = match self.running(id) {
            Ok(Held { namespace: Some(namespace), .. }) => self.within(namespace, || network::connection(port)),
            Ok(_) => return message::answer(&reply, &Reply::NoSandbox(id.to_owned())),
            Err(refusal) => return message::answer(&reply, &refusal),
        };
        let step = || format!("connect to port {port} of {id}");
        let socket = match made {
            Ok(socket) => socket,
            Err(error) => return message::answer(&reply, &Reply::failed(step(), error)),
        };
        // On a loopback the handshake is over when connect returns.
        if let Some(state) = network::connection_state(&socket) {
            return connected_reply(&reply, &socket, state, step());
        }
        match self.watch(&socket, Source::Connection, epoll::EventFlags::OUT | epoll::EventFlags::ONESHOT) {
            Ok(token) => {
                self.connections.insert(token, Connection { socket, reply });
                self.timer(CONNECT_LIMIT, Timer::ConnectLimit(token));
            }
            Err(error) => message::answer(&reply, &Reply::failed(step(), error)),
        }
    }

    fn connection_settle(&mut self, token: u64, overdue: Option<io::Error>) {
        let Some(Connection { socket, reply }) = self.connections.remove(&token) else {
            return;
        };
        self.unwatch(token, &socket);
        let state = match overdue {
            Some(error) => Err(error),
            None => network::connection_state(&socket).unwrap_or(Ok(())),
        };
        connected_reply(&reply, &socket, state, "connect into a sandbox".to_owned());
    }

    /// Does something in a sandbox's network namespace.
    fn within<T>(&self, namespace: &OwnedFd, body: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        let done = body();
        // A keeper that cannot come back would open the next sandbox's sockets in this one's network. It ends, and all with it.
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("a keeper returns to its own network");
        done
    }

    fn freeze(&mut self, id: &str, frozen: bool, reply: OwnedFd) {
        let number = match self.running(id) {
            Ok(held) => held.number,
            Err(refusal) => return message::answer(&reply, &refusal),
        };
        if !self.groups.given().freezer {
            let failure = Failure::new(format!("freeze {id}"), rustix::io::Errno::OPNOTSUPP).hint("this host gives tanebi no cgroup freezer: run as root");
            return message::answer(&reply, &Reply::Failed(failure));
        }
        if let Some(held) = self.held.get_mut(&number) {
            held.frozen = frozen;
            if let Err(failure) = held.group.freeze(frozen) {
                return message::answer(&reply, &Reply::Failed(failure));
            }
        }
        let deadline = Instant::now() + FREEZE_LIMIT;
        self.frozen_settle(Freezing { number, id: id.to_owned(), frozen, reply, deadline, tries: 0 });
    }

    fn frozen_settle(&mut self, mut freezing: Freezing) {
        let Freezing { number, frozen, .. } = freezing;
        let held = self.held.get(&number).filter(|held| held.is_running());
        let answer = match held {
            None => Reply::NoSandbox(freezing.id),
            Some(held) if held.frozen != frozen => Reply::Refused(format!("{} was asked for the opposite meanwhile", held.id)),
            Some(held) => match held.group.is_frozen() {
                Ok(is) if is == frozen => Reply::Done,
                Ok(_) if Instant::now() < freezing.deadline => {
                    freezing.tries += 1;
                    // Version 1 can miss a process that is just being made; asked again it looks again, and some it only gets
                    // after a moment of running.
                    let let_run = frozen && freezing.tries.is_multiple_of(16);
                    let _ = held.group.freeze(frozen && !let_run);
                    return self.timer(Duration::from_millis(1), Timer::Frozen(freezing));
                }
                Ok(_) => {
                    // Half frozen is the one state that nobody asked for.
                    let _ = held.group.freeze(false);
                    Reply::failed(format!("freeze {}", held.id), rustix::io::Errno::TIMEDOUT)
                }
                Err(failure) => Reply::Failed(failure),
            },
        };
        message::answer(&freezing.reply, &answer);
    }

    fn discard(&mut self, path: &Path, reply: OwnedFd) {
        let refuse = |failure: Failure| message::answer(&reply, &Reply::Failed(failure));
        let allowed = self.writable_under.iter().any(|top| path.strip_prefix(top).is_ok_and(|inner| inner.components().next().is_some()));
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return refuse(Failure::new(format!("discard {}", path.display()), rustix::io::Errno::INVAL));
        };
        if !allowed {
            let failure = Failure::new(format!("discard {}", path.display()), rustix::io::Errno::PERM);
            return refuse(failure.hint("it must lie under one of the keeper's writable folders"));
        }
        if self.helpers.len() >= HELPERS_MAX {
            return message::answer(&reply, &Reply::Refused(format!("{HELPERS_MAX} trees are being worked on")));
        }
        let under = self.writable_under.clone();
        let started = self.helper_start(Purpose::Discard { reply }, || {
            let discarded = || {
                let Some(parent) = root::staging_open(&under, parent)? else {
                    return Ok(());
                };
                let name = std::ffi::CString::new(name.as_encoded_bytes()).step(|| "use a name with a NUL")?;
                tree::discard(&parent, &name)
            };
            discarded().map_err(|failure| Failure { step: format!("discard {}: {}", path.display(), failure.step), ..failure })
        });
        if let Err((Purpose::Discard { reply }, failure)) = started {
            message::answer(&reply, &Reply::Failed(failure));
        }
    }

    fn helper_start(&mut self, purpose: Purpose, work: impl FnOnce() -> Result<(), Failure>) -> Result<(), (Purpose, Failure)> {
        let fork = || -> Result<_, Failure> {
            let (said, own) = descriptor::message_pair().step(|| "make a socket pair")?;
            let child = process::fork(|| {
                let done = descriptor::close_all_but(&[own.as_fd()]).step(|| "close the keeper's descriptors").and_then(|()| work());
                let Err(failure) = done else { return 0 };
                let _ = descriptor::send(&own, &serde_json::to_vec(&failure).expect("a failure holds only text and numbers"), &[], true);
                1
            })
            .step(|| "fork a helper")?;
            Ok((child, said))
        };
        let (child, said) = match fork() {
            Ok(made) => made,
            Err(failure) => return Err((purpose, failure)),
        };
        match self.watch(&child.pidfd, Source::Helper, epoll::EventFlags::IN) {
            Ok(token) => {
                self.helpers.insert(token, Helper { child, said, purpose });
                Ok(())
            }
            Err(error) => {
                process::kill(&child.pidfd);
                Err((purpose, Failure::new("watch a helper", error)))
            }
        }
    }

    fn helper_ended(&mut self, token: u64) {
        let Some(helper) = self.helpers.get(&token) else {
            return;
        };
        let clean = match process::reap(&helper.child.pidfd) {
            Ok(None) => return,
            Ok(Some(status)) => status.exit_status() == Some(0),
            Err(_) => false,
        };
        let Some(Helper { child, said, purpose }) = self.helpers.remove(&token) else {
            return;
        };
        self.unwatch(token, &child.pidfd);
        let told = descriptor::receive(&said, 16 << 10, false).ok().flatten().and_then(|told| serde_json::from_slice(&told.bytes).ok());
        let failure = (!clean).then(|| told.unwrap_or_else(|| Failure::new("work on a tree", rustix::io::Errno::IO)));
        match purpose {
            Purpose::Discard { reply } => message::answer(&reply, &failure.map_or(Reply::Done, Reply::Failed)),
            Purpose::HandBack { number } => self.handed_back(number, failure),
        }
    }

    /// What of the walls the keeper knows.
    fn host_walls(&self) -> HostWalls {
        let given = self.groups.given();
        HostWalls {
            root: self.root,
            cgroup_version: given.version,
            memory_limit: given.memory,
            cpu_limit: given.cpu,
            pids_limit: given.pids,
            freezer: given.freezer,
            own_uid: self.slots.are_own(),
            missing: self.groups.missing.clone(),
        }
    }
}

fn connected_reply(reply: &OwnedFd, socket: &OwnedFd, state: io::Result<()>, step: String) {
    match state {
        Ok(()) => message::reply_send(reply, &Reply::Connected, &[socket.as_fd()]),
        Err(error) => message::reply_send(reply, &Reply::failed(step, error), &[]),
    };
}
