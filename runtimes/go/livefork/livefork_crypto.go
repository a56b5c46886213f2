// Added to crypto/rand beside runtime's livefork.go.

package rand

import _ "unsafe" // For go:linkname.

//go:linkname liveforkDrew runtime.liveforkDrew
func liveforkDrew(kind int)
