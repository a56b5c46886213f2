//! ptrace(2), a call a function. Everything here is about one stopped thread of another process, named by its id.
//!
//! The kernel lets only the thread that attached do any of it, so an engine is one process with one thread.

use std::io;

pub(super) use libc::user_regs_struct as Registers;

/// `PTRACE_EVENT_STOP`: stopped because it was asked to, or just born.
pub(super) const EVENT_STOP: i32 = 128;
const NT_X86_XSTATE: usize = 0x202;
const GET_RSEQ_CONFIGURATION: u32 = 0x420f;
const GETSIGMASK: u32 = 0x420a;
const SUSPEND_SECCOMP: usize = 1 << 21;
const EXITKILL: usize = 1 << 20;
const SETOPTIONS: u32 = 0x4200;
const GET_SYSCALL_USER_DISPATCH_CONFIG: u32 = 0x4211;
const SETSIGMASK: u32 = 0x420b;
const SEIZE: u32 = 0x4206;
const INTERRUPT: u32 = 0x4207;

/// What a tracee did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// By this signal, which it has not got yet; 128 is EVENT_STOP's.
    Stopped { signal: i32, event: i32 },
    /// Exited or killed.
    Gone,
}

/// Attaches without stopping: the thread goes on for a moment, behind its filter.
pub(super) fn seize(thread: i32) -> io::Result<()> {
    request(SEIZE, thread, 0, 0)
}

/// From now on a stopped thread dies with this process.
pub(super) fn bind(thread: i32) -> io::Result<()> {
    request(SETOPTIONS, thread, 0, EXITKILL)
}

/// Whether a thread has its system calls handed back to itself (PR_SET_SYSCALL_USER_DISPATCH). Kernels before 6.4 cannot tell.
pub(super) fn dispatches_calls(thread: i32) -> bool {
    // struct ptrace_sud_config: mode, selector, offset, length.
    let mut config = [0u64; 4];
    request(GET_SYSCALL_USER_DISPATCH_CONFIG, thread, size_of_val(&config), (&raw mut config).addr()).is_ok() && config[0] != 0
}

/// From now on the system calls of a stopped thread are not filtered, until it is let go, and no signal but SIGKILL is delivered to it.
pub(super) fn filter_suspend(thread: i32) -> io::Result<()> {
    let all = u64::MAX;
    request(SETSIGMASK, thread, size_of::<u64>(), (&raw const all).addr())?;
    request(SETOPTIONS, thread, 0, SUSPEND_SECCOMP | EXITKILL)
}

/// Asks it to stop; [`wait`] tells when.
pub(super) fn interrupt(thread: i32) -> io::Result<()> {
    request(INTERRUPT, thread, 0, 0)
}

/// Lets it run, with a signal or with none (0).
pub(super) fn resume(thread: i32, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_CONT, thread, 0, signal as usize)
}

/// Lets it run one instruction.
pub(super) fn step(thread: i32) -> io::Result<()> {
    request(libc::PTRACE_SINGLESTEP, thread, 0, 0)
}

/// Lets it run, untraced from now on.
pub(super) fn detach(thread: i32) -> io::Result<()> {
    request(libc::PTRACE_DETACH, thread, 0, 0)
}

pub(super) fn registers(thread: i32) -> io::Result<Registers> {
    // SAFETY: all zero is a valid value of this plain struct of numbers.
    let mut registers: Registers = unsafe { std::mem::zeroed() };
    request(libc::PTRACE_GETREGS, thread, 0, (&raw mut registers).addr())?;
    Ok(registers)
}

pub(super) fn registers_set(thread: i32, registers: &Registers) -> io::Result<()> {
    request(libc::PTRACE_SETREGS, thread, 0, (&raw const *registers).addr())
}

/// Floating point and vector registers, in the layout of the processor's XSAVE.
pub(super) fn extended_state(thread: i32) -> io::Result<Vec<u8>> {
    let mut state = vec![0u8; 16 << 10];
    let mut slice = libc::iovec { iov_base: state.as_mut_ptr().cast(), iov_len: state.len() };
    request(libc::PTRACE_GETREGSET, thread, NT_X86_XSTATE, (&raw mut slice).addr())?;
    state.truncate(slice.iov_len);
    Ok(state)
}

/// The signals it has blocked.
pub(super) fn signal_mask(thread: i32) -> io::Result<u64> {
    let mut mask = 0u64;
    request(GETSIGMASK, thread, size_of::<u64>(), (&raw mut mask).addr())?;
    Ok(mask)
}

/// Whether a signal waits for a stopped thread, of its own or of its process, that is none of these.
pub(super) fn signal_waits(thread: i32, except: u64) -> io::Result<bool> {
    /// struct ptrace_peeksiginfo_args.
    #[repr(C)]
    struct Which {
        from: u64,
        flags: u32,
        count: i32,
    }
    const PEEKSIGINFO: u32 = 0x4209;
    const OF_THE_PROCESS: u32 = 1;
    const MOST: usize = 8;
    const INFO_BYTES: usize = 128;
    for flags in [0, OF_THE_PROCESS] {
        let which = Which { from: 0, flags, count: MOST as i32 };
        let mut waiting = [[0u32; INFO_BYTES / 4]; MOST];
        // SAFETY: this request reads `which` and writes at most `count` times 128 bytes to `waiting`, both of which outlive the call.
        let count = unsafe { libc::ptrace(PEEKSIGINFO as _, thread, &raw const which, waiting.as_mut_ptr()) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        if waiting[..count as usize].iter().any(|info| (1..=64).contains(&info[0]) && except >> (info[0] - 1) & 1 == 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A registered restartable sequence, as rseq(2) takes it again.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RestartableSequence {
    pub address: u64,
    pub size: u32,
    pub signature: u32,
    flags: u32,
    padding: u32,
}

/// `address` is 0 when none is registered.
pub(super) fn restartable_sequence(thread: i32) -> io::Result<RestartableSequence> {
    let mut sequence = RestartableSequence::default();
    request(GET_RSEQ_CONFIGURATION, thread, size_of::<RestartableSequence>(), (&raw mut sequence).addr())?;
    Ok(sequence)
}

/// The head of its list of robust futexes and the head's size.
pub(super) fn robust_list(thread: i32) -> io::Result<(u64, u64)> {
    let (mut head, mut size) = (0u64, 0u64);
    // SAFETY: get_robust_list(2) writes one number to each of the two, which live across the call.
    let result = unsafe { libc::syscall(libc::SYS_get_robust_list, thread, &raw mut head, &raw mut size) };
    if result == 0 { Ok((head, size)) } else { Err(io::Error::last_os_error()) }
}

/// Waits for the next change of any tracee (-1) or of one. `None`: `block` is false and nothing changed.
pub(super) fn wait(thread: i32, block: bool) -> io::Result<Option<(i32, Status)>> {
    let mut status = 0;
    loop {
        // SAFETY: waitpid(2) writes one number, which lives across the call.
        let changed = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL | if block { 0 } else { libc::WNOHANG }) };
        return match changed {
            0 => Ok(None),
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                Err(error)
            }
            thread if libc::WIFSTOPPED(status) => Ok(Some((thread, Status::Stopped { signal: libc::WSTOPSIG(status), event: status >> 16 }))),
            thread => Ok(Some((thread, Status::Gone))),
        };
    }
}

fn request(request: u32, thread: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: ptrace(2) of the requests above reads or writes, in this process, at most the object whose address is `data` (or the
    // buffer that its iovec names, of the length told there), all of which outlive the call. What it does to the tracee is the point.
    let result = unsafe { libc::ptrace(request as _, thread, address, data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
