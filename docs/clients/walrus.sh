#!/usr/bin/env bash
# bash walrus.sh [host:port]; needs nothing but bash and coreutils
set -euo pipefail
addr=${1:-127.0.0.1:9091}
exec 3<>"/dev/tcp/${addr%:*}/${addr##*:}"
body=$(mktemp)
trap 'rm -f "$body"' EXIT

call() { # request on stdin, reply on stdout; any bytes, zeros included
  cat >"$body"
  local n; n=$(wc -c <"$body")
  printf "$(printf '\\x%02x' $((n & 255)) $((n >> 8 & 255)) $((n >> 16 & 255)) $((n >> 24)))" >&3
  cat "$body" >&3
  head -c "$(head -c 4 <&3 | od -An -tu4 --endian=little | tr -d ' ')" <&3
}

printf 'REGISTER logs' | call; echo
printf 'PUT logs hello world' | call; echo
printf 'GET logs' | call; echo
