// Added to package runtime beside livefork.go: the generators of Go 1.22 to 1.26.

package runtime

import "unsafe"

//go:nosplit
func liveforkRandSeed(mp *m) {
	var seed [4]uint64
	liveforkSeed(&mp.livefork.rand, unsafe.Pointer(&seed), unsafe.Sizeof(seed))
	mp.locks++ // Init64 may split the stack; the thread stays.
	mp.chacha8.Init64(seed)
	mp.locks--
}

//go:nosplit
func liveforkCheapSeed(mp *m) {
	liveforkSeed(&mp.livefork.cheap, unsafe.Pointer(&mp.cheaprand), unsafe.Sizeof(mp.cheaprand))
}
