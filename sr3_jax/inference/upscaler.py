"""From a checkpoint and images to larger images.

>>> from sr3_jax import Upscaler
>>> upscaler = Upscaler.load("faces-16-64")  # a shipped name, a workdir or an exported file
>>> upscaler(np.zeros((16, 16), np.uint8), steps=1).shape
(64, 64)
"""

import functools
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jaxtyping import Float, PyTree

from sr3_jax import parallel
from sr3_jax.checkpoints import Checkpoint, load_checkpoint
from sr3_jax.data.sources import image_id
from sr3_jax.errors import UserError
from sr3_jax.inference import tiling
from sr3_jax.inference.pixels import Picture, from_image, to_image
from sr3_jax.inference.tiling import Canvas
from sr3_jax.method import FLAWLESS, Flaws, Steps, image_key, sampling_steps

Progress = Callable[[int], object]
Scale = float | int | None  # None: the network's own
# Of tiles that fit a picture, in pixels of the result: what neighbours share, at least (convolutions see so far, about); what
# sides are multiples of, so that not every size of picture needs a program of its own; the largest side.
OVERLAP, STEP, LARGEST_TILE = 64, 32, 1088
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as JPEG and Pillow have it


def _ignore(count: int) -> None:
    pass


class Cost(NamedTuple):
    """What enlarging one image takes, known beforehand."""

    height: int  # of the result
    width: int
    tiles: int  # evaluated at every step; 1 for an image of the network's own size
    evaluations: int  # of the network, per tile
    bytes: int  # of this process's memory, for the canvases


class Upscaler:
    """Upscales images of any size, on all devices of this process. Safe to call from several threads.

    At most `batch_size` images of the network's own size, or tiles of a larger image, are computed at a time, rounded up to a
    multiple of the devices; devices beyond it stay idle. By default 16; on a CPU one tile a device, because more are no faster
    and take memory. `tile` is the side of a tile in pixels of the result, by default what suits the network: the size that it
    was trained on, if that matters to it; else 256, but on a CPU as large as fits the picture and the memory, up to 1,088.
    Programs are compiled once for each number of steps, and once for each shape of tiles, and kept; fewer images than
    `batch_size` are computed as the next power of two, a program each.
    """

    def __init__(self, checkpoint: Checkpoint, batch_size: int | None = None, tile: int | None = None):
        few_tiles = batch_size is None and jax.default_backend() == "cpu"
        batch_size = 16 if batch_size is None else batch_size
        self.checkpoint, self.mesh = checkpoint, parallel.local_mesh(batch_size)
        self.batch_size = -(-batch_size // self.mesh.size) * self.mesh.size
        self._tiles_at_a_time = self.mesh.size if few_tiles else self.batch_size
        self.method = checkpoint.method
        self.tile = self._check_tile(tile)
        self._kept: dict[Any, Any] = {}
        self._lock = threading.Lock()
        self.table(None, None)  # raises here rather than at the first image
        self.set_params(checkpoint.params)

    @classmethod
    def load(cls, place: str | Path, batch_size: int | None = None, tile: int | None = None) -> "Upscaler":
        """From whatever `load_checkpoint` takes; raises CheckpointError."""
        return cls(load_checkpoint(place), batch_size, tile)

    def set_params(self, params: PyTree) -> None:
        """Other weights of the same network, wherever they are."""
        self.params = parallel.whole_on(self.mesh, params)

    @property
    def scale(self) -> int:
        """How many times larger one pass makes an image."""
        return self.checkpoint.config.data.hr_size // self.lr_size

    @property
    def lr_size(self) -> int:
        """The side of the images that the network was trained on."""
        return self.checkpoint.config.data.lr_size

    @property
    def channels(self) -> int:
        return self.checkpoint.config.model.image_channels

    # -- any image

    def __call__(
        self,
        image: Any,
        *,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        sample: int = 0,
        match_input: bool | None = None,
        scale: Scale = None,
        noise: float = 0.0,
        blur: float = 0.0,
        name: str = "",
    ) -> Any:
        """The image, `scale` times larger, as the kind it was given: a Pillow image, a NumPy or a JAX array.

        Arrays are uint8, uint16, or float in [0, 1]; (h, w), (h, w, c) or (n, h, w, c), with 1 or 3 channels, or one more for
        alpha. A one-channel network enlarges the luma of a colour image; its chroma, and alpha, are enlarged by bicubic.

        The result depends on the image, the network, seed, sample and name alone (and, by what convolutions see at the edges
        of tiles, a little on their size): the images of a batch are what each would be by itself. `steps` network evaluations
        replace the checkpoint's own number, by the schedule that `sr3 search` found for so many, if any; `sampler` replaces its
        sampler. With `match_input` the result, down-sampled, is the image that was given. For a `scale` other than the
        network's it takes several passes, then goes down by bicubic. `noise` and `blur` are those of the image, for a network
        that takes them off: the standard deviation of noise in levels of 0 to 255, that of a Gaussian blur in pixels of the
        image. The result is then matched with the input only if that is asked for. Raises UserError for what is no such image.
        """
        shape = getattr(image, "shape", ())
        parts = list(image) if len(shape) == 4 else [image]
        if not parts:
            raise UserError("a batch of no images has nothing to enlarge")
        pictures = [from_image(part, name or "the image") for part in parts]
        done = self._pictures(pictures, name, seed, sample, steps, sampler, match_input, scale, Flaws(noise, blur))
        made = [to_image(picture, part) for picture, part in zip(done, parts, strict=True)]
        return (jnp if isinstance(image, jax.Array) else np).stack(made) if len(shape) == 4 else made[0]

    def picture(
        self,
        picture: Picture,
        name: str,
        seed: int = 0,
        sample: int = 0,
        steps: int | None = None,
        sampler: str | None = None,
        match_input: bool | None = None,
        scale: Scale = None,
        noise: float = 0.0,
        blur: float = 0.0,
        on_tiles: Progress = _ignore,
    ) -> Picture:
        """As `__call__`, of an image with its alpha; `on_tiles(count)` is called after every few tiles, at every evaluation;
        for an image of the network's own size, which is computed in one go, at the end."""
        flaws = Flaws(noise, blur)
        return self._pictures([picture], name, seed, sample, steps, sampler, match_input, scale, flaws, on_tiles)[0]

    def _pictures(
        self,
        given: Sequence[Picture],
        name: str,
        seed: int,
        sample: int,
        steps: int | None,
        sampler: str | None,
        match_input: bool | None,
        scale: Scale,
        flaws: Flaws,
        on_tiles: Progress = _ignore,
    ) -> list[Picture]:
        """Pictures of one size, each as it would be by itself."""
        self.check(flaws)
        table, pictures = self.table(steps, sampler), list(given)
        for number in range(self.passes(scale)):
            # from the second pass on the noise that is drawn is another, and the image has no flaws
            id = image_id(f"{name}#{number}" if number else name)
            inputs = np.stack([self._input(picture.colour) for picture in pictures])
            outputs = self.enlarge(inputs, id, seed, sample, table, FLAWLESS if number else flaws, on_tiles)
            pictures = [self._finish(colour, picture) for colour, picture in zip(outputs, pictures, strict=True)]
        size = self._size(given[0].colour.shape[0], given[0].colour.shape[1], scale)
        if size != pictures[0].colour.shape[:2]:
            pictures = [_resized(picture, size) for picture in pictures]
        if match_input is None:
            match_input = self.checkpoint.config.sample.match_input and not any(flaws)  # which would come back
        if match_input:
            matched = (tiling.match(new.colour, old.colour) for new, old in zip(pictures, given, strict=True))
            pictures = [picture._replace(colour=colour) for picture, colour in zip(pictures, matched, strict=True)]
        return pictures

    def check(self, flaws: Flaws) -> None:
        """Raises UserError for noise or blur that the network was not trained to take off."""
        name = self.checkpoint.name
        for flaw, value, most, fields in zip(
            flaws._fields, flaws, self.method.most, ("noise", "blur and data.tell_blur"), strict=True
        ):
            if value and not most:
                raise UserError(f"{name} was not trained with data.{fields}, so it cannot be told of {flaw}")
            if not 0 <= value <= most:
                raise UserError(f"{flaw} = {value:g} must lie between 0 and {most:g}, which {name} was trained with")

    def passes(self, scale: Scale) -> int:
        """How often the network has to enlarge an image for `scale`."""
        if scale is None:
            return 1
        if not 1 < scale <= 64:
            raise UserError(f"scale = {scale:g} must lie above 1 and at most at 64")
        return next(count for count in range(1, 7) if self.scale**count >= scale)

    def scale_notes(self, scale: Scale) -> list[str]:
        """What is worth saying of a scale that is not the network's own."""
        count = self.passes(scale)
        made = self.scale**count
        notes = [f"enlarged {self.scale}× {count} times: the network sees its own output"] if count > 1 else []
        return notes + ([f"made {made}× larger, then resized to {scale:g}×"] if scale and made != scale else [])

    def _size(self, height: int, width: int, scale: Scale) -> tuple[int, int]:
        """The size of the result."""
        factor = self.scale if scale is None else scale
        return max(1, round(height * factor)), max(1, round(width * factor))

    def _finish(self, output: Canvas, picture: Picture) -> Picture:
        """The network's output as a picture: with the colour that a one-channel network does not know, and alpha."""
        height, width = output.shape[:2]
        lr = picture.colour
        if lr.shape[-1] == 3 and self.channels == 1:
            output = output + tiling.resize(lr - luma(lr), height, width)
        elif lr.shape[-1] == 1 and self.channels == 3:
            output = luma(output)
        output = np.clip(output, -1, 1)
        alpha = picture.alpha
        if alpha is not None:
            alpha = np.clip(tiling.resize(alpha, height, width), -1, 1)
        return picture._replace(colour=output, alpha=alpha)

    def enlarge(
        self,
        lr: np.ndarray,
        id: int,
        seed: int,
        sample: int,
        steps: Steps,
        flaws: Flaws = FLAWLESS,
        on_tiles: Progress = _ignore,
    ) -> Sequence[Canvas]:
        """The network's outputs for LR images (n, h, w, c) of its own channels, of any size; float in [-1, 1]."""
        if lr.shape[1:3] == (self.lr_size, self.lr_size):
            advance = lambda count: on_tiles(count * steps.evaluations)  # noqa: E731
            return list(self._run(lr, [id] * len(lr), seed, sample, steps, flaws, advance))
        return [self._enlarge_in_tiles(part, id, seed, sample, steps, flaws, on_tiles) for part in lr]

    def _enlarge_in_tiles(
        self, lr: Canvas, id: int, seed: int, sample: int, steps: Steps, flaws: Flaws, on_tiles: Progress
    ) -> Canvas:
        height, width = lr.shape[:2]
        tile, overlap = self.tile_of(height, width)
        lr = tiling.pad(lr, tile[0] // self.scale, tile[1] // self.scale)
        condition = tiling.resize(lr, lr.shape[0] * self.scale, lr.shape[1] * self.scale)
        tiles = tiling.plan(lr.shape[0], lr.shape[1], tile, overlap, self.scale)
        key, block = image_key(seed, id, sample), self.checkpoint.config.data.hr_size
        at_a_time = min(self._tiles_at_a_time, self._padded(len(tiles.rows.starts) * len(tiles.columns.starts)))
        if self.method.refines:
            predict = functools.partial(self._condition_tiles, flaws)
            channels, seen = self.method.condition_channels, lambda count: on_tiles(0)  # it counts as no evaluation
            condition = tiling.blend(predict, (condition,), tiles, at_a_time, channels, seen)
        y_0 = tiling.diffuse(
            functools.partial(self._denoise_tiles, flaws),
            condition,
            functools.partial(self._noise, key),
            block,
            steps,
            tiles,
            at_a_time,
            on_tiles,
            self.channels,
        )
        image = np.clip(np.asarray(self.method.decode(y_0, condition)), -1, 1)
        return image[: height * self.scale, : width * self.scale]

    def cost(self, height: int, width: int, steps: int | None = None, sampler: str | None = None, scale: Scale = None) -> Cost:
        """What an image of height × width will take."""
        tiles, made = 0, 1
        for _ in range(self.passes(scale)):
            sides = height * made, width * made
            tiles += 1 if sides == (self.lr_size, self.lr_size) else self._tiles(*sides)
            made *= self.scale
        # condition, y_t, estimate, the estimate before, and the picture itself
        size = 4 * height * width * made**2 * (self.method.condition_channels + 3 * self.channels + 4)
        return Cost(*self._size(height, width, scale), tiles, self.table(steps, sampler).evaluations, size)

    def _tiles(self, height: int, width: int) -> int:
        tile, overlap = self.tile_of(height, width)
        sides = zip((height * self.scale, width * self.scale), tile, strict=True)
        return math.prod(tiling.count(max(length, side), side, overlap) for length, side in sides)

    def tile_of(self, height: int, width: int) -> tuple[tuple[int, int], int]:
        """(height, width) of the tiles of an LR image of that size, and their overlap, in pixels of the result."""
        if self.tile is not None:
            return (self.tile, self.tile), self.tile // 4 // self.scale * self.scale  # in whole LR pixels
        config, factor = self.checkpoint.config, self._factor
        overlap, step = -(-OVERLAP // self.scale) * self.scale, -(-STEP // factor) * factor
        # a feature map's values for a pixel of the result; the widest levels hold two of them, and a few are alive at once
        widest = config.model.channels * max(config.model.multipliers) * 2 / config.model.space_to_depth**2
        # of all memory, not of what is free now: the same machine makes the same picture every time
        room = psutil.virtual_memory().total / 8 / self.mesh.size / (4 * 8 * widest)
        least = -(-max(config.data.hr_size, 2 * overlap) // step) * step
        most = max(least, min(LARGEST_TILE, math.isqrt(int(room))) // step * step)
        large = height * self.scale, width * self.scale
        at_a_time = self._tiles_at_a_time
        return tiling.fitting_tile(*large, least=least, most=most, step=step, overlap=overlap, at_a_time=at_a_time), overlap

    @property
    def _factor(self) -> int:
        """What a tile's sides must be divisible by."""
        model = self.checkpoint.config.model
        return int(np.lcm(self.scale, model.space_to_depth * 2 ** (len(model.multipliers) - 1)))

    def _check_tile(self, tile: int | None) -> int | None:
        config, factor = self.checkpoint.config, self._factor
        size, model = config.data.hr_size, config.model
        if tile is None:
            # Attention and a training on whole objects tie a network to its size; convolutions waste less on larger tiles.
            if model.attention or model.middle_attention:
                return size
            return None if jax.default_backend() == "cpu" else -(-max(size, 256) // factor) * factor
        if tile < size or tile % factor:
            raise UserError(
                f"tile = {tile} must be at least {size}, the size the network was trained on, and divisible by {factor}"
            )
        return tile

    def table(self, steps: int | None = None, sampler: str | None = None) -> Steps:
        """The levels and coefficients that are used for so many evaluations; raises UserError when they cannot be had."""
        if steps is not None and steps < 1:
            raise UserError(f"steps = {steps} must be at least 1")
        count = self.checkpoint.config.sample.steps if steps is None else steps
        changes = {"sampler": sampler} if sampler else self.checkpoint.schedules.get(str(count))
        # 10 ms each time, as much as a step
        return self._once(("table", steps, sampler), lambda: sampling_steps(self.checkpoint.config, steps, changes))

    def _input(self, colour: Canvas) -> Canvas:
        """The colour of an image in the network's channels."""
        if colour.shape[-1] == self.channels:
            return colour
        return luma(colour) if self.channels == 1 else np.repeat(colour, self.channels, axis=-1)

    # -- images of the network's own size, many at a time

    def batch(
        self,
        lr: np.ndarray,
        ids: Sequence[int],
        *,
        seed: int = 0,
        sample: int = 0,
        steps: int | None = None,
        sampler: str | None = None,
        noise: float = 0.0,
        blur: float = 0.0,
        on_batch: Progress = _ignore,
    ) -> np.ndarray:
        """HR images (n, h, h, c), float32 in [-1, 1], of LR images of the network's size, uint8.

        Sample number `sample` of image ids[i] depends on (seed, ids[i], sample) alone. `steps` replaces sample.steps;
        `noise` and `blur` are those of the images, as in `__call__`; `on_batch(count)` is called after every `count` images.
        """
        flaws = Flaws(noise, blur)
        self.check(flaws)
        return self._run(np.asarray(lr, np.float32) / 127.5 - 1, ids, seed, sample, self.table(steps, sampler), flaws, on_batch)

    def trial(self, lr: np.ndarray, ids: Sequence[int], steps: Steps, *, seed: int = 0) -> np.ndarray:
        """As `batch`, by any table, compiled once for each number of evaluations."""
        run = self._once(("trial", steps.evaluations), lambda: self._compile(None))
        table = Steps(*map(jnp.asarray, steps))

        def with_table(params, lr, ids, seed, sample, flaws):
            return run(params, lr, ids, seed, sample, flaws, table)

        return self._in_batches(with_table, np.asarray(lr, np.float32) / 127.5 - 1, ids, seed, 0, FLAWLESS, _ignore)

    def _run(
        self, lr: np.ndarray, ids: Sequence[int], seed: int, sample: int, steps: Steps, flaws: Flaws, on_batch: Progress
    ) -> np.ndarray:
        run = self._once(tuple(np.asarray(column).tobytes() for column in steps), lambda: self._compile(steps))
        return self._in_batches(run, lr, ids, seed, sample, flaws, on_batch)

    def _in_batches(
        self, run: Callable, lr: np.ndarray, ids: Sequence[int], seed: int, sample: int, flaws: Flaws, on_batch: Progress
    ) -> np.ndarray:
        size, outputs = self._padded(len(lr)), []
        for start in range(0, len(lr), size):
            rows = np.arange(start, start + size).clip(max=len(lr) - 1)  # the last is padded: one shape, one compilation
            numbers = np.asarray(ids, np.int32)[rows]
            inputs = jax.device_put((lr[rows].astype(np.float32), numbers), parallel.batch_sharding(self.mesh))
            out = run(self.params, *inputs, seed, sample, _numbers(flaws))
            count = min(size, len(lr) - start)
            outputs.append(np.asarray(out)[:count])
            on_batch(count)
        return np.concatenate(outputs) if outputs else np.zeros((0, *self.method.shape), np.float32)

    def _padded(self, count: int) -> int:
        """How many to compute at a time when there are `count`: the devices times a power of two, at most the batch size."""
        size = self.mesh.size
        while size < min(count, self.batch_size):
            size *= 2
        return min(size, self.batch_size)

    def _compile(self, steps: Steps | None) -> Callable:
        """The program for one table, or for any that is given as a last argument."""

        def run(params, lr, ids, seed, sample, flaws, table=steps):
            keys = jax.vmap(lambda i: image_key(seed, i, sample))(ids)
            return self.method.super_resolve(params, lr, keys, table, flaws)

        whole, split = parallel.replicated(self.mesh), parallel.batch_sharding(self.mesh)
        shardings = (whole, split, split, whole, whole, whole) + (() if steps else (whole,))
        return jax.jit(run, in_shardings=shardings, out_shardings=split)

    # -- tiles

    def _denoise_tiles(self, flaws: Flaws, condition: np.ndarray, y: np.ndarray, gamma: float) -> np.ndarray:
        def compile_() -> Callable:
            whole, split = parallel.replicated(self.mesh), parallel.batch_sharding(self.mesh)

            def run(params, flaws, condition, y, gamma):
                return self.method.denoiser(params, flaws)(condition, y, jnp.broadcast_to(gamma, condition.shape[:1]))

            return jax.jit(run, in_shardings=(whole, whole, split, split, whole), out_shardings=split)

        run = self._once("tiles", compile_)
        inputs = jax.device_put((condition, y), parallel.batch_sharding(self.mesh))
        return np.asarray(run(self.params, _numbers(flaws), *inputs, np.float32(gamma)))

    def _condition_tiles(self, flaws: Flaws, upsampled: np.ndarray) -> np.ndarray:
        def compile_() -> Callable:
            whole, split = parallel.replicated(self.mesh), parallel.batch_sharding(self.mesh)

            def run(params, flaws, upsampled):
                return self.method.condition(params, upsampled, flaws)

            return jax.jit(run, in_shardings=(whole, whole, split), out_shardings=split)

        run = self._once("condition", compile_)
        return np.asarray(run(self.params, _numbers(flaws), jax.device_put(upsampled, parallel.batch_sharding(self.mesh))))

    def _noise(self, key: jax.Array, t: int, row: int, column: int) -> np.ndarray:
        """Block (row, column) of the noise numbered t. Block (0, 0) is what an image of the network's own size gets."""

        def draw(key, t, place):
            key = jax.random.fold_in(key, t)
            key = jax.lax.cond(place == 0, lambda: key, lambda: jax.random.fold_in(key, place))
            return jax.random.normal(key, self.method.shape)

        return np.asarray(self._once("noise", lambda: jax.jit(draw))(key, t, row * 2**15 + column))

    def _once(self, name: Any, make: Callable[[], Any]) -> Any:
        with self._lock:
            if name not in self._kept:
                self._kept[name] = make()
            return self._kept[name]


def _numbers(flaws: Flaws) -> Flaws:
    """As arguments of a compiled program, which is one for all strengths."""
    return jax.tree.map(np.float32, flaws)


def luma(colour: Float[np.ndarray, "... c"]) -> Float[np.ndarray, "... 1"]:
    """The brightness of RGB; grey as it is."""
    return colour @ LUMA[:, None] if colour.shape[-1] == 3 else colour


def _resized(picture: Picture, size: tuple[int, int]) -> Picture:
    alpha = None if picture.alpha is None else tiling.resize(picture.alpha, *size).clip(-1, 1)
    return picture._replace(colour=tiling.resize(picture.colour, *size).clip(-1, 1), alpha=alpha)
