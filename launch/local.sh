#!/usr/bin/env bash
# Several processes of one run on this machine; starts them again when one dies, so that the run resumes from its checkpoint.
set -uo pipefail

usage() {
  cat <<'TEXT'
launch/local.sh [--dry-run] [--restarts=3] [--devices=D] [--gpu-each] N COMMAND...

  launch/local.sh 2 sr3 train --config=configs/orl_16_64.py --workdir=runs/orl

Runs N processes of COMMAND as one job; what all but the first one complain of has their number in front. When a process
dies, or a signal sent to it alone stops all of them, the others end (or are killed after 15 s) and all are started again, at
most --restarts times; a command that was refused (exit code 2) is not. SIGTERM, Ctrl-C or a closed terminal asks all to save
and stop; a second Ctrl-C kills them.

  --dry-run     print what would be run
  --devices=D   CPU devices per process (default: 1)
  --gpu-each    process i sees GPU i only
TEXT
}

refuse() {
  echo "launch/local.sh: $1" >&2
  exit 2
}

dry_run=false restarts=3 devices=1 gpu_each=false
while [[ ${1-} == -* ]]; do
  case $1 in
    --dry-run) dry_run=true ;;
    --restarts=*) restarts=${1#*=} ;;
    --devices=*) devices=${1#*=} ;;
    --gpu-each) gpu_each=true ;;
    -h | --help) usage && exit 0 ;;
    *) refuse "no option $1 (--help)" ;;
  esac
  shift
done
[[ ${1-} =~ ^[1-9][0-9]*$ ]] || refuse "the number of processes must come first: launch/local.sh 2 sr3 train … (--help)"
[[ $restarts =~ ^[0-9]+$ ]] || refuse "--restarts=$restarts must be a whole number"
[[ $devices =~ ^[1-9][0-9]*$ ]] || refuse "--devices=$devices must be a whole number, at least 1"
processes=$1 && shift
(($#)) || refuse "give the command to run: launch/local.sh $processes sr3 train … (--help)"

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])'
}

# The exit codes of a training that a signal stopped: what is expected of this script, and what it has the processes give.
expected=${SR3_STOPPED_EXIT:-0}
stopped=$((expected ? expected : 75))

pids=()
stopping=false
stop() {
  if ! $stopping; then
    stopping=true
    kill -TERM "${pids[@]}" 2>/dev/null
  elif [[ $1 == INT ]]; then
    kill -KILL "${pids[@]}" 2>/dev/null
  fi
}
for signal in TERM INT HUP; do
  # shellcheck disable=SC2064 # the name as it is now
  trap "stop $signal" "$signal"
done

# A session of their own for the processes: Ctrl-C in the terminal is for this script, which tells each of them once. (Where
# there is no such command they get that too, and ours.)
session=(setsid)
command -v setsid >/dev/null || session=()

# What ended a process, in words.
describe() {
  if (($1 == stopped)); then
    echo "was stopped by a signal"
  elif (($1 > 128)); then
    echo "was killed by SIG$(kill -l $(($1 - 128)))"
  else
    echo "ended with exit code $1"
  fi
}

# Starts all processes and waits for them; sets `code` (the first failure's, or 0) and `story`.
run_once() {
  local port i
  port=$(free_port) || refuse "python3 is needed to find a free port"
  pids=()
  for ((i = 0; i < processes; i++)); do
    (
      export SR3_COORDINATOR="localhost:$port" SR3_PROCESSES=$processes SR3_PROCESS=$i JAX_NUM_CPU_DEVICES=$devices
      export SR3_STOPPED_EXIT=$stopped
      if $gpu_each; then export CUDA_VISIBLE_DEVICES=$i; fi
      if ((i)); then
        exec ${session[@]+"${session[@]}"} "$@" 2> >(sed -u "s/^/[$i] /" >&2)
      fi
      exec ${session[@]+"${session[@]}"} "$@"
    ) &
    pids+=($!)
  done
  if $stopping; then kill -TERM "${pids[@]}" 2>/dev/null; fi # asked while not all were there
  code=0 story="" deadline=0
  exec 3>&2 2>/dev/null # bash would tell of a kill in its own words
  local waiting=("${!pids[@]}") left status
  while ((${#waiting[@]})); do
    left=()
    for i in "${waiting[@]}"; do
      if kill -0 "${pids[i]}" 2>/dev/null; then
        left+=("$i")
        continue
      fi
      wait "${pids[i]}"
      status=$?
      if ((status)) && ! ((code)); then
        code=$status
        story="process $i of $processes $(describe "$status")"
        if ((status != stopped)); then deadline=$((SECONDS + 15)); fi # else the others are saving too
      fi
    done
    waiting=(${left[@]+"${left[@]}"})
    if ((deadline && SECONDS > deadline)); then
      kill -KILL "${pids[@]}" 2>/dev/null
    fi
    ((${#waiting[@]})) && sleep 0.3
  done
  exec 2>&3 3>&-
  pids=()
}

if $dry_run; then
  for ((i = 0; i < processes; i++)); do
    gpu=""
    if $gpu_each; then gpu="CUDA_VISIBLE_DEVICES=$i "; fi
    printf 'SR3_COORDINATOR=localhost:PORT SR3_PROCESSES=%s SR3_PROCESS=%s JAX_NUM_CPU_DEVICES=%s %s' "$processes" "$i" "$devices" "$gpu"
    printf '%q ' "$@"
    echo
  done
  exit 0
fi

for ((attempt = 0; ; attempt++)); do
  run_once "$@"
  if $stopping && ((code == stopped)); then
    exit "$expected"
  fi
  if ! ((code)) || $stopping; then
    exit "$code"
  fi
  if ((code == 2)); then
    echo "launch/local.sh: $story: the command was refused, so it is not started again" >&2
    exit 2
  fi
  if ((attempt == restarts)); then
    echo "launch/local.sh: $story; given up after $restarts restarts" >&2
    exit 1
  fi
  echo "launch/local.sh: $story; starting all $processes again, restart $((attempt + 1)) of $restarts" >&2
  sleep 1
  if $stopping; then exit "$expected"; fi
done
