#!/bin/sh
# curl.sh BASE PROTOCOL, of which PROTOCOL is --http1.1 or --http2
. "$(dirname "$0")/lib.sh"
ask() {
  step=$1
  shift
  version=$(curl -sS "$protocol" -o "$data" -w '%{http_version}' --fail "$@") && say "$step" || fail "$step"
}
protocol=$2
ask get "$base/get"
ask post --data-binary "@$payload" "$base/echo"
ask big "$base/big"
first=$(mktemp)
curl -sS "$protocol" --fail -o "$first" "$base/keep/1" -o "$data" "$base/keep/2" &&
  say keep-1 "$first" && say keep-2 || fail keep-1
rm -f "$first"
ask healed "$base/healed"
printf '{"step":"version","version":"%s"}\n' "$version"
