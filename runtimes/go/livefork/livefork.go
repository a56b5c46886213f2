// Added to package runtime: random numbers that differ in clones of a process.
//
// A clone has the memory of the process that it was made of, so all that was seeded there would repeat in it. Every draw of a
// generator of the runtime compares a mark of its thread with isClone, and seeds the thread's generator anew where they differ.

package runtime

import "unsafe"

// 1 is stored in isClone from outside before any thread of a clone runs. It is read by every draw: far from what is written often.
var livefork struct {
	_       [128]byte
	isClone uint32
	_       [124]byte
}

// What isClone was when each generator of a thread was seeded. Threads that a clone makes begin with zero too.
type liveforkMarks struct {
	rand, cheap uint32
}

// Whether clones are made of this process.
//
//go:linkname liveforkIsTemplate
var liveforkIsTemplate bool

func liveforkSyscall(number, a, b, c uintptr) int

// Tells where isClone is. It runs before the initialization of all other packages: none sees the variable, and what they start
// inherits no pipe.
func init() {
	if liveforkIsTemplate = liveforkVariableTake(); !liveforkIsTemplate {
		return
	}
	for pipe := uintptr(3); pipe <= 6; pipe++ {
		const setFlags, closeOnExec = 2, 1
		liveforkSyscall(liveforkFcntl, pipe, setFlags, closeOnExec)
	}
	var digits [16]byte
	address := uintptr(unsafe.Pointer(&livefork.isClone))
	for i := range digits {
		digits[i] = "0123456789abcdef"[address>>(60-4*i)&15]
	}
	liveforkSay("flag 0x" + string(digits[:]) + "\n")
}

func liveforkSay(line string) {
	liveforkSyscall(liveforkWrite, 6, uintptr(stringStructOf(&line).str), uintptr(len(line)))
}

// Takes the variable that says so out of the environment, C's too.
func liveforkVariableTake() bool {
	for i, entry := range envs {
		if entry != "TANEBI_TEMPLATE=1" {
			continue
		}
		envs = envs[:i+copy(envs[i:], envs[i+1:])]
		for at := argc + 1 + int32(i); argv_index(argv, at) != nil; at++ {
			place := add(unsafe.Pointer(argv), uintptr(at)*unsafe.Sizeof(argv))
			*(*uintptr)(place) = uintptr(unsafe.Pointer(argv_index(argv, at+1)))
		}
		return true
	}
	return false
}

// For package math/rand, which keeps some of what it drew.
//
//go:linkname liveforkIsClone
func liveforkIsClone() uint32 {
	return livefork.isClone
}

// What liveforkDrew has said.
var liveforkDrawn [2]bool

// For what hands out random numbers, or is told a seed, and is no draw of the runtime: says that the clones share it, and whose
// it is. Each kind is said once.
//
//go:linkname liveforkDrew
func liveforkDrew(kind int) {
	if !liveforkIsTemplate || livefork.isClone != 0 || liveforkDrawn[kind] {
		return
	}
	liveforkDrawn[kind] = true
	callers := make([]uintptr, 64)
	var whose string
	for frames, isMore := CallersFrames(callers[:Callers(2, callers)]), true; isMore; {
		var frame Frame
		frame, isMore = frames.Next()
		if len(frame.Function) < 8 || frame.Function[:8] != "runtime." {
			whose = frame.Function
		}
	}
	liveforkSay("drew " + [...]string{"crypto/rand ", "math/rand "}[kind] + whose + "\n")
}

// Fills a seed from the kernel. Generators are used wherever the scheduler runs, so it splits no stack.
//
//go:nosplit
func liveforkSeed(mark *uint32, seed unsafe.Pointer, size uintptr) {
	if liveforkSyscall(liveforkGetrandom, uintptr(seed), size, 0) != int(size) {
		throw("the kernel gave no random numbers")
	}
	*mark = livefork.isClone
}
