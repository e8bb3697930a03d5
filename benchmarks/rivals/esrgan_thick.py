r"""ESRGAN-thick, a residual dense network, run by TensorFlow.js in node.

The network is in the npm package `@upscalerjs/esrgan-thick`.

    npm install --prefix=runs/rivals --no-save @upscalerjs/esrgan-thick@1.0.0 \
        @tensorflow/tfjs@4.11.0 @tensorflow/tfjs-backend-wasm@4.11.0
    python benchmarks/rivals/esrgan_thick.py LR_FOLDER OUTPUT_FOLDER \
        [--scale=4] [--packages=runs/rivals/node_modules]
"""

import argparse
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import folders
import numpy as np

from sr3_jax.errors import UserError

PACKAGES = ("@upscalerjs/esrgan-thick", "@tensorflow/tfjs", "@tensorflow/tfjs-backend-wasm")
INSTALL = "npm install --prefix=runs/rivals --no-save " + " ".join(
    f"{name}@{version}"
    for name, version in zip(PACKAGES, ("1.0.0", "4.11.0", "4.11.0"), strict=True)
)


@contextmanager
def load(options: argparse.Namespace) -> Iterator[folders.Enlarge]:
    """One node process for the whole folder, so that the network is loaded only once.

    Pixels go through its pipes.
    """
    if shutil.which("node") is None:
        raise UserError(
            "node is not installed; install Node.js 18 or later, which brings npm, then " + INSTALL
        )
    missing = [name for name in PACKAGES if not (options.packages / name).is_dir()]
    if missing:
        raise UserError(f"{options.packages} lacks {', '.join(missing)}; {INSTALL}")
    script = Path(__file__).with_suffix(".mjs")
    command = ["node", script, options.packages.resolve(), str(options.scale)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:

        def enlarge(colour: folders.Colour) -> folders.Colour:
            height, width, _ = colour.shape
            shape = (height * options.scale, width * options.scale, 3)
            try:
                process.stdin.write(
                    struct.pack("<2I", height, width) + colour.astype("<f4").tobytes()
                )
                process.stdin.flush()
                answer = process.stdout.read(4 * shape[0] * shape[1] * 3)
            except BrokenPipeError:
                answer = b""
            if len(answer) != 4 * shape[0] * shape[1] * 3:
                raise UserError(
                    f"node ended without enlarging an image of {width}×{height}; "
                    "what it said is above"
                )
            return np.frombuffer(answer, "<f4").reshape(shape)

        yield enlarge  # then Popen closes the pipes, and node ends


def main() -> None:
    parser = folders.parser(__doc__, scales=(2, 3, 4, 8))
    parser.add_argument(
        "--packages",
        type=Path,
        default=Path("runs/rivals/node_modules"),
        help="what npm has filled",
    )
    folders.run(parser.parse_args(), load)


if __name__ == "__main__":
    main()
