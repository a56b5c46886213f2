// Package function runs the script that the path names, as SCRIPT or SCRIPT.KIND, in a process of its own and answers what it prints.
package function

import (
	"embed"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
)

//go:embed *.py host.json
var files embed.FS

func init() {
	functions.HTTP("Function", run)
}

func run(w http.ResponseWriter, r *http.Request) {
	folder, err := os.MkdirTemp("", "scripts")
	if err == nil {
		err = os.CopyFS(folder, files)
	}
	program, _ := os.Executable()
	script, kind, _ := strings.Cut(r.URL.Path, ".")
	if kind == "" {
		kind = "function"
	}
	var said []byte
	if err == nil {
		said, err = exec.Command("python3", "-B", folder+script+".py", kind, filepath.Dir(program)).Output()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Write(said)
}
