//! One classic BPF program (seccomp(2)) from a rule for each system call.
//!
//! The numbers fall into ranges of one rule each; the program finds the range by halving, so the way to an answer is a dozen
//! instructions. That matters at installation: the kernel walks it once for every call there is, to remember which are allowed
//! whatever their arguments, and those then cost nothing at all when they are made.

use std::collections::BTreeMap;

use libc::sock_filter;

/// What a call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Allow,
    Errno(i32),
}

impl Answer {
    pub fn code(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Errno(number) => libc::SECCOMP_RET_ERRNO | number as u32,
        }
    }
}

/// How a call's answer is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Always(Answer),
    /// By the lower 32 bits of an argument, which are all that the kernel looks at in those used here.
    ByArgument {
        argument: u8,
        mask: u32,
        values: Vec<u32>,
        listed: Answer,
        other: Answer,
    },
}

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

// Where the fields of `struct seccomp_data` lie.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;
#[cfg(target_endian = "big")]
compile_error!("the lower half of an argument lies elsewhere");

/// `default`: for calls without a rule. Calls of another architecture (32-bit ones above all) end the process.
pub(super) fn compile(rules: &BTreeMap<u32, Rule>, default: Answer) -> Vec<sock_filter> {
    let mut program = vec![load(ARCH), jump(libc::BPF_JEQ, AUDIT_ARCH, 1, 0), answer(libc::SECCOMP_RET_KILL_PROCESS), load(NUMBER)];
    program.extend(tree(&ranges(rules, default)));
    program
}

/// The first number of each range and its rule; the last one has no end.
fn ranges(rules: &BTreeMap<u32, Rule>, default: Answer) -> Vec<(u32, Rule)> {
    let end = rules.last_key_value().map_or(0, |(number, _)| number + 1);
    let mut ranges: Vec<(u32, Rule)> = Vec::new();
    for number in 0..=end {
        let rule = rules.get(&number).cloned().unwrap_or(Rule::Always(default));
        if ranges.last().is_none_or(|(_, before)| *before != rule) {
            ranges.push((number, rule));
        }
    }
    ranges
}

fn tree(ranges: &[(u32, Rule)]) -> Vec<sock_filter> {
    match ranges {
        [] => Vec::new(),
        [(_, rule)] => leaf(rule),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let (low, high_code) = (tree(low), tree(high));
            // A conditional jump reaches 255 instructions, an unconditional one all.
            let mut code = vec![jump(libc::BPF_JGE, high[0].0, 0, 1), jump_over(low.len())];
            code.extend(low);
            code.extend(high_code);
            code
        }
    }
}

fn leaf(rule: &Rule) -> Vec<sock_filter> {
    match rule {
        Rule::Always(always) => vec![answer(always.code())],
        Rule::ByArgument { argument, mask, values, listed, other } => {
            let mut code = vec![load(ARGUMENTS + 8 * u32::from(*argument))];
            if *mask != u32::MAX {
                code.push(statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, *mask));
            }
            for (position, value) in values.iter().enumerate() {
                // Over the comparisons that are left and the other answer.
                let over = u8::try_from(values.len() - position).expect("a handful of values");
                code.push(jump(libc::BPF_JEQ, *value, over, 0));
            }
            code.extend([answer(other.code()), answer(listed.code())]);
            code
        }
    }
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn load(offset: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn answer(code: u32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, code)
}

fn jump(comparison: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | comparison | libc::BPF_K) as u16, jt, jf, k }
}

fn jump_over(instructions: usize) -> sock_filter {
    statement(libc::BPF_JMP | libc::BPF_JA, u32::try_from(instructions).expect("a program is a few hundred instructions"))
}
