"""Edits of images of any size: colours for grey ones, holes filled, edges continued, flaws removed.

Networks for it know small images. So colours are made for a reduced image and brought to the
full one by its luma (a guided filter), of an image with holes the neighbourhood of each hole is
computed (holes.py), and flaws are removed in tiles. What is known stays: the luma, or the pixels
around holes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.data.source import image_id
from sr3_jax.errors import UserError
from sr3_jax.images import pixels
from sr3_jax.images.files import File
from sr3_jax.images.pixels import Picture, filled, from_image, to_image
from sr3_jax.inference import holes
from sr3_jax.inference.edits import EDITS
from sr3_jax.inference.engine import Engine, Progress, ignore
from sr3_jax.inference.holes import Hole, Margin
from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.upscaler import Cost, Upscaler
from sr3_jax.runtime import limits
from sr3_jax.tasks import operations
from sr3_jax.tasks.corruptions import CORRUPTIONS
from sr3_jax.tasks.editing import LUMA
from sr3_jax.tasks.task import Canvas

COLOURED = 192  # pixels: the shorter side of the image that colours are made for, at the most
RADIUS, SMOOTH = 3, 0.02  # of the guided filter: pixels of that image; in [-1, 1]
# Arrays of one channel of the size of the result that an edit holds, about
PLANES = {"colourise": 24, "inpaint": 48}


class Editor:
    """Edits images of any size by the network of a checkpoint; see `Editor.load`.

    Args:
      checkpoint: A network of one of the edits.
      batch_size: How many tiles are computed at a time; see `Engine`.
      tile: The side of a tile, in pixels; see `Engine`.

    Raises:
      UserError: The network is for something else.
    """

    def __init__(
        self, checkpoint: Checkpoint, batch_size: int | None = None, tile: int | None = None
    ):
        self.kind = kind_of(checkpoint)  # what it does: "colourise", "inpaint" or "restore"
        restores = self.kind == "restore"
        self.restorer = Upscaler(checkpoint, batch_size, tile) if restores else None
        self.engine = (
            self.restorer.engine if self.restorer else Engine(checkpoint, batch_size, tile)
        )

    @classmethod
    def load(
        cls, place: str | Path, batch_size: int | None = None, tile: int | None = None
    ) -> "Editor":
        """An editor with the network at `place`; see `load_checkpoint`, also for its errors."""
        return cls(load_checkpoint(place), batch_size, tile)

    @property
    def checkpoint(self) -> Checkpoint:
        """The network's checkpoint."""
        return self.engine.checkpoint

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
          **options: Fields of `Sampling` to change, and signals, e.g. steps=4, noise=8.0.

        Raises:
          UserError: `image` or `mask` is no such image, or the network cannot be used like that.
        """
        sampling = (sampling or Sampling()).with_options(options)
        picture = from_image(image, name or "the image")
        hole = None if mask is None else holes.of_mask(mask)
        return to_image(self.edit(hole, margin).picture(picture, name, sampling), image)

    def edit(
        self, mask: Hole | None = None, margin: Sequence[int] = (), mask_name: str = "the mask"
    ) -> "Edit":
        """What it does to one image, with its mask, which has a name in errors, and its margin.

        Raises:
          UserError: the network takes none, or the margin is none.
        """
        if self.kind != "inpaint" and (mask is not None or margin):
            raise UserError(f"mask and margin are for a network of inpaint, not of {self.kind}")
        return Edit(self, mask, holes.checked_margin(margin), mask_name)

    def colourise(
        self, picture: Picture, name: str, sampling: Sampling, on_tiles: Progress = ignore
    ) -> Picture:
        """The picture in colour; its luma stays. A colour picture loses its own colours."""
        grey = _channels(filled(picture).colour, 1)
        small = _reduced(grey, _colour_factor(*grey.shape[:2]))
        made = self.engine.canvas(small, image_id(name), sampling, on_tiles)
        chroma = _by_guide(small, made - made @ LUMA[:, None], grey)
        return picture._replace(colour=self.engine.method.task.compose(grey, grey + chroma))

    def restore(
        self, picture: Picture, name: str, sampling: Sampling, on_tiles: Progress = ignore
    ) -> Picture:
        """The picture without its flaws."""
        assert self.restorer is not None
        return self.restorer.picture(picture, name, sampling, on_tiles)

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
        # What has no colour gets none
        grey = pixels.is_grey(picture._replace(colour=picture.colour[~hole][:, None]))
        own = _channels(_visible(picture, hole), self.engine.channels)
        unfilled = hole.copy()
        for number, place in enumerate(holes.places(hole, outside)):
            at = place.rows, place.columns
            part, unknown = own[at], unfilled[at]
            given = _reduced(_nearest(part, unknown), place.factor)
            seen = _reduced(unknown[..., None].astype(np.float32), place.factor) > 0.01
            mask = np.where(seen, np.float32(1), np.float32(-1))
            inputs = np.concatenate([np.where(seen, np.float32(0), given), mask], -1)
            id = image_id(f"{name}#{number}" if number else name)
            made = self.engine.canvas(inputs, id, sampling, on_tiles)
            made = np.where(seen, made, given)
            made = operations.resize_canvas(made, *part.shape[:2]).clip(-1, 1)
            both = np.concatenate([part, 2.0 * place.hole[..., None] - 1], -1)
            own[at] = task.compose(both, made)
            unfilled[at] &= ~place.hole
        made = _channels(_channels(own, 1) if grey else own, picture.colour.shape[-1])
        alpha = picture.alpha
        return picture._replace(
            colour=np.where(hole[..., None], made, picture.colour),
            # What is filled is to be seen
            alpha=None if alpha is None else np.where(hole[..., None], np.float32(1), alpha),
        )


class Edit(NamedTuple):
    """What an editor does to one image; a worker for `files.run_all`."""

    editor: Editor
    mask: Hole | None = None
    margin: Margin | None = None
    mask_name: str = "the mask"  # in errors

    @property
    def checkpoint(self) -> Checkpoint:
        """The network's checkpoint."""
        return self.editor.checkpoint

    def picture(
        self, picture: Picture, name: str, sampling: Sampling, on_tiles: Progress = ignore
    ) -> Picture:
        """The edited picture.

        Raises:
          UserError: the mask does not fit, or the network cannot be used like that.
        """
        editor = self.editor
        _check(sampling, editor.checkpoint)
        if editor.kind == "colourise":
            return editor.colourise(picture, name, sampling, on_tiles)
        if editor.kind == "restore":
            return editor.restore(picture, name, sampling, on_tiles)
        height, width = picture.colour.shape[:2]
        hole = holes.whole(height, width, self.mask, self.margin, self.mask_name)
        if self.margin:
            picture = holes.with_margin(picture, self.margin)
        return editor.inpaint(picture, hole, name, sampling, bool(self.margin), on_tiles)

    def cost(self, height: int, width: int, sampling: Sampling | None = None) -> Cost:
        """What editing an image of height × width will take; errors as those of `picture`."""
        engine, sampling = self.editor.engine, sampling or Sampling()
        _check(sampling, self.checkpoint)
        if self.editor.kind == "restore":
            assert self.editor.restorer is not None
            return self.editor.restorer.cost(height, width, sampling)
        if self.editor.kind == "colourise":
            tiles = engine.tiles(*holes.reduced_size(height, width, _colour_factor(height, width)))
        else:
            made = holes.size_with_margin(height, width, self.margin)
            if self.bytes(made[0] * made[1], sampling) > limits.memory():
                tiles = 1  # too much to look at its holes; nobody will make it
            else:
                hole = holes.whole(height, width, self.mask, self.margin, self.mask_name)
                places = holes.places(hole, bool(self.margin))
                tiles = sum(engine.tiles(*one.seen) for one in places)
            height, width = made
        evaluations = engine.table(sampling).evaluations
        return Cost(height, width, tiles, evaluations, self.bytes(height * width, sampling))

    def bytes(self, count: int, sampling: Sampling) -> int:
        """The memory that an image of so many pixels takes."""
        if self.editor.kind == "restore":
            assert self.editor.restorer is not None
            return self.editor.restorer.bytes(count, sampling)
        return 4 * count * PLANES[self.editor.kind]

    def prepared(self, file: File, sampling: Sampling) -> File:
        """The file as it is edited, with what the user should know of it as notes."""
        picture, kept, notes = file
        if self.editor.kind != "colourise":
            return file
        if picture.colour.shape[-1] == 1:
            picture = picture._replace(colour=np.repeat(picture.colour, 3, axis=-1))
            if kept.icc:
                kept, more = kept._replace(icc=b""), "its grey profile was left out: it has colours"
                notes = (*notes, more)
        elif not pixels.is_grey(picture):
            notes = (*notes, "its own colours are given up: only its brightness is used")
        return File(picture, kept, notes)


def kind_of(checkpoint: Checkpoint) -> str:
    """Which edits a network is for: "colourise", "inpaint", or "restore".

    Raises:
      UserError: for none.
    """
    config = checkpoint.config
    kind = config.task.kind
    if kind in ("colourise", "inpaint"):
        return kind
    if kind != "generation" and config.data.hr_size == config.data.lr_size:
        return "restore"
    raise UserError(
        f"{checkpoint.name} is a network for {kind.replace('_', '-')}; to edit takes one for "
        "colourise, inpaint or restore"
    )


def removes(checkpoint: Checkpoint, task: str) -> bool:
    """Whether a network for restoring has learned all the flaws that an edit of EDITS removes.

    Of "restore" one is enough. True for other edits.
    """
    named = EDITS[task]
    if named.kind != "restore":
        return True
    learned = [
        name for name in CORRUPTIONS if name not in named.absent and checkpoint.config.task[name]
    ]
    return bool(learned)


def told(checkpoint: Checkpoint, task: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a network is told for an edit of EDITS: the options, and the flaws that are absent.

    Raises:
      UserError: it is a network for something else, or the edit removes no such flaw.
    """
    named, kind = EDITS[task], kind_of(checkpoint)
    if named.kind != kind:
        raise UserError(
            f"{checkpoint.name} is a network for {kind}, and --task={task} takes one for "
            f"{named.kind}"
        )
    if not removes(checkpoint, task):
        raise UserError(
            f"{checkpoint.name} has not learned to {named.about}, as --task={task} wants"
        )
    for name in named.absent:
        if options.get(name):
            raise UserError(
                f"--{name}={options[name]:g} does not go with --task={task}, which removes "
                "something else; use --task=restore"
            )
    known = {signal.name for signal in checkpoint.method.task.signals}
    return dict(options) | {name: 0.0 for name in named.absent if name in known}


def _visible(picture: Picture, hole: Hole) -> Canvas:
    """The colours without those under clear pixels; nor do these get any from the hole."""
    if picture.alpha is None:
        return picture.colour
    hidden = (picture.alpha[..., 0] <= -1) | hole
    return picture.colour if hidden.all() else _nearest(picture.colour, hidden)


def _check(sampling: Sampling, checkpoint: Checkpoint) -> None:
    sampling.check(checkpoint)
    if sampling.scale not in (None, 1):
        raise UserError(f"scale = {sampling.scale:g}: an edit leaves an image's size as it is")


def _colour_factor(height: int, width: int) -> float:
    """By how much an image is reduced before it gets colours."""
    return max(1.0, min(height, width) / COLOURED)


def _reduced(image: Canvas, factor: float) -> Canvas:
    """The image made smaller by a factor, anti-aliased; itself for 1."""
    if factor <= 1:
        return np.asarray(image, np.float32)
    height, width = image.shape[:2]
    return operations.resize_canvas(image, *holes.reduced_size(height, width, factor))


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
