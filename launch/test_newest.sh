#!/usr/bin/env bash
# `make test` on the newest Python on this machine, with the newest JAX that it resolves to: the other end of the supported range.
set -euo pipefail

usage() {
  cat <<'TEXT'
launch/test_newest.sh [--dry-run]

Runs `make test` with the newest Python on this machine that is newer than 3.11, and the newest JAX for it, in .venv-newest.

  --dry-run   print the command
TEXT
}

dry_run=false
for argument; do
  case $argument in
    --dry-run) dry_run=true ;;
    -h | --help) usage && exit 0 ;;
    *) echo "launch/test_newest.sh: no option $argument (--help)" >&2 && exit 2 ;;
  esac
done
cd "$(dirname "$0")/.."
shopt -s nullglob
candidates=(python3.15 python3.14 python3.13 python3.12)
if command -v pyenv >/dev/null; then # its shims refuse versions that are not the global one
  mapfile -t -O "${#candidates[@]}" candidates < <(printf '%s\n' "$(pyenv root)"/versions/3.1[2-9].*/bin/python | sort -rV)
fi
for python in "${candidates[@]}"; do
  if "$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
    command=(make test PYTHON="$python" VENV=.venv-newest)
    if $dry_run; then echo "${command[@]}" && exit 0; fi
    "$python" --version
    exec "${command[@]}"
  fi
done
echo "no Python newer than 3.11 with the venv module was found; nothing was tested"
