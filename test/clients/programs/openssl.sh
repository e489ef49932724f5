#!/bin/sh
# HTTP by hand: s_client takes its proxy as an option, and its roots from SSL_CERT_FILE.
. "$(dirname "$0")/lib.sh"
authority=${base#https://}
proxy=${HTTPS_PROXY#http://}
speak() {
  openssl s_client -quiet -verify_return_error -verify_quiet -proxy "$proxy" \
    -connect "$authority" -servername "${authority%:*}"
}
head() {
  printf '%s %s HTTP/1.1\r\nHost: %s\r\n' "$1" "$2" "$authority"
}
get() {
  { head GET "/$1" && printf 'Connection: close\r\n\r\n'; } | speak | sed '1,/^\r$/d' >"$data"
  say "$1"
}
get get
{ head POST /echo && printf 'Connection: close\r\nContent-Length: 100000\r\n\r\n' && cat "$payload"; } | speak | sed '1,/^\r$/d' >"$data"
say post
get big
{ head GET /keep/1 && printf '\r\n' && head GET /keep/2 && printf 'Connection: close\r\n\r\n'; } |
  speak | grep '^kept' >"$data"
sed -n 1p "$data" >"$payload"
say keep-1 "$payload"
sed -n 2p "$data" >"$payload"
say keep-2 "$payload"
get healed
