"""Files as people have them, small or compressed, of which nobody has a better version.

There is nothing to measure them against: they are looked at, side by side. Nothing is done to them,
but that of large ones a square is cut out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sr3_jax.data.public_photos import folder_of
from sr3_jax.data.source import DataError
from sr3_jax.errors import UserError
from sr3_jax.evaluation.contenders import Contender
from sr3_jax.images import arrays, pairs, sheet

SIDE = 96  # pixels, at most, of what is shown of a file
# JPEG files of packages, and where their squares lie: left, top
FILES = {
    "skimage": {"rocket.jpg": (280, 130)},
    "sklearn": {"china.jpg": (250, 110), "flower.jpg": (270, 150)},
    "matplotlib": {"grace_hopper.jpg": (216, 150)},
}


def gather(folder: str = "") -> tuple[dict[str, np.ndarray], list[str]]:
    """{name: pixels (h, w, 3)} of what is shown, and what is not there, in words.

    Args:
      folder: Further files, any kind of image; their middle is shown. Empty: none.

    Raises:
      UserError: The folder holds no images, one cannot be read, or has a name that is taken.
    """
    found: dict[str, np.ndarray] = {}
    missing: list[str] = []
    for package, files in FILES.items():
        try:
            place = folder_of(package)
        except DataError as error:
            missing.append(str(error))
            continue
        for file, (left, top) in files.items():
            pixels = pairs.read_rgb(place / file)
            found[Path(file).stem] = pixels[top : top + SIDE, left : left + SIDE]
    for stem, path in pairs.by_stem(Path(folder)).items() if folder else ():
        if stem in found:
            raise UserError(f"{path} has the name of a file that is shown already: {stem}")
        pixels = pairs.read_rgb(path)
        top, left = (max(0, (side - SIDE) // 2) for side in pixels.shape[:2])
        found[stem] = pixels[top : top + SIDE, left : left + SIDE]
    return found, missing


def export(folder: Path, found: Mapping[str, np.ndarray]) -> int:
    """Writes them as PNG files for other methods; returns their number."""
    for name, pixels in found.items():
        arrays.write(folder / f"{name}.png", pixels)
    return len(found)


def picture(found: Mapping[str, np.ndarray], field_: Sequence[Contender], scale: int) -> np.ndarray:
    """All of them, enlarged by all contenders: a row for each file, a column for each contender."""
    columns: dict[str, list[np.ndarray]] = {"the file": []}
    for name, lr in found.items():
        columns["the file"].append(lr)
        height, width = (scale * side for side in lr.shape[:2])
        for one in field_:
            made = one.make(lr[None], [name], (height, width))
            columns.setdefault(one.rows[0], []).append(made.images[one.rows[0]][0])
    return sheet.grid(columns, names=list(found))
