//! Live fork: a process that has loaded everything is stopped for good, and every instance is a clone of it.
//!
//! The *engine* is a fork of the keeper for one template, with one thread, because the kernel ties tracing to a thread. It stops the
//! template (`frozen`), reads what a clone must have anew (`state`) and refuses what it could not have, writes what is to be done for each
//! clone into the template's memory (`script`, done by `routine`), and then makes clones on request (`clone`). A clone is a child of the
//! template's init: it outlives engine and template. While it is *armed* it is stopped right before it goes on and dies with the engine;
//! let go, it is an instance like any other.
//!
//! After the template is read the engine enters its user namespace and has no privilege outside of it any more.
//! User code never runs while the system call filter is off: the template's threads never run again, and a clone's only run the routine
//! until every capability is gone and the tracer, with which the filter comes back, has let go.

mod audit;
mod clone;
mod diagnosis;
mod frozen;
mod landlock_rules;
mod refusal;
#[cfg(target_arch = "x86_64")]
mod routine;
mod script;
mod state;
mod touched;
mod trace;

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use serde::{Deserialize, Serialize};

pub(crate) use state::{SAID, WAKE, said_so_far};

use self::{
    clone::{Armed, Wanted},
    frozen::Frozen,
    refusal::{Read, Refusal, refuse},
    script::{Plan, Script, Wishes},
    state::State,
    touched::Touched,
};
use crate::{
    cgroup::Groups,
    descriptor,
    error::Failure,
    network::Listeners,
    spec::{Limits, Network},
    starter::Report,
};

/// What an engine is given; it has the keeper's memory.
pub(crate) struct Order<'a> {
    /// The process that becomes the template.
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub groups: &'a Groups,
    /// To the keeper.
    pub requests: OwnedFd,
}

/// What the keeper asks of an engine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum EngineRequest {
    /// With the socket for the clone's reports.
    Clone(CloneRequest),
    /// The clone of that pid has answered a request: those that are made ahead shall have touched what it has.
    Learn { pid: i32 },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CloneRequest {
    /// Of its control group.
    pub number: u64,
    pub id: String,
    pub limits: Limits,
    pub network: Network,
    /// It will wait: there is time to touch memory.
    pub ahead: bool,
}

/// The engine's first word.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Frozen,
    Refused(String),
}

pub(crate) const REQUEST_MAX: usize = 16 << 10;

/// The engine's whole life; what it returns is its exit code.
pub(crate) fn run(order: &Order<'_>) -> i32 {
    if descriptor::close_all_but(&[order.requests.as_fd(), order.pidfd.as_fd()]).is_err() {
        return 1;
    }
    let _ = rustix::thread::set_name(c"tanebi-template");
    let Ok(children) = children_watch() else { return 1 };
    let tell = |outcome: &Outcome| {
        let bytes = serde_json::to_vec(outcome).expect("an outcome holds only text");
        descriptor::send(&order.requests, &bytes, &[], true).is_ok()
    };
    match Template::of(order.pid) {
        Ok(template) => {
            if !tell(&Outcome::Frozen) {
                return 1;
            }
            Engine { order, template, children, armed: HashMap::new(), next: 0, made: 0 }.serve();
            0
        }
        Err(refusal) => {
            tell(&Outcome::Refused(refusal.to_string()));
            1
        }
    }
}

/// A stopped process and how to clone it.
struct Template {
    frozen: Frozen,
    state: State,
    script: Script,
    base: u64,
    acknowledges: bool,
    /// Where its region ends.
    end: u64,
    has_learnt: bool,
}

impl Template {
    fn of(pid: i32) -> Result<Self, Refusal> {
        let mut frozen = Frozen::stop(pid)?;
        let mut state = State::read(&frozen)?;
        let wishes = Wishes::parse(&state.said)?;
        let size = script::region_bytes(&frozen, &state)?;
        let base = region_make(&mut frozen, size)?;
        addresses_check(&frozen, &wishes, base..base + size)?;
        timers_read(&frozen, &mut state, base)?;
        memory_fork(&frozen, &state)?;
        let script = script::write(&Plan { frozen: &frozen, state: &state, wishes: &wishes, writable: &[] }, base);
        if script.bytes.len() as u64 > size - script::CODE_BYTES {
            return refuse("it has too much state");
        }
        frozen.write(base, routine::code())?;
        frozen.write(base + script::CODE_BYTES, &script.bytes)?;
        namespace_enter(pid)?;
        Ok(Self { frozen, state, script, base, acknowledges: wishes.acknowledges, end: base + size, has_learnt: false })
    }
}

impl Template {
    /// A signal that came to a clone while it was armed ends what its main thread waits in, as it would have.
    fn interrupt(&self, pid: i32) -> std::io::Result<()> {
        use std::os::unix::fs::FileExt;
        if !trace::signal_waits(pid, self.frozen.threads[0].mask)? {
            return Ok(());
        }
        let memory = std::fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/mem"))?;
        self.script.interrupted.iter().try_for_each(|(at, value)| memory.write_all_at(&value.to_ne_bytes(), *at))
    }

    /// What cannot be learnt is no loss but time.
    fn learn(&mut self, pid: i32) {
        let Ok(touched) = Touched::read(pid, (self.base, self.end)) else { return };
        let operations = touched.operations(script::SPARE_OPERATIONS, self.script.after_turn());
        let bytes: Vec<u8> = operations.iter().flat_map(routine::Operation::bytes).collect();
        self.has_learnt = self.frozen.write(self.script.spare, &bytes).is_ok();
    }
}

/// Maps the region: a page that can be executed and not written, then data.
fn region_make(frozen: &mut Frozen, size: u64) -> Result<u64, Refusal> {
    let (read_write, flags) = ((libc::PROT_READ | libc::PROT_WRITE) as u64, (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64);
    let flags = flags | libc::MAP_FIXED_NOREPLACE as u64;
    let mut tries = PLACES;
    // Where nobody could know beforehand: a process may have had addresses of its choice written to by then.
    let base = loop {
        let wanted = random_place()?;
        match frozen.call(libc::SYS_mmap, &[wanted, size, read_write, flags, u64::MAX, 0])? {
            base if base == wanted as i64 => break wanted,
            _ if tries > 0 => tries -= 1,
            _ => return refuse("it has no room in its memory for the engine's"),
        }
    };
    if frozen.call(libc::SYS_mprotect, &[base, script::CODE_BYTES, (libc::PROT_READ | libc::PROT_EXEC) as u64])? != 0 {
        return refuse("the engine's code cannot be mapped in it");
    }
    frozen.scratch_set(base + script::CODE_BYTES)?;
    Ok(base)
}

const PLACES: u32 = 16;

/// A page between where programs are loaded and where libraries and stacks are.
fn random_place() -> Result<u64, Refusal> {
    const FROM: u64 = 0x2000_0000_0000;
    const TO: u64 = 0x5000_0000_0000;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes)).read("random bytes for the engine")?;
    Ok(FROM + u64::from_ne_bytes(bytes) % (TO - FROM) / 4096 * 4096)
}

/// What the kernel or the routine will write to, at addresses of the process's own choice, must not be what the routine is told to do. The
/// region was mapped after all of them were set, so no honest one can lie there.
fn addresses_check(frozen: &Frozen, wishes: &Wishes, region: std::ops::Range<u64>) -> Result<(), Refusal> {
    let threads = frozen
        .threads
        .iter()
        .flat_map(|thread| [(thread.clear_tid, 4), (thread.sequence.address, u64::from(thread.sequence.size)), (thread.robust.0, thread.robust.1)]);
    let mut all = threads.chain(wishes.flags.iter().map(|flag| (*flag, 4)));
    if all.any(|(from, bytes)| from < region.end && from.saturating_add(bytes) > region.start) {
        return refuse("it has given the kernel an address that is not its own");
    }
    Ok(())
}

fn timers_read(frozen: &Frozen, state: &mut State, base: u64) -> Result<(), Refusal> {
    let scratch = base + script::CODE_BYTES;
    for which in [libc::ITIMER_REAL, libc::ITIMER_VIRTUAL, libc::ITIMER_PROF] {
        if frozen.call(libc::SYS_getitimer, &[which as u64, scratch])? != 0 {
            return refuse("its interval timers cannot be read");
        }
        let mut value = [0; 32];
        frozen.read(scratch, &mut value)?;
        // struct itimerval: interval, then value; a value of 0 is no timer.
        if value[16..].iter().any(|byte| *byte != 0) {
            state.timers.push((which as u64, value));
            // The template's own would go on counting.
            frozen.write(scratch, &[0; 32])?;
            if frozen.call(libc::SYS_setitimer, &[which as u64, scratch, 0])? != 0 {
                return refuse("its interval timers cannot be stopped");
            }
        }
    }
    Ok(())
}

/// A runtime that forks no children of its own may say that its memory is not to be copied (V8 does); a clone needs it.
fn memory_fork(frozen: &Frozen, state: &State) -> Result<(), Refusal> {
    for (from, bytes) in &state.not_forked {
        if frozen.call(libc::SYS_madvise, &[*from, *bytes, libc::MADV_DOFORK as u64])? != 0 {
            return refuse("memory of it cannot be copied");
        }
    }
    Ok(())
}

/// From here on the engine has privileges in the template's user namespace, and in those of its clones, only.
fn namespace_enter(pid: i32) -> Result<(), Refusal> {
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/user")).read("the user namespace")?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User)).map_err(std::io::Error::from).read("the user namespace, by entering it")
}

/// A template in use.
struct Engine<'a> {
    order: &'a Order<'a>,
    template: Template,
    /// Readable when something that is traced has stopped or ended.
    children: SignalFd,
    armed: HashMap<u64, Waiting>,
    next: u64,
    /// Clones so far, and such that failed.
    made: u64,
}

/// A clone that is not yet wholly let go.
struct Waiting {
    pid: i32,
    pidfd: OwnedFd,
    /// The daemon's word that it may go on, and where the daemon is told that it is awake.
    release: OwnedFd,
    said: Option<OwnedFd>,
    released: bool,
}

enum Event {
    Request,
    TemplateEnded,
    Children,
    Released(u64),
    Said(u64),
    Ended(u64),
}

impl Engine<'_> {
    /// Until the keeper has closed its end or the template is gone.
    fn serve(&mut self) {
        self.work();
        // Whoever was told to go on by now is no clone that waits any more, and lives on.
        let told = |waiting: &Waiting| !waiting.released && descriptor::readable(&waiting.release, Some(Duration::ZERO)).unwrap_or(false);
        let told: Vec<u64> = self.armed.iter().filter(|(_, waiting)| told(waiting)).map(|(number, _)| *number).collect();
        told.into_iter().for_each(|number| self.release(number));
    }

    fn work(&mut self) {
        loop {
            for event in self.events() {
                match event {
                    Event::Request => match descriptor::receive(&self.order.requests, REQUEST_MAX, false) {
                        Ok(Some(received)) => {
                            let mut descriptors = received.descriptors.into_iter();
                            match (serde_json::from_slice(&received.bytes), descriptors.next()) {
                                (Ok(EngineRequest::Clone(request)), Some(report)) => {
                                    if !self.clone_make(&request, &report) {
                                        return;
                                    }
                                }
                                (Ok(EngineRequest::Learn { pid }), _) => self.template.learn(pid),
                                _ => return,
                            }
                        }
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        _ => return,
                    },
                    Event::TemplateEnded => return,
                    Event::Children => {
                        while let Ok(Some(_)) = self.children.read_signal() {}
                        if !self.children_reap() {
                            return;
                        }
                    }
                    Event::Released(number) => self.release(number),
                    Event::Said(number) => self.awake(number),
                    // Its pid may be another's by now.
                    Event::Ended(number) => {
                        self.armed.remove(&number);
                    }
                }
            }
        }
    }

    /// What has happened; waits until something has.
    fn events(&self) -> Vec<Event> {
        let mut polled =
            vec![PollFd::new(&self.order.requests, PollFlags::IN), PollFd::new(&self.order.pidfd, PollFlags::IN), PollFd::new(&self.children, PollFlags::IN)];
        let mut meant = vec![Some(Event::Request), Some(Event::TemplateEnded), Some(Event::Children)];
        for (number, waiting) in &self.armed {
            if !waiting.released {
                polled.push(PollFd::new(&waiting.release, PollFlags::IN));
                meant.push(Some(Event::Released(*number)));
            }
            if let (true, Some(said)) = (waiting.released, &waiting.said) {
                polled.push(PollFd::new(said, PollFlags::IN));
                meant.push(Some(Event::Said(*number)));
            }
            polled.push(PollFd::new(&waiting.pidfd, PollFlags::IN));
            meant.push(Some(Event::Ended(*number)));
        }
        if poll(&mut polled, None).is_err() {
            return Vec::new();
        }
        // Whoever waits for a clone to go on comes before who wants a new one.
        let mut happened: Vec<Event> =
            polled.iter().zip(&mut meant).filter(|(polled, _)| !polled.revents().is_empty()).filter_map(|(_, event)| event.take()).collect();
        happened.sort_by_key(|event| matches!(event, Event::Request));
        happened
    }

    /// Takes note of what has ended. False: one of the template's threads has. A process is seen to end only when its tracer has taken note of
    /// all its threads.
    fn children_reap(&mut self) -> bool {
        while let Ok(Some((pid, status))) = trace::wait(-1, false) {
            if status != trace::Status::Gone {
                continue;
            }
            if self.template.frozen.threads.iter().any(|thread| thread.tid == pid) {
                return false;
            }
            self.armed.retain(|_, waiting| waiting.pid != pid || waiting.released);
        }
        true
    }

    /// Makes one clone and tells the keeper. False: the template is unusable.
    fn clone_make(&mut self, request: &CloneRequest, report: &OwnedFd) -> bool {
        let group = self.order.groups.group(&request.number.to_string());
        let Template { frozen, state, script, base, acknowledges, has_learnt, end } = &self.template;
        let turn_to = if request.ahead && *has_learnt { script.spare } else { script.after_turn() };
        let wanted = Wanted { id: &request.id, limits: &request.limits, network: &request.network, group: &group, turn_to };
        let made = group.make(&request.limits).map_err(|failure| (failure, false)).and_then(|()| clone::arm(frozen, script, *base, &wanted, *acknowledges));
        self.made += 1;
        // A wrong clone is none, and its template makes no other.
        let made =
            made.and_then(|armed| match (self.made - 1).is_multiple_of(audit::EVERY).then(|| audit::check(frozen, state, script, (*base, *end), armed.pid)) {
                Some(Err(refusal)) => {
                    clone::discard(armed.pid);
                    Err((Failure::new(format!("look at a clone, and found: {refusal}"), rustix::io::Errno::BADMSG), true))
                }
                _ => Ok(armed),
            });
        match made {
            Ok(armed) => {
                let pid = armed.pid;
                match reported(armed, report) {
                    Ok(waiting) => {
                        self.next += 1;
                        self.armed.insert(self.next, waiting);
                    }
                    // The keeper has lost interest.
                    Err(_) => clone::discard(pid),
                }
                true
            }
            Err((failure, is_broken)) => {
                let _ = Report::Failed(failure).send(report, &[]);
                !is_broken
            }
        }
    }

    fn release(&mut self, number: u64) {
        let Some(waiting) = self.armed.get_mut(&number) else { return };
        let go = matches!(rustix::io::read(&waiting.release, &mut [0u8; 1]), Ok(1));
        if !go {
            // The daemon has closed its end: nobody will ever want it.
            clone::discard_by(waiting.pid, &waiting.pidfd);
            self.armed.remove(&number);
            return;
        }
        if self.template.interrupt(waiting.pid).is_err() || trace::detach(waiting.pid).is_err() {
            clone::discard_by(waiting.pid, &waiting.pidfd);
            self.armed.remove(&number);
            return;
        }
        waiting.released = true;
        if waiting.said.is_none() {
            self.armed.remove(&number);
        }
    }

    /// The clone's launcher has made its generators differ.
    fn awake(&mut self, number: u64) {
        if let Some(waiting) = self.armed.remove(&number) {
            awake_tell(&waiting.release);
        }
    }
}

fn children_watch() -> Result<SignalFd, nix::Error> {
    let mut ended = SigSet::empty();
    ended.add(Signal::SIGCHLD);
    ended.thread_block()?;
    SignalFd::with_flags(&ended, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// The daemon may speak to the clone from now on. Its end has room for a byte.
fn awake_tell(release: &OwnedFd) {
    let _ = send(release, b"a", SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

fn reported(armed: Armed, report: &OwnedFd) -> Result<Waiting, Failure> {
    use crate::error::Step;
    let Armed { pid, pidfd, stdout, stderr, namespace, listeners, said, inner } = armed;
    let (own, daemons) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None).step(|| "make a socket pair")?;
    Report::Born.send(report, &[pidfd.as_fd()]).step(|| "report a clone")?;
    let Listeners { outbound, dns_udp, dns_tcp, metadata } = &listeners;
    let mut passed = vec![stdout.as_fd(), stderr.as_fd(), namespace.as_fd(), pidfd.as_fd()];
    passed.extend([outbound, dns_udp, dns_tcp, metadata].into_iter().flatten().map(AsFd::as_fd));
    passed.push(daemons.as_fd());
    let running = Report::Running {
        outbound: outbound.is_some(),
        dns_udp: dns_udp.is_some(),
        dns_tcp: dns_tcp.is_some(),
        metadata: metadata.is_some(),
        changing: 0,
        said: false,
        clone: Some(inner),
    };
    running.send(report, &passed).step(|| "report a clone")?;
    if said.is_none() {
        // Nothing has to happen in it first: the daemon need not wait for an answer when it lets it go.
        awake_tell(&own);
    }
    Ok(Waiting { pid, pidfd, release: own, said, released: false })
}
