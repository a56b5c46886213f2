// Added to crypto/internal/sysrand beside runtime's livefork.go.

package sysrand

import _ "unsafe" // For go:linkname.

//go:linkname liveforkDrew runtime.liveforkDrew
func liveforkDrew(kind int)
