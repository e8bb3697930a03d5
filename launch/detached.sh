#!/usr/bin/env bash
# A command that outlives the connection it was started from: launch/tpu_vm.sh runs this on every host.
set -uo pipefail

usage() {
  cat <<'TEXT'
launch/detached.sh [--dry-run] COMMAND...
launch/detached.sh [--dry-run] --stop

Starts COMMAND in a session of its own, shows what it prints and exits as it does. When this script is stopped, or its
connection is lost, COMMAND goes on; what it prints is in run.log. One command a folder: the one from which it was started.

  --stop      SIGTERM to the command that was started in this folder, if there is one; waits until it has ended, or kills it
              after three minutes. The script that started it, if it is still there, exits with code 76.
  --dry-run   print what would be run
TEXT
}

refuse() {
  echo "launch/detached.sh: $1" >&2
  exit 2
}

dry_run=false stop=false
while [[ ${1-} == -* ]]; do
  case $1 in
    --dry-run) dry_run=true ;;
    --stop) stop=true ;;
    -h | --help) usage && exit 0 ;;
    *) refuse "no option $1 (--help)" ;;
  esac
  shift
done
if ! $stop && (($# == 0)); then refuse "give the command to run (--help)"; fi
if $stop && (($#)); then refuse "--stop takes no command (--help)"; fi

# The command's parent, which notes its exit code; after a restart of the machine the number may be another's.
running() {
  [[ -s run.pid ]] && grep -qs sr3-detached "/proc/$(<run.pid)/cmdline"
}

if $dry_run; then
  if $stop; then
    running && echo "kill -TERM of what process $(<run.pid) runs"
  else
    printf '%q ' "$@"
    echo ">run.log"
  fi
  exit 0
fi

if $stop; then
  running || exit 0
  touch run.taken
  pkill -TERM -P "$(<run.pid)"
  for ((i = 0; i < 900; i++)); do
    running || exit 0
    sleep 0.2
  done
  kill -KILL -- "-$(<run.pid)"
  exit 0
fi

if running; then refuse "a command is running here already; to stop it: launch/detached.sh --stop"; fi
rm -f run.code run.taken
: >run.log
# It outlives a SIGTERM to everything, to note how the command ended.
# shellcheck disable=SC2016 # its own variables
setsid bash -c 'trap : TERM; "$@"; echo "$?" >run.code' sr3-detached "$@" </dev/null >run.log 2>&1 &
echo "$!" >run.pid
tail --pid="$!" -n +1 -f run.log
if [[ -e run.taken ]]; then exit 76; fi
exit "$(cat run.code 2>/dev/null || echo 1)"
