#!/usr/bin/env bash
# Fills launch/kubernetes/job.yaml in and gives it to the cluster.
set -uo pipefail

usage() {
  cat <<'TEXT'
launch/kubernetes/submit.sh [--dry-run] --image=IMAGE --hosts=N [--name=sr3] [--chips=4] [--accelerator=A --topology=T] -- COMMAND...

  docker build -f launch/kubernetes/Dockerfile -t IMAGE . && docker push IMAGE
  launch/kubernetes/submit.sh --image=IMAGE --hosts=8 -- \
    sr3 train --config=configs/faces_16_128.py --workdir=gs://BUCKET/run

  --chips=C         TPU chips per host (default: 4)
  --accelerator=A   node selector (default: tpu-v5-lite-podslice), with
  --topology=T      its layout (default: 4x8)
  --dry-run         print the manifest; to check it: … --dry-run | kubectl apply --dry-run=client -f -
TEXT
}

refuse() {
  echo "launch/kubernetes/submit.sh: $1" >&2
  exit 2
}

dry_run=false image="" hosts="" name=sr3 chips=4 accelerator=tpu-v5-lite-podslice topology=4x8
while (($#)); do
  case $1 in
    --dry-run) dry_run=true ;;
    --image=*) image=${1#*=} ;;
    --hosts=*) hosts=${1#*=} ;;
    --name=*) name=${1#*=} ;;
    --chips=*) chips=${1#*=} ;;
    --accelerator=*) accelerator=${1#*=} ;;
    --topology=*) topology=${1#*=} ;;
    -h | --help) usage && exit 0 ;;
    --) shift && break ;;
    *) refuse "no option $1 (--help)" ;;
  esac
  shift
done
[[ -n $image ]] || refuse "--image=… is missing"
[[ $hosts =~ ^[1-9][0-9]*$ ]] || refuse "--hosts=$hosts must be a whole number, at least 1"
[[ $chips =~ ^[1-9][0-9]*$ ]] || refuse "--chips=$chips must be a whole number, at least 1"
[[ $name =~ ^[a-z][a-z0-9-]*$ ]] || refuse "--name=$name must be lower-case letters, digits and dashes, a letter first"
(($#)) || refuse "give the command to run after --"

manifest=$(
  python3 - "$(dirname "${BASH_SOURCE[0]}")/job.yaml" "$name" "$image" "$hosts" "$chips" "$accelerator" "$topology" "$@" <<'PYTHON'
import json
import re
import sys

path, name, image, hosts, chips, accelerator, topology, *command = sys.argv[1:]
text = open(path).read()
# JSON strings are YAML strings: whatever is in them stays one word.
for pattern, value in (
    (r"(?m)^(\s+)completions: .*$", rf"\g<1>completions: {hosts}"),
    (r"(?m)^(\s+)parallelism: .*$", rf"\g<1>parallelism: {hosts}"),
    (r"image: IMAGE", lambda _: f"image: {json.dumps(image)}"),
    (r"(?m)^(\s+)command: .*$", lambda found: f"{found[1]}command: {json.dumps(command)}"),
    (r'google\.com/tpu: ".*"', f'google.com/tpu: "{chips}"'),
    (r"(?m)(gke-tpu-accelerator): .*$", lambda found: f"{found[1]}: {json.dumps(accelerator)}"),
    (r"(?m)(gke-tpu-topology): .*$", lambda found: f"{found[1]}: {json.dumps(topology)}"),
    (r'(name: SR3_PROCESSES\s+value: )".*"', rf'\g<1>"{hosts}"'),
    (r"sr3-0\.sr3:", f"{name}-0.{name}:"),
    (r"(?m)^(\s+(?:- )?(?:app|subdomain): )sr3$", rf"\g<1>{name}"),
    (r"(?m)^(metadata:\n  name: )sr3$", rf"\g<1>{name}"),
):
    text, count = re.subn(pattern, value, text)
    assert count, f"{pattern} is not in {path}"
print(text, end="")
PYTHON
) || refuse "python3 is needed to fill the manifest in"

if $dry_run; then
  echo "$manifest"
  exit 0
fi
command -v kubectl >/dev/null || refuse "kubectl is not installed"
echo "$manifest" | kubectl apply -f -
echo "kubectl logs --follow job/$name" >&2
