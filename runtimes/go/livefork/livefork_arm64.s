// Added to package runtime beside livefork.go.

#include "textflag.h"

// func liveforkSyscall(number, a, b, c uintptr) int
TEXT ·liveforkSyscall(SB),NOSPLIT,$0-40
	MOVD	number+0(FP), R8
	MOVD	a+8(FP), R0
	MOVD	b+16(FP), R1
	MOVD	c+24(FP), R2
	SVC
	MOVD	R0, ret+32(FP)
	RET
