//! Templates and clones in the keeper's hands: one engine process a template, which the keeper forks, asks and sees end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll;

use super::{Service, Source, Timer, held::Held};
use crate::{
    descriptor,
    error::{Failure, Step},
    message::{self, Reply},
    process::{self, Child},
    spec::id_check,
    template::{self, CloneRequest, EngineRequest, Order, Outcome},
};

/// To stop a process and read all of its state takes a fraction of a second.
const MAKE_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// An engine that hangs does not see its template end.
const END_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);

/// A template's engine.
pub(super) struct Engine {
    child: Child,
    requests: OwnedFd,
    token: u64,
    /// Where it is answered whether the template could be made; none once it was.
    reply: Option<OwnedFd>,
    /// Whether it could: clones may live from now on.
    made: bool,
}

impl Engine {
    pub(super) fn is_made(&self) -> bool {
        self.made
    }

    /// Ended by this, if it has not ended by itself, so that waiting is short. Done twice is done once.
    fn reap(&self) {
        process::kill(&self.child.pidfd);
        let exited = rustix::process::WaitIdOptions::EXITED;
        let _ = rustix::process::waitid(rustix::process::WaitId::PidFd(self.child.pidfd.as_fd()), exited);
    }
}

impl Service {
    /// Makes a template of a running sandbox.
    pub(super) fn template_make(&mut self, id: &str, reply: OwnedFd) {
        let number = match self.running(id) {
            Ok(held) if held.engine.is_some() => return message::answer(&reply, &Reply::Refused(format!("{id} is a template already"))),
            Ok(held) => held.number,
            Err(refusal) => return message::answer(&reply, &refusal),
        };
        if !self.root {
            let why = "tanebi runs without root, and the kernel lets nobody else suspend a system call filter";
            return message::answer(&reply, &Reply::Refused(why.to_owned()));
        }
        match self.engine_fork(number) {
            Ok((child, requests)) => match self.watch(&requests, Source::Engine(number), epoll::EventFlags::IN) {
                Ok(token) => {
                    self.timer(MAKE_LIMIT, Timer::EngineLimit(number));
                    if let Some(held) = self.held.get_mut(&number) {
                        held.engine = Some(Engine { child, requests, token, reply: Some(reply), made: false });
                    }
                }
                Err(error) => {
                    process::kill(&child.pidfd);
                    message::answer(&reply, &Reply::failed("watch an engine", error));
                }
            },
            Err(failure) => message::answer(&reply, &Reply::Failed(failure)),
        }
    }

    /// A template that takes so long to stop is one that does not want to.
    pub(super) fn engine_overdue(&mut self, number: u64) {
        if self.held.get(&number).and_then(|held| held.engine.as_ref()).is_some_and(|engine| engine.reply.is_some()) {
            self.engine_kill(number);
        }
    }

    /// Its end is seen by its socket, and everything that follows from it is done then.
    pub(super) fn engine_kill(&self, number: u64) {
        if let Some(engine) = self.held.get(&number).and_then(|held| held.engine.as_ref()) {
            process::kill(&engine.child.pidfd);
        }
    }

    fn engine_fork(&self, number: u64) -> Result<(Child, OwnedFd), Failure> {
        let held = self.held.get(&number).and_then(|held| held.command.as_ref());
        let command = held.ok_or_else(|| Failure::new("look for a command", rustix::io::Errno::SRCH))?;
        let pid = descriptor::pid_of(command).step(|| "read a command's pid")?;
        let pidfd = command.try_clone().step(|| "duplicate a pidfd")?;
        let (own, requests) = descriptor::message_pair().step(|| "make a socket pair")?;
        let order = Order { pid, pidfd, groups: &self.groups, requests };
        let child = process::fork(|| template::run(&order)).step(|| "fork an engine")?;
        Ok((child, own))
    }

    /// Asks the engine of a template for a clone; what it reports is read like a starter's and an init's.
    pub(super) fn clone_make(&mut self, template: &str, request: CloneRequest, reply: OwnedFd) {
        let CloneRequest { number, id, limits, .. } = &request;
        let (number, id) = (*number, id.clone());
        let refused = id_check(&id).and_then(|()| limits.check()).err().or_else(|| self.by_id.contains_key(&id).then(|| format!("id {id}: runs already")));
        if let Some(why) = refused {
            return message::answer(&reply, &Reply::Refused(why));
        }
        let origin = match self.running(template) {
            Ok(Held { number, engine: Some(Engine { made: true, .. }), .. }) => *number,
            Ok(_) => return message::answer(&reply, &Reply::NoSandbox(template.to_owned())),
            Err(refusal) => return message::answer(&reply, &refusal),
        };
        let group = self.groups.group(&number.to_string());
        let held = Held::clone_of(origin, number, id.clone(), group, limits.cpu_millis, reply);
        let asked = self.clone_ask(origin, request);
        self.by_id.insert(id, number);
        self.held.insert(number, held);
        match asked.and_then(|report| Ok((self.watch(&report, Source::Report(number), epoll::EventFlags::IN).step(|| "watch a clone")?, report))) {
            Ok(report) => self.clone_watch(number, report),
            Err(failure) => self.clone_failed(number, failure),
        }
    }

    fn clone_ask(&self, origin: u64, request: CloneRequest) -> Result<OwnedFd, Failure> {
        let (own, theirs) = descriptor::message_pair().step(|| "make a socket pair")?;
        self.engine_ask(origin, &EngineRequest::Clone(request), &[theirs.as_fd()])?;
        Ok(own)
    }

    fn engine_ask(&self, origin: u64, request: &EngineRequest, descriptors: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        let engine = self.held.get(&origin).and_then(|held| held.engine.as_ref()).ok_or_else(|| Failure::new("ask an engine", rustix::io::Errno::SRCH))?;
        let bytes = serde_json::to_vec(request).expect("a request holds only text and numbers");
        descriptor::send(&engine.requests, &bytes, descriptors, false).step(|| "ask an engine")
    }

    /// A clone has answered a request: its engine looks at what memory that took.
    pub(super) fn learn(&self, id: &str) -> Reply {
        let (origin, pid) = match self.running(id) {
            Ok(Held { origin: Some((origin, _)), command: Some(command), .. }) => (*origin, descriptor::pid_of(command)),
            Ok(_) => return Reply::Refused(format!("{id} is no clone")),
            Err(refusal) => return refusal,
        };
        let asked = pid.step(|| "read a clone's pid").and_then(|pid| self.engine_ask(origin, &EngineRequest::Learn { pid }, &[]));
        asked.map_or_else(Reply::Failed, |()| Reply::Done)
    }

    /// The engine has said whether its template could be made, or has ended.
    pub(super) fn engine_spoke(&mut self, number: u64) {
        let Some(engine) = self.held.get_mut(&number).and_then(|held| held.engine.as_mut()) else {
            return;
        };
        let outcome = match descriptor::receive(&engine.requests, template::REQUEST_MAX, false) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Ok(Some(received)) => serde_json::from_slice(&received.bytes).unwrap_or(Outcome::Refused("the engine cannot be understood".to_owned())),
            _ => return self.engine_ended(number),
        };
        let Some(reply) = engine.reply.take() else { return };
        engine.made = matches!(outcome, Outcome::Frozen);
        if engine.made
            && let Some(held) = self.held.get(&number)
        {
            // What the kernel needs for each clone is counted here, and must not be the end of all of them.
            held.group.memory_unlimit();
        }
        match outcome {
            Outcome::Frozen => message::answer(&reply, &Reply::Done),
            Outcome::Refused(why) => message::answer(&reply, &Reply::Refused(why)),
        }
    }

    /// Without its engine a template is of no use; what it traced has ended with it, clones that were let go live on.
    fn engine_ended(&mut self, number: u64) {
        let Some(engine) = self.held.get_mut(&number).and_then(|held| held.engine.as_mut()) else {
            return;
        };
        if engine.made {
            self.engine_reap(number);
        } else if let Some(engine) = self.held.get_mut(&number).and_then(|held| held.engine.take()) {
            // It has no clones: what else it has made is ended with it.
            self.engine_gone(engine);
        }
        self.kill(number);
    }

    fn engine_reap(&mut self, number: u64) {
        let Some(engine) = self.held.get(&number).and_then(|held| held.engine.as_ref()) else {
            return;
        };
        engine.reap();
        // By the descriptor itself: epoll knows no other of the same open file, and would tell of its end for ever.
        let _ = epoll::delete(&self.epoll, &engine.requests);
        self.sources.remove(&engine.token);
    }

    /// Sees the end of an engine that nobody needs any more.
    pub(super) fn engine_gone(&mut self, mut engine: Engine) {
        engine.reap();
        if let Some(reply) = engine.reply.take() {
            message::answer(&reply, &Reply::failed("make a template", rustix::io::Errno::CHILD));
        }
        self.unwatch(engine.token, engine.requests);
    }

    /// Ends a template; its init ends with the last clone. Who asked for it need not wait for that.
    pub(super) fn template_end(&mut self, number: u64) {
        let has_clones = self.held.values().any(|held| held.origin.is_some_and(|(origin, _)| origin == number));
        let Some(held) = self.held.get_mut(&number) else {
            return;
        };
        // Its end is the engine's, which first lets go of what has been told to go on.
        if let Some(command) = &held.command {
            process::kill(command);
        }
        if has_clones {
            held.ends_answer();
        }
        self.timer(END_LIMIT, Timer::EngineEnd(number));
    }

    /// How a clone ended, by its template's init.
    pub(super) fn clone_exited(&mut self, template: u64, pid: i32, code: Option<i32>, signal: Option<i32>) {
        // One that ended at once may not have been reported yet.
        let unreported: Vec<u64> = self.held.values().filter(|held| held.origin == Some((template, None))).map(|held| held.number).collect();
        unreported.into_iter().for_each(|number| self.reports_take(number));
        let clone = self.held.values_mut().find(|held| held.origin == Some((template, Some(pid))) && !held.is_exit_known());
        if let Some(held) = clone {
            held.exit_set(code, signal);
            let number = held.number;
            self.settle(number);
        }
    }

    /// A template's last process is gone: nobody will tell any more how its clones ended.
    pub(super) fn clones_lost(&mut self, template: u64) {
        let clones: Vec<u64> = self.held.values().filter(|held| held.origin.is_some_and(|(origin, _)| origin == template)).map(|held| held.number).collect();
        for number in clones {
            if let Some(held) = self.held.get_mut(&number) {
                held.origin = Some((template, None));
            }
            self.settle(number);
        }
    }
}
