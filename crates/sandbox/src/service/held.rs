//! One sandbox in the keeper's hands, from the request to the last undone effect.
//!
//! Started -> Running -> (init gone) -> writable folders handed back -> cgroup removed -> told. Every end takes the same way,
//! whether the command exited, the daemon asked, or a step of starting failed; so nothing is undone in two places.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::{event::epoll, process::Signal};

use super::{Purpose, REMOVE_LIMIT, START_LIMIT, Service, Source, Timer, engine::Engine};
use crate::{
    cgroup::Group,
    descriptor,
    error::{Failure, Step},
    message::{self, Ends, Reply},
    process::{self, Child},
    root,
    slot::Slot,
    spec::{Ended, Spec},
    starter::{self, Order, Report},
    tree,
};

/// From the kernel's out-of-memory handling to its count of what it killed.
const MEMORY_SETTLE: Duration = Duration::from_millis(5);
/// A clone takes milliseconds, and waits for a few others.
const CLONE_LIMIT: Duration = Duration::from_secs(10);

/// A sandbox as the keeper sees it.
pub(super) struct Held {
    pub number: u64,
    pub id: String,
    pub group: Group,
    /// Of a template: the reader of its said pipe.
    pub said: Option<OwnedFd>,
    /// The command's.
    pub command: Option<OwnedFd>,
    /// Its network namespace.
    pub namespace: Option<OwnedFd>,
    /// What was last asked for.
    pub frozen: bool,
    /// A clone has its template's.
    slot: Option<Slot>,
    pub(super) engine: Option<Engine>,
    /// The template that it is a clone of, and its pid there.
    pub(super) origin: Option<(u64, Option<i32>)>,
    cpu_millis: u32,
    writable: Vec<PathBuf>,
    /// From starter and init; closed when both have ended.
    report: Option<(u64, OwnedFd)>,
    starter: Option<(u64, Child)>,
    init: Init,
    /// Where the start is answered; none once it was.
    start_reply: Option<OwnedFd>,
    /// Where [`Ended`] goes, when the start succeeded.
    ended: Option<OwnedFd>,
    end_replies: Vec<OwnedFd>,
    /// Code and signal of the command.
    exited: Option<(Option<i32>, Option<i32>)>,
    failure: Option<Failure>,
    /// Readable when it goes over its memory.
    memory_alarm: Option<(u64, OwnedFd)>,
    /// It was asked to end, by the daemon or by the keeper itself.
    killed: bool,
    undoing: Option<Undoing>,
}

enum Init {
    Unborn,
    Alive(u64, OwnedFd),
    Gone,
}

/// What is known when every process is gone.
struct Undoing {
    memory_peak_bytes: u64,
    out_of_memory: bool,
}

impl Held {
    /// Whether it has started and nothing has begun to end it.
    pub fn is_running(&self) -> bool {
        self.ended.is_some() && !self.killed && self.undoing.is_none()
    }

    fn are_processes_gone(&self) -> bool {
        self.report.is_none() && self.starter.is_none() && !matches!(self.init, Init::Alive(..))
    }

    /// How a clone ended its template's init tells, a moment later.
    fn is_end_known(&self) -> bool {
        self.exited.is_some() || self.killed || self.origin.is_none_or(|(_, inner)| inner.is_none())
    }

    /// A clone that an engine is asked for.
    pub fn clone_of(origin: u64, number: u64, id: String, group: Group, cpu_millis: u32, start_reply: OwnedFd) -> Self {
        Self {
            number,
            id,
            group,
            said: None,
            command: None,
            namespace: None,
            frozen: false,
            slot: None,
            engine: None,
            origin: Some((origin, None)),
            cpu_millis,
            writable: Vec::new(),
            report: None,
            starter: None,
            init: Init::Unborn,
            start_reply: Some(start_reply),
            ended: None,
            end_replies: Vec::new(),
            exited: None,
            failure: None,
            memory_alarm: None,
            killed: false,
            undoing: None,
        }
    }

    /// What to send so that the command gets a signal. The first process of a pid namespace, which a clone is, gets none that it has no
    /// handler for, but for SIGKILL: one that would end any other process ends it so.
    pub fn effective(&self, signal: Signal) -> Signal {
        let is_handled = |command: &OwnedFd| {
            let pid = descriptor::pid_of(command).ok()?;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let bits = |name: &str| u64::from_str_radix(status.lines().find_map(|line| line.strip_prefix(name))?.trim(), 16).ok();
            Some((bits("SigCgt:")? | bits("SigIgn:")?) >> (signal.as_raw() - 1) & 1 == 1)
        };
        let ends = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP].contains(&signal);
        if self.origin.is_some() && ends && self.command.as_ref().and_then(is_handled) == Some(false) { Signal::KILL } else { signal }
    }

    pub fn is_exit_known(&self) -> bool {
        self.exited.is_some()
    }

    pub fn exit_set(&mut self, code: Option<i32>, signal: Option<i32>) {
        self.exited = Some((code, signal));
    }

    /// Tells who asked for its end that it is so.
    pub fn ends_answer(&mut self) {
        for reply in self.end_replies.drain(..) {
            message::answer(&reply, &Reply::Done);
        }
    }

    fn fail(&mut self, failure: Failure) {
        // The first is the cause; what comes after it is a consequence.
        self.failure.get_or_insert(failure);
    }
}

impl Service {
    pub(super) fn start(&mut self, spec: Spec, look: bool, reply: OwnedFd) {
        let refused = spec.check().err().or_else(|| self.by_id.contains_key(&spec.id).then(|| format!("id {}: runs already", spec.id)));
        if let Some(why) = refused {
            return message::answer(&reply, &Reply::Refused(why));
        }
        let Some(slot) = self.slots.take() else {
            return message::answer(&reply, &Reply::Refused("as many sandboxes run as there are uids for".to_owned()));
        };
        let number = self.token();
        let group = self.groups.group(&number.to_string());
        match self.starter_fork(&spec, look, &group, &slot) {
            Ok((child, report)) => {
                let held = Held {
                    number,
                    id: spec.id.clone(),
                    group,
                    said: None,
                    command: None,
                    namespace: None,
                    frozen: false,
                    slot: Some(slot),
                    engine: None,
                    origin: None,
                    cpu_millis: spec.limits.cpu_millis,
                    writable: spec.mounts.into_iter().filter(|mount| mount.writable).map(|mount| mount.source).collect(),
                    report: None,
                    starter: None,
                    init: Init::Unborn,
                    start_reply: Some(reply),
                    ended: None,
                    end_replies: Vec::new(),
                    exited: None,
                    failure: None,
                    memory_alarm: None,
                    killed: false,
                    undoing: None,
                };
                self.by_id.insert(spec.id, number);
                self.held.insert(number, held);
                self.starter_watch(number, child, report);
            }
            Err(failure) => {
                self.slots.give_back(&slot);
                message::answer(&reply, &Reply::Failed(failure));
            }
        }
    }

    fn starter_fork(&self, spec: &Spec, look: bool, group: &Group, slot: &Slot) -> Result<(Child, OwnedFd), Failure> {
        let (own, theirs) = descriptor::message_pair().step(|| "make a socket pair")?;
        let order = Order {
            spec,
            look,
            group,
            uid: slot.uid,
            mount_point: self.folder.mount_point(),
            writable_under: &self.writable_under,
            filter: &self.filter,
            memory_counted: self.groups.given().memory,
            report: theirs,
        };
        let child = process::fork(|| starter::run(order)).step(|| "fork a starter")?;
        Ok((child, own))
    }

    fn starter_watch(&mut self, number: u64, child: Child, report: OwnedFd) {
        let watched = self.watch(&report, Source::Report(number), epoll::EventFlags::IN).and_then(|report_token| {
            let token = self.watch(&child.pidfd, Source::Starter(number), epoll::EventFlags::IN)?;
            Ok((report_token, token))
        });
        match watched {
            Ok((report_token, token)) => {
                self.timer(START_LIMIT, Timer::StartLimit(number));
                if let Some(held) = self.held.get_mut(&number) {
                    held.report = Some((report_token, report));
                    held.starter = Some((token, child));
                }
            }
            Err(error) => {
                // With its report closed the starter's next step fails; it is ended all the same, and waited for.
                process::kill(&child.pidfd);
                let _ = rustix::process::waitid(rustix::process::WaitId::PidFd(child.pidfd.as_fd()), rustix::process::WaitIdOptions::EXITED);
                if let Some(held) = self.held.get_mut(&number) {
                    held.fail(Failure::new("watch a starter", error));
                }
                self.settle(number);
            }
        }
    }

    /// The reports of a clone come from its engine.
    pub(super) fn clone_watch(&mut self, number: u64, report: (u64, OwnedFd)) {
        self.timer(CLONE_LIMIT, Timer::StartLimit(number));
        if let Some(held) = self.held.get_mut(&number) {
            held.report = Some(report);
        }
    }

    pub(super) fn clone_failed(&mut self, number: u64, failure: Failure) {
        if let Some(held) = self.held.get_mut(&number) {
            held.fail(failure);
        }
        self.settle(number);
    }

    /// Reads what starter and init said, to the end if it has come.
    pub(super) fn reports_take(&mut self, number: u64) {
        while let Some(held) = self.held.get_mut(&number)
            && let Some((token, socket)) = &held.report
        {
            match descriptor::receive(socket, 16 << 10, false) {
                Ok(Some(received)) => match serde_json::from_slice(&received.bytes) {
                    Ok(report) => self.reported(number, report, received.descriptors),
                    Err(error) => held.fail(Failure::new("read a report", std::io::Error::from(error))),
                },
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                end => {
                    let token = *token;
                    if let Err(error) = end {
                        held.fail(Failure::new("receive a report", error));
                    }
                    if let Some((_, socket)) = held.report.take() {
                        self.unwatch(token, socket);
                    }
                    return self.settle(number);
                }
            }
        }
    }

    fn reported(&mut self, number: u64, report: Report, mut descriptors: Vec<OwnedFd>) {
        match report {
            Report::Born => {
                let Some(pidfd) = descriptors.pop() else {
                    return;
                };
                match self.watch(&pidfd, Source::Init(number), epoll::EventFlags::IN) {
                    Ok(token) => {
                        if let Some(held) = self.held.get_mut(&number) {
                            held.init = Init::Alive(token, pidfd);
                            if held.killed {
                                self.kill(number);
                            }
                        }
                    }
                    Err(error) => {
                        process::kill(&pidfd);
                        if let Some(held) = self.held.get_mut(&number) {
                            held.fail(Failure::new("watch an init", error));
                        }
                    }
                }
            }
            Report::Running { outbound, dns_udp, dns_tcp, metadata, changing, said, clone } => {
                if let Some(held) = self.held.get_mut(&number)
                    && let Some((_, inner)) = &mut held.origin
                {
                    *inner = clone;
                }
                if said && let Some(held) = self.held.get_mut(&number) {
                    held.said = descriptors.pop();
                }
                let ends = Ends { outbound, dns_udp, dns_tcp, metadata, release: clone.is_some(), changing, host: self.host_walls() };
                self.started(number, ends, descriptors);
            }
            Report::Failed(failure) => {
                if let Some(held) = self.held.get_mut(&number) {
                    held.fail(failure);
                }
            }
            Report::Exited { code, signal } => {
                if let Some(held) = self.held.get_mut(&number) {
                    held.exited = Some((code, signal));
                }
            }
            Report::CloneExited { pid, code, signal } => self.clone_exited(number, pid, code, signal),
        }
    }

    /// The command runs: its share of the CPU begins, and the daemon gets its ends.
    fn started(&mut self, number: u64, ends: Ends, descriptors: Vec<OwnedFd>) {
        let Some(held) = self.held.get_mut(&number).filter(|held| !held.killed) else {
            return;
        };
        let done = held.group.cpu_limit(held.cpu_millis).and_then(|()| descriptor::pipe().step(|| "make a pipe"));
        let (ended, ended_writer) = match done {
            Ok(pipe) => pipe,
            Err(failure) => {
                held.fail(failure);
                return self.kill(number);
            }
        };
        let mut descriptors = descriptors.into_iter();
        let (Some(stdout), Some(stderr), Some(namespace), Some(command)) = (descriptors.next(), descriptors.next(), descriptors.next(), descriptors.next())
        else {
            held.fail(Failure::new("receive a sandbox's descriptors", rustix::io::Errno::BADF));
            return self.kill(number);
        };
        let alarm = held.group.memory_alarm();
        held.namespace = Some(namespace);
        held.command = Some(command);
        held.ended = Some(ended_writer);
        let listeners: Vec<OwnedFd> = descriptors.collect();
        let mut passed = vec![stdout.as_fd(), stderr.as_fd(), ended.as_fd()];
        passed.extend(listeners.iter().map(AsFd::as_fd));
        let told =
            descriptor::nonblocking(&ended).is_ok() && held.start_reply.take().is_some_and(|reply| message::reply_send(&reply, &Reply::Started(ends), &passed));
        if let Ok(Some(alarm)) = alarm
            && let Ok(token) = self.watch(&alarm, Source::Memory(number), epoll::EventFlags::IN)
            && let Some(held) = self.held.get_mut(&number)
        {
            held.memory_alarm = Some((token, alarm));
        }
        if !told {
            // Nobody has its ends, so nobody would ever end it.
            self.kill(number);
        }
    }

    pub(super) fn start_overdue(&mut self, number: u64) {
        let Some(held) = self.held.get_mut(&number).filter(|held| held.start_reply.is_some()) else {
            return;
        };
        held.fail(Failure::new(format!("start {}", held.id), rustix::io::Errno::TIMEDOUT));
        if let Some((_, starter)) = &held.starter {
            process::kill(&starter.pidfd);
        }
        let origin = held.origin;
        self.kill(number);
        if let Some((template, _)) = origin {
            // Whoever has its engine at work for so long, none of its clones will come.
            self.engine_kill(template);
        }
    }

    pub(super) fn end(&mut self, id: &str, reply: OwnedFd) {
        match self.by_id.get(id).copied() {
            Some(number) => {
                if let Some(held) = self.held.get_mut(&number) {
                    held.end_replies.push(reply);
                }
                self.kill(number);
            }
            // Ended and undone before, or never there: what was asked for is so.
            None => message::answer(&reply, &Reply::Done),
        }
    }

    /// Ends all its processes. An init that is not born yet is ended when it is: a starter that is killed could leave it behind.
    pub(super) fn kill(&mut self, number: u64) {
        let Some(held) = self.held.get_mut(&number) else {
            return;
        };
        held.killed = true;
        if held.engine.as_ref().is_some_and(Engine::is_made) && self.stopping.is_none() {
            // Its init stays for its clones, which outlive it.
            return self.template_end(number);
        }
        if let Init::Alive(_, init) = &held.init {
            // Frozen ones get their signals before they are thawed, init's comes with them.
            held.group.kill();
            process::kill(init);
        }
        self.engine_kill(number);
    }

    /// The kernel found no memory for it. It picks one process to end; which one is counted a moment later.
    pub(super) fn memory_alarmed(&mut self, number: u64, token: u64) {
        let alarm = self.held.get_mut(&number).and_then(|held| held.memory_alarm.take_if(|(own, _)| *own == token));
        if let Some((token, alarm)) = alarm {
            self.unwatch(token, alarm);
            self.timer(MEMORY_SETTLE, Timer::Memory(number));
        }
    }

    /// An instance that has lost a process to its limit is no whole instance: all of it ends, as at Google and as control
    /// groups of version 2 have it.
    pub(super) fn memory_settle(&mut self, number: u64) {
        let Some(held) = self.held.get(&number) else {
            return;
        };
        if held.killed || held.undoing.is_some() {
            return;
        }
        if held.group.memory_history().1 == 0 {
            return self.timer(MEMORY_SETTLE, Timer::Memory(number));
        }
        if let Init::Alive(_, init) = &held.init {
            held.group.kill();
            process::kill(init);
        }
        // What an engine traces is only gone when the engine lets go of it.
        self.engine_kill(number);
    }

    /// A starter or an init ended, or both.
    pub(super) fn child_ended(&mut self, number: u64) {
        // What it said before it ended comes first.
        self.reports_take(number);
        let Some(held) = self.held.get_mut(&number) else {
            return;
        };
        let ended = |child: &OwnedFd| !matches!(process::reap(child), Ok(None));
        // A clone is a child of its template's init, which reaps it.
        let is_clone = held.origin.is_some();
        let init_ended = |child: &OwnedFd| if is_clone { descriptor::readable(child, Some(Duration::ZERO)).unwrap_or(true) } else { ended(child) };
        let mut unwatched = Vec::new();
        if held.starter.as_ref().is_some_and(|(_, child)| ended(&child.pidfd))
            && let Some((token, child)) = held.starter.take()
        {
            unwatched.push((token, child.pidfd));
        }
        if matches!(&held.init, Init::Alive(_, pidfd) if init_ended(pidfd))
            && let Init::Alive(token, pidfd) = std::mem::replace(&mut held.init, Init::Gone)
        {
            unwatched.push((token, pidfd));
        }
        for (token, pidfd) in unwatched {
            self.unwatch(token, pidfd);
        }
        self.reports_take(number);
        self.settle(number);
    }

    /// Begins to undo when the last process is gone: init's end is the end of all in its pid namespace.
    pub(super) fn settle(&mut self, number: u64) {
        let Some(held) = self.held.get_mut(&number).filter(|held| held.are_processes_gone() && held.is_end_known() && held.undoing.is_none()) else {
            return;
        };
        let alarm = held.memory_alarm.take();
        let (memory_peak_bytes, killed_for_memory) = held.group.memory_history();
        let finished = matches!(held.exited, Some((Some(0), _)));
        let out_of_memory = killed_for_memory > 0 && !finished && !(held.killed && held.exited.is_none());
        held.undoing = Some(Undoing { memory_peak_bytes, out_of_memory });
        // No process is left in them.
        held.namespace = None;
        held.command = None;
        if let Some((token, alarm)) = alarm {
            self.unwatch(token, alarm);
        }
        let Some(held) = self.held.get_mut(&number) else {
            return;
        };
        if held.writable.is_empty() {
            return self.remove(number, Instant::now() + REMOVE_LIMIT);
        }
        let folders = std::mem::take(&mut held.writable);
        let own = held.slot.as_ref().is_some_and(|slot| slot.uid.is_some());
        let owner = own.then_some((self.daemon.uids[1], self.daemon.gid));
        let under = self.writable_under.clone();
        let started = self.helper_start(Purpose::HandBack { number }, || {
            for folder in &folders {
                if let Some(open) = root::staging_open(&under, folder)? {
                    tree::hand_back(&open, owner)?;
                }
            }
            Ok(())
        });
        if let Err((_, failure)) = started {
            self.handed_back(number, Some(failure));
        }
    }

    pub(super) fn handed_back(&mut self, number: u64, failure: Option<Failure>) {
        if let (Some(held), Some(failure)) = (self.held.get_mut(&number), failure) {
            held.fail(failure);
        }
        self.remove(number, Instant::now() + REMOVE_LIMIT);
    }

    /// Removes the cgroup, again until the kernel lets go of it; then tells.
    pub(super) fn remove(&mut self, number: u64, deadline: Instant) {
        let Some(held) = self.held.get(&number) else {
            return;
        };
        if let Err(error) = held.group.remove() {
            if Instant::now() < deadline {
                return self.timer(Duration::from_millis(2), Timer::Remove { number, deadline });
            }
            tracing::warn!(%error, id = held.id, "a sandbox's cgroup cannot be removed");
        }
        self.tell(number);
    }

    /// Everything is undone: answers whoever waits for that.
    fn tell(&mut self, number: u64) {
        let Some(mut held) = self.held.remove(&number) else {
            return;
        };
        self.by_id.remove(&held.id);
        self.clones_lost(number);
        if let Some(engine) = held.engine.take() {
            self.engine_gone(engine);
        }
        if let Some(slot) = &held.slot {
            self.slots.give_back(slot);
        }
        if let Some(reply) = &held.start_reply {
            let failure = match &held.failure {
                Some(failure) => Reply::Failed(failure.clone()),
                None if held.killed => Reply::Refused(format!("{} was ended while it started", held.id)),
                None => Reply::failed(format!("start {}, whose init ended without a word", held.id), rustix::io::Errno::CHILD),
            };
            message::answer(reply, &failure);
        }
        if let Some(pipe) = &held.ended {
            let text = serde_json::to_vec(&held.ended_message()).expect("it holds only text and numbers");
            // A fresh pipe takes it whole. A daemon that closed its end does not want to know.
            let _ = rustix::io::write(pipe, &text);
        }
        held.ends_answer();
    }
}

impl Held {
    fn ended_message(&self) -> Ended {
        let (code, signal) = self.exited.unwrap_or((None, Some(libc::SIGKILL)));
        let (memory_peak_bytes, out_of_memory) = self.undoing.as_ref().map_or((0, false), |undoing| (undoing.memory_peak_bytes, undoing.out_of_memory));
        let unexplained = self.exited.is_none() && !self.killed && !out_of_memory;
        let setup_error = match &self.failure {
            Some(failure) => Some(failure.line()),
            None => unexplained.then(|| "its init was killed by another process of the host".to_owned()),
        };
        Ended { code, signal, out_of_memory, memory_peak_bytes, setup_error }
    }
}
