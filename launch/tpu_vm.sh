#!/usr/bin/env bash
# One command from here to a Cloud TPU slice: create or reuse, install, run on all its hosts, come back after preemption.
set -uo pipefail

usage() {
  cat <<'TEXT'
launch/tpu_vm.sh --name=NAME --zone=ZONE --type=v5litepod-32 [options] -- COMMAND...

  launch/tpu_vm.sh --name=sr3 --zone=us-west4-a --type=v5litepod-32 --spot -- \
    sr3 train --config=configs/imagenet_64_256.py --workdir=gs://BUCKET/run --config.data.name=imagenet2012

Creates the TPU (or starts or reuses the one of that name), copies what is committed in this checkout, installs it, runs COMMAND
on every host and shows what the hosts print. After a preemption the TPU is created again and the command resumes from its
workdir, which must be in a bucket. Stopping this script leaves the TPU and the run as they are; called again, it has the run
save and stop, and goes on from there. Needs gcloud, logged in.

  --version=V     runtime (default: v2-alpha-tpuv5-lite; its Python 3.10 is too old, so uv brings 3.12)
  --project=P     Google Cloud project (default: gcloud's)
  --spot          cheaper, and may be preempted
  --retries=N     how often to begin anew after a preemption or failure (default: 100)
  --delete        delete the TPU when the command is done: not when a signal stopped it, nor when it failed
  --dry-run       print the gcloud commands
TEXT
}

refuse() {
  echo "launch/tpu_vm.sh: $1" >&2
  exit 2
}

name="" zone="" type="" version=v2-alpha-tpuv5-lite project="" spot=false retries=100 delete=false dry_run=false
while (($#)); do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --retries=*) retries=${1#*=} ;;
    --spot) spot=true ;;
    --delete) delete=true ;;
    --dry-run) dry_run=true ;;
    -h | --help) usage && exit 0 ;;
    --) shift && break ;;
    *) refuse "no option $1 (--help)" ;;
  esac
  shift
done
[[ $name =~ ^[a-z][a-z0-9-]*$ ]] || refuse "--name=$name must be lower-case letters, digits and dashes, a letter first"
[[ -n $zone ]] || refuse "--zone=… is missing, for instance --zone=us-west4-a"
[[ -n $type ]] || refuse "--type=… is missing, for instance --type=v5litepod-32"
[[ $retries =~ ^[0-9]+$ ]] || refuse "--retries=$retries must be a whole number"
(($#)) || refuse "give the command to run after --"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if ! $dry_run; then
  command -v gcloud >/dev/null || refuse "gcloud is not installed"
  changed=$(git -C "$root" status --porcelain) || refuse "$root is not a git checkout, so it cannot be copied"
  [[ -z $changed ]] || refuse "commit your changes first, they would not be copied: $(head -1 <<<"$changed"), … (git status)"
  # Once, so that every attempt runs the same code.
  archive=$(mktemp -d)/sr3_jax.tar.gz
  trap 'rm -rf "$(dirname "$archive")"' EXIT
  git -C "$root" archive --format=tar.gz -o "$archive" HEAD || refuse "$root could not be packed"
else
  archive=sr3_jax.tar.gz
fi

where=(--zone="$zone")
if [[ -n $project ]]; then where+=(--project="$project"); fi

tpu() {
  if $dry_run; then
    printf '%q ' gcloud compute tpus tpu-vm "$@" >&2
    echo >&2
  else
    gcloud compute tpus tpu-vm "$@"
  fi
}

state() {
  if $dry_run; then
    echo ABSENT
  else
    gcloud compute tpus tpu-vm describe "$name" "${where[@]}" --format='value(state)' 2>/dev/null || echo ABSENT
  fi
}

# Runs a shell command line on every host of the slice.
everywhere() {
  tpu ssh "$name" "${where[@]}" --worker=all --command="$1"
}

prepare() {
  local found options
  found=$(state)
  case $found in
    READY) return 0 ;;
    STOPPED) tpu start "$name" "${where[@]}" && return 0 || return 1 ;; # with its disk as it was
    PREEMPTED | TERMINATED) tpu delete "$name" "${where[@]}" --quiet || return 1 ;; # of no use any more
    ABSENT) ;;
    *)
      echo "launch/tpu_vm.sh: $name is not ready: $found" >&2
      return 1
      ;;
  esac
  options=(--accelerator-type="$type" --version="$version")
  if $spot; then options+=(--spot); fi
  tpu create "$name" "${where[@]}" "${options[@]}"
}

# A run that an earlier call of this script left behind would hold the chips, and its code is about to be replaced.
stop() {
  everywhere "[ ! -x sr3_jax/launch/detached.sh ] || { cd sr3_jax && launch/detached.sh --stop; }"
}

install() {
  tpu scp "$archive" "$name:sr3_jax.tar.gz" "${where[@]}" --worker=all || return
  # The variable is for Pythons that would rather have pip keep its hands off.
  everywhere "mkdir -p sr3_jax && tar xzf sr3_jax.tar.gz -C sr3_jax && PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv && python3 -m uv venv --quiet --allow-existing --python 3.12 sr3_jax/.venv && python3 -m uv pip install --quiet --python sr3_jax/.venv/bin/python -e './sr3_jax[tpu]'"
}

run() {
  local quoted
  quoted=$(printf '%q ' "$@")
  everywhere "cd sr3_jax && PATH=\$PWD/.venv/bin:\$PATH SR3_STOPPED_EXIT=$stopped launch/detached.sh $quoted"
}

# The exit codes of a training that a signal stopped before its end, and of launch/detached.sh when another stopped its command.
stopped=75 taken=76

# gcloud, interrupted, may end as if it had failed.
trap 'echo "launch/tpu_vm.sh: stopped; $name is left as it is" >&2; exit 130' INT
for ((attempt = 0; ; attempt++)); do
  prepare && stop && install && run "$@"
  code=$?
  if ((code == 0)); then
    break
  fi
  if ((code == 2)) && [[ $(state) == READY ]]; then
    echo "launch/tpu_vm.sh: the command was refused (exit code 2), so it is not started again" >&2
    exit 2
  fi
  if ((code == taken)); then
    echo "launch/tpu_vm.sh: another call of this script has taken $name over" >&2
    exit 1
  fi
  if ((attempt == retries)); then
    echo "launch/tpu_vm.sh: exit code $code; given up after $retries retries, $name is $(state)" >&2
    exit 1
  fi
  echo "launch/tpu_vm.sh: exit code $code, $name is $(state); retry $((attempt + 1)) of $retries in ${SR3_RETRY_SECONDS:-60} s" >&2
  sleep "${SR3_RETRY_SECONDS:-60}"
done
if $delete; then
  tpu delete "$name" "${where[@]}" --quiet
fi
