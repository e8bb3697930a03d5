"""What is done to photographs that are to be edited: their colour is taken, or a part of them.

Flaws are those of damage.py. Holes are of the kinds that networks learn, in the same proportion to
the image, but drawn here by NumPy and OpenCV: those of training (tasks/masks.py) are made by
another program. Where a hole is depends on the image's id alone.
"""

import math
import zlib
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8

from sr3_jax.evaluation.damage import FLAWS, HR, LEVELS, Damage
from sr3_jax.images import arrays

Hole = Bool[np.ndarray, "_h _w"]
STROKES, BENDS = 4, 5  # of a free-form hole, at the most: strokes, straight parts of each
TURN = 2.1  # radians, by which a stroke turns at each bend, at the most


@runtime_checkable
class Corruption(Protocol):
    """What happens to a photograph before it is given to those who are measured.

    `about` describes it in results.json.
    """

    about: dict[str, Any]

    def make(self, hr: HR, scale: int, id: str) -> UInt8[np.ndarray, "_l _k _c"]:
        """What is given: an image `scale` times smaller."""
        ...

    def recipe(self, id: str) -> dict[str, Any]:
        """What happens to the image of an id, for results.json."""
        ...

    def told(self, id: str) -> dict[str, float]:
        """What a method can be told of it, by signal."""
        ...


class Grey:
    """The luma alone, one channel, as Pillow makes it."""

    about: dict[str, Any] = {"damage": "luma"}  # noqa: RUF012

    def make(self, hr: HR, scale: int, id: str) -> UInt8[np.ndarray, "_h _w 1"]:
        """The luma of the image."""
        return arrays.as_channels(hr, 1)

    def recipe(self, id: str) -> dict[str, Any]:
        """Nothing in it is random."""
        return {}

    def told(self, id: str) -> dict[str, float]:
        """There is nothing to tell."""
        return {}


class Holes:
    """A part of the image is missing; the fourth channel, alpha, is 0 there and 255 elsewhere.

    Args:
      kind: One of KINDS.
    """

    def __init__(self, kind: str):
        self._kind, self.about = kind, {"damage": f"holes, {kind}"}

    def make(self, hr: HR, scale: int, id: str) -> UInt8[np.ndarray, "_h _w 4"]:
        """The image and its alpha; middle grey where it is missing."""
        missing = hole(self._kind, id, *hr.shape[:2])[..., None]
        alpha = np.where(missing, 0, 255).astype(np.uint8)
        return np.concatenate([np.where(missing, np.uint8(128), hr), alpha], axis=-1)

    def recipe(self, id: str) -> dict[str, Any]:
        """The seed of the hole."""
        return {"kind": self._kind, "seed": _seed(self._kind, id)}

    def told(self, id: str) -> dict[str, float]:
        """There is nothing to tell but the hole."""
        return {}


def hole(kind: str, id: str, height: int, width: int) -> Hole:
    """Where the image of an id is missing; KINDS says in which way."""
    return KINDS[kind](np.random.default_rng(_seed(kind, id)), height, width)


def _seed(kind: str, id: str) -> int:
    return zlib.crc32(f"hole {kind}/{id}".encode("utf-8", "surrogateescape"))


def _free_form(draw: np.random.Generator, height: int, width: int) -> Hole:
    """One to STROKES strokes of a round brush, 1/20 to 1/8 of the image's side thick.

    Each straight part of a stroke is 1/16 to 1/4 of the side long, and turns by up to TURN.
    """
    import cv2

    side, canvas = min(height, width), np.zeros((height, width), np.uint8)
    for _ in range(int(draw.integers(1, STROKES, endpoint=True))):
        x, y = draw.uniform(0, width), draw.uniform(0, height)
        thick = max(1, round(side * draw.uniform(1 / 20, 1 / 8)))
        angle = draw.uniform(0, 2 * math.pi)
        for _ in range(BENDS):
            angle += draw.uniform(-TURN, TURN)
            length = side * draw.uniform(1 / 16, 1 / 4)
            begin, x, y = (x, y), x + length * math.cos(angle), y + length * math.sin(angle)
            points = [(round(float(a)), round(float(b))) for a, b in (begin, (x, y))]
            cv2.line(canvas, *points, 255, thick)  # type: ignore[call-overload]
    return canvas > 0


def _box(draw: np.random.Generator, height: int, width: int) -> Hole:
    """A rectangle anywhere, of a quarter to half of the sides."""
    tall, wide = (round(side * draw.uniform(0.25, 0.5)) for side in (height, width))
    top, left = int(draw.integers(height - tall + 1)), int(draw.integers(width - wide + 1))
    missing = np.zeros((height, width), bool)
    missing[top : top + tall, left : left + wide] = True
    return missing


def _outside(draw: np.random.Generator, height: int, width: int) -> Hole:
    """All but a rectangle.

    For half of the images one side is missing, 1/8 to 1/2 of the image; else all four are, each
    1/16 to 1/4 of it.
    """
    one, shares = draw.random() < 0.5, draw.uniform(1 / 16, 1 / 4, 4)
    if one:
        shares = 2 * shares * (np.arange(4) == draw.integers(4))
    top, left, bottom, right = (
        round(share * side) for share, side in zip(shares, (height, width) * 2, strict=True)
    )
    missing = np.ones((height, width), bool)
    missing[top : height - bottom, left : width - right] = False
    return missing


def margins(missing: Hole) -> tuple[int, int, int, int]:
    """How wide the hole around an image is: above, at the right, below and at the left."""
    rows, columns = (np.flatnonzero(~missing.all(axis)) for axis in (1, 0))
    height, width = missing.shape
    top, left = int(rows[0]), int(columns[0])
    return top, width - 1 - int(columns[-1]), height - 1 - int(rows[-1]), left


KINDS = {"free_form": _free_form, "box": _box, "uncrop": _outside}
CORRUPTIONS: dict[str, Corruption] = {
    **{level: Damage(level) for level in (*LEVELS, *FLAWS)},
    "colourise": Grey(),
    "inpaint-free_form": Holes("free_form"),
    "inpaint-box": Holes("box"),
    "uncrop": Holes("uncrop"),
}
