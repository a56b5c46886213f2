//! Which system calls the command may make: an allow-list.
//!
//! What is not listed, so also what future kernels bring, answers ENOSYS, which C libraries and runtimes take as "old kernel" and
//! work around (clone3, io_uring). Known doors into the kernel (mount API, bpf, ptrace, keys, ...) answer EPERM, which is what a
//! program without the privilege gets, so that it says so instead of looking for another way. Socket families other than unix,
//! IPv4 and IPv6 answer EAFNOSUPPORT. The names are in `calls`.
//!
//! `program` makes one short program of it, since installing is on the way of every start: 0.2 ms, where the same policy compiled
//! by the seccompiler crate takes 1.6 ms. That crate is the measure the program is tested against, call by call (`oracle`).

mod calls;
#[cfg(test)]
mod oracle;
mod program;

use std::{collections::BTreeMap, io};

use rustix::thread::set_no_new_privs;

use self::program::{Answer, Rule};

/// The compiled filter, made once by the keeper and installed in every init.
pub(crate) struct Filter(Vec<libc::sock_filter>);

impl Filter {
    pub fn compile() -> Self {
        Self(program::compile(&rules(), Answer::Errno(libc::ENOSYS)))
    }

    /// Installs it on this thread and all that it makes, for good. Sets no_new_privs.
    pub fn install(&self) -> io::Result<()> {
        set_no_new_privs(true)?;
        let program =
            libc::sock_fprog { len: u16::try_from(self.0.len()).expect("a program is a few hundred instructions"), filter: self.0.as_ptr().cast_mut() };
        // SAFETY: seccomp(2) reads `program` and the instructions it points to, both alive across the call, and writes neither.
        let installed = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        if installed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

const EPERM: Answer = Answer::Errno(libc::EPERM);
const EAFNOSUPPORT: Answer = Answer::Errno(libc::EAFNOSUPPORT);

/// The flags of clone that make namespaces.
const NAMESPACES: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNET;

/// The rule of every call that has one.
fn rules() -> BTreeMap<u32, Rule> {
    let allowed = calls::ALLOWED.iter().chain(calls::ALLOWED_ARCH).map(|call| (*call, Rule::Always(Answer::Allow)));
    let refused = calls::REFUSED.iter().chain(calls::REFUSED_ARCH).map(|call| (*call, Rule::Always(EPERM)));
    let list = |argument, mask, values: &[u32], listed, other| Rule::ByArgument { argument, mask, values: values.to_vec(), listed, other };
    let whole = u32::MAX;
    let mut by_argument = vec![
        // No new namespaces. clone3 hides its flags behind a pointer, so it is not listed and the C library falls back to clone.
        (libc::SYS_clone, list(0, NAMESPACES as u32, &[0], Answer::Allow, EPERM)),
        // Terminals: TIOCSTI types into one, TIOCLINUX pastes into one.
        (libc::SYS_ioctl, list(1, whole, &[libc::TIOCSTI as u32, libc::TIOCLINUX as u32], EPERM, Answer::Allow)),
        // Reading the execution domain is harmless, changing it switches address randomization off.
        (libc::SYS_personality, list(0, whole, &[0xffff_ffff], Answer::Allow, EPERM)),
        (libc::SYS_socket, list(0, whole, &[libc::AF_UNIX as u32, libc::AF_INET as u32, libc::AF_INET6 as u32], Answer::Allow, EAFNOSUPPORT)),
        (libc::SYS_socketpair, list(0, whole, &[libc::AF_UNIX as u32], Answer::Allow, EAFNOSUPPORT)),
    ];
    for (call, mode) in calls::MKNOD {
        // Pipes with a name, sockets and plain files, no devices.
        let kinds = [0, libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK];
        by_argument.push((*call, list(*mode, libc::S_IFMT, &kinds, Answer::Allow, EPERM)));
    }
    let all = allowed.chain(refused).chain(by_argument);
    all.map(|(call, rule)| (u32::try_from(call).expect("a call's number is not negative"), rule)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_one_rule() {
        let listed = calls::ALLOWED.len() + calls::ALLOWED_ARCH.len() + calls::REFUSED.len() + calls::REFUSED_ARCH.len();
        assert_eq!(rules().len(), listed + 5 + calls::MKNOD.len());
    }

    #[test]
    fn the_program_is_short_and_its_way_to_an_answer_shorter() {
        let filter = Filter::compile();
        assert!(filter.0.len() < 700, "{}", filter.0.len());
        let longest = (0..500).map(|call| oracle::run(&filter.0, call, [0; 6]).1).max().unwrap();
        assert!(longest < 40, "{longest}");
    }
}
