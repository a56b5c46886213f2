// Added to package runtime beside livefork.go: numbers of system calls.

package runtime

const (
	liveforkFcntl     = 25
	liveforkGetrandom = 278
	liveforkWrite     = 64
)
