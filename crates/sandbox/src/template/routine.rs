//! The one routine that is injected into a template: it walks a list of operations and does each.
//!
//! It has no data and uses no stack, so that it can run in any thread at any place in memory: in the template it makes the clone, in the
//! clone it repairs what a clone3 alone leaves different, in each of the clone's threads it waits and then goes on where the template's
//! thread was. What it does is all in the list (`script`), which is written once per template.

use std::arch::global_asm;

/// One operation. The routine reads this layout.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Operation {
    pub kind: u32,
    /// Bit n: argument n is the address of a 32-bit number, sign-extended.
    pub references: u32,
    /// Of the system call.
    pub number: u64,
    /// Where the lower half of the result goes; 0: nowhere.
    pub save: u64,
    pub arguments: [u64; 6],
}

/// A system call whose failure does not matter.
pub(super) const CALL: u32 = 0;
/// A system call that must succeed.
pub(super) const MUST: u32 = 1;
/// clone3 of a thread: arguments and their size; the thread goes on at the third argument.
pub(super) const THREAD: u32 = 2;
/// clone3 of a process, likewise.
pub(super) const FORK: u32 = 3;
/// Stops for the tracer.
pub(super) const TRAP: u32 = 4;
/// Waits until the 32-bit number at the first argument is not 0.
pub(super) const WAIT: u32 = 5;
/// Copies: to, from, bytes.
pub(super) const COPY: u32 = 6;
/// Stores a 32-bit number: address, number.
pub(super) const STORE: u32 = 7;
/// Goes on at the first argument.
pub(super) const GOTO: u32 = 8;
/// Returns from a signal whose frame is at the first argument.
pub(super) const RETURN: u32 = 9;
/// Adds 1 to the number at the first argument and wakes who waits for it.
pub(super) const COUNT: u32 = 10;
/// Waits until the number at the first argument is at least the second.
pub(super) const WAIT_COUNT: u32 = 11;

impl Operation {
    /// As it lies in memory.
    pub fn bytes(&self) -> Vec<u8> {
        let head = [self.kind, self.references];
        let words = [[self.number, self.save].as_slice(), self.arguments.as_slice()].concat();
        head.iter().flat_map(|half| half.to_ne_bytes()).chain(words.iter().flat_map(|word| word.to_ne_bytes())).collect()
    }
}

/// Where a failed operation is told, in the clone's or the template's memory: the operation's address, then the result.
pub(super) const ERROR_BYTES: usize = 16;

unsafe extern "C" {
    static tanebi_routine_begin: u8;
    static tanebi_routine_trapped: u8;
    static tanebi_routine_failed: u8;
    static tanebi_routine_end: u8;
}

/// Where the routine stands after it has stopped for a TRAP, from its beginning.
pub(super) fn trapped() -> u64 {
    let (begin, at) = (&raw const tanebi_routine_begin, &raw const tanebi_routine_trapped);
    (at.addr() - begin.addr()) as u64
}

/// Where it stands after it has stopped for a failure.
pub(super) fn failed() -> u64 {
    let (begin, at) = (&raw const tanebi_routine_begin, &raw const tanebi_routine_failed);
    (at.addr() - begin.addr()) as u64
}

/// The routine's machine code. Entered at its first byte with the list's address in rdi and that of the error in rsi.
pub(super) fn code() -> &'static [u8] {
    let (begin, end) = (&raw const tanebi_routine_begin, &raw const tanebi_routine_end);
    // SAFETY: both are symbols of the assembly below, in this order in one section; what is between them is never written.
    unsafe { std::slice::from_raw_parts(begin, end.addr() - begin.addr()) }
}

global_asm!(
    r#"
    .pushsection .text.tanebi_routine, "ax", @progbits
    .globl tanebi_routine_begin
    .globl tanebi_routine_trapped
    .globl tanebi_routine_failed
    .globl tanebi_routine_end
    .hidden tanebi_routine_trapped
    .hidden tanebi_routine_failed
    .hidden tanebi_routine_begin
    .hidden tanebi_routine_end
    .macro tanebi_argument register, offset, bit
    mov \register, [r12 + \offset]
    test dword ptr [r12 + 4], \bit
    jz 77f
    movsxd \register, dword ptr [\register]
77:
    .endm

tanebi_routine_begin:
    mov r12, rdi
    mov r13, rsi
.Ltanebi_next:
    mov eax, [r12]
    cmp eax, 1
    ja .Ltanebi_not_call
    tanebi_argument rdi, 24, 1
    tanebi_argument rsi, 32, 2
    tanebi_argument rdx, 40, 4
    tanebi_argument r10, 48, 8
    tanebi_argument r8, 56, 16
    tanebi_argument r9, 64, 32
    mov rax, [r12 + 8]
    syscall
    mov rcx, [r12 + 16]
    test rcx, rcx
    jz 77f
    mov [rcx], eax
77:
    cmp dword ptr [r12], 1
    jne .Ltanebi_advance
    test rax, rax
    js .Ltanebi_failed
.Ltanebi_advance:
    add r12, 72
    jmp .Ltanebi_next

.Ltanebi_not_call:
    cmp eax, 3
    ja .Ltanebi_not_clone
    mov rdi, [r12 + 24]
    mov rsi, [r12 + 32]
    mov r14, [r12 + 40]
    mov eax, 435
    syscall
    test rax, rax
    jnz 77f
    mov r12, r14
    jmp .Ltanebi_next
77:
    mov rcx, [r12 + 16]
    test rcx, rcx
    jz 77f
    mov [rcx], eax
77:
    test rax, rax
    js .Ltanebi_failed
    jmp .Ltanebi_advance

.Ltanebi_not_clone:
    cmp eax, 4
    jne 77f
    int3
tanebi_routine_trapped:
    jmp .Ltanebi_advance
77:
    cmp eax, 5
    je .Ltanebi_wait
    cmp eax, 6
    jne 77f
    mov rdi, [r12 + 24]
    mov rsi, [r12 + 32]
    mov rcx, [r12 + 40]
    cld
    rep movsb
    jmp .Ltanebi_advance
77:
    cmp eax, 7
    jne 77f
    mov rcx, [r12 + 24]
    mov eax, [r12 + 32]
    mov [rcx], eax
    jmp .Ltanebi_advance
77:
    cmp eax, 8
    jne 77f
    mov r12, [r12 + 24]
    jmp .Ltanebi_next
77:
    cmp eax, 9
    jne 77f
    mov rsp, [r12 + 24]
    mov eax, 15
    syscall
    ud2
77:
    cmp eax, 10
    jne 77f
    mov rdi, [r12 + 24]
    lock inc dword ptr [rdi]
    mov esi, 129
    mov edx, 1
    mov eax, 202
    syscall
    jmp .Ltanebi_advance
77:
    cmp eax, 11
    jne .Ltanebi_failed
.Ltanebi_wait_count:
    mov rdi, [r12 + 24]
    mov edx, [rdi]
    cmp edx, [r12 + 32]
    jae .Ltanebi_advance
    mov esi, 128
    xor r10d, r10d
    mov eax, 202
    syscall
    jmp .Ltanebi_wait_count

.Ltanebi_wait:
    mov rdi, [r12 + 24]
    cmp dword ptr [rdi], 0
    jne .Ltanebi_advance
    mov esi, 128
    xor edx, edx
    xor r10d, r10d
    mov eax, 202
    syscall
    jmp .Ltanebi_wait

.Ltanebi_failed:
    mov [r13], r12
    mov [r13 + 8], rax
    int3
tanebi_routine_failed:
    ud2
tanebi_routine_end:
    .purgem tanebi_argument
    .popsection
"#
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_as_the_routine_reads_it() {
        assert_eq!(size_of::<Operation>(), 72);
        assert_eq!(std::mem::offset_of!(Operation, save), 16);
        assert_eq!(std::mem::offset_of!(Operation, arguments), 24);
        assert!((100..4096).contains(&code().len()), "{}", code().len());
    }
}
