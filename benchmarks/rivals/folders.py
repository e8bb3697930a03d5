"""What the rivals share: PNGs below one folder in, enlarged PNGs below another out."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from rich.console import Console
from rich.progress import track

from sr3_jax.errors import UserError
from sr3_jax.evaluation.contenders import SECONDS
from sr3_jax.images import arrays
from sr3_jax.runtime.atomic import write_text

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's mode L
Colour = Float[np.ndarray, "h w 3"]  # RGB in [0, 1], float32
Enlarge = Callable[[Colour], Colour]


def parser(description: str, scales: tuple[int, ...]) -> argparse.ArgumentParser:
    """The command line that all rivals have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "lr", type=Path, metavar="LR_FOLDER", help="its PNGs, at any depth, grey or RGB"
    )
    made.add_argument(
        "output", type=Path, metavar="OUTPUT_FOLDER", help="gets files of the same relative paths"
    )
    made.add_argument("--scale", type=int, default=4, choices=scales)
    return made


def run(
    options: argparse.Namespace,
    load: Callable[[argparse.Namespace], AbstractContextManager[Enlarge]],
) -> None:
    """Enlarges the folder by the network that `load` opens, and writes the seconds of each image.

    The first image of every size is made twice, so that what happens only once is not counted.
    An error that the user can mend ends in one sentence and exit code 2.
    """
    try:
        files = _files(options.lr, options.output)
        with load(options) as enlarge:
            seconds: dict[str, float] = {}
            warm: set[tuple[int, ...]] = set()
            for file in track(files, "images", console=Console(stderr=True)):
                pixels, notes = arrays.read(file, None)
                for note in notes:
                    print(f"{file}: {note}", file=sys.stderr)
                colour = arrays.as_channels(pixels, 3).astype(np.float32) / 255
                if colour.shape not in warm:
                    enlarge(colour)
                warm.add(colour.shape)
                start = time.perf_counter()
                large = enlarge(colour)
                path = file.relative_to(options.lr)
                seconds[path.as_posix()] = time.perf_counter() - start
                arrays.write(options.output / path, to_uint8(large, grey=pixels.shape[-1] == 1))
                write_text(options.output / SECONDS, json.dumps(seconds, indent=1) + "\n")
        print(
            f"{len(files)} images, {np.mean(list(seconds.values())):.2f} s each without loading",
            file=sys.stderr,
        )
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)


def to_uint8(colour: Colour, grey: bool) -> UInt8[np.ndarray, "h w c"]:
    """Clipped and rounded.

    Grey is the luma of the colours as the network gave them, so that it is rounded only once.
    """
    if grey:
        colour = (np.clip(colour, 0, 1) @ LUMA)[..., None]
    return np.round(np.clip(colour, 0, 1) * 255).astype(np.uint8)


def _files(lr: Path, output: Path) -> list[Path]:
    """The PNGs below `lr`, sorted, without the hidden ones.

    Raises UserError when there are none, or when `output` lies below `lr` too.
    """
    if not lr.is_dir():
        raise UserError(f"{lr} is not a folder")
    if output.resolve().is_relative_to(lr.resolve()):
        raise UserError(
            f"{output} lies in {lr}, whose images would be lost or enlarged twice; "
            "choose another folder"
        )
    files = sorted(
        file
        for file in lr.rglob("*")
        if arrays.is_image_name(file) and file.suffix.lower() == ".png"
    )
    if not files:
        raise UserError(f"{lr} holds no PNGs")
    return files
