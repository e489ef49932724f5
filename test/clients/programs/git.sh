#!/bin/sh
# A clone asks by GET, then by POST on the same connection.
. "$(dirname "$0")/lib.sh"
folder=$(mktemp -d)
git ls-remote "$base/git/repository.git" HEAD | cut -f1 >"$data" && say get || fail get
git clone -q "$base/git/repository.git" "$folder/clone" &&
  say post "$folder/clone/README" && say big "$folder/clone/big" || fail post
git ls-remote "$base/git-healed/repository.git" HEAD | cut -f1 >"$data" && say healed || fail healed
rm -rf "$folder"
