# Sourced by the shell programs: BASE is the first argument, and the scratch folder is the working folder.
base=$1
data=$(mktemp)
payload=$(mktemp)
trap 'rm -f "$data" "$payload"' EXIT
head -c 100000 /dev/zero | tr '\0' x >"$payload"

# say STEP [FILE]: a step that has gone well, and the hash of what came.
say() {
  printf '{"step":"%s","status":200,"sha256":"%s"}\n' "$1" "$(sha256sum "${2-$data}" | cut -c1-64)"
}

# fail STEP: a step that has not.
fail() {
  printf '{"step":"%s","status":0}\n' "$1"
}
