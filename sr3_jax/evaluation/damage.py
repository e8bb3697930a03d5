"""Photographs as people have them: a little blurred, noisy and compressed, for measuring.

All of it is done by other programs than those of training (OpenCV and Pillow, which compresses by
libjpeg), so that a network cannot have learned their particulars. What an image suffers is drawn
from the ranges of its level, and depends on its id alone.
"""

import io
import zlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

HR = UInt8[np.ndarray, "_h _w 3"]
LR = UInt8[np.ndarray, "_l _k 3"]
METHODS = {  # Pillow's; OpenCV's do not average over what becomes one pixel, but for its area
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Level(NamedTuple):
    """Ranges; a value is drawn from each, evenly."""

    blur: tuple[float, float]  # sigma, LR pixels
    noise: tuple[float, float]  # standard deviation, 8-bit levels
    quality: tuple[int, int]  # of JPEG; 0: none
    before: tuple[int, int] | None = None  # of an earlier JPEG, at twice the LR size
    grey: float = 0.5  # how often the noise is the same in all channels
    subsampled: float = 0.7  # how often JPEG keeps a quarter of the chroma (4:2:0)


LEVELS = {
    "mild": Level((0.2, 0.5), (0.5, 2.0), (85, 95)),
    "medium": Level((0.5, 0.9), (2.0, 5.0), (65, 85)),
    "strong": Level((0.9, 1.6), (5.0, 10.0), (35, 60), (50, 80)),
}
NONE = (0, 0)
# What photographs to be restored at their own size suffer. Noise is independent in all channels
# where it is alone, as BM3D expects it.
FLAWS = {
    "restore_jpeg": Level(NONE, NONE, (10, 40), grey=0.0, subsampled=1.0),
    "denoise": Level(NONE, (10.0, 50.0), NONE, grey=0.0),
    "deblur": Level((1.0, 2.0), (1.0, 2.0), NONE, grey=0.0),
    "restore": Level((0.5, 1.5), (3.0, 15.0), (30, 80)),
}


class Recipe(NamedTuple):
    """What happens to one image."""

    blur: float
    noise: float
    grey: bool  # whether the noise is the same in all channels
    method: str  # of the reduction
    quality: int  # 0: no JPEG
    subsampling: str
    before: int  # 0: no earlier JPEG
    seed: int  # of the noise


def recipe(level: str, id: str) -> Recipe:
    """The recipe of an image, by its id, at one of LEVELS or of FLAWS."""
    seed = zlib.crc32(f"{level}/{id}".encode("utf-8", "surrogateescape"))
    draw = np.random.default_rng(seed)
    ranges = (LEVELS | FLAWS)[level]
    return Recipe(
        blur=round(draw.uniform(*ranges.blur), 2),
        noise=round(draw.uniform(*ranges.noise), 1),
        grey=bool(draw.random() < ranges.grey),
        method=str(draw.choice(list(METHODS))),
        quality=int(draw.integers(*ranges.quality, endpoint=True)),
        subsampling="4:2:0" if draw.random() < ranges.subsampled else "4:4:4",
        before=int(draw.integers(*ranges.before, endpoint=True)) if ranges.before else 0,
        seed=seed,
    )


def told(level: str, id: str) -> dict[str, float]:
    """What a network can be told of an image, by signal; "" is the level without any damage.

    The compression is the last one. An earlier one has lost its grid in the reduction.
    """
    if not level:
        return {"blur": 0.0, "noise": 0.0, "jpeg": 0.0}
    how = recipe(level, id)
    jpeg = 100.0 - how.quality if how.quality else 0.0
    return {"blur": how.blur, "noise": how.noise, "jpeg": jpeg}


def damaged(hr: HR, scale: int, how: Recipe) -> LR:
    """An LR image, `scale` times smaller, of an HR image, made as the recipe says."""
    import cv2  # of the extra [photos], as the photographs are

    width, height = hr.shape[1] // scale, hr.shape[0] // scale
    image = hr
    if how.blur:
        image = cv2.GaussianBlur(hr, (0, 0), how.blur * scale, borderType=cv2.BORDER_REPLICATE)
    if how.before:
        twice = cv2.resize(image, (2 * width, 2 * height), interpolation=cv2.INTER_AREA)
        image = _compressed(twice, how.before, how.subsampling)
    small = np.asarray(Image.fromarray(image).resize((width, height), METHODS[how.method]))
    shape = (height, width, 1 if how.grey else 3)
    noise = how.noise * np.random.default_rng(how.seed).normal(size=shape)
    noisy = np.clip(np.round(small + noise), 0, 255).astype(np.uint8)
    return _compressed(noisy, how.quality, how.subsampling) if how.quality else noisy


class Damage:
    """What photographs suffer at one of LEVELS or of FLAWS; a `edit_damage.Corruption`.

    Args:
      level: Its name.
    """

    def __init__(self, level: str):
        self._level = level
        self.about: dict[str, Any] = {"damage": (LEVELS | FLAWS)[level]._asdict()}

    def make(self, hr: HR, scale: int, id: str) -> LR:
        """The image as people have it; see `damaged`."""
        return damaged(hr, scale, recipe(self._level, id))

    def recipe(self, id: str) -> dict[str, Any]:
        """What happens to it; see `recipe`."""
        return recipe(self._level, id)._asdict()

    def told(self, id: str) -> dict[str, float]:
        """What can be told of it; see `told`."""
        return told(self._level, id)


def _compressed(image: np.ndarray, quality: int, subsampling: str) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file))
