//! A process with every thread stopped, and what its threads are.
//!
//! It is never let go on again: the only code that still runs in it is the injected routine, in its main thread.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
};

use super::{
    refusal::{Read, Refusal, refuse},
    trace::{self, Registers, RestartableSequence, Status},
};

/// A template has at most this many threads.
const THREADS_MAX: usize = 256;
/// A round is a look at all of them; one is enough for a process that does not make any at that moment.
const ROUNDS_MAX: u32 = 10_000;
const PR_GET_TID_ADDRESS: u64 = 40;
/// How many signals may arrive while one instruction is made.
const SIGNALS_MAX: u32 = 100;
const SYSCALL: [u8; 2] = [0x0f, 0x05];

pub(super) struct Frozen {
    pub pid: i32,
    memory: File,
    /// The first is the main thread.
    pub threads: Vec<Thread>,
    /// Of a `syscall` instruction in it.
    syscall_at: u64,
    /// A page that injected system calls read and write; 0 until [`Frozen::scratch_set`].
    scratch: u64,
}

/// What a thread is, beside its memory.
pub(super) struct Thread {
    /// On the host.
    pub tid: i32,
    /// In its own pid namespace.
    pub inner: i32,
    pub registers: Registers,
    pub extended: Vec<u8>,
    pub mask: u64,
    pub sequence: RestartableSequence,
    pub robust: (u64, u64),
    /// What the kernel clears when it ends; 0: nothing.
    pub clear_tid: u64,
    pub alternate_stack: [u64; 3],
    /// Whether its process has a handler for any signal.
    pub has_handlers: bool,
    /// Any bytes.
    pub name: Vec<u8>,
}

impl Frozen {
    /// Attaches to every thread and stops it.
    pub fn stop(pid: i32) -> Result<Self, Refusal> {
        let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem")).read("the memory")?;
        let mut tids = Vec::new();
        let mut rounds = 0;
        // Until there are no more than those that are stopped. A look at the folder does not say so: it can miss one that was made by one
        // that ended meanwhile. The number is of one moment, and who is stopped makes no other.
        while round(pid, &mut tids)? || count(pid)? != tids.len() {
            rounds += 1;
            if rounds == ROUNDS_MAX {
                return refuse("it makes threads faster than they can be stopped");
            }
        }
        tids.sort_by_key(|tid| (*tid != pid, *tid));
        if tids.first() != Some(&pid) {
            return refuse("its main thread has ended");
        }
        let filters = filters_of_init(pid);
        let mut frozen = Self { pid, memory, threads: Vec::new(), syscall_at: 0, scratch: 0 };
        for tid in tids {
            frozen.threads.push(thread(pid, tid, filters.as_deref())?);
        }
        frozen.sequences_check()?;
        frozen.syscall_at = frozen.syscall_find()?;
        // Only now: none of its own code runs any more.
        trace::filter_suspend(pid).read("the main thread (PTRACE_O_SUSPEND_SECCOMP)")?;
        Ok(frozen)
    }

    /// A thread inside a restartable sequence would go on in it, on another processor than it believes.
    fn sequences_check(&self) -> Result<(), Refusal> {
        const DESCRIPTION_AT: u64 = 8;
        for thread in self.threads.iter().filter(|thread| thread.sequence.address != 0) {
            let description = self.number(thread.sequence.address + DESCRIPTION_AT)?;
            if description == 0 {
                continue;
            }
            // struct rseq_cs: version and flags, begin, length, where to go on when interrupted.
            let (begin, length) = (self.number(description + 8)?, self.number(description + 16)?);
            if thread.registers.rip.wrapping_sub(begin) < length {
                return refuse("a thread was stopped in a restartable sequence");
            }
        }
        Ok(())
    }

    /// Reads what only a thread itself can be asked for, with `scratch` as the place for answers.
    pub fn scratch_set(&mut self, scratch: u64) -> Result<(), Refusal> {
        self.scratch = scratch;
        for index in 0..self.threads.len() {
            let found = self.call_of(index, libc::SYS_prctl, &[PR_GET_TID_ADDRESS, scratch])?;
            self.threads[index].clear_tid = if found == 0 { self.number(scratch)? } else { 0 };
            if self.call_of(index, libc::SYS_sigaltstack, &[0, scratch])? != 0 {
                return refuse("its alternate signal stack cannot be read");
            }
            let mut stack = [0u8; 24];
            self.read(scratch, &mut stack)?;
            for (word, bytes) in self.threads[index].alternate_stack.iter_mut().zip(stack.chunks_exact(8)) {
                *word = u64::from_ne_bytes(bytes.try_into().expect("8 bytes"));
            }
        }
        Ok(())
    }

    /// Makes a system call in the main thread.
    pub fn call(&self, number: i64, arguments: &[u64]) -> Result<i64, Refusal> {
        self.call_of(0, number, arguments)
    }

    fn call_of(&self, thread: usize, number: i64, arguments: &[u64]) -> Result<i64, Refusal> {
        let thread = &self.threads[thread];
        let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
        let registers = Registers {
            rip: self.syscall_at,
            rax: number as u64,
            // Else the kernel would restart what the thread was stopped in.
            orig_rax: u64::MAX,
            rdi: argument(0),
            rsi: argument(1),
            rdx: argument(2),
            r10: argument(3),
            r8: argument(4),
            r9: argument(5),
            ..thread.registers
        };
        let call = || {
            trace::registers_set(thread.tid, &registers)?;
            let mut tries = 0;
            loop {
                trace::step(thread.tid)?;
                match trace::wait(thread.tid, true)? {
                    Some((_, Status::Stopped { signal: libc::SIGTRAP, event: 0 })) => break,
                    // Signals that it will not get. One that comes again and again is a fault of the instruction itself.
                    Some((_, Status::Stopped { .. })) if tries < SIGNALS_MAX => tries += 1,
                    _ => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
                }
            }
            let answered = trace::registers(thread.tid)?;
            if answered.rip != self.syscall_at + SYSCALL.len() as u64 {
                return Err(io::Error::from_raw_os_error(libc::EFAULT));
            }
            // As it was, so that whoever looks sees where the thread stands.
            trace::registers_set(thread.tid, &thread.registers)?;
            Ok(answered.rax as i64)
        };
        call().read("a thread, by a system call in it")
    }

    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Refusal> {
        self.memory.read_exact_at(bytes, address).read("the memory")
    }

    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Refusal> {
        self.memory.write_all_at(bytes, address).read("the memory, by writing to it")
    }

    pub fn number(&self, address: u64) -> Result<u64, Refusal> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Every process has one in its vDSO, for what cannot be answered without the kernel.
    fn syscall_find(&self) -> Result<u64, Refusal> {
        let maps = super::state::text(&format!("/proc/{}/maps", self.pid))?;
        // A file of that name has an inode.
        let is_vdso = |words: &[&str]| matches!(words, [_, "r-xp", _, "00:00", "0", "[vdso]"]);
        let vdso = maps.lines().find_map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            if is_vdso(&words) { range(words[0]) } else { None }
        });
        let Some((from, to)) = vdso else { return refuse("it has no vDSO") };
        let mut code = vec![0; ((to - from) as usize).min(64 << 10)];
        self.read(from, &mut code)?;
        match code.windows(2).position(|bytes| bytes == SYSCALL) {
            Some(at) => Ok(from + at as u64),
            None => refuse("its vDSO makes no system call"),
        }
    }
}

/// `7f00-7f10`, hexadecimal.
pub(super) fn range(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text.split_once('-')?;
    Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
}

/// The entries of a folder of /proc that are numbers.
pub(super) fn numbers(folder: &PathBuf) -> io::Result<Vec<i32>> {
    let entries = fs::read_dir(folder)?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// Looks at all threads and stops those that are not yet. Whether there was one.
fn round(pid: i32, tids: &mut Vec<i32>) -> Result<bool, Refusal> {
    let mut was_one = false;
    for tid in numbers(&PathBuf::from(format!("/proc/{pid}/task"))).read("the threads")? {
        if tids.contains(&tid) {
            continue;
        }
        was_one = true;
        if tids.len() == THREADS_MAX {
            return refuse(format!("it has more than {THREADS_MAX} threads"));
        }
        match trace::seize(tid).and_then(|()| trace::interrupt(tid)) {
            Ok(()) => {
                if stopped(tid)? {
                    // Its number could have become another's before it was attached to; stopped, it keeps it.
                    if !PathBuf::from(format!("/proc/{pid}/task/{tid}")).exists() {
                        return refuse("its threads change too fast");
                    }
                    trace::bind(tid).read("a thread (PTRACE_O_EXITKILL)")?;
                    tids.push(tid);
                }
            }
            // It ended meanwhile, or is about to.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) || (error.raw_os_error() == Some(libc::EPERM) && is_ending(pid, tid)) => {
                if tid == pid {
                    return refuse("its main thread has ended");
                }
            }
            Err(error) => return Err(error).read("a thread (PTRACE_SEIZE)"),
        }
    }
    Ok(was_one)
}

/// How many threads the process has, by the kernel's own count.
fn count(pid: i32) -> Result<usize, Refusal> {
    let status = fs::read(format!("/proc/{pid}/status")).read("its status")?;
    let status = String::from_utf8_lossy(&status);
    let count = status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok());
    count.ok_or(io::ErrorKind::InvalidData.into()).read("the number of its threads")
}

fn is_ending(pid: i32, tid: i32) -> bool {
    let stat = fs::read(format!("/proc/{pid}/task/{tid}/stat")).unwrap_or_default();
    String::from_utf8_lossy(&stat).rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
}

/// Waits until the thread has stopped; a signal that arrives first is delivered first. False: it has ended.
fn stopped(tid: i32) -> Result<bool, Refusal> {
    loop {
        match trace::wait(tid, true).read("a thread that stops")? {
            Some((_, Status::Stopped { event: trace::EVENT_STOP, .. })) => return Ok(true),
            Some((_, Status::Stopped { signal, .. })) => match trace::resume(tid, signal) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error).read("a thread that got a signal"),
                _ => {}
            },
            _ => return Ok(false),
        }
    }
}

/// The segments of 64-bit code.
const USER_CODE: u64 = 0x33;
const USER_DATA: u64 = 0x2b;
/// A little more than AVX-512 needs.
const EXTENDED_MAX: usize = 4096;

/// How many system call filters the process's init has: its own must be no others. `None`: the kernel does not tell.
fn filters_of_init(pid: i32) -> Option<String> {
    let field = |pid: &str, name: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned())
    };
    field(&field(&pid.to_string(), "PPid:")?, "Seccomp_filters:")
}

fn thread(pid: i32, tid: i32, filters: Option<&str>) -> Result<Thread, Refusal> {
    // Its name is in there, which may be no text.
    let status = fs::read(format!("/proc/{pid}/task/{tid}/status")).read("a thread's status")?;
    let status = String::from_utf8_lossy(&status);
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default();
    for pending in ["SigPnd:", "ShdPnd:"] {
        if field(pending).chars().any(|digit| digit != '0') {
            return refuse("a signal waits for it");
        }
    }
    if filters.is_some_and(|filters| field("Seccomp_filters:") != filters) {
        return refuse("it has a system call filter of its own");
    }
    if field("x86_Thread_features:").contains("shstk") {
        return refuse("it has a shadow stack");
    }
    let children = fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).read("the children")?;
    if !children.trim().is_empty() {
        return refuse("it has a child process");
    }
    let inner = field("NSpid:").split_ascii_whitespace().next_back().and_then(|number| number.parse().ok()).unwrap_or(0);
    let registers = trace::registers(tid).read("the registers")?;
    if registers.cs != USER_CODE || registers.ss != USER_DATA {
        return refuse("a thread runs 32-bit code");
    }
    if trace::dispatches_calls(tid) {
        return refuse("a thread has its system calls handed back to it");
    }
    if registers.gs_base != 0 {
        return refuse("a thread uses the gs segment");
    }
    let extended = trace::extended_state(tid).read("the vector registers")?;
    if extended.len() > EXTENDED_MAX {
        return refuse("its processor has registers (AMX) that clones have not been tried with");
    }
    Ok(Thread {
        tid,
        inner,
        registers,
        extended,
        mask: trace::signal_mask(tid).read("the signal mask")?,
        sequence: trace::restartable_sequence(tid).read("the restartable sequence")?,
        robust: trace::robust_list(tid).read("the robust futexes")?,
        clear_tid: 0,
        alternate_stack: [0; 3],
        has_handlers: field("SigCgt:").chars().any(|digit| digit != '0'),
        name: fs::read(format!("/proc/{pid}/task/{tid}/comm"))
            .map(|mut name| {
                // The kernel's own line end.
                name.pop();
                name
            })
            .read("a thread's name")?,
    })
}
