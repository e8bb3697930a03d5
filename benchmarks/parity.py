"""Whether a change leaves every picture of the shipped networks as it was, to the bit.

    python benchmarks/parity.py
    python benchmarks/parity.py --against=COMMIT

The first prints digests of what this working tree makes, one a line. The second prints those of
COMMIT as well and says which differ; its exit code is 1 if any do.

Digests differ between kinds of processors, so they are never stored: both are made here, one after
the other. For each shipped network they are of an image of its own size, of a larger one in tiles,
and of the parameters in its 8-bit file. Of six training steps of configs/orl_16_64.py they are of
the loss of each, and of the parameters after them. Needs '.[faces]'; four minutes on two cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """
import hashlib, json, subprocess, sys, tempfile
from pathlib import Path
import numpy as np
import sr3_jax
from sr3_jax import Upscaler

names = sorted(path.stem for path in (Path(sr3_jax.__file__).parent / "weights")\
.glob("*.safetensors"))
digest = lambda array: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
rng = np.random.default_rng(0)
found = {}
for name in names:
    upscaler = Upscaler.load(name)
    for side in ((upscaler.lr_size,) * 2, (70, 61)):
        image = rng.integers(0, 256, (*side, upscaler.channels), np.uint8)
        image = np.repeat(np.repeat(image[::4, ::4], 4, 0), 4, 1)[: side[0], : side[1]]
        steps = None if "student" in name or "regression" in name else 3
        found[f"{name} {side[0]}x{side[1]}"] = digest(upscaler(image, steps=steps, seed=1))
with tempfile.TemporaryDirectory() as folder:
    flags = ["train.steps=6", "train.log_every=1", "train.evaluate_every=6", \
"train.evaluate_images=2"]
    command = [sys.executable, "-m", "sr3_jax", "train", "--config=configs/orl_16_64.py", \
f"--workdir={folder}/run"]
    subprocess.run([*command, *(f"--config.{flag}" for flag in flags)], \
check=True, capture_output=True)
    lines = [json.loads(line) for line in \
(Path(folder) / "run" / "stats.jsonl").read_text().splitlines()]
    found["training losses"] = digest(np.array([line["loss"] for line in lines if "loss" in line]))
    params = sr3_jax.load_checkpoint(f"{folder}/run").params
    import jax
    found["training parameters"] = digest(np.concatenate(\
[np.ravel(leaf) for leaf in jax.tree.leaves(params)]))
print("DIGESTS", json.dumps(found))
"""


def digests(tree: Path) -> dict[str, str]:
    """Of the package in `tree`."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tree, check=True, capture_output=True, text=True
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("DIGESTS "))
    return json.loads(line.removeprefix("DIGESTS "))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", metavar="COMMIT", help="another commit of this repository")
    options = parser.parse_args()
    ours = digests(ROOT)
    if options.against is None:
        print("\n".join(f"{digest}  {title}" for title, digest in ours.items()))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(
            ["git", "worktree", "add", "--detach", tree, options.against], cwd=ROOT, check=True
        )
        try:
            theirs = digests(tree)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)
    shared = [title for title in ours if title in theirs]
    differing = [title for title in shared if ours[title] != theirs[title]]
    for title in shared:
        print(f"{'DIFFERS' if title in differing else 'same'}  {title}")
    print(f"{len(shared) - len(differing)} of {len(shared)} are the same to the bit")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
