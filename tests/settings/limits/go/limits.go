// Package limits is what an instance sees of its limits, and what they do to it: one path a behaviour, the same in four languages.
package limits

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
)

func init() {
	functions.HTTP("Limits", Limits)
}

var (
	lock  sync.Mutex
	state = map[string]bool{"/live": true, "/ready": true}
	eaten []byte
	// Requests now, the most at a time, and those whose callers did not wait.
	now, peak, aborted int
)

var paths = map[string]func(*http.Request) string{
	"/about": about,
	"/sleep": sleep,
	"/burn":  burn,
	"/eat":   eat,
	"/set":   set,
}

// Limits answers by the path.
func Limits(w http.ResponseWriter, r *http.Request) {
	lock.Lock()
	passes, isProbe := state[r.URL.Path]
	if !isProbe {
		now++
		peak = max(peak, now)
	}
	lock.Unlock()
	if isProbe {
		if !passes {
			w.WriteHeader(http.StatusInternalServerError)
		}
		return
	}
	defer func() {
		lock.Lock()
		defer lock.Unlock()
		now--
		if r.Context().Err() != nil {
			aborted++
		}
	}()
	fmt.Fprint(w, paths[r.URL.Path](r))
}

// content is the text of a file; nothing where there is none.
func content(path string) string {
	text, _ := os.ReadFile(path)
	return strings.TrimSpace(string(text))
}

func host() string {
	name, err := os.Hostname()
	if err != nil {
		panic(err)
	}
	return name
}

func number(r *http.Request, name string) int {
	value, err := strconv.Atoi(r.URL.Query().Get(name))
	if err != nil {
		panic(err)
	}
	return value
}

// about tells what it sees.
func about(*http.Request) string {
	lock.Lock()
	defer lock.Unlock()
	text, err := json.Marshal(map[string]any{
		"id":         host(),
		"heap":       0,
		"processors": runtime.GOMAXPROCS(0),
		"memory":     content("/sys/fs/cgroup/memory.max"),
		"cpu":        content("/sys/fs/cgroup/cpu.max"),
		"key":        os.Getenv("KEY"),
		"file":       content("/secrets/key"),
		"peak":       peak,
		"aborted":    aborted,
	})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// sleep answers after the time asked for, or when nobody waits any more.
func sleep(r *http.Request) string {
	select {
	case <-time.After(time.Duration(number(r, "ms")) * time.Millisecond):
	case <-r.Context().Done():
	}
	return host()
}

// burn is the processor time that one wall-clock stretch gets.
func burn(r *http.Request) string {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const thread = 1
	used := func() time.Duration {
		var usage syscall.Rusage
		if err := syscall.Getrusage(thread, &usage); err != nil {
			panic(err)
		}
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	wall, before := time.Now(), used()
	for time.Since(wall) < time.Duration(number(r, "ms"))*time.Millisecond {
	}
	return fmt.Sprint(float64(used()-before) / float64(time.Since(wall)))
}

// eat takes memory, and keeps it.
func eat(r *http.Request) string {
	eaten = make([]byte, number(r, "mib")<<20)
	for at := 0; at < len(eaten); at += 4096 {
		eaten[at] = 1
	}
	return "eaten"
}

// set changes what probes see.
func set(r *http.Request) string {
	lock.Lock()
	defer lock.Unlock()
	for name, values := range r.URL.Query() {
		state["/"+name] = values[0] == "true"
	}
	return host()
}
