"""Random weights and images, the same as in make_face_goldens.mjs.

Run, it writes face_goldens.npz: what that program, which needs Node 20, makes of them. From the
repository's root:

    npm install --prefix runs/face-api @vladmandic/face-api@1.7.15
    python tests/metrics/peers/make_face_goldens.py runs/face-api
"""

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
# enlarged; a wide one with bars of 11 and 12; a tall one that is made smaller
SIZES = ((50, 50), (37, 60), (200, 171))


def hashes(start: int, count: int) -> np.ndarray:
    """MurmurHash3's last step, of start + 1, start + 2, …"""
    h = np.arange(start + 1, start + 1 + count, dtype=np.uint32)
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


def random_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random weights of these shapes, in this order.

    The package's arrays have the outputs first, so they are drawn in that order and turned.
    """
    found, place = {}, 0
    for name, shape in shapes.items():
        centre = 1.0 if name.endswith("scale/weights") else 0.0
        width = math.sqrt(12 / math.prod(shape[:-1])) if len(shape) > 1 else 0.5 if centre else 1.0
        values = centre + width * (hashes(place, math.prod(shape)) / 2**32 - 0.5)
        place += values.size
        if len(shape) == 4:
            values = values.reshape(*shape[:1:-1], *shape[:2]).transpose(2, 3, 1, 0)
        elif len(shape) == 2:
            values = values.reshape(shape[::-1]).T
        found[name] = values.astype(np.float32)
    return found


def image(height: int, width: int) -> np.ndarray:
    return (
        (hashes(1000 * height, height * width * 3) >> np.uint32(24))
        .astype(np.uint8)
        .reshape(height, width, 3)
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        subprocess.run(
            ["node", HERE / "make_face_goldens.mjs", sys.argv[1], json.dumps(SIZES), out],
            check=True,
        )
        found = {
            name: np.array(values, np.float32)
            for name, values in json.loads(out.read_text()).items()
        }
    np.savez_compressed(HERE / "face_goldens.npz", **found)
    for name, values in found.items():
        print(name, values.shape, values[:3], values.std())


if __name__ == "__main__":
    main()
