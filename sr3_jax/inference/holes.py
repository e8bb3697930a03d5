"""Where an image is to be filled: its holes and margins, and how much of it a network sees.

A network knows small images. So of each hole it is shown the neighbourhood, reduced if the hole is
a large one; of an image with margins all of it, reduced if they are wide.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from sr3_jax.errors import UserError
from sr3_jax.images import files
from sr3_jax.images.pixels import Picture, from_image

Hole = Bool[np.ndarray, "_h _w"]
Margin = tuple[int, int, int, int]  # pixels above, at the right, below and at the left
LARGEST_HOLE = 64  # pixels: how thick a hole is as the network sees it, at the most
LARGEST_PLACE = 768  # pixels: the side of a square as large as what it sees, at the most
CONTEXT = 32  # pixels around a hole that it sees, at the least
AROUND = 3  # else so many times its thickness, but not more than it is long
LARGEST_MARGIN = 24  # pixels of a margin that is added, as the network sees it


class Place(NamedTuple):
    """A part of an image that a network is shown."""

    rows: slice
    columns: slice
    hole: Hole  # where in it it is to be filled
    factor: float  # by how much it is reduced

    @property
    def seen(self) -> tuple[int, int]:
        """(height, width) as the network sees it."""
        height, width = self.hole.shape
        return reduced_size(height, width, self.factor)


def of_mask(mask: Any, name: str = "the mask") -> Hole:
    """Where a mask, an image of any kind, is white and opaque, both more than half."""
    return _white(from_image(mask, name))


def of_mask_file(path: Path) -> Hole:
    """The hole of a mask in a file.

    Raises:
      ImageError: it is no image that can be read.
    """
    return _white(files.read(path).picture)


def of_mask_bytes(data: bytes, height: int, width: int, name: str = "the mask") -> Hole:
    """The hole of a mask in the bytes of a file, for an image of height × width.

    Raises:
      UserError: it is of another size, which is known before it is decoded.
      ImageError: it is no image that can be read.
    """
    _check_size(files.header(data, name), height, width, name)
    return _white(files.parse(data, name).picture)


def _white(mask: Picture) -> Hole:
    white = mask.colour.mean(axis=-1) > 0
    # Painting programs leave white under what is clear
    return np.asarray(white if mask.alpha is None else white & (mask.alpha[..., 0] > 0))


def checked_margin(margin: Any) -> Margin | None:
    """Four numbers of pixels; None for none.

    Raises:
      UserError: they are no such numbers.
    """
    given = tuple(margin)
    if not given:
        return None
    if len(given) != 4 or min(given) < 0 or not max(given):
        raise UserError(
            f"margin = {given} must be four numbers of pixels, above, right, below, left, "
            "and not all 0"
        )
    return given


def whole(
    height: int, width: int, mask: Hole | None, margin: Margin | None, name: str = "the mask"
) -> Hole:
    """Where an image of height × width is to be filled, its margins included.

    Args:
      height: Of the image.
      width: Of the image.
      mask: Where it has a hole; None: nowhere.
      margin: What is added to it; None: nothing.
      name: What the mask is called in errors.

    Raises:
      UserError: that is nowhere, or everywhere, or the mask is of another size.
    """
    if mask is None and margin is None:
        raise UserError("inpaint needs a mask, white where the image is to be filled, or a margin")
    if mask is not None:
        _check_size(mask.shape, height, width, name)
    hole = np.zeros((height, width), bool) if mask is None else mask
    if margin is not None:
        hole = np.pad(hole, _space(margin), constant_values=True)
    if not hole.any():
        raise UserError(f"{name} has no hole: nothing in it is white")
    if hole.all():
        raise UserError(f"{name} is all hole: nothing of the image would be left")
    return hole


def _check_size(mask: tuple[int, ...], height: int, width: int, name: str) -> None:
    """Raises UserError if the (height, width) of a mask is not that of its image."""
    if mask != (height, width):
        raise UserError(
            f"{name} is {mask[1]}×{mask[0]}, and the image {width}×{height}: they "
            "must be of one size"
        )


def with_margin(picture: Picture, margin: Margin) -> Picture:
    """The picture with its margins, of a middle grey and opaque."""
    space = (*_space(margin), (0, 0))
    alpha = picture.alpha
    return picture._replace(
        colour=np.pad(picture.colour, space),
        alpha=None if alpha is None else np.pad(alpha, space, constant_values=1.0),
    )


def _space(margin: Margin) -> tuple[tuple[int, int], tuple[int, int]]:
    top, right, bottom, left = margin
    return (top, bottom), (left, right)


def places(hole: Hole, outside: bool) -> Iterator[Place]:
    """What a network is shown, one after the other.

    Args:
      hole: Where the image is to be filled.
      outside: Whether that is around the image: then all of it is shown at once.
    """
    if outside:
        yield Place(slice(None), slice(None), hole, _margin_factor(hole))
        return
    from scipy import ndimage  # a fifth of a second

    # Holes that are near to each other are one
    labels, _ = ndimage.label(ndimage.binary_dilation(hole, iterations=8))
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = hole[box] & (labels[box] == number)
        places = [np.flatnonzero(inside.any(axis)) for axis in (1, 0)]
        extent = max(int(np.ptp(place)) + 1 for place in places)
        thickness = _thickness(inside)
        around = max(CONTEXT, min(extent, AROUND * thickness))
        rows, columns = (
            slice(
                max(0, part.start + int(place[0]) - around),
                part.start + int(place[-1]) + 1 + around,
            )
            for part, place in zip(box, places, strict=True)
        )
        own = hole[rows, columns] & (labels[rows, columns] == number)
        # so that the hole is not too thick, nor the neighbourhood of a long one too large
        factor = max(1.0, thickness / LARGEST_HOLE, math.sqrt(own.size) / LARGEST_PLACE)
        yield Place(rows, columns, own, factor)


def _thickness(hole: Hole) -> int:
    """The diameter of the largest disc inside a hole, in pixels, at most its shorter side."""
    from scipy import ndimage

    radius = ndimage.distance_transform_edt(np.pad(hole, 1)).max()
    return min(*hole.shape, math.ceil(2 * radius))


def size_with_margin(height: int, width: int, margin: Margin | None) -> tuple[int, int]:
    """(height, width) of an image with its margin."""
    top, right, bottom, left = margin or (0, 0, 0, 0)
    return height + top + bottom, width + left + right


def _margin_factor(hole: Hole) -> float:
    """By how much an image with a hole around it is reduced, so that margins are not too wide."""
    known = [np.flatnonzero(~hole.all(axis)) for axis in (1, 0)]
    widest = max(
        max(int(place[0]), size - 1 - int(place[-1]))
        for place, size in zip(known, hole.shape, strict=True)
    )
    return max(1.0, widest / LARGEST_MARGIN)


def reduced_size(height: int, width: int, factor: float) -> tuple[int, int]:
    """(height, width) of an image that is made smaller by a factor; as it is for 1 and below."""
    if factor <= 1:
        return height, width
    return max(1, round(height / factor)), max(1, round(width / factor))
