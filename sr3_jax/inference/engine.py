"""A checkpoint on this process's devices: compiled programs, random keys, batches of images and canvases of tiles.

What is above it (`upscaler`) knows pictures of any kind; what is here knows float arrays of the
network's own channels.
"""

import functools
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jaxtyping import Float, PyTree

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.diffusion.samplers import Steps
from sr3_jax.errors import UserError
from sr3_jax.inference import tiling
from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.tiling import Canvas
from sr3_jax.method import image_key, sampling_steps
from sr3_jax.runtime import parallel
from sr3_jax.tasks.task import Given

Progress = Callable[[int], object]
LR = Float[np.ndarray, "n _h _w c"]
Values = Mapping[str, np.ndarray]  # of signals: (n,) each, by name
# Of tiles that fit a picture, in pixels of the result: what neighbours share, at least
# (convolutions see so far, about); what sides are multiples of, so that not every size of picture
# needs a program of its own; the largest side.
OVERLAP, STEP, LARGEST_TILE = 64, 32, 1088


def ignore(count: int) -> None:
    """No progress is shown."""


class Engine:
    """Safe to use from several threads.

    Args:
      checkpoint: the network.
      batch_size: images of the network's own size, or tiles of a larger one, computed at a time,
        rounded up to a multiple of the devices; devices beyond it stay idle. By default 16; on a
        CPU one tile a device, because more are no faster.
      tile: the side of a tile in pixels of the result. By default what suits the network: the size
        that it was trained on, if that matters to it; else 256, but on a CPU as large as fits
        picture and memory, up to 1,088.
    """

    def __init__(
        self, checkpoint: Checkpoint, batch_size: int | None = None, tile: int | None = None
    ):
        few_tiles = batch_size is None and jax.default_backend() == "cpu"
        batch_size = 16 if batch_size is None else batch_size
        self.checkpoint, self.mesh = checkpoint, parallel.local_mesh(batch_size)
        self.method = checkpoint.method
        self.batch_size = -(-batch_size // self.mesh.size) * self.mesh.size
        self.tiles_at_a_time = self.mesh.size if few_tiles else self.batch_size
        self.tile = self._check_tile(tile)
        self._programs: dict[Any, Any] = {}
        self._lock = threading.Lock()
        self.table(Sampling())  # raises here rather than at the first image
        self.set_params(checkpoint.params)

    def set_params(self, params: PyTree) -> None:
        """Other weights of the same network, wherever they are."""
        self.params = parallel.whole_on(self.mesh, params)

    @property
    def lr_size(self) -> int:
        """The side of the images that the network was trained on."""
        return self.checkpoint.config.data.lr_size

    @property
    def scale(self) -> int:
        """How many times larger one pass makes an image."""
        return self.checkpoint.config.data.hr_size // self.lr_size

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return self.checkpoint.config.model.image_channels

    def table(self, sampling: Sampling) -> Steps:
        """The levels and coefficients that are used; raises UserError when they cannot be had."""
        sampling.check(self.checkpoint)
        config, steps = self.checkpoint.config, sampling.steps
        count = config.sample.steps if steps is None else steps
        found = self.checkpoint.schedules.get(str(count))
        changes = {"sampler": sampling.sampler} if sampling.sampler else found
        # 10 ms each time, as much as a step
        return self._once(
            ("table", steps, sampling.sampler), lambda: sampling_steps(config, steps, changes)
        )

    # -- images of the network's own size, many at a time

    def batch(
        self,
        lr: LR,
        ids: Sequence[int],
        sampling: Sampling,
        on_batch: Progress = ignore,
        signals: Values | None = None,
    ) -> Float[np.ndarray, "n _h _w c"]:
        """HR images in [-1, 1] of LR images in [-1, 1] of the network's own size.

        What is drawn for image i depends on (seed, ids[i], sample) alone. `signals` are values for
        each image, instead of the sampling's; `on_batch(count)` is called after every `count`
        images.
        """
        steps = self.table(sampling)
        key = tuple(np.asarray(column).tobytes() for column in steps)
        run = self._once(key, lambda: self._compile(steps))
        return self._in_batches(
            run, lr, ids, sampling, self._values(sampling, len(lr), signals), on_batch
        )

    def trial(
        self,
        lr: LR,
        ids: Sequence[int],
        steps: Steps,
        *,
        seed: int = 0,
        signals: Values | None = None,
    ) -> Float[np.ndarray, "n _h _w c"]:
        """As `batch`, by any table, compiled once for each number of evaluations."""
        run = self._once(("trial", steps.evaluations), lambda: self._compile(None))
        sampling, table = Sampling(seed=seed), Steps(*map(jnp.asarray, steps))
        with_table = lambda *arguments: run(*arguments, table)  # noqa: E731
        return self._in_batches(
            with_table, lr, ids, sampling, self._values(sampling, len(lr), signals), ignore
        )

    def _values(self, sampling: Sampling, count: int, given: Values | None = None) -> Values:
        """Of every signal that the network knows, a value an image."""
        told = sampling.told if given is None else given
        names = [signal.name for signal in self.method.task.signals]
        return {name: np.broadcast_to(np.float32(told.get(name, 0.0)), count) for name in names}

    def _in_batches(
        self,
        run: Callable,
        lr: LR,
        ids: Sequence[int],
        sampling: Sampling,
        signals: Values,
        on_batch: Progress,
    ) -> Float[np.ndarray, "n _h _w c"]:
        size, outputs = self.padded(len(lr)), []
        for start in range(0, len(lr), size):
            # The last is padded: one shape, one compilation
            rows = np.arange(start, start + size).clip(max=len(lr) - 1)
            given = Given(
                lr[rows].astype(np.float32),
                {name: values[rows] for name, values in signals.items()},
            )
            inputs = jax.device_put(
                (given, np.asarray(ids, np.int32)[rows]), parallel.batch_sharding(self.mesh)
            )
            out = run(self.params, *inputs, sampling.seed, sampling.sample)
            count = min(size, len(lr) - start)
            outputs.append(np.asarray(out)[:count])
            on_batch(count)
        return np.concatenate(outputs) if outputs else np.zeros((0, *self.method.shape), np.float32)

    def padded(self, count: int) -> int:
        """How many to compute at a time when there are `count`: the devices times a power of two, at most the batch size."""
        size = self.mesh.size
        while size < min(count, self.batch_size):
            size *= 2
        return min(size, self.batch_size)

    def _compile(self, steps: Steps | None) -> Callable:
        """The program for one table, or for any that is given as a last argument."""

        def run(params, given, ids, seed, sample, table=steps):
            keys = jax.vmap(lambda i: image_key(seed, i, sample))(ids)
            return self.method.super_resolve(params, given, keys, table)

        whole, split = parallel.replicated(self.mesh), parallel.batch_sharding(self.mesh)
        shardings = (whole, split, split, whole, whole) + (() if steps else (whole,))
        return jax.jit(run, in_shardings=shardings, out_shardings=split)

    # -- an image of any size, in tiles

    def canvas(
        self, lr: Canvas, id: int, sampling: Sampling, on_tiles: Progress = ignore
    ) -> Canvas:
        """The HR image of an LR image of any size, both in [-1, 1]; `on_tiles(count)` is called after every `count` tiles."""
        height, width = lr.shape[:2]
        tile, overlap = self.tile_of(height, width)
        lr = tiling.pad(lr, tile[0] // self.scale, tile[1] // self.scale)
        condition = tiling.resize(lr, *self.method.task.output_size(*lr.shape[:2]))
        tiles = tiling.plan(lr.shape[0], lr.shape[1], tile, overlap, self.scale)
        key, block = (
            image_key(sampling.seed, id, sampling.sample),
            self.checkpoint.config.data.hr_size,
        )
        at_a_time = min(
            self.tiles_at_a_time, self.padded(len(tiles.rows.starts) * len(tiles.columns.starts))
        )
        signals = self._values(sampling, at_a_time)
        if self.method.refines:
            predict = functools.partial(self._condition_tiles, signals)
            # It counts as no evaluation
            channels, seen = self.method.condition_channels, lambda count: on_tiles(0)
            condition = tiling.blend(predict, (condition,), tiles, at_a_time, channels, seen)
        y_0 = tiling.diffuse(
            functools.partial(self.denoise_tiles, signals),
            condition,
            functools.partial(self.noise_block, key),
            block,
            self.table(sampling),
            tiles,
            at_a_time,
            on_tiles,
            self.channels,
        )
        image = np.clip(np.asarray(self.method.decode(y_0, condition)), -1, 1)
        return image[: height * self.scale, : width * self.scale]

    def denoise_tiles(
        self, signals: Values, condition: np.ndarray, y: np.ndarray, gamma: float
    ) -> np.ndarray:
        """y_0 of equal tiles (n, t, t, c)."""

        def run(params, signals, condition, y, gamma):
            return self.method.denoiser(params, signals)(
                condition, y, jnp.broadcast_to(gamma, condition.shape[:1])
            )

        whole, split = parallel.replicated(self.mesh), parallel.batch_sharding(self.mesh)
        shardings = (whole, split, split, split, whole)
        program = self._once(
            "tiles", lambda: jax.jit(run, in_shardings=shardings, out_shardings=split)
        )
        signals, condition, y = jax.device_put((dict(signals), condition, y), split)
        return np.asarray(program(self.params, signals, condition, y, np.float32(gamma)))

    def _condition_tiles(self, signals: Values, upsampled: np.ndarray) -> np.ndarray:
        def run(params, signals, upsampled):
            return self.method.condition(params, upsampled, signals)

        whole, split = parallel.replicated(self.mesh), parallel.batch_sharding(self.mesh)
        program = self._once(
            "condition",
            lambda: jax.jit(run, in_shardings=(whole, split, split), out_shardings=split),
        )
        return np.asarray(program(self.params, *jax.device_put((dict(signals), upsampled), split)))

    def noise_block(self, key: jax.Array, t: int, row: int, column: int) -> np.ndarray:
        """Block (row, column) of the noise numbered t.

        Block (0, 0) is what an image of the network's own size gets.
        """

        def draw(key, t, place):
            key = jax.random.fold_in(key, t)
            key = jax.lax.cond(place == 0, lambda: key, lambda: jax.random.fold_in(key, place))
            return jax.random.normal(key, self.method.shape)

        return np.asarray(self._once("noise", lambda: jax.jit(draw))(key, t, row * 2**15 + column))

    def tiles(self, height: int, width: int) -> int:
        """How many tiles an LR image of height × width is computed in; 1 for one of the network's own size."""
        if (height, width) == (self.lr_size, self.lr_size):
            return 1
        tile, overlap = self.tile_of(height, width)
        sides = zip(self.method.task.output_size(height, width), tile, strict=True)
        return math.prod(tiling.count(max(length, side), side, overlap) for length, side in sides)

    def tile_of(self, height: int, width: int) -> tuple[tuple[int, int], int]:
        """(height, width) of the tiles of an LR image of that size, and their overlap, in pixels of the result."""
        if self.tile is not None:
            # In whole LR pixels
            return (self.tile, self.tile), self.tile // 4 // self.scale * self.scale
        config, factor = self.checkpoint.config, self._factor
        overlap, step = -(-OVERLAP // self.scale) * self.scale, -(-STEP // factor) * factor
        # a feature map's values for a pixel of the result; the widest levels hold two of them, and
        # a few are alive at once
        widest = (
            config.model.channels
            * max(config.model.multipliers)
            * 2
            / config.model.space_to_depth**2
        )
        # of all memory, not of what is free now: the same machine makes the same picture every time
        room = psutil.virtual_memory().total / 8 / self.mesh.size / (4 * 8 * widest)
        least = -(-max(config.data.hr_size, 2 * overlap) // step) * step
        most = max(least, min(LARGEST_TILE, math.isqrt(int(room))) // step * step)
        large = self.method.task.output_size(height, width)
        at_a_time = self.tiles_at_a_time
        return tiling.fitting_tile(
            *large, least=least, most=most, step=step, overlap=overlap, at_a_time=at_a_time
        ), overlap

    @property
    def _factor(self) -> int:
        """What a tile's sides must be divisible by."""
        model = self.checkpoint.config.model
        return int(np.lcm(self.scale, model.space_to_depth * 2 ** (len(model.multipliers) - 1)))

    def _check_tile(self, tile: int | None) -> int | None:
        config, factor = self.checkpoint.config, self._factor
        size, model = config.data.hr_size, config.model
        if tile is None:
            # Attention and a training on whole objects tie a network to its size; convolutions
            # waste less on larger tiles.
            if model.attention or model.middle_attention:
                return size
            return None if jax.default_backend() == "cpu" else -(-max(size, 256) // factor) * factor
        if tile < size or tile % factor:
            raise UserError(
                f"tile = {tile} must be at least {size}, the size the network was trained on, and divisible by {factor}"
            )
        return tile

    def _once(self, name: Any, make: Callable[[], Any]) -> Any:
        with self._lock:
            if name not in self._programs:
                self._programs[name] = make()
            return self._programs[name]
