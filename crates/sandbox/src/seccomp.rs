//! Which system calls the command may make: an allow-list.
//!
//! Three filters in one stack; the kernel takes the most recently installed of equal actions:
//! 1. the allow-list, some of it by argument; anything else, so also what future kernels bring, answers ENOSYS, which C
//!    libraries and runtimes take as "old kernel" and work around (clone3, io_uring);
//! 2. known doors into the kernel (mount API, bpf, ptrace, keys, ...) answer EPERM, which is what a program without the
//!    privilege gets, so that it says so instead of looking for another way;
//! 3. socket families other than unix, IPv4 and IPv6 answer EAFNOSUPPORT.
//!
//! The list is what CPython, pip, uv, Node.js, Go, the JVM and ordinary command-line programs call, less what only harms
//! others: kernel AIO (its quota is one for the whole host), `sync` and `syncfs` (they flush the host's disks).

use std::{collections::BTreeMap, io};

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// The compiled filters, made once by the keeper and installed in every init.
pub(crate) struct Filters(Vec<BpfProgram>);

impl Filters {
    pub fn compile() -> Result<Self, seccompiler::Error> {
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        let allow =
            SeccompFilter::new(allowed()?, errno(libc::ENOSYS), SeccompAction::Allow, arch)?;
        let refuse =
            SeccompFilter::new(refused()?, SeccompAction::Allow, errno(libc::EPERM), arch)?;
        let families = SeccompFilter::new(
            families_refused()?,
            SeccompAction::Allow,
            errno(libc::EAFNOSUPPORT),
            arch,
        )?;
        Ok(Self(vec![
            allow.try_into()?,
            refuse.try_into()?,
            families.try_into()?,
        ]))
    }

    /// Installs them on this thread and all that it makes, for good. Sets no_new_privs.
    pub fn install(&self) -> io::Result<()> {
        for program in &self.0 {
            seccompiler::apply_filter(program).map_err(|error| match error {
                seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
                other => io::Error::other(other.to_string()),
            })?;
        }
        Ok(())
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Compiled<T> = Result<T, seccompiler::Error>;

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number as u32)
}

fn rule(conditions: Vec<SeccompCondition>) -> Compiled<SeccompRule> {
    Ok(SeccompRule::new(conditions)?)
}

fn allowed() -> Compiled<Rules> {
    let mut rules: Rules = ALLOWED
        .iter()
        .chain(ALLOWED_ARCH)
        .map(|number| (*number, Vec::new()))
        .collect();
    // No new namespaces. clone3 hides its flags behind a pointer, so it is not here and the C library falls back to clone.
    let namespaces = (libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET) as u64;
    rules.insert(
        libc::SYS_clone,
        vec![rule(vec![SeccompCondition::new(
            0,
            Qword,
            SeccompCmpOp::MaskedEq(namespaces),
            0,
        )?])?],
    );
    // Terminals: TIOCSTI types into one, TIOCLINUX pastes into one. The kernel looks at 32 bits of the command.
    let not = |command: u64| SeccompCondition::new(1, Dword, SeccompCmpOp::Ne, command);
    rules.insert(
        libc::SYS_ioctl,
        vec![rule(vec![not(libc::TIOCSTI)?, not(libc::TIOCLINUX)?])?],
    );
    // Reading the execution domain is harmless, changing it switches off address randomization.
    rules.insert(
        libc::SYS_personality,
        vec![rule(vec![SeccompCondition::new(
            0,
            Dword,
            SeccompCmpOp::Eq,
            0xffff_ffff,
        )?])?],
    );
    // Pipes with a name and plain files, no devices.
    for (number, mode) in MKNOD {
        let kind = |kind: u32| {
            rule(vec![SeccompCondition::new(
                *mode,
                Dword,
                SeccompCmpOp::MaskedEq(libc::S_IFMT.into()),
                kind.into(),
            )?])
        };
        rules.insert(
            *number,
            vec![
                kind(libc::S_IFIFO)?,
                kind(libc::S_IFREG)?,
                kind(libc::S_IFSOCK)?,
                kind(0)?,
            ],
        );
    }
    Ok(rules)
}

fn refused() -> Compiled<Rules> {
    let mut rules: Rules = REFUSED
        .iter()
        .chain(REFUSED_ARCH)
        .map(|number| (*number, Vec::new()))
        .collect();
    let not_query = SeccompCondition::new(0, Dword, SeccompCmpOp::Ne, 0xffff_ffff)?;
    rules.insert(libc::SYS_personality, vec![rule(vec![not_query])?]);
    // One rule a flag: any of them is refused.
    let namespace = |flag: i32| {
        rule(vec![SeccompCondition::new(
            0,
            Qword,
            SeccompCmpOp::MaskedEq(flag as u64),
            flag as u64,
        )?])
    };
    rules.insert(
        libc::SYS_clone,
        vec![
            namespace(libc::CLONE_NEWNS)?,
            namespace(libc::CLONE_NEWCGROUP)?,
            namespace(libc::CLONE_NEWUTS)?,
            namespace(libc::CLONE_NEWIPC)?,
            namespace(libc::CLONE_NEWUSER)?,
            namespace(libc::CLONE_NEWPID)?,
            namespace(libc::CLONE_NEWNET)?,
        ],
    );
    let command = |command: u64| {
        rule(vec![SeccompCondition::new(
            1,
            Dword,
            SeccompCmpOp::Eq,
            command,
        )?])
    };
    rules.insert(
        libc::SYS_ioctl,
        vec![command(libc::TIOCSTI)?, command(libc::TIOCLINUX)?],
    );
    Ok(rules)
}

fn families_refused() -> Compiled<Rules> {
    let other = |families: &[i32]| {
        let conditions = families
            .iter()
            .map(|family| SeccompCondition::new(0, Dword, SeccompCmpOp::Ne, *family as u64));
        rule(conditions.collect::<Result<_, _>>()?)
    };
    Ok(Rules::from([
        (
            libc::SYS_socket,
            vec![other(&[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6])?],
        ),
        (libc::SYS_socketpair, vec![other(&[libc::AF_UNIX])?]),
    ]))
}

/// Allowed with any argument, on every architecture.
const ALLOWED: &[c_long] = &[
    // Files, by descriptor and by path.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    SYS_FACCESSAT2,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_readlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    SYS_FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_umask,
    libc::SYS_utimensat,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_vmsplice,
    libc::SYS_copy_file_range,
    libc::SYS_memfd_create,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_signalfd4,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_futex,
    SYS_FUTEX_WAITV,
    libc::SYS_restart_syscall,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_mlockall,
    libc::SYS_munlockall,
    libc::SYS_pkey_alloc,
    libc::SYS_pkey_free,
    libc::SYS_pkey_mprotect,
    libc::SYS_get_mempolicy,
    libc::SYS_membarrier,
    // Processes, threads, signals. `clone` is allowed by its flags.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getpgid,
    libc::SYS_setpgid,
    libc::SYS_getsid,
    libc::SYS_setsid,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sigaltstack,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_getrlimit,
    libc::SYS_setrlimit,
    libc::SYS_getrusage,
    libc::SYS_getpriority,
    libc::SYS_setpriority,
    libc::SYS_ioprio_get,
    libc::SYS_ioprio_set,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_setparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_getattr,
    libc::SYS_sched_setattr,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_rr_get_interval,
    libc::SYS_getcpu,
    // Who am I. Without capabilities the setters change nothing.
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capget,
    // Time and the machine.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    libc::SYS_getitimer,
    libc::SYS_setitimer,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_gettime,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_delete,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
    // Sockets; the families are looked at by a filter of their own.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // System V and POSIX IPC: the namespace is the sandbox's own.
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmdt,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_mq_timedsend,
    libc::SYS_mq_timedreceive,
    libc::SYS_mq_notify,
    libc::SYS_mq_getsetattr,
    // Walls that a program puts around itself; they only ever narrow.
    libc::SYS_seccomp,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
];

/// Numbers that are the same everywhere and that not every C library's headers have.
const SYS_FACCESSAT2: c_long = 439;
const SYS_FUTEX_WAITV: c_long = 449;
const SYS_FCHMODAT2: c_long = 452;

/// What only x86-64 has: the calls before the `*at` family, and its thread pointer.
#[cfg(target_arch = "x86_64")]
const ALLOWED_ARCH: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_getdents,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_readlink,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_signalfd,
    libc::SYS_inotify_init,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_getpgrp,
    libc::SYS_pause,
    libc::SYS_alarm,
    libc::SYS_time,
    libc::SYS_arch_prctl,
    SYS_MAP_SHADOW_STACK,
];
#[cfg(target_arch = "x86_64")]
const SYS_MAP_SHADOW_STACK: c_long = 453;
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_ARCH: &[c_long] = &[];

/// `mknod` and where its mode stands.
#[cfg(target_arch = "x86_64")]
const MKNOD: &[(c_long, u8)] = &[(libc::SYS_mknod, 1), (libc::SYS_mknodat, 2)];
#[cfg(not(target_arch = "x86_64"))]
const MKNOD: &[(c_long, u8)] = &[(libc::SYS_mknodat, 2)];

/// Doors into the kernel that answer EPERM.
const REFUSED: &[c_long] = &[
    // Mounts, roots, namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    SYS_MOUNT_SETATTR,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    SYS_QUOTACTL_FD,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // Other processes' insides.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    // The kernel's own machinery.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_vhangup,
    libc::SYS_capset,
    // The machine's name and clock.
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
];
const SYS_MOUNT_SETATTR: c_long = 442;
const SYS_QUOTACTL_FD: c_long = 443;

#[cfg(target_arch = "x86_64")]
const REFUSED_ARCH: &[c_long] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_ARCH: &[c_long] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_both_allowed_and_refused() {
        let allowed: Vec<_> = ALLOWED.iter().chain(ALLOWED_ARCH).collect();
        for number in REFUSED.iter().chain(REFUSED_ARCH) {
            assert!(!allowed.contains(&number), "{number}");
        }
        let mut once = allowed.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), allowed.len());
    }

    #[test]
    fn the_filters_compile_and_stay_within_the_kernels_length() {
        let filters = Filters::compile().unwrap();
        assert_eq!(filters.0.len(), 3);
        assert!(filters.0.iter().all(|program| program.len() < 4096));
    }
}
