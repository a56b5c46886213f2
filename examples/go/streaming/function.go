// Package function answers in parts: whoever asks reads each line as soon as it is written.
package function

import (
	"fmt"
	"net/http"
	"time"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
)

func init() {
	functions.HTTP("Streaming", Streaming)
}

// Streaming sends five lines, one every 200 ms.
func Streaming(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for number := range 5 {
		fmt.Fprintf(w, "line %d\n", number+1)
		http.NewResponseController(w).Flush()
		time.Sleep(200 * time.Millisecond)
	}
}
