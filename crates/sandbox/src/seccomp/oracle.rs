//! The same policy in the seccompiler crate's terms, and an interpreter: both programs must answer every call alike.
//!
//! That crate knows one answer a filter, so there it is a stack of three, of which the kernel takes the newest of equal kind: the
//! allow-list (ENOSYS else), the refusals (EPERM), the socket families (EAFNOSUPPORT).

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction,
    SeccompCmpArgLen::{Dword, Qword},
    SeccompCmpOp::{Eq, MaskedEq, Ne},
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::{Filter, NAMESPACES, calls};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rule(conditions: Vec<SeccompCondition>) -> SeccompRule {
    SeccompRule::new(conditions).unwrap()
}

fn condition(argument: u8, length: seccompiler::SeccompCmpArgLen, operator: seccompiler::SeccompCmpOp, value: u64) -> SeccompCondition {
    SeccompCondition::new(argument, length, operator, value).unwrap()
}

fn allowed() -> Rules {
    let mut rules: Rules = calls::ALLOWED.iter().chain(calls::ALLOWED_ARCH).map(|call| (*call, Vec::new())).collect();
    rules.extend([(libc::SYS_socket, Vec::new()), (libc::SYS_socketpair, Vec::new())]);
    rules.insert(libc::SYS_clone, vec![rule(vec![condition(0, Qword, MaskedEq(NAMESPACES as u64), 0)])]);
    let not = |command: u64| condition(1, Dword, Ne, command);
    rules.insert(libc::SYS_ioctl, vec![rule(vec![not(libc::TIOCSTI), not(libc::TIOCLINUX)])]);
    rules.insert(libc::SYS_personality, vec![rule(vec![condition(0, Dword, Eq, 0xffff_ffff)])]);
    for (call, mode) in calls::MKNOD {
        let kinds = [0, libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK];
        rules.insert(*call, kinds.map(|kind| rule(vec![condition(*mode, Dword, MaskedEq(libc::S_IFMT.into()), kind.into())])).to_vec());
    }
    rules
}

fn refused() -> Rules {
    let mut rules: Rules = calls::REFUSED.iter().chain(calls::REFUSED_ARCH).map(|call| (*call, Vec::new())).collect();
    let flags = (0..31).map(|bit| 1u64 << bit).filter(|flag| NAMESPACES as u64 & flag != 0);
    rules.insert(libc::SYS_clone, flags.map(|flag| rule(vec![condition(0, Qword, MaskedEq(flag), flag)])).collect());
    rules.insert(libc::SYS_ioctl, [libc::TIOCSTI, libc::TIOCLINUX].map(|command| rule(vec![condition(1, Dword, Eq, command)])).to_vec());
    rules.insert(libc::SYS_personality, vec![rule(vec![condition(0, Dword, Ne, 0xffff_ffff)])]);
    for (call, mode) in calls::MKNOD {
        let fine = [0, libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK];
        let kinds = (0..16).map(|kind| kind << 12).filter(|kind| !fine.contains(kind));
        rules.insert(*call, kinds.map(|kind| rule(vec![condition(*mode, Dword, MaskedEq(libc::S_IFMT.into()), kind.into())])).collect());
    }
    rules
}

fn families_refused() -> Rules {
    let other = |families: &[i32]| vec![rule(families.iter().map(|family| condition(0, Dword, Ne, *family as u64)).collect())];
    Rules::from([(libc::SYS_socket, other(&[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6])), (libc::SYS_socketpair, other(&[libc::AF_UNIX]))])
}

fn stack() -> Vec<Vec<libc::sock_filter>> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let errno = |number: i32| SeccompAction::Errno(number as u32);
    let filters = [
        (allowed(), errno(libc::ENOSYS), SeccompAction::Allow),
        (refused(), SeccompAction::Allow, errno(libc::EPERM)),
        (families_refused(), SeccompAction::Allow, errno(libc::EAFNOSUPPORT)),
    ];
    let compiled = filters.map(|(rules, mismatch, matched)| -> BpfProgram { SeccompFilter::new(rules, mismatch, matched, arch).unwrap().try_into().unwrap() });
    let plain = |program: &BpfProgram| {
        let steps = program.iter().map(|step| libc::sock_filter { code: step.code, jt: step.jt, jf: step.jf, k: step.k });
        steps.collect()
    };
    compiled.iter().map(plain).collect()
}

/// Runs a program on a call as the kernel would: its answer, and how many instructions that took.
pub(super) fn run(program: &[libc::sock_filter], number: u32, arguments: [u64; 6]) -> (u32, usize) {
    let arch: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(arch.to_ne_bytes());
    data.extend(0u64.to_ne_bytes());
    data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
    let (mut at, mut accumulator, mut steps) = (0usize, 0u32, 0);
    loop {
        let step = program[at];
        (at, steps) = (at + 1, steps + 1);
        let branch = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
        match u32::from(step.code) {
            0x20 => accumulator = u32::from_ne_bytes(data[step.k as usize..][..4].try_into().unwrap()),
            0x54 => accumulator &= step.k,
            0x05 => at += step.k as usize,
            0x15 => at += branch(accumulator == step.k),
            0x25 => at += branch(accumulator > step.k),
            0x35 => at += branch(accumulator >= step.k),
            0x06 => return (step.k, steps),
            code => panic!("instruction {code:#x}"),
        }
    }
}

/// What a stack of filters answers: a refusal before an allowance, the newest of refusals.
fn run_stack(stack: &[Vec<libc::sock_filter>], number: u32, arguments: [u64; 6]) -> u32 {
    let newest_first = stack.iter().rev().map(|program| run(program, number, arguments).0);
    let refusal = newest_first.into_iter().find(|answer| *answer != libc::SECCOMP_RET_ALLOW);
    refusal.unwrap_or(libc::SECCOMP_RET_ALLOW)
}

#[test]
fn every_call_gets_the_answer_that_seccompiler_gives_it() {
    let (own, stack) = (Filter::compile(), stack());
    let few = [0, 1, u64::MAX];
    let mut many: Vec<u64> = (0..64).map(|bit| 1 << bit).collect();
    many.extend(few);
    many.extend([0xffff_ffff, libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSTI | 1 << 40, NAMESPACES as u64, 17, 0x3d_0f00]);
    many.extend((0..50).chain((0..16).map(|kind| kind << 12 | 0o644)));
    let rules = super::rules();
    let mut answers = BTreeMap::new();
    for number in (0..600).chain([0x4000_0000, 0x4000_0027, u32::MAX]) {
        let by_argument = matches!(rules.get(&number), Some(super::Rule::ByArgument { .. }));
        for argument in if by_argument { &many[..] } else { &few[..] } {
            let expect = run_stack(&stack, number, [*argument; 6]);
            assert_eq!(run(&own.0, number, [*argument; 6]).0, expect, "call {number} with {argument:#x}");
            *answers.entry(expect).or_insert(0) += 1;
        }
    }
    assert_eq!(answers.len(), 4, "{answers:?}");
}

#[test]
fn a_call_of_another_architecture_ends_the_process() {
    let mut other = Filter::compile().0;
    other[1].k ^= 1;
    assert_eq!(run(&other, libc::SYS_getpid as u32, [0; 6]).0, libc::SECCOMP_RET_KILL_PROCESS);
}
