#!/usr/bin/env bash
# `make run`: starts tanebi with its data in $DATA, deploys the first example, calls it, and stays.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${DATA:?the data folder}"
log="$DATA/tanebi.log"
mkdir -p "$DATA"

tanebi serve --data-dir "$DATA" >"$log" 2>&1 &
server=$!
trap 'kill -TERM $server 2>/dev/null; wait $server; exit $?' INT TERM
trap 'kill -TERM $server 2>/dev/null || true' EXIT

for _ in $(seq 600); do
  grep -q '^ready ' "$log" && break
  kill -0 $server 2>/dev/null || { cat "$log" >&2; exit 1; }
  sleep 0.1
done
grep '^ready ' "$log" | tail -n 1
grep '^missing: ' "$log" || true
[ "$(id -u)" = 0 ] || echo "As root, functions would get memory and cpu limits and a uid of their own too (see: tanebi doctor)."

if ! tanebi run describe sample-function-1 --data-dir "$DATA" >/dev/null 2>&1; then
  tanebi run --data-dir "$DATA" deploy sample-function-1 --source "$here/python/hello_http" --function hello_http --base-image python312 --allow-unauthenticated
fi
eval "$(tanebi env --data-dir "$DATA")"
url=$(tanebi run describe sample-function-1 | sed -n 's/^  "uri": "\(.*\)",\{0,1\}$/\1/p')
port=$(sed -n 's/^ready http:\/\/[^:]*:\([0-9]*\) .*/\1/p' "$log" | tail -n 1)
echo
echo "\$ curl $url"
curl -sS "$url"
echo
echo
echo "console:           $(sed -n 's/^console //p' "$log" | tail -n 1)"
echo "in a browser:      $(echo "$url" | sed "s|^https://\(.*\)\.run\.app\$|http://\1.run.localhost:$port/|")"
echo "by path:           http://localhost:$port/_run/asia-northeast1/sample-function-1/"
echo "as at Google:      $url (in a shell that is set up)"
echo "log:               $log"
echo "another terminal:  eval \"\$($(command -v tanebi) env --data-dir '$DATA')\""
echo "Ctrl-C stops it."
wait $server
