"""Enlarges images of any size and kind with a checkpoint's network.

>>> from sr3_jax import Upscaler
>>> upscaler = Upscaler.load("faces-16-64")  # a shipped name, a workdir or an exported file
>>> upscaler(np.zeros((16, 16), np.uint8), steps=1).shape
(64, 64)
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree, UInt8

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.config import SAME_SIZE
from sr3_jax.data.source import image_id
from sr3_jax.diffusion.samplers import Steps
from sr3_jax.errors import UserError
from sr3_jax.images import pixels
from sr3_jax.images.files import File
from sr3_jax.images.pixels import Picture, from_image, to_image
from sr3_jax.inference.engine import Engine, Progress, Values, ignore
from sr3_jax.inference.sampling import Sampling
from sr3_jax.tasks import operations
from sr3_jax.tasks.editing import LUMA
from sr3_jax.tasks.labels import LABEL
from sr3_jax.tasks.task import Canvas


class Cost(NamedTuple):
    """What enlarging one image takes, known beforehand."""

    height: int  # of the result
    width: int
    tiles: int  # evaluated at every step; 1 for an image of the network's own size
    evaluations: int  # of the network, per tile
    bytes: int  # of this process's memory, for all arrays of the size of the result


class Upscaler:
    """Upscales images of any size, on all devices of this process.

    Safe to call from several threads. Programs are compiled once for each number of steps, and once
    for each shape of tiles, and kept.

    Args:
      checkpoint: The network.
      batch_size: How many images or tiles are computed at a time; see `Engine`.
      tile: The side of a tile, in pixels of the result; see `Engine`.
    """

    def __init__(
        self, checkpoint: Checkpoint, batch_size: int | None = None, tile: int | None = None
    ):
        if checkpoint.config.task.kind == "generation":
            raise UserError(
                f"{checkpoint.name} makes images from noise and enlarges none: use sr3 generate, "
                "or Generator in Python"
            )
        kind = checkpoint.config.task.kind
        if kind in SAME_SIZE:
            raise UserError(
                f"{checkpoint.name} is a network for {kind}, and enlarges nothing: use sr3 edit, "
                "or Editor in Python"
            )
        self.engine = Engine(checkpoint, batch_size, tile)

    @classmethod
    def load(
        cls, place: str | Path, batch_size: int | None = None, tile: int | None = None
    ) -> "Upscaler":
        """An upscaler with the network at `place`; see `load_checkpoint`, also for its errors."""
        return cls(load_checkpoint(place), batch_size, tile)

    @property
    def checkpoint(self) -> Checkpoint:
        """The network's checkpoint."""
        return self.engine.checkpoint

    @property
    def scale(self) -> int:
        """How many times larger one pass makes an image."""
        return self.engine.scale

    @property
    def lr_size(self) -> int:
        """The side of the images that the network was trained on."""
        return self.engine.lr_size

    @property
    def channels(self) -> int:
        """The channels of the network's images: 1 (grey) or 3 (RGB)."""
        return self.engine.channels

    def set_params(self, params: PyTree) -> None:
        """Replaces the weights by others of the same network, on whatever devices they are."""
        self.engine.set_params(params)

    # -- any image

    def __call__(
        self, image: Any, sampling: Sampling | None = None, *, name: str = "", **options: Any
    ) -> Any:
        """Enlarges an image; the result is of the same kind.

        The result depends on the image, the network, seed, sample and name alone: each image of a
        batch becomes what it would become by itself. (Only the size of tiles changes it a little,
        by what the convolutions see at their edges.)

        Args:
          image: A Pillow image, a NumPy or a JAX array. Arrays are uint8, uint16, or float in [0,
            1]; (h, w), (h, w, c) or (n, h, w, c), with 1 or 3 channels, or one more for alpha. A
            one-channel network enlarges the luma of a colour image; its chroma, and alpha, are
            enlarged by bicubic.
          sampling: How it is drawn; by default as the checkpoint has it.
          name: The image's name; images of different names get different noise.
          **options: Fields of `Sampling` to change, and signals, e.g. steps=4, seed=1, noise=8.0.

        Raises:
          UserError: `image` is no such image, or the network cannot be used like that.
        """
        sampling = (sampling or Sampling()).with_options(options)
        shape = getattr(image, "shape", ())
        parts = list(image) if len(shape) == 4 else [image]
        if not parts:
            raise UserError("a batch of no images has nothing to enlarge")
        pictures = [from_image(part, name or "the image") for part in parts]
        done = self._pictures(pictures, name, sampling, ignore)
        made = [to_image(picture, part) for picture, part in zip(done, parts, strict=True)]
        return (
            (jnp if isinstance(image, jax.Array) else np).stack(made)
            if len(shape) == 4
            else made[0]
        )

    def picture(
        self, picture: Picture, name: str, sampling: Sampling, on_tiles: Progress = ignore
    ) -> Picture:
        """As `__call__`, for a `Picture`, which is an image with its alpha.

        `on_tiles(count)` is called at every evaluation after every few tiles, with their number.
        For an image of the network's own size, which is computed in one go, it is called once at
        the end, with the number of evaluations.
        """
        return self._pictures([picture], name, sampling, on_tiles)[0]

    def batch(
        self,
        lr: UInt8[np.ndarray, "n l l c"],
        ids: Sequence[int],
        sampling: Sampling | None = None,
        *,
        signals: Values | None = None,
        on_batch: Progress = ignore,
        **options: Any,
    ) -> Float[np.ndarray, "n h h c"]:
        """HR images in [-1, 1] of LR images of the network's own size.

        They are raw: not corrected to agree with their input.

        Args:
          lr: The LR images, with the network's channels.
          ids: A number for each image; its noise depends on (seed, ids[i], sample) alone.
          sampling: How they are drawn; by default as the checkpoint has it.
          signals: Values (n,) for each image by name, instead of the sampling's one value for all.
          on_batch: Called after every batch with the number of its images.
          **options: Fields of `Sampling` to change, and signals.
        """
        sampling = (sampling or Sampling()).with_options(options)
        self._check_label(sampling.told if signals is None else signals)
        return self.engine.batch(
            np.asarray(lr, np.float32) / 127.5 - 1, ids, sampling, on_batch, signals
        )

    def trial(
        self,
        lr: UInt8[np.ndarray, "n l l c"],
        ids: Sequence[int],
        steps: Steps,
        *,
        seed: int = 0,
        signals: Values | None = None,
    ) -> Float[np.ndarray, "n h h c"]:
        """As `batch`, but by the table `steps`, which need not be that of any sampling.

        The program is compiled once for each number of evaluations, not for each table.
        """
        return self.engine.trial(
            np.asarray(lr, np.float32) / 127.5 - 1, ids, steps, seed=seed, signals=signals
        )

    def _pictures(
        self, given: Sequence[Picture], name: str, sampling: Sampling, on_tiles: Progress
    ) -> list[Picture]:
        """Enlarges pictures of one size, each as it would be by itself."""
        sampling.check(self.checkpoint)
        self._check_label(sampling.told)
        coloured = [picture.colour.shape[-1] == 3 for picture in given]
        given = [_as_seen(picture) for picture in given]
        pictures = list(given)
        for number in range(self.passes(sampling.scale)):
            # From the second pass on other noise is drawn. The image is then the network's own
            # output, of which there is nothing to tell it.
            id = image_id(f"{name}#{number}" if number else name)
            kept = {name: value for name, value in sampling.told.items() if name == LABEL.name}
            how = dataclasses.replace(sampling, signals=kept) if number else sampling
            inputs = np.stack([self._input(picture.colour) for picture in pictures])
            outputs = self.enlarge(inputs, id, how, on_tiles)
            pictures = [
                self._finish(colour, picture)
                for colour, picture in zip(outputs, pictures, strict=True)
            ]
        size = self._size(given[0].colour.shape[0], given[0].colour.shape[1], sampling.scale)
        if size != pictures[0].colour.shape[:2]:
            pictures = [
                picture._replace(
                    colour=operations.resize_canvas(picture.colour, *size).clip(-1, 1),
                    alpha=_resized(picture.alpha, size),
                )
                for picture in pictures
            ]
        if self._matches(sampling):
            pictures = [
                new._replace(colour=self.engine.method.task.compose(old.colour, new.colour))
                for new, old in zip(pictures, given, strict=True)
            ]
        return [
            picture._replace(colour=np.repeat(picture.colour, 3, axis=-1))
            if three and picture.colour.shape[-1] == 1
            else picture
            for picture, three in zip(pictures, coloured, strict=True)
        ]

    def _check_label(self, told: Mapping[str, Any]) -> None:
        """Raises UserError for a network that cannot do without a class, and is not told of any."""
        config = self.checkpoint.config
        if config.model.classes and not config.train.label_dropout and LABEL.name not in told:
            raise UserError(
                f"{self.checkpoint.name} was trained with train.label_dropout = 0, so it has to be "
                f"told the class of an image: label, from 0 to {config.model.classes - 1}"
            )

    def _matches(self, sampling: Sampling) -> bool:
        if sampling.match_input is not None:
            return sampling.match_input
        # A signal tells what the network is to remove, such as noise; matching would bring it back
        told = any(value for name, value in sampling.told.items() if name != LABEL.name)
        return self.checkpoint.config.sample.match_input and not told

    def passes(self, scale: float | int | None) -> int:
        """How often the network has to enlarge an image until it is `scale` times larger.

        Once, if there is no such wish.
        """
        return next(count for count in range(1, 7) if self.scale**count >= (scale or 1))

    def scale_notes(self, scale: float | int | None) -> list[str]:
        """What the user should know about a scale that is not the network's own."""
        count = self.passes(scale)
        made = self.scale**count
        notes = (
            [f"enlarged {self.scale}× {count} times: the network sees its own output"]
            if count > 1
            else []
        )
        return notes + (
            [f"made {made}× larger, then resized to {scale:g}×"] if scale and made != scale else []
        )

    def prepared(self, file: File, sampling: Sampling) -> File:
        """The file as it is enlarged, with what the user should know of it as notes."""
        return file._replace(notes=(*file.notes, *self.scale_notes(sampling.scale)))

    def _size(self, height: int, width: int, scale: float | int | None) -> tuple[int, int]:
        """(height, width) of the result."""
        factor = self.scale if scale is None else scale
        return max(1, round(height * factor)), max(1, round(width * factor))

    def enlarge(
        self, lr: np.ndarray, id: int, sampling: Sampling, on_tiles: Progress = ignore
    ) -> list[Canvas]:
        """One pass of the network: its outputs for LR images of any size.

        Args:
          lr: LR images (n, h, w, c) with the network's own channels, float in [-1, 1].
          id: The number on which their noise depends.
          sampling: How they are drawn.
          on_tiles: Called as `picture` calls it.

        Returns:
          An HR image for each, float in [-1, 1].
        """
        if lr.shape[1:3] != (self.lr_size, self.lr_size):
            return [self.engine.canvas(part, id, sampling, on_tiles) for part in lr]
        evaluations = self.engine.table(sampling).evaluations
        return list(
            self.engine.batch(
                lr, [id] * len(lr), sampling, lambda count: on_tiles(count * evaluations)
            )
        )

    def _input(self, colour: Canvas) -> Canvas:
        """The colours of an image in the network's channels: its luma for a network of one."""
        if colour.shape[-1] == self.channels:
            return colour
        return luma(colour) if self.channels == 1 else np.repeat(colour, self.channels, axis=-1)

    def _finish(self, output: Canvas, picture: Picture) -> Picture:
        """The network's output as a picture, with the channels and the alpha of the one given.

        The chroma that a one-channel network does not know is enlarged by bicubic, and so is alpha.
        """
        height, width = output.shape[:2]
        lr = picture.colour
        if lr.shape[-1] == 3 and self.channels == 1:
            output = output + operations.resize_canvas(lr - luma(lr), height, width)
        elif lr.shape[-1] == 1 and self.channels == 3:
            output = luma(output)
        alpha = _resized(picture.alpha, (height, width))
        return picture._replace(colour=output.clip(-1, 1), alpha=alpha)

    def cost(self, height: int, width: int, sampling: Sampling | None = None) -> Cost:
        """What enlarging an image of height × width will take.

        Raises:
          UserError: The network cannot be used like that.
        """
        sampling = sampling or Sampling()
        evaluations = self.engine.table(sampling).evaluations
        passes = self.passes(sampling.scale)
        tiles = sum(
            self.engine.tiles(height * self.scale**number, width * self.scale**number)
            for number in range(passes)
        )
        size = self.bytes(height * width, sampling)
        return Cost(*self._size(height, width, sampling.scale), tiles, evaluations, size)

    def bytes(self, count: int, sampling: Sampling) -> int:
        """The memory that an image of so many pixels takes."""
        # The condition, y_t, the estimate of y_0, the estimate before, and the picture itself
        planes = self.engine.method.condition_channels + 3 * self.channels + 4
        return 4 * count * self.scale ** (2 * self.passes(sampling.scale)) * planes


def _as_seen(picture: Picture) -> Picture:
    """The picture as it is enlarged.

    Of one channel if it has no colour, so that it gets none, and with the colours around clear
    pixels under them.
    """
    if picture.colour.shape[-1] == 3 and pixels.is_grey(picture):
        picture = picture._replace(colour=picture.colour[..., 1:2])
    return pixels.filled(picture)


def luma(colour: Float[np.ndarray, "... c"]) -> Float[np.ndarray, "... 1"]:
    """The brightness (luma) of RGB images; grey images as they are."""
    return colour @ LUMA[:, None] if colour.shape[-1] == 3 else colour


def _resized(alpha: Canvas | None, size: tuple[int, int]) -> Canvas | None:
    return None if alpha is None else operations.resize_canvas(alpha, *size).clip(-1, 1)
