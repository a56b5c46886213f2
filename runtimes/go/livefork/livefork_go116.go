// Added to package runtime beside livefork.go: the generator of Go 1.16 to 1.21.

package runtime

import "unsafe"

//go:nosplit
func liveforkRandSeed(mp *m) {
	liveforkSeed(&mp.livefork.rand, unsafe.Pointer(&mp.fastrand), unsafe.Sizeof(mp.fastrand))
}
