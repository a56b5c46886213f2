# Fetches the newest toolchain of Go $VERSION into $GOMODCACHE, by any $GO. It is checked by Go's checksum database.
newest=$("$GO" list -m -versions -f '{{range .Versions}}{{println .}}{{end}}' golang.org/toolchain | sed -n "s/^v0.0.1-go\($VERSION\.[0-9]*\)\.linux-$ARCH\$/\1/p" | sort -t . -k 3 -n | tail -n 1)
if [ -z "$newest" ]; then
  echo "go: the module proxy has no toolchain of Go $VERSION for linux-$ARCH"
  exit 1
fi
GOTOOLCHAIN="go$newest" "$GO" version
