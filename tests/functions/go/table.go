// Package table is the function that one table of requests tries in every language: one path a behaviour.
package table

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
)

func init() {
	functions.HTTP("Table", Table)
	go sayGoodbye()
}

// sayGoodbye waits for SIGTERM, which no longer ends a process that asks to be notified of it, so it does that too.
func sayGoodbye() {
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	<-terminated
	fmt.Println("table: SIGTERM")
	os.Exit(0)
}

var paths = map[string]http.HandlerFunc{
	"/hello":       hello,
	"/size":        size,
	"/stream":      stream,
	"/slow":        slow,
	"/cors":        cors,
	"/upload":      upload,
	"/environment": environment,
	"/echo":        echo,
	"/fail":        fail,
	"/log":         log,
}

// Table answers by the path.
func Table(w http.ResponseWriter, r *http.Request) {
	if answer, ok := paths[r.URL.Path]; ok {
		answer(w, r)
	} else {
		http.Error(w, "no such path", http.StatusNotFound)
	}
}

func sendText(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, text)
}

func sendJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(value)
}

// hello greets whoever is named, or the world.
func hello(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Name string `json:"name"`
	}
	json.NewDecoder(r.Body).Decode(&body) // A body that is no JSON names nobody.
	sendText(w, "Hello "+cmp.Or(body.Name, r.URL.Query().Get("name"), "World")+"!")
}

// size says how long the body is, and its digest.
func size(w http.ResponseWriter, r *http.Request) {
	digest := sha256.New()
	count, err := io.Copy(digest, r.Body)
	if err != nil {
		panic(err)
	}
	sendJSON(w, map[string]any{"bytes": count, "sha256": hex.EncodeToString(digest.Sum(nil))})
}

// stream sends as many parts as asked for, one every 100 ms.
func stream(w http.ResponseWriter, r *http.Request) {
	parts, err := strconv.Atoi(r.URL.Query().Get("parts"))
	if err != nil {
		panic(err)
	}
	for number := range parts {
		if number > 0 {
			time.Sleep(100 * time.Millisecond)
		}
		sendText(w, fmt.Sprintf("part %d\n", number+1))
		http.NewResponseController(w).Flush()
	}
}

// slow answers after the time asked for.
func slow(w http.ResponseWriter, r *http.Request) {
	ms, err := strconv.Atoi(r.URL.Query().Get("ms"))
	if err != nil {
		panic(err)
	}
	time.Sleep(time.Duration(ms) * time.Millisecond)
	sendText(w, fmt.Sprintf("slept %d ms\n", ms))
}

// cors lets pages of any origin ask.
func cors(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	if r.Method == http.MethodOptions {
		w.Header().Set("Access-Control-Allow-Methods", "GET")
		w.Header().Set("Access-Control-Allow-Headers", "Content-Type")
		w.Header().Set("Access-Control-Max-Age", "3600")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	sendText(w, "Hello World!")
}

// upload says what a form brought.
func upload(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseMultipartForm(32 << 20); err != nil {
		panic(err)
	}
	fields := map[string]string{}
	for name, values := range r.MultipartForm.Value {
		fields[name] = values[0]
	}
	files := map[string]any{}
	for name, headers := range r.MultipartForm.File {
		files[name] = map[string]any{"filename": headers[0].Filename, "bytes": headers[0].Size}
	}
	sendJSON(w, map[string]any{"fields": fields, "files": files})
}

// environment says what a variable is set to.
func environment(w http.ResponseWriter, r *http.Request) {
	sendText(w, os.Getenv(r.URL.Query().Get("name")))
}

// echo says what arrived.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	headers := map[string]string{"host": r.Host}
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	// As it was sent: r.URL.Path is decoded.
	path, _, _ := strings.Cut(r.RequestURI, "?")
	sendJSON(w, map[string]any{
		"method":  r.Method,
		"path":    path,
		"query":   r.URL.RawQuery,
		"headers": headers,
		"body":    string(body),
	})
}

// fail fails.
func fail(w http.ResponseWriter, r *http.Request) {
	panic("failed as asked")
}

// log writes a line to stdout, and a structured one to stderr.
func log(w http.ResponseWriter, r *http.Request) {
	text := r.URL.Query().Get("text")
	fmt.Println(text)
	json.NewEncoder(os.Stderr).Encode(map[string]string{"severity": "WARNING", "message": text})
	sendText(w, "ok")
}
