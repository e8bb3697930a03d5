#!/usr/bin/env bash
# Shards of one command as an Indexed Job of Kubernetes: pods that do not know of each other.
set -uo pipefail

usage() {
  cat <<'TEXT'
launch/kubernetes/shards.sh [--dry-run] --image=IMAGE --shards=N [--parallel=P] [--name=sr3] [--claim=CLAIM]
                            [--gpus=G | --chips=4 --accelerator=A --topology=T] -- COMMAND...

  launch/kubernetes/shards.sh --image=IMAGE --shards=16 -- sr3 evaluate --workdir=gs://BUCKET/run
  launch/kubernetes/shards.sh --image=IMAGE --shards=16 --gpus=1 --claim=photos -- \
    sr3 upscale /shared/photos --output=/shared/large --overwrite

Runs COMMAND N times, with --shard=1/N to --shard=N/N added, one pod each: sr3 generate, sr3 upscale, sr3 evaluate. A pod that fails is
replaced, ten times at most, but not after exit code 2; the others go on in any case. upscale begins its shard again, for
which it needs --overwrite.

  --parallel=P      so many pods at a time (default: all)
  --claim=CLAIM     the PersistentVolumeClaim that all pods see as /shared, for what is not in a bucket
  --gpus=G          NVIDIA GPUs per pod, instead of a TPU host
  --chips=C         TPU chips per host (default: 4)
  --accelerator=A   node selector (default: tpu-v5-lite-podslice), with
  --topology=T      its layout, of one host (default: 2x2)
  --dry-run         print the manifest; to check it: … --dry-run | kubectl apply --dry-run=client -f -
TEXT
}

refuse() {
  echo "launch/kubernetes/shards.sh: $1" >&2
  exit 2
}

dry_run=false image="" shards="" parallel="" name=sr3 claim="" gpus="" chips=4 accelerator=tpu-v5-lite-podslice topology=2x2
while (($#)); do
  case $1 in
    --dry-run) dry_run=true ;;
    --image=*) image=${1#*=} ;;
    --shards=*) shards=${1#*=} ;;
    --parallel=*) parallel=${1#*=} ;;
    --name=*) name=${1#*=} ;;
    --claim=*) claim=${1#*=} ;;
    --gpus=*) gpus=${1#*=} && [[ $gpus =~ ^[1-9][0-9]*$ ]] || refuse "$1 must be a whole number, at least 1" ;;
    --chips=*) chips=${1#*=} ;;
    --accelerator=*) accelerator=${1#*=} ;;
    --topology=*) topology=${1#*=} ;;
    -h | --help) usage && exit 0 ;;
    --) shift && break ;;
    *) refuse "no option $1 (--help)" ;;
  esac
  shift
done
: "${parallel:=$shards}"
[[ -n $image ]] || refuse "--image=… is missing"
for number in shards parallel chips; do
  [[ ${!number} =~ ^[1-9][0-9]*$ ]] || refuse "--$number=${!number} must be a whole number, at least 1"
done
[[ $name =~ ^[a-z][a-z0-9-]*$ ]] || refuse "--name=$name must be lower-case letters, digits and dashes, a letter first"
(($#)) || refuse "give the command to run after --"

manifest=$(
  python3 - "$name" "$image" "$shards" "$parallel" "$claim" "$gpus" "$chips" "$accelerator" "$topology" "$@" <<'PYTHON'
import json
import sys

name, image, shards, parallel, claim, gpus, chips, accelerator, topology, *command = sys.argv[1:]
# Kubernetes numbers the pods of an Indexed Job from 0.
shell = f'exec "$@" --shard="$((JOB_COMPLETION_INDEX + 1))/{shards}"'
container = {
    "name": "sr3",
    "image": image,
    "command": ["sh", "-c", shell, "sh", *command],
    "resources": {"limits": {"nvidia.com/gpu": gpus} if gpus else {"google.com/tpu": chips}},
}
pod = {"restartPolicy": "Never", "containers": [container]}
if not gpus:
    pod["nodeSelector"] = {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": topology,
    }
if claim:
    container["volumeMounts"] = [{"name": "shared", "mountPath": "/shared"}]
    pod["volumes"] = [{"name": "shared", "persistentVolumeClaim": {"claimName": claim}}]
job = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": name},
    "spec": {
        "completionMode": "Indexed",
        "completions": int(shards),
        "parallelism": int(parallel),
        # Of each shard, since one that fails says nothing of the others
        "backoffLimitPerIndex": 10,
        "podFailurePolicy": {
            "rules": [
                # 2: the command was refused, or an image is bad, and would be again
                {
                    "action": "FailIndex",
                    "onExitCodes": {"containerName": "sr3", "operator": "In", "values": [2]},
                },
                # A preempted or drained node is nobody's fault
                {
                    "action": "Ignore",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
            ]
        },
        "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
    },
}
print(json.dumps(job, indent=2, ensure_ascii=False))
PYTHON
) || refuse "python3 is needed to write the manifest"

if $dry_run; then
  echo "$manifest"
  exit 0
fi
command -v kubectl >/dev/null || refuse "kubectl is not installed"
echo "$manifest" | kubectl apply -f -
echo "kubectl logs --follow --prefix --max-log-requests=$parallel --selector=app=$name" >&2
