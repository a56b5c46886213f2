// Added to math/rand beside runtime's livefork.go.

package rand

import _ "unsafe" // For go:linkname.

//go:linkname liveforkIsClone runtime.liveforkIsClone
func liveforkIsClone() uint32

//go:linkname liveforkDrew runtime.liveforkDrew
func liveforkDrew(kind int)
