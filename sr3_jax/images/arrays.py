"""Image files to uint8 arrays, for data sets and metrics, and back.

`decoding` reads them. What had to be converted comes with the pixels, in words (notes).
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sr3_jax.images import decoding, files
from sr3_jax.images.decoding import ImageError, named_errors
from sr3_jax.images.formats import SUFFIXES, format_of, is_image_name
from sr3_jax.images.pixels import from_array
from sr3_jax.runtime import paths
from sr3_jax.runtime.paths import AnyPath

__all__ = [
    "SUFFIXES",
    "Decoded",
    "ImageError",
    "Pixels",
    "as_channels",
    "decode",
    "format_of",
    "is_image_name",
    "read",
    "read_size",
    "to_pillow",
    "write",
]

Pixels = UInt8[np.ndarray, "h w c"]


class Decoded(NamedTuple):
    """An image that was read."""

    pixels: Pixels  # (h, w, channels)
    notes: tuple[str, ...]  # what had to be converted, e.g. ("alpha flattened onto white",)


def read_size(path: AnyPath | str) -> tuple[int, int]:
    """(width, height) of the upright image, without decoding it; raises ImageError."""
    place = paths.parse(path) if isinstance(path, str) else path
    if isinstance(place, Path):
        with _opening(path), place.open("rb") as file:
            height, width = decoding.size(file, str(path))
    else:
        height, width = decoding.size(io.BytesIO(_load(path)), str(path))
    return width, height


def read(path: AnyPath | str, channels: int | None) -> Decoded:
    """The image in a file as uint8, upright.

    Args:
      path: of the file.
      channels: 3 (RGB), 1 (luma) or None: 1 for a grey image, 3 for any other.

    Raises:
      ImageError: it cannot be read, or not to its end.
    """
    return decode(_load(path), channels, str(path))


def decode(data: bytes, channels: int | None, name: str) -> Decoded:
    """As `read`, from the bytes of a file; `name` stands for it in errors."""
    values, _, given = decoding.decode(data, name)
    notes = list(given)
    if values.shape[-1] in (2, 4):
        values = _on_white(values)
        notes.append("alpha flattened onto white")
    if values.dtype != np.uint8:
        full = 65535 if values.dtype == np.uint16 else 1
        values = np.rint(values * (np.float64(255) / full)).astype(np.uint8)
        notes.append("16-bit or float levels rounded to 8 bits")
    channels = channels or values.shape[-1]
    if channels != values.shape[-1]:
        notes.append(
            "colour converted to grey" if channels == 1 else "grey repeated in three channels"
        )
    return Decoded(np.ascontiguousarray(as_channels(values, channels)), tuple(notes))


def _load(path: AnyPath | str) -> bytes:
    place = paths.parse(path) if isinstance(path, str) else path
    with _opening(path):
        return place.read_bytes()


@contextmanager
def _opening(path: AnyPath | str) -> Iterator[None]:
    try:
        with named_errors(f"{path} cannot be opened as an image"):
            yield
    except ImageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise ImageError(f"{path} does not exist") from error.__cause__
        raise


def _on_white(values: np.ndarray) -> np.ndarray:
    """The colours laid on white by their alpha, in the same type."""
    full = {"uint8": 255, "uint16": 65535}.get(values.dtype.name, 1)
    colour, alpha = values[..., :-1].astype(np.float64), values[..., -1:].astype(np.float64) / full
    laid = colour * alpha + full * (1 - alpha)
    return laid.astype(values.dtype) if full == 1 else np.rint(laid).astype(values.dtype)


def to_pillow(pixels: Pixels) -> Image.Image:
    """(h, w, 1 or 3) uint8 as a Pillow image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def as_channels(pixels: Pixels, channels: int) -> UInt8[np.ndarray, "h w c2"]:
    """The image with 1 or 3 channels: grey is repeated, colour becomes its luma."""
    if pixels.shape[-1] == 3 and channels == 1:
        return np.asarray(to_pillow(pixels).convert("L"))[..., None]
    return np.repeat(pixels, channels // pixels.shape[-1], axis=-1)


def write(path: AnyPath | str, pixels: Pixels) -> None:
    """Writes (h, w, 1 or 3) uint8 to `path` in the format of its suffix.

    The file appears whole, by rename, or not at all.

    Raises:
      UserError: the suffix or the folder cannot be written, or the format cannot hold the size.
    """
    files.write(paths.parse(path), from_array(pixels, str(path)))
