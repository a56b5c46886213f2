//! What the routine does in the template, in a clone's main thread and in each of its other threads: three kinds of lists, written
//! once per template into one region of its memory.
//!
//! A clone's main thread, in this order: identity, mounts, host name, timers, descriptors, epolls, shared memory, the second wall around
//! files, threads, capabilities. Then it stops (armed). Let go, it wakes its threads and returns into what the template's main thread
//! was doing. Nothing of the user's runs before that return, and by then no thread has a capability left.

use std::{collections::BTreeMap, ffi::CString, path::PathBuf};

use super::{
    frozen::{Frozen, Thread},
    landlock_rules::{self, Rule},
    refusal::{Refusal, refuse},
    routine::{self, Operation},
    state::{Descriptor, Kind, Shared, State, WAKE},
};
use crate::mutation::{Layer, without};

/// A page of code, then data.
pub(super) const CODE_BYTES: u64 = 4096;
/// Above which a region would be out of all proportion.
const REGION_MAX_BYTES: u64 = 8 << 20;
/// The longest host name.
const NAME_BYTES: usize = 64;

/// What launchers ask for, by the lines they wrote.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// Signals that are queued at the main thread.
    pub signals: Vec<u64>,
    /// 32-bit words that become 1.
    pub flags: Vec<u64>,
    /// A byte into the wake pipe.
    pub wake: bool,
    /// Nothing may reach the clone before it has said that it is awake.
    pub acknowledges: bool,
}

impl Wishes {
    /// Reads the lines; a launcher may refuse by itself.
    pub fn parse(lines: &[String]) -> Result<Self, Refusal> {
        let mut wishes = Self::default();
        let mut is_ready = true;
        for line in lines {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "signal" => match rest.parse() {
                    Ok(signal @ 1..=64) => wishes.signals.push(signal),
                    _ => return refuse(format!("its launcher asks for signal {rest:?}")),
                },
                "flag" => match rest.strip_prefix("0x").and_then(|address| u64::from_str_radix(address, 16).ok()) {
                    Some(address) => wishes.flags.push(address),
                    None => return refuse(format!("its launcher names the address {rest:?}")),
                },
                "wake" => wishes.wake = true,
                "ack" => wishes.acknowledges = true,
                "wait" => is_ready = false,
                "ready" => is_ready = true,
                // For the daemon, which has read them by now.
                "warm" | "drew" => {}
                "refused" => return refuse(rest.to_owned()),
                _ => return refuse(format!("its launcher says {line:?}")),
            }
        }
        if !is_ready {
            return refuse("its launcher has not come to an end".to_owned());
        }
        Ok(wishes)
    }
}

/// The lists, ready to be written.
pub(super) struct Script {
    /// From the code's page on.
    pub bytes: Vec<u8>,
    /// The template's list.
    pub program: u64,
    /// Where the routine tells a failure.
    pub error: u64,
    /// The clone's host name, `NAME_BYTES` long with its end mark; and its length.
    pub name: u64,
    pub name_length: u64,
    /// Where the size of /tmp is, as mount(2) takes it.
    pub sizes: u64,
    /// In the template: what clone3 answered.
    pub child: u64,
    /// In a clone: the reading ends of its output.
    pub outputs: [u64; 2],
    /// The operation that leads around what touches memory, or to it.
    pub turn: u64,
    /// Room for the operations that touch memory.
    pub spare: u64,
    /// What to write where in a clone for its main thread to go on as one that a signal has interrupted.
    pub interrupted: Vec<(u64, u64)>,
    /// What each operation is for, by its address.
    pub steps: BTreeMap<u64, &'static str>,
}

impl Script {
    /// Where the clone's list goes on after the turn.
    pub fn after_turn(&self) -> u64 {
        self.turn + size_of::<Operation>() as u64
    }
}

/// How many operations may touch memory.
pub(super) const SPARE_OPERATIONS: usize = 4096;

/// The options of the tmpfs mounts, room for any number.
pub(super) const SIZES_BYTES: usize = 96;

/// How large a region a template with this many threads and descriptors needs.
pub(super) fn region_bytes(frozen: &Frozen, state: &State) -> Result<u64, Refusal> {
    let per_thread: u64 = frozen.threads.iter().map(|thread| thread.extended.len() as u64 + 3072).sum();
    let content: u64 =
        state.descriptors.iter().map(|descriptor| if let Kind::PipeReader { content, .. } = &descriptor.kind { content.len() as u64 } else { 0 }).sum();
    let polled: u64 = state.descriptors.iter().map(|descriptor| if let Kind::Poll(polled) = &descriptor.kind { polled.len() as u64 * 128 } else { 0 }).sum();
    let spare = (SPARE_OPERATIONS * size_of::<Operation>()) as u64;
    let bytes = (64 << 10) + spare + per_thread + content + polled + state.descriptors.len() as u64 * 1024 + state.shared.len() as u64 * 512;
    let bytes = bytes.next_multiple_of(4096);
    if bytes > REGION_MAX_BYTES { refuse("it has too many threads and descriptors") } else { Ok(bytes) }
}

/// A region of the template's memory while it is written.
struct Region {
    base: u64,
    bytes: Vec<u8>,
    steps: BTreeMap<u64, &'static str>,
}

impl Region {
    fn room(&mut self, bytes: usize, align: usize) -> u64 {
        let at = self.bytes.len().next_multiple_of(align);
        self.bytes.resize(at + bytes, 0);
        self.base + CODE_BYTES + at as u64
    }

    fn put(&mut self, bytes: &[u8]) -> u64 {
        let at = self.room(bytes.len(), 16);
        self.at(at, bytes.len()).copy_from_slice(bytes);
        at
    }

    fn text(&mut self, text: &str) -> u64 {
        self.put(CString::new(text).expect("no text of ours has a NUL").as_bytes_with_nul())
    }

    fn words(&mut self, words: &[u64]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.put(&bytes)
    }

    /// A place for a number.
    fn slot(&mut self) -> u64 {
        self.room(8, 8)
    }

    fn at(&mut self, address: u64, bytes: usize) -> &mut [u8] {
        let from = (address - self.base - CODE_BYTES) as usize;
        &mut self.bytes[from..from + bytes]
    }

    fn list(&mut self, list: List) -> u64 {
        let size = size_of::<Operation>();
        let at = self.room(size * list.0.len(), 64);
        for (index, (operation, step)) in list.0.into_iter().enumerate() {
            let address = at + (index * size) as u64;
            self.at(address, size).copy_from_slice(&operation.bytes());
            self.steps.insert(address, step);
        }
        at
    }
}

/// Operations with what each is for.
#[derive(Default)]
struct List(Vec<(Operation, &'static str)>);

/// The number of a system call, as the kernel has it.
type Call = i64;

impl List {
    fn push(&mut self, step: &'static str, operation: Operation) {
        self.0.push((operation, step));
    }

    fn must(&mut self, step: &'static str, call: Call, arguments: &[u64]) {
        self.call_as(routine::MUST, step, call, arguments, 0, 0);
    }

    fn call(&mut self, step: &'static str, call: Call, arguments: &[u64]) {
        self.call_as(routine::CALL, step, call, arguments, 0, 0);
    }

    /// Keeps the answer.
    fn answered(&mut self, step: &'static str, call: Call, arguments: &[u64], save: u64) {
        self.call_as(routine::MUST, step, call, arguments, 0, save);
    }

    /// The first argument is a descriptor that an earlier call left at that address.
    fn on(&mut self, step: &'static str, call: Call, arguments: &[u64]) {
        self.call_as(routine::MUST, step, call, arguments, 1, 0);
    }

    fn call_as(&mut self, kind: u32, step: &'static str, call: Call, arguments: &[u64], references: u32, save: u64) {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        self.push(step, Operation { kind, references, number: call as u64, save, arguments: all });
    }

    fn plain(&mut self, step: &'static str, kind: u32, arguments: &[u64]) {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        self.push(step, Operation { kind, arguments: all, ..Operation::default() });
    }
}

/// What a clone is given beside its memory.
pub(super) struct Plan<'a> {
    pub frozen: &'a Frozen,
    pub state: &'a State,
    pub wishes: &'a Wishes,
    /// Of the file rules, in the clone.
    pub writable: &'a [PathBuf],
}

/// Writes the lists for a region at `base`.
pub(super) fn write(plan: &Plan<'_>, base: u64) -> Script {
    let mut region = Region { base, bytes: Vec::new(), steps: BTreeMap::new() };
    let error = region.room(routine::ERROR_BYTES, 64);
    let go = region.room(64, 64);
    let ready = region.room(64, 64);
    let name = region.room(NAME_BYTES, 64);
    let name_length = region.slot();
    let sizes = region.room(SIZES_BYTES, 64);
    let child = region.slot();
    let outputs = [region.slot(), region.slot()];
    let no_capabilities = NoCapabilities { header: region.put(&[0x2008_0522u32.to_ne_bytes(), [0; 4]].concat()), data: region.put(&[0; 24]) };

    let others: Vec<(u64, u64)> = plan.frozen.threads[1..]
        .iter()
        .map(|thread| {
            let list = thread_list(&mut region, thread, &no_capabilities, go, ready);
            let at = region.list(list);
            let arguments = thread_arguments(&mut region, thread);
            (arguments, at)
        })
        .collect();

    let mut list = List::default();
    identity(&mut region, &mut list);
    mounts(&mut region, &mut list, sizes);
    if !without(Layer::Uts) {
        list.call_as(routine::MUST, "set the host name", libc::SYS_sethostname, &[name, name_length], 2, 0);
    }
    for (which, value) in &plan.state.timers {
        let value = region.put(value);
        list.must("set an interval timer", libc::SYS_setitimer, &[*which, value, 0]);
    }
    output(&mut region, &mut list, outputs, &plan.state.descriptors);
    if plan.state.descriptors.iter().any(|descriptor| matches!(&descriptor.kind, Kind::Listener { address, .. } if !is_any(address))) {
        loopback(&mut region, &mut list);
    }
    descriptors(&mut region, &mut list, &plan.state.descriptors);
    for (index, area) in plan.state.shared.iter().enumerate() {
        shared_memory(&mut list, index, area);
    }
    if !without(Layer::Landlock) {
        file_rules(&mut region, &mut list, plan.writable);
    }
    bounding_set(&mut list);
    let size = size_of::<libc::clone_args>() as u64;
    for (arguments, at) in &others {
        list.plain("make a thread", routine::THREAD, &[*arguments, size, *at]);
    }
    main_thread(&mut list, &plan.frozen.threads[0]);
    if !without(Layer::Capabilities) {
        list.must("drop the capabilities", libc::SYS_capset, &[no_capabilities.header, no_capabilities.data]);
    }
    if !others.is_empty() {
        list.plain("wait for the threads", routine::WAIT_COUNT, &[ready, others.len() as u64]);
    }
    wake(&mut region, &mut list, plan.wishes);
    let turn = list.0.len();
    list.plain("touch memory", routine::GOTO, &[]);
    list.plain("be armed", routine::TRAP, &[]);
    for output in outputs {
        list.on("close the reading end of an output", libc::SYS_close, &[output]);
    }
    if !others.is_empty() {
        signals_to_main(&mut region, &mut list);
    }
    list.plain("let the threads go", routine::STORE, &[go, 1]);
    if !others.is_empty() {
        const FUTEX_WAKE_PRIVATE: u64 = 129;
        list.must("let the threads go", libc::SYS_futex, &[go, FUTEX_WAKE_PRIVATE, i32::MAX as u64]);
    }
    // A signal may come while it is armed, and a handler that ran expects that what it interrupted has ended.
    let interrupted = plan.frozen.threads[0].has_handlers;
    let frame = frame(&mut region, &plan.frozen.threads[0], interrupted);
    list.plain("go on", routine::RETURN, &[frame]);
    let interrupted = layout::interrupted(frame, &resumed(&plan.frozen.threads[0], true));
    let clone_list = region.list(list);
    let turn = clone_list + (turn * size_of::<Operation>()) as u64;
    let spare = region.room(SPARE_OPERATIONS * size_of::<Operation>(), 64);

    let mut list = List::default();
    let arguments = clone_arguments(&mut region, &plan.frozen.threads[0]);
    list.push("clone the process", Operation { kind: routine::FORK, save: child, arguments: [arguments, size, clone_list, 0, 0, 0], ..Operation::default() });
    list.plain("have cloned", routine::TRAP, &[]);
    list.plain("have cloned", routine::TRAP, &[]);
    let program = region.list(list);
    Script { bytes: region.bytes, program, error, name, name_length, sizes, child, outputs, turn, spare, interrupted, steps: region.steps }
}

struct NoCapabilities {
    header: u64,
    data: u64,
}

fn namespaces() -> i32 {
    let mut flags = libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    for (layer, flag) in [(Layer::Network, libc::CLONE_NEWNET), (Layer::Ipc, libc::CLONE_NEWIPC), (Layer::Uts, libc::CLONE_NEWUTS)] {
        if !without(layer) {
            flags |= flag;
        }
    }
    flags
}

/// The clone is a child of the template's init, so that it outlives the template, and the first of its own pid namespace.
fn clone_arguments(region: &mut Region, main: &Thread) -> u64 {
    let mut flags = namespaces() as u64 | (libc::CLONE_PTRACE | libc::CLONE_PARENT) as u64;
    if main.clear_tid != 0 {
        flags |= (libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID) as u64;
    }
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup.
    region.words(&[flags, 0, main.clear_tid, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn thread_arguments(region: &mut Region, thread: &Thread) -> u64 {
    let mut flags = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD | libc::CLONE_SYSVSEM | libc::CLONE_SETTLS;
    flags |= libc::CLONE_UNTRACED;
    if thread.clear_tid != 0 {
        flags |= libc::CLONE_CHILD_CLEARTID;
    }
    let tid = region.put(&thread.inner.to_ne_bytes());
    // The routine uses no stack, but clone3 wants to know of none or of one.
    region.words(&[flags as u64, 0, thread.clear_tid, 0, 0, 0, 0, thread.registers.fs_base, tid, 1, 0])
}

/// Never traced, so its calls are filtered: all of them are allowed.
fn thread_list(region: &mut Region, thread: &Thread, none: &NoCapabilities, go: u64, ready: u64) -> List {
    let mut list = List::default();
    if thread.robust.0 != 0 {
        list.must("register a thread's robust futexes", libc::SYS_set_robust_list, &[thread.robust.0, thread.robust.1]);
    }
    let sequence = thread.sequence;
    if sequence.address != 0 {
        list.must("register a thread's restartable sequence", libc::SYS_rseq, &[sequence.address, sequence.size.into(), 0, sequence.signature.into()]);
    }
    let mut name = [0u8; 16];
    let length = thread.name.len().min(15);
    name[..length].copy_from_slice(&thread.name[..length]);
    let name = region.put(&name);
    list.must("name a thread", libc::SYS_prctl, &[libc::PR_SET_NAME as u64, name]);
    if !without(Layer::Capabilities) {
        list.must("drop a thread's capabilities", libc::SYS_capset, &[none.header, none.data]);
    }
    list.plain("be ready", routine::COUNT, &[ready]);
    list.plain("wait to be let go", routine::WAIT, &[go]);
    let frame = frame(region, thread, false);
    list.plain("go on", routine::RETURN, &[frame]);
    list
}

fn main_thread(list: &mut List, main: &Thread) {
    if main.robust.0 != 0 {
        list.must("register the robust futexes", libc::SYS_set_robust_list, &[main.robust.0, main.robust.1]);
    }
}

/// The engine has written the maps of the clone's user namespace: it is the same user in there.
fn identity(region: &mut Region, list: &mut List) {
    let all = region.words(&[u64::MAX]);
    // `kill 0` in one clone would else be a signal to all others, and to the template.
    list.must("make a session", libc::SYS_setsid, &[]);
    list.must("block all signals", libc::SYS_rt_sigprocmask, &[libc::SIG_SETMASK as u64, all, 0, 8]);
    // What /proc/self/cgroup shows begins at the group the engine has put it into by now.
    list.call("make a cgroup namespace", libc::SYS_unshare, &[libc::CLONE_NEWCGROUP as u64]);
}

/// /tmp and /dev/shm of its own, and a /proc of its own pid namespace; the rest of the root is the template's, read-only.
fn mounts(region: &mut Region, list: &mut List, sizes: u64) {
    let plain = libc::MS_NOSUID | libc::MS_NODEV;
    let tmpfs = region.text("tmpfs");
    for (path, flags) in [("/tmp", plain), ("/dev/shm", plain | libc::MS_NOEXEC)] {
        let path = region.text(path);
        list.must("mount a /tmp", libc::SYS_mount, &[tmpfs, path, tmpfs, flags, sizes]);
    }
    let (proc, path) = (region.text("proc"), region.text("/proc"));
    let options = if without(Layer::HideProcesses) { 0 } else { region.text("hidepid=2") };
    list.must("mount a /proc", libc::SYS_mount, &[proc, path, proc, plain | libc::MS_NOEXEC | libc::MS_RDONLY, options]);
}

/// A pipe each for standard output and error; the engine takes the reading ends when the clone is armed.
fn output(region: &mut Region, list: &mut List, readers: [u64; 2], all: &[Descriptor]) {
    // Out of the way of what is made at numbers of the template.
    let kept_from = all.last().map_or(3, |last| last.number as u64 + 1);
    for (number, reader) in [1u64, 2].into_iter().zip(readers) {
        let pair = region.room(8, 8);
        list.must("make an output", libc::SYS_pipe2, &[pair, libc::O_CLOEXEC as u64]);
        list.on("make an output", libc::SYS_dup3, &[pair + 4, number, 0]);
        list.on("make an output", libc::SYS_close, &[pair + 4]);
        list.call_as(routine::MUST, "keep an output", libc::SYS_fcntl, &[pair, libc::F_DUPFD_CLOEXEC as u64, kept_from], 1, reader);
        list.on("keep an output", libc::SYS_close, &[pair]);
    }
}

/// Whether a socket address is 0.0.0.0 or ::, with whatever port.
fn is_any(address: &[u8]) -> bool {
    // struct sockaddr_in: family, port, address; struct sockaddr_in6: family, port, flow, address, scope.
    let at = if address.len() == size_of::<libc::sockaddr_in6>() { 8..24 } else { 4..8 };
    address.get(at).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
}

/// Up before anything is bound to its addresses. The rest of the network is the engine's to make.
fn loopback(region: &mut Region, list: &mut List) {
    const SIOCSIFFLAGS: u64 = 0x8914;
    let step = "bring the loopback up";
    let slot = region.slot();
    // struct ifreq: name, flags, padding.
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[libc::IFNAMSIZ..][..2].copy_from_slice(&(libc::IFF_UP as u16).to_ne_bytes());
    let request = region.put(&request);
    list.answered(step, libc::SYS_socket, &[libc::AF_INET as u64, (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as u64, 0], slot);
    list.on(step, libc::SYS_ioctl, &[slot, SIOCSIFFLAGS, request]);
    list.on(step, libc::SYS_close, &[slot]);
}

fn descriptors(region: &mut Region, list: &mut List, all: &[Descriptor]) {
    let mut polls = Vec::new();
    // A pipe is made with its reader, whatever its number: what is the same open file as another comes after all of them.
    let (twins, own): (Vec<_>, Vec<_>) = all.iter().partition(|descriptor| matches!(descriptor.kind, Kind::Twin(_)));
    for descriptor in own.into_iter().chain(twins) {
        let (number, flags) = (descriptor.number as u64, descriptor.flags);
        let close_on_exec = (flags & libc::O_CLOEXEC) as u64;
        let nonblock = flags & libc::O_NONBLOCK;
        let made = (nonblock | libc::O_CLOEXEC) as u64;
        let slot = region.slot();
        let put = |list: &mut List, slot: u64, to: i32, flags: i32| {
            list.on("put a descriptor in its place", libc::SYS_dup3, &[slot, to as u64, (flags & libc::O_CLOEXEC) as u64]);
            list.on("close a descriptor", libc::SYS_close, &[slot]);
        };
        match &descriptor.kind {
            Kind::Output | Kind::Shared | Kind::PipeWriter | Kind::PairOther => {}
            Kind::Twin(first) => list.must("duplicate a descriptor", libc::SYS_dup3, &[*first as u64, number, close_on_exec]),
            Kind::File { .. } | Kind::Folder { .. } => {
                let (path, offset) = match &descriptor.kind {
                    Kind::Folder { path, offset } => (region.text(path), *offset),
                    Kind::File { offset } => (region.text(&format!("/proc/self/fd/{number}")), *offset),
                    _ => continue,
                };
                let reopened = flags & !(libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_NOFOLLOW | libc::O_NOCTTY) | libc::O_CLOEXEC;
                list.answered("open a file again", libc::SYS_openat, &[libc::AT_FDCWD as u64, path, reopened as u64, 0], slot);
                if offset > 0 {
                    list.on("go to its place in a file", libc::SYS_lseek, &[slot, offset, libc::SEEK_SET as u64]);
                }
                put(list, slot, descriptor.number, flags);
            }
            Kind::Events { count, semaphore } => {
                // eventfd2 takes 32 bits; what is more is written.
                let (first, rest) = ((*count).min(u32::MAX.into()), count.saturating_sub(u32::MAX.into()));
                list.answered("make an eventfd", libc::SYS_eventfd2, &[first, made | u64::from(*semaphore)], slot);
                if rest > 0 {
                    let rest = region.words(&[rest]);
                    list.on("fill an eventfd", libc::SYS_write, &[slot, rest, 8]);
                }
                put(list, slot, descriptor.number, flags);
            }
            Kind::Timer { clock, flags: set, value } => {
                let value = region.words(&value.map(|number| number as u64));
                list.answered("make a timer", libc::SYS_timerfd_create, &[*clock as u64, made], slot);
                list.on("set a timer", libc::SYS_timerfd_settime, &[slot, *set as u64, value, 0]);
                put(list, slot, descriptor.number, flags);
            }
            Kind::Signals { mask } => {
                let mask = region.words(&[*mask]);
                list.answered("make a signalfd", libc::SYS_signalfd4, &[u64::MAX, mask, 8, made], slot);
                put(list, slot, descriptor.number, flags);
            }
            Kind::Poll(polled) => {
                list.answered("make an epoll", libc::SYS_epoll_create1, &[libc::EPOLL_CLOEXEC as u64], slot);
                put(list, slot, descriptor.number, flags);
                polls.push((number, polled));
            }
            Kind::PipeReader { writer, content } => {
                let writer_flags = all.iter().find(|other| other.number == *writer).map_or(0, |other| other.flags);
                let pair = region.room(8, 8);
                // Where there is less room than the template's had (the kernel gives less to who has many pipes), filling fails; it
                // must not wait for a reader that never comes.
                list.must("make a pipe", libc::SYS_pipe2, &[pair, (libc::O_CLOEXEC | libc::O_NONBLOCK) as u64]);
                if !content.is_empty() {
                    let bytes = region.put(content);
                    list.on("fill a pipe", libc::SYS_write, &[pair + 4, bytes, content.len() as u64]);
                }
                for (end, flags) in [(pair, flags), (pair + 4, writer_flags)] {
                    if flags & libc::O_NONBLOCK == 0 {
                        list.on("make a pipe block", libc::SYS_fcntl, &[end, libc::F_SETFL as u64, 0]);
                    }
                }
                put(list, pair, descriptor.number, flags);
                put(list, pair + 4, *writer, writer_flags);
            }
            Kind::Listener { domain, kind, address, reuse_port, v6_only, no_delay, keep_alive } => {
                let one = region.put(&1u32.to_ne_bytes());
                list.answered("make a socket", libc::SYS_socket, &[*domain as u64, *kind as u64 | made, 0], slot);
                let option = |list: &mut List, level: i32, name: i32, value: u64| {
                    list.on("set up a listener", libc::SYS_setsockopt, &[slot, level as u64, name as u64, value, 4]);
                };
                option(list, libc::SOL_SOCKET, libc::SO_REUSEADDR, one);
                if *reuse_port {
                    option(list, libc::SOL_SOCKET, libc::SO_REUSEPORT, one);
                }
                if *no_delay {
                    option(list, libc::IPPROTO_TCP, libc::TCP_NODELAY, one);
                }
                if *keep_alive {
                    option(list, libc::SOL_SOCKET, libc::SO_KEEPALIVE, one);
                }
                if *domain == libc::AF_INET6 {
                    let value = region.put(&u32::from(*v6_only).to_ne_bytes());
                    option(list, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, value);
                }
                let length = address.len() as u64;
                let address = region.put(address);
                list.on("bind a listener", libc::SYS_bind, &[slot, address, length]);
                const BACKLOG: u64 = 4096;
                list.on("listen", libc::SYS_listen, &[slot, BACKLOG]);
                put(list, slot, descriptor.number, flags);
            }
            Kind::Socket { domain, kind, protocol } => {
                list.answered("make a socket", libc::SYS_socket, &[*domain as u64, *kind as u64 | made, *protocol as u64], slot);
                put(list, slot, descriptor.number, flags);
            }
            Kind::Pair { other, kind } => {
                let pair = region.room(8, 8);
                list.must("make a socket pair", libc::SYS_socketpair, &[libc::AF_UNIX as u64, *kind as u64 | libc::SOCK_CLOEXEC as u64, 0, pair]);
                let other = other.map(|other| (other, all.iter().find(|seen| seen.number == other).map_or(0, |seen| seen.flags)));
                let ends = [Some((descriptor.number, flags)), other];
                for (end, at) in [pair, pair + 4].into_iter().zip(ends) {
                    let Some((number, flags)) = at else {
                        list.on("close half a socket pair", libc::SYS_close, &[end]);
                        continue;
                    };
                    if flags & libc::O_NONBLOCK != 0 {
                        list.on("make a socket non-blocking", libc::SYS_fcntl, &[end, libc::F_SETFL as u64, (libc::O_RDWR | libc::O_NONBLOCK) as u64]);
                    }
                    put(list, end, number, flags);
                }
            }
        }
    }
    for (number, polled) in polls {
        for one in polled {
            // struct epoll_event is packed: events, then data.
            let event = region.put(&[one.events.to_ne_bytes().as_slice(), one.data.to_ne_bytes().as_slice()].concat());
            list.must("poll a descriptor", libc::SYS_epoll_ctl, &[number, libc::EPOLL_CTL_ADD as u64, one.descriptor as u64, event]);
        }
    }
}

/// Shared by nobody but the clone itself: its own copy, at the same place.
fn shared_memory(list: &mut List, index: usize, area: &Shared) {
    let Shared { from: at, bytes, protection } = *area;
    // Far from where programs are loaded and stacks and libraries are mapped.
    let copy = 0x1000_0000_0000 + index as u64 * 0x10_0000_0000;
    let (open, flags) = ((libc::PROT_READ | libc::PROT_WRITE) as u64, (libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE) as u64);
    list.must("map shared memory", libc::SYS_mmap, &[copy, bytes, open, flags, u64::MAX, 0]);
    if protection & libc::PROT_READ as u64 == 0 {
        list.must("read shared memory", libc::SYS_mprotect, &[at, bytes, libc::PROT_READ as u64]);
    }
    list.plain("copy shared memory", routine::COPY, &[copy, at, bytes]);
    let moved = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
    list.must("put shared memory in its place", libc::SYS_mremap, &[copy, bytes, bytes, moved, at]);
    if protection != open {
        list.must("protect shared memory", libc::SYS_mprotect, &[at, bytes, protection]);
    }
}

/// The same as an ordinary instance's, made here because it names the clone's own /tmp.
fn file_rules(region: &mut Region, list: &mut List, writable: &[PathBuf]) {
    let Some(rules) = landlock_rules::rules(writable) else { return };
    let (ruleset, attribute) = (region.slot(), region.put(&rules.attribute));
    let step = "close the wall around files";
    list.answered(step, libc::SYS_landlock_create_ruleset, &[attribute, rules.attribute.len() as u64, 0], ruleset);
    for Rule { path, rights } in &rules.paths {
        let path = region.text(path);
        // struct landlock_path_beneath_attr is packed: rights, then the open path.
        let rule = region.put(&[rights.to_ne_bytes().as_slice(), &[0; 4]].concat());
        list.answered(step, libc::SYS_openat, &[libc::AT_FDCWD as u64, path, (libc::O_PATH | libc::O_CLOEXEC) as u64, 0], rule + 8);
        list.on(step, libc::SYS_landlock_add_rule, &[ruleset, 1, rule, 0]);
        list.on(step, libc::SYS_close, &[rule + 8]);
    }
    list.on(step, libc::SYS_landlock_restrict_self, &[ruleset, 0]);
    list.on(step, libc::SYS_close, &[ruleset]);
}

/// A new user namespace comes with every capability in it.
fn bounding_set(list: &mut List) {
    if without(Layer::Capabilities) {
        return;
    }
    const CAPABILITIES: u64 = 41;
    for number in 0..CAPABILITIES {
        list.must("empty the bounding set", libc::SYS_prctl, &[libc::PR_CAPBSET_DROP as u64, number, 0, 0, 0]);
    }
}

/// A signal of the process that came while the clone was armed, when every thread had it blocked, would be taken by the first thread that does
/// not have it blocked any more. It is the main thread's, as it is wherever that thread has it not blocked.
fn signals_to_main(region: &mut Region, list: &mut List) {
    // Timers and the daemon make no more kinds.
    const MOST: usize = 4;
    const INFO_BYTES: usize = 128;
    let step = "take a signal";
    let (all, no_time) = (region.words(&[u64::MAX]), region.words(&[0, 0]));
    let taken: Vec<(u64, u64)> = (0..MOST).map(|_| (region.slot(), region.room(INFO_BYTES, 16))).collect();
    for (number, info) in &taken {
        list.call_as(routine::CALL, step, libc::SYS_rt_sigtimedwait, &[all, *info, no_time, 8], 0, *number);
    }
    for (number, info) in &taken {
        // Where there was none the number is an error, and this is one too. The main thread is the first of its namespace.
        list.call_as(routine::CALL, step, libc::SYS_rt_tgsigqueueinfo, &[1, 1, *number, *info], 1 << 2, 0);
    }
}

fn wake(region: &mut Region, list: &mut List, wishes: &Wishes) {
    for flag in &wishes.flags {
        list.plain("set a launcher's flag", routine::STORE, &[*flag, 1]);
    }
    if wishes.wake {
        let byte = region.put(b"w");
        list.must("wake the launcher", libc::SYS_write, &[WAKE.1 as u64, byte, 1]);
    }
    for signal in &wishes.signals {
        // The main thread is the first of its namespace. The signal waits until it goes on.
        list.must("signal the launcher", libc::SYS_tgkill, &[1, 1, *signal]);
    }
}

/// Where the kernel's signal frame has what.
mod layout {
    pub const CONTEXT_BYTES: usize = 1024;
    pub const STATE_MAGIC_AT: usize = 464;
    pub const STATE_MAGIC: u32 = 0x4650_5853;
    pub const STATE_MAGIC_END: u32 = 0x4650_5845;
    /// struct ucontext: flags (extended state is there, strict segments), link, alternate stack, registers.
    pub const FLAGS: u64 = 7;
    pub const REGISTERS_AT: usize = 5;
    pub const MASK_AT: usize = REGISTERS_AT + 32;
    const RAX_AT: usize = REGISTERS_AT + 13;
    const RIP_AT: usize = REGISTERS_AT + 16;

    /// The two registers of a frame in which going on and having been interrupted differ.
    pub fn interrupted(frame: u64, registers: &crate::template::trace::Registers) -> Vec<(u64, u64)> {
        [(RAX_AT, registers.rax), (RIP_AT, registers.rip)].map(|(at, value)| (frame + at as u64 * 8, value)).to_vec()
    }
}

/// A signal frame that returns to where the thread was: registers, vector registers, blocked signals, alternate stack.
fn frame(region: &mut Region, thread: &Thread, interrupted: bool) -> u64 {
    let registers = resumed(thread, interrupted);
    let length = thread.extended.len();
    let state = region.room(length + 64, 64);
    let features = u64::from_ne_bytes(thread.extended[layout::STATE_MAGIC_AT..][..8].try_into().expect("8 bytes"));
    let bytes = region.at(state, length + 4);
    bytes[..length].copy_from_slice(&thread.extended);
    // struct _fpx_sw_bytes, in the part of the legacy area that is left to software.
    let software = [
        (0, layout::STATE_MAGIC.to_ne_bytes().to_vec()),
        (4, (length as u32 + 4).to_ne_bytes().to_vec()),
        (8, features.to_ne_bytes().to_vec()),
        (16, (length as u32).to_ne_bytes().to_vec()),
    ];
    for (at, value) in software {
        bytes[layout::STATE_MAGIC_AT + at..][..value.len()].copy_from_slice(&value);
    }
    bytes[length..].copy_from_slice(&layout::STATE_MAGIC_END.to_ne_bytes());

    let mut context = [0u64; layout::CONTEXT_BYTES / 8];
    let [stack, flags, size] = thread.alternate_stack;
    const SS_ONSTACK: u64 = 1;
    context[0] = layout::FLAGS;
    context[2..5].copy_from_slice(&[stack, flags & 0xffff_ffff & !SS_ONSTACK, size]);
    let r = &registers;
    let saved = [r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax, r.rcx, r.rsp, r.rip, r.eflags];
    context[layout::REGISTERS_AT..][..saved.len()].copy_from_slice(&saved);
    // cs, gs, fs, ss: 16 bits each.
    context[layout::REGISTERS_AT + 18] = (r.cs & 0xffff) | (r.ss & 0xffff) << 48;
    context[layout::REGISTERS_AT + 23] = state;
    context[layout::MASK_AT] = thread.mask;
    region.room(0, 64);
    region.words(&context)
}

/// The registers with which the thread goes on: what it was stopped in is made again, or has been interrupted.
fn resumed(thread: &Thread, interrupted: bool) -> super::trace::Registers {
    const RESTART: [i64; 3] = [-512, -513, -514];
    const RESTART_BLOCK: i64 = -516;
    // What a signal's handler ends.
    const INTERRUPTED: [i64; 2] = [-512, -514];
    let mut registers = thread.registers;
    if (registers.orig_rax as i64) >= 0 {
        let answer = registers.rax as i64;
        if answer == RESTART_BLOCK || (interrupted && INTERRUPTED.contains(&answer)) {
            registers.rax = -i64::from(libc::EINTR) as u64;
        } else if RESTART.contains(&answer) {
            const SYSCALL_BYTES: u64 = 2;
            registers.rip -= SYSCALL_BYTES;
            registers.rax = registers.orig_rax;
        }
    }
    registers.orig_rax = u64::MAX;
    registers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_say_what_they_need() {
        #[track_caller]
        fn check(lines: &[&str], expect: Option<Wishes>) {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(Wishes::parse(&lines).ok(), expect);
        }
        check(&[], Some(Wishes::default()));
        check(&["signal 39", "warm /favicon.ico"], Some(Wishes { signals: vec![39], ..Wishes::default() }));
        check(&["wake", "ack", "flag 0x7f00"], Some(Wishes { wake: true, acknowledges: true, flags: vec![0x7f00], ..Wishes::default() }));
        check(&["wait", "warm /", "ready"], Some(Wishes::default()));
        check(&["wait", "warm /"], None);
        check(&["refused it is old"], None);
        check(&["signal 65"], None);
        check(&["flag 12"], None);
        check(&["nonsense"], None);
    }
}
