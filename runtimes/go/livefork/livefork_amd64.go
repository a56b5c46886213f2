// Added to package runtime beside livefork.go: numbers of system calls.

package runtime

const (
	liveforkFcntl     = 72
	liveforkGetrandom = 318
	liveforkWrite     = 1
)
