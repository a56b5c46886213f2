// Package draw draws from every generator that a process seeds while it loads, and says what it shares with other instances.
package draw

import (
	crypto "crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand"
	rand2 "math/rand/v2"
	"net/http"
	"os"
	"sync/atomic"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
	"github.com/google/uuid"
)

var (
	loaded = uuid.NewString()
	seeded = rand.New(rand.NewSource(42))
	calls  atomic.Int64
)

func init() {
	fmt.Println("loading")
	rand.Int63()
	rand2.Uint64()
	functions.HTTP("Draw", draw)
}

func draw(w http.ResponseWriter, r *http.Request) {
	host, _ := os.Hostname()
	bytes := make([]byte, 16)
	crypto.Read(bytes)
	json.NewEncoder(w).Encode(map[string]any{
		"calls": calls.Add(1),
		"host":  host,
		"same":  map[string]any{"seeded": fmt.Sprint(seeded.Int63()), "loaded": loaded},
		"differs": map[string]any{
			"rand":   fmt.Sprint(rand.Int63()),
			"rand2":  fmt.Sprint(rand2.Uint64()),
			"crypto": hex.EncodeToString(bytes),
			"uuid":   uuid.NewString(),
		},
	})
}
