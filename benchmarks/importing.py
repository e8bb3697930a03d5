"""The memory that `sr3 import` takes for the largest public networks of guided-diffusion.

    python benchmarks/importing.py --keep=FOLDER

Their weights are not needed: files of the same shapes with random numbers are written and imported,
2.2 GB the larger one. What is kept can be given to `sr3 compile --config=…` (benchmarks/tpu.md).
"""

import argparse
import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

SHARED = {"multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "size": 256, "attention": (32, 16, 8)}
NETWORKS = {
    "64_256_upsampler": {"channels": 192, "heads": 4, "seen": 2},
    "256x256_diffusion": {"channels": 256, "heads": 0, "head_channels": 64},
}


def write(file: Path, options: dict) -> None:
    """Writes a network's file, in another process: a command inherits its parent's peak."""
    from tests.checkpoints.peers import GuidedDiffusion, saved

    saved(file, GuidedDiffusion(classes=1000, **SHARED, **options).weights())


def main() -> None:
    """Writes, imports and measures each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="where the imported networks stay")
    keep = parser.parse_args().keep
    with contextlib.ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        for name, options in NETWORKS.items():
            file, made = folder / f"{name}.pt", folder / f"{name}.safetensors"
            writer = multiprocessing.get_context("spawn").Process(
                target=write, args=(file, options)
            )
            writer.start()
            writer.join()
            size, start = file.stat().st_size, time.perf_counter()
            words = ["import", file, "--from=guided-diffusion", f"--output={made}", "--overwrite"]
            command = subprocess.Popen([sys.executable, "-m", "sr3_jax", *map(str, words)])
            _, status, usage = os.wait4(command.pid, 0)
            if status:
                raise SystemExit(f"sr3 import failed for {name}")
            peak = 1024 * usage.ru_maxrss
            print(
                f"{name}: {size / 1e9:.2f} GB imported in {time.perf_counter() - start:.0f} s, "
                f"at most {peak / 1e9:.2f} GB of memory, {peak / size:.2f} times its size",
                flush=True,
            )
            file.unlink()


if __name__ == "__main__":
    main()
