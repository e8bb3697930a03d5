"""From an image of any size to the square that the network sees."""

import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict
from PIL import Image as PillowImage

from sr3_jax.data.source import Box, Image
from sr3_jax.images.arrays import ImageError, to_pillow

FloatBox = tuple[float, float, float, float]


def check_size(image: Image, size: int) -> None:
    """Raises ImageError for an image too small to be cut to size × size."""
    height, width, _ = image.pixels.shape
    if min(height, width) < size:
        raise ImageError(f"{image.id} is {width}×{height}, smaller than data.hr_size = {size}")


def square(image: Image) -> Box:
    """The image's own box, or its largest central square."""
    if image.box:
        return image.box
    height, width = image.pixels.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def fit(
    image: Image, config: ConfigDict, rng: np.random.Generator | None = None
) -> UInt8[np.ndarray, "s s c"]:
    """The image as a square of data.hr_size pixels, made as data.fit says.

    "resize" cuts out a square and resamples it by data.resample. "crop" cuts out hr_size × hr_size
    pixels, unscaled.

    Args:
      image: as its source gives it.
      config: its `data` section is used.
      rng: of the random crop, mirror and turn of training; None: the fixed square for evaluation.

    Raises:
      ImageError: the image is too small to be cut.
    """
    data, size = config.data, config.data.hr_size
    height, width, _ = image.pixels.shape
    check_size(image, size)
    if data.fit == "crop":
        left, top = (width - size) // 2, (height - size) // 2
        if rng is not None:
            left, top = int(rng.integers(width - size + 1)), int(rng.integers(height - size + 1))
        pixels = image.pixels[top : top + size, left : left + size]
    else:
        box: Box | FloatBox = square(image)
        if rng is not None and data.crop_jitter:
            box = _jitter(square(image), data.crop_jitter, width, height, rng)
        pixels = resample(image.pixels, box, size, data.resample)
    if rng is not None and data.flip and rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if rng is not None and data.turn:
        pixels = np.rot90(pixels, int(rng.integers(4)))
    return np.ascontiguousarray(pixels)


def resample(
    pixels: UInt8[np.ndarray, "h w c"], box: Box | FloatBox, size: int, method: str
) -> UInt8[np.ndarray, "s s c"]:
    """The box of an image, resampled to size × size by Pillow.

    `method` is "area" (a box filter) or "bicubic" (anti-aliased).
    """
    filters = {"area": PillowImage.Resampling.BOX, "bicubic": PillowImage.Resampling.BICUBIC}
    return np.asarray(to_pillow(pixels).resize((size, size), filters[method], box=box)).reshape(
        size, size, -1
    )


def _jitter(box: Box, amount: float, width: int, height: int, rng: np.random.Generator) -> FloatBox:
    """A square near `box`, inside the image: smaller by up to amount · side.

    Its middle moves by up to amount · side either way.
    """
    side = box[2] - box[0]
    new = side * (1 - amount * rng.random())
    left = box[0] + (side - new) * rng.random() + side * amount * (rng.random() - 0.5)
    top = box[1] + (side - new) * rng.random() + side * amount * (rng.random() - 0.5)
    left, top = np.clip(left, 0, width - new), np.clip(top, 0, height - new)
    return left, top, left + new, top + new
