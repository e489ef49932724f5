#!/bin/sh
. "$(dirname "$0")/lib.sh"
folder=$(mktemp -d)
fetch() {
  aria2c --quiet --no-conf --ca-certificate="$SSL_CERT_FILE" --dir="$folder" --allow-overwrite=true "$@"
}
ask() {
  fetch --out="$1" "$base/$1" && say "$1" "$folder/$1" || fail "$1"
}
ask get
ask big
fetch -Z --force-sequential=true --max-concurrent-downloads=1 "$base/keep/1" "$base/keep/2" &&
  say keep-1 "$folder/1" && say keep-2 "$folder/2" || fail keep-1
ask healed
rm -r "$folder"
