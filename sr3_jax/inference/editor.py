"""Edits of images of any size: colours for grey ones, holes filled, edges continued.

Networks for it know small images. So colours are made for a reduced image and brought to the
full one by its luma (a guided filter), and of an image with holes the neighbourhood of each hole is
computed, reduced if the hole is a large one. What is known stays: the luma, or the pixels around
holes.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.data.source import image_id
from sr3_jax.errors import UserError
from sr3_jax.images.pixels import Picture, filled, from_image, to_image
from sr3_jax.inference.engine import Engine, Progress, ignore
from sr3_jax.inference.sampling import Sampling
from sr3_jax.tasks import operations
from sr3_jax.tasks.editing import LUMA
from sr3_jax.tasks.task import Canvas

Hole = Bool[np.ndarray, "_h _w"]
COLOURED = 192  # pixels: the shorter side of the image that colours are made for, at the most
RADIUS, SMOOTH = 3, 0.02  # of the guided filter: pixels of that image; in [-1, 1]
LARGEST_HOLE = 64  # pixels: the longer side of a hole as the network sees it, at the most
CONTEXT = 32  # pixels around a hole that it sees, at the least; else as many as the hole is large
LARGEST_MARGIN = 24  # pixels of a margin that is added, as the network sees it


class Editor:
    """Edits images of any size by the network of a checkpoint; see `Editor.load`.

    Args:
      checkpoint: A network of task.kind "colourise" or "inpaint".
      batch_size: How many tiles are computed at a time; see `Engine`.

    Raises:
      UserError: The network is for something else.
    """

    def __init__(self, checkpoint: Checkpoint, batch_size: int | None = None):
        kind = checkpoint.config.task.kind
        if kind not in ("colourise", "inpaint"):
            raise UserError(
                f"{checkpoint.name} is a network for {kind.replace('_', '-')}; to edit takes one "
                "for colourise or inpaint"
            )
        self.engine = Engine(checkpoint, batch_size)

    @classmethod
    def load(cls, place: str | Path, batch_size: int | None = None) -> "Editor":
        """An editor with the network at `place`; see `load_checkpoint`, also for its errors."""
        return cls(load_checkpoint(place), batch_size)

    @property
    def kind(self) -> str:
        """What it does: "colourise" or "inpaint"."""
        return self.engine.checkpoint.config.task.kind

    def __call__(
        self,
        image: Any,
        sampling: Sampling | None = None,
        *,
        mask: Any = None,
        margin: Sequence[int] = (),
        name: str = "",
        **options: Any,
    ) -> Any:
        """Edits an image; the result is of the same kind, with colours if it was to get any.

        Args:
          image: A Pillow image, a NumPy or a JAX array, as `Upscaler` takes it.
          sampling: How it is drawn; by default as the checkpoint has it.
          mask: "inpaint": an image of the same size, white (more than half) where the hole is.
          margin: "inpaint": pixels to add above, at the right, below and at the left.
          name: The image's name; images of different names get different noise.
          **options: Fields of `Sampling` to change.

        Raises:
          UserError: `image` or `mask` is no such image, or the network cannot be used like that.
        """
        sampling = (sampling or Sampling()).with_options(options)
        sampling.check(self.engine.checkpoint)
        picture = from_image(image, name or "the image")
        hole = None if mask is None else from_image(mask, "the mask").colour.mean(axis=-1) > 0
        if self.kind == "colourise":
            if hole is not None or margin:
                raise UserError("mask and margin are for a network of inpaint, not of colourise")
            done = self.colourise(picture, name, sampling)
        else:
            picture, hole = _with_margin(picture, hole, tuple(margin))
            done = self.inpaint(picture, hole, name, sampling, bool(margin))
        return to_image(done, image)

    def colourise(
        self, picture: Picture, name: str, sampling: Sampling, on_tiles: Progress = ignore
    ) -> Picture:
        """The picture in colour; its luma stays. A colour picture loses its own colours."""
        grey = _channels(filled(picture).colour, 1)
        height, width = grey.shape[:2]
        small = _reduced(grey, max(1.0, min(height, width) / COLOURED))
        made = self.engine.canvas(small, image_id(name), sampling, on_tiles)
        chroma = _by_guide(small, made - made @ LUMA[:, None], grey)
        return picture._replace(colour=self.engine.method.task.compose(grey, grey + chroma))

    def inpaint(
        self,
        picture: Picture,
        hole: Hole,
        name: str,
        sampling: Sampling,
        outside: bool = False,
        on_tiles: Progress = ignore,
    ) -> Picture:
        """The picture with its holes filled, one after the other; all other pixels stay.

        Args:
          picture: The picture.
          hole: Where it is to be filled.
          name: Its name, on which the noise depends.
          sampling: How it is drawn.
          outside: Whether the hole is around the picture: then all of it is seen.
          on_tiles: Called as `Engine.canvas` calls it.
        """
        task = self.engine.method.task
        own = _channels(filled(picture).colour, self.engine.channels)
        unfilled = hole.copy()
        for number, (rows, columns, own_hole) in enumerate(_places(hole, outside)):
            factor = _margin_factor(own_hole) if outside else _hole_factor(own_hole)
            part = own[rows, columns]
            unknown = unfilled[rows, columns]
            given = _reduced(_nearest(part, unknown), factor)
            seen = _reduced(unknown[..., None].astype(np.float32), factor) > 0.01
            inputs = np.concatenate([np.where(seen, 0, given), 2.0 * seen - 1], -1)
            id = image_id(f"{name}#{number}" if number else name)
            made = self.engine.canvas(inputs.astype(np.float32), id, sampling, on_tiles)
            made = operations.resize_canvas(made, *part.shape[:2]).clip(-1, 1)
            both = np.concatenate([part, 2.0 * own_hole[..., None] - 1], -1)
            own[rows, columns] = task.compose(both, made)
            unfilled[rows, columns] &= ~own_hole
        made = _channels(own, picture.colour.shape[-1])
        return picture._replace(colour=np.where(hole[..., None], made, picture.colour))


def _with_margin(
    picture: Picture, hole: Hole | None, margin: tuple[int, ...]
) -> tuple[Picture, Hole]:
    """The picture with its margins, black, and where it is to be filled.

    Raises UserError if that is nowhere, or everywhere.
    """
    height, width = picture.colour.shape[:2]
    if margin and (len(margin) != 4 or min(margin) < 0 or not max(margin)):
        raise UserError(
            f"margin = {margin} must be four numbers of pixels: above, right, below, left"
        )
    if hole is None and not margin:
        raise UserError("inpaint needs a mask, white where the image is to be filled, or a margin")
    if hole is not None and hole.shape != (height, width):
        raise UserError(
            f"the mask is {hole.shape[1]}×{hole.shape[0]}, and the image {width}×{height}: they "
            "must be of one size"
        )
    hole = np.zeros((height, width), bool) if hole is None else hole
    if margin:
        top, right, bottom, left = margin
        space = ((top, bottom), (left, right))
        hole = np.pad(hole, space, constant_values=True)
        alpha = picture.alpha
        picture = picture._replace(
            colour=np.pad(picture.colour, (*space, (0, 0))),
            alpha=None if alpha is None else np.pad(alpha, (*space, (0, 0)), constant_values=1.0),
        )
    if not hole.any():
        raise UserError("the mask has no hole: nothing in it is white")
    if hole.all():
        raise UserError("the mask is all hole: nothing of the image would be left")
    return picture, hole


def _places(hole: Hole, outside: bool) -> Iterator[tuple[slice, slice, Hole]]:
    """The neighbourhood of each hole: rows, columns, and where in it the hole is."""
    if outside:
        yield slice(None), slice(None), hole
        return
    from scipy import ndimage  # a fifth of a second

    # Holes that are near to each other are one
    labels, _ = ndimage.label(ndimage.binary_dilation(hole, iterations=8))
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = hole[box] & (labels[box] == number)
        places = [np.flatnonzero(inside.any(axis)) for axis in (1, 0)]
        around = max(CONTEXT, *(int(np.ptp(place)) + 1 for place in places))
        rows, columns = (
            slice(
                max(0, part.start + int(place[0]) - around),
                part.start + int(place[-1]) + 1 + around,
            )
            for part, place in zip(box, places, strict=True)
        )
        yield rows, columns, hole[rows, columns] & (labels[rows, columns] == number)


def _hole_factor(hole: Hole) -> float:
    """By how much the neighbourhood of a hole is reduced, so that the hole is not too large."""
    sides = (np.ptp(np.flatnonzero(hole.any(axis))) + 1 for axis in (0, 1))
    return max(1.0, max(sides) / LARGEST_HOLE)


def _margin_factor(hole: Hole) -> float:
    """By how much an image with a hole around it is reduced, so that margins are not too wide."""
    known = [np.flatnonzero(~hole.all(axis)) for axis in (1, 0)]
    widest = max(
        max(int(place[0]), size - 1 - int(place[-1]))
        for place, size in zip(known, hole.shape, strict=True)
    )
    return max(1.0, widest / LARGEST_MARGIN)


def _reduced(image: Canvas, factor: float) -> Canvas:
    """The image made smaller by a factor, anti-aliased; itself for 1."""
    if factor <= 1:
        return np.asarray(image, np.float32)
    height, width = (max(1, round(side / factor)) for side in image.shape[:2])
    return operations.resize_canvas(image, height, width)


def _nearest(image: Canvas, unknown: Hole) -> Canvas:
    """The image, in the hole the nearest known pixels, so that reducing mixes in nothing else."""
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True)
    return image[tuple(nearest)]


def _channels(colour: Canvas, count: int) -> Canvas:
    """The colours in so many channels: grey three times, or the luma."""
    if colour.shape[-1] == count:
        return colour.copy()
    return colour @ LUMA[:, None] if count == 1 else np.repeat(colour, count, axis=-1)


def _by_guide(
    small: Float[np.ndarray, "_h _w 1"], chroma: Canvas, full: Float[np.ndarray, "_H _W 1"]
) -> Canvas:
    """Chroma of a reduced image brought to the full one, whose luma says where its edges are.

    The fast guided filter (He & Sun 2015, arXiv 1505.00996): around each pixel of the reduced image
    chroma is a · luma + b; a and b, which are smooth, are enlarged and applied to the full luma.
    """
    from scipy import ndimage

    def mean(x: Canvas) -> Canvas:
        return ndimage.uniform_filter(x, (2 * RADIUS + 1, 2 * RADIUS + 1, 0), mode="nearest")

    luma, colour = mean(small), mean(chroma)
    slope = (mean(small * chroma) - luma * colour) / (mean(small**2) - luma**2 + SMOOTH**2)
    offset = mean(colour - slope * luma)
    a, b = (
        operations.resize_canvas(np.asarray(x, np.float32), *full.shape[:2], method="bilinear")
        for x in (mean(slope), offset)
    )
    return a * full + b
