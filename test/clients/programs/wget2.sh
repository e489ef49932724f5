#!/bin/sh
. "$(dirname "$0")/lib.sh"
ask() {
  step=$1
  shift
  wget2 -q -O "$data" "$@" && say "$step" || fail "$step"
}
ask get "$base/get"
ask post --post-file="$payload" "$base/echo"
ask big "$base/big"
folder=$(mktemp -d)
wget2 -q --max-threads=1 -P "$folder" "$base/keep/1" "$base/keep/2" &&
  say keep-1 "$folder/1" && say keep-2 "$folder/2" || fail keep-1
rm -r "$folder"
ask healed "$base/healed"
