"""A checkpoint on this process's devices: its compiled programs, and images computed by them.

Images of the network's own size are computed in batches, others in tiles. All are float arrays of
the network's own channels; the module `upscaler`, which uses this one, knows pictures of any kind.
"""

import functools
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.diffusion.guidance import Guidance
from sr3_jax.diffusion.samplers import Steps
from sr3_jax.errors import UserError
from sr3_jax.inference import tiling
from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.tiling import Canvas
from sr3_jax.method import AUGMENTATION, image_key, sampling_steps
from sr3_jax.runtime import limits, parallel
from sr3_jax.tasks.augmentation import SIGNAL as AUGMENT
from sr3_jax.tasks.augmentation import augment
from sr3_jax.tasks.task import Given

Progress = Callable[[int], object]
LR = Float[np.ndarray, "n _h _w _c"]
Values = Mapping[str, np.ndarray]  # of each signal, by name, one value (n,) for each image
# For tiles whose size is fitted to a picture, in pixels of the result. Neighbours overlap by at
# least OVERLAP, about as far as the convolutions see. Sides are multiples of STEP, so that not
# every size of picture needs a program of its own, and at most LARGEST_TILE.
OVERLAP, STEP, LARGEST_TILE = 64, 32, 1088


class Link(NamedTuple):
    """Noise that goes from a stage of a cascade to the next (truncated augmentation)."""

    end: float | None = None  # the level gamma where sampling stops, leaving noise; None: 1
    noisy: bool = False  # whether the LR images have the noise already that the network is told of


def ignore(count: int) -> None:
    """A callback for progress that does nothing."""


class Engine:
    """A network on this process's devices. Safe to use from several threads.

    Args:
      checkpoint: The network.
      batch_size: How many images of the network's own size, or tiles of a larger one, are computed
        at a time, rounded up to a multiple of the devices; devices beyond it stay idle. By default
        16, but on a CPU one tile for each device, because more are no faster.
      tile: The side of a tile in pixels of the result. By default what suits the network: the size
        that it was trained on, if it has attention and so depends on it; else at least 256, but on
        a CPU as large as suits picture and memory, up to 1,088.
    """

    def __init__(
        self, checkpoint: Checkpoint, batch_size: int | None = None, tile: int | None = None
    ):
        few_tiles = batch_size is None and jax.default_backend() == "cpu"
        batch_size = 16 if batch_size is None else batch_size
        self.checkpoint, self.method = checkpoint, checkpoint.method
        data = checkpoint.config.data
        self.lr_size: int = data.lr_size  # the side of the images that it was trained on
        self.scale: int = data.hr_size // data.lr_size  # of one pass
        self.channels: int = checkpoint.config.model.image_channels  # 1 (grey) or 3 (RGB)
        self.mesh = parallel.local_mesh(batch_size)
        self.batch_size = -(-batch_size // self.mesh.size) * self.mesh.size
        self.tiles_at_a_time = self.mesh.size if few_tiles else self.batch_size
        self.tile = self._check_tile(tile)
        self._programs: dict[Any, Any] = {}
        self._lock = threading.Lock()
        self.table(Sampling())  # raises UserError here rather than at the first image
        self.set_params(checkpoint.params)

    def set_params(self, params: PyTree) -> None:
        """Replaces the weights by others of the same network, on whatever devices they are."""
        self.params = parallel.whole_on(self.mesh, params)

    def table(self, sampling: Sampling, end: float | None = None) -> Steps:
        """The noise levels and coefficients of a sampling.

        Unless a sampler is chosen, they are those that `sr3 search` has found for the number of
        evaluations, if any.

        Args:
          sampling: How images are drawn.
          end: The level gamma where it ends; None: 1, without noise.

        Raises:
          UserError: The network cannot be used like that.
        """
        sampling.check(self.checkpoint)
        config, steps = self.checkpoint.config, sampling.steps
        count = config.sample.steps if steps is None else steps
        found = self.checkpoint.schedules.get(str(count))
        changes = {"sampler": sampling.sampler} if sampling.sampler else found
        # Kept, because making it takes 10 ms, as long as a step of the sampler
        return self._once(
            ("table", steps, sampling.sampler, end),
            lambda: sampling_steps(config, steps, changes, end),
        )

    # -- images of the network's own size, many at a time

    @parallel.settled()
    def batch(
        self,
        lr: LR,
        ids: Sequence[int],
        sampling: Sampling,
        on_batch: Progress = ignore,
        signals: Values | None = None,
        link: Link = Link(),  # noqa: B008 (immutable)
    ) -> Float[np.ndarray, "n _h _w _c"]:
        """HR images in [-1, 1] of LR images in [-1, 1] of the network's own size.

        What is drawn at random for image i depends on (seed, ids[i], sample) alone.

        Args:
          lr: The LR images.
          ids: A number for each image.
          sampling: How they are drawn.
          on_batch: Called after every batch with the number of its images.
          signals: Values for each image, instead of the sampling's one value for all.
          link: What a stage of a cascade hands to the next.
        """
        steps = self.table(sampling, link.end)
        key = tuple(np.asarray(column).tobytes() for column in jax.tree.leaves(steps))
        guidance = sampling.guidance_of(self.checkpoint.config)
        run = self._once((key, link), lambda: self._compile(steps, link))
        guided = lambda *arguments: run(*arguments, None, guidance)  # noqa: E731
        return self._in_batches(guided, lr, ids, sampling, signals, on_batch)

    @parallel.settled()
    def trial(
        self,
        lr: LR,
        ids: Sequence[int],
        steps: Steps,
        *,
        seed: int = 0,
        signals: Values | None = None,
    ) -> Float[np.ndarray, "n _h _w _c"]:
        """As `batch`, but by the table `steps`, which need not be that of any sampling.

        The program is compiled once for each number of evaluations, not for each table.
        """
        run = self._once(("trial", steps.evaluations), lambda: self._compile(None))
        table = jax.tree.map(jnp.asarray, steps)
        with_table = lambda *arguments: run(*arguments, table, None)  # noqa: E731
        return self._in_batches(with_table, lr, ids, Sampling(seed=seed), signals, ignore)

    def _values(self, sampling: Sampling, count: int, given: Values | None = None) -> Values:
        """For every signal that the network knows, one value for each image; 0 if none is given."""
        told = sampling.told if given is None else given
        return {
            signal.name: np.broadcast_to(np.float32(told.get(signal.name, signal.missing)), count)
            for signal in self.method.task.signals
        }

    def _in_batches(
        self,
        run: Callable,
        lr: LR,
        ids: Sequence[int],
        sampling: Sampling,
        signals: Values | None,
        on_batch: Progress,
    ) -> Float[np.ndarray, "n _h _w _c"]:
        told = self._values(sampling, len(lr), signals)
        size, outputs = self.padded(len(lr)), []
        for start in range(0, len(lr), size):
            # The last batch is padded: with one shape there is only one compilation
            rows = np.arange(start, start + size).clip(max=len(lr) - 1)
            given = Given(
                lr[rows].astype(np.float32),
                {name: values[rows] for name, values in told.items()},
            )
            inputs = jax.device_put(
                (given, np.asarray(ids, np.int32)[rows]), parallel.batch_sharding(self.mesh)
            )
            out = run(self.params, *inputs, sampling.seed, sampling.sample)
            outputs.append(np.asarray(out)[: len(lr) - start])
            on_batch(len(outputs[-1]))
        return np.concatenate(outputs) if outputs else np.zeros((0, *self.method.shape), np.float32)

    def padded(self, count: int) -> int:
        """How many images to compute at a time when there are `count`.

        That is the number of devices times a power of two, at most the batch size.
        """
        size = self.mesh.size
        while size < min(count, self.batch_size):
            size *= 2
        return min(size, self.batch_size)

    def _compile(self, steps: Steps | None, link: Link = Link()) -> Callable:  # noqa: B008
        """The program for one table, or, if None, for any.

        Its last arguments are the table, or None, and the guidance, or None.
        """

        def run(params, given, ids, seed, sample, table, guidance):
            keys = jax.vmap(lambda i: image_key(seed, i, sample))(ids)
            given = given if link.noisy else self.method.augment(given, keys)
            end = None if link.end is None else jnp.float32(link.end)
            return self.method.super_resolve(params, given, keys, table or steps, guidance, end)

        whole, split = parallel.replicated(self.mesh), parallel.batch_sharding(self.mesh)
        shardings = (whole, split, split, whole, whole, whole, whole)
        return jax.jit(run, in_shardings=shardings, out_shardings=split)

    # -- an image of any size, in tiles

    @parallel.settled()
    def canvas(
        self, lr: Canvas, id: int, sampling: Sampling, on_tiles: Progress = ignore
    ) -> Canvas:
        """The HR image of an LR image of any size, both in [-1, 1], computed in tiles.

        Args:
          lr: The LR image.
          id: The image's number; what is drawn depends on (seed, id, sample) alone.
          sampling: How it is drawn.
          on_tiles: Called at every evaluation after every few tiles, with their number.
        """
        height, width = lr.shape[:2]
        tile, overlap = self.tile_of(height, width)
        lr = tiling.pad(lr, tile[0] // self.scale, tile[1] // self.scale)
        key = image_key(sampling.seed, id, sampling.sample)
        lr = self.augmented(lr, key, sampling)
        condition = self.method.task.condition_canvas(lr)
        tiles = tiling.plan(lr.shape[0], lr.shape[1], tile, overlap, self.scale)
        noise = tiling.Noise(
            functools.partial(self.noise_block, key), self.checkpoint.config.data.hr_size
        )
        at_a_time = min(
            self.tiles_at_a_time, self.padded(len(tiles.rows.starts) * len(tiles.columns.starts))
        )
        signals = self._values(sampling, at_a_time)
        guidance = sampling.guidance_of(self.checkpoint.config)
        if self.method.refines:
            condition = tiling.blend(
                functools.partial(self._condition_tiles, signals),
                (condition,),
                tiles,
                at_a_time,
                self.method.condition_channels,
                lambda count: on_tiles(0),  # the prediction does not count as an evaluation
            )
        y_0 = tiling.diffuse(
            functools.partial(self.denoise_tiles, signals, guidance=guidance),
            condition,
            noise,
            self.table(sampling),
            tiles,
            at_a_time,
            on_tiles,
            self.channels,
        )
        image = np.clip(np.asarray(self.method.decode(y_0, condition)), -1, 1)
        return image[: height * self.scale, : width * self.scale]

    def augmented(self, lr: Canvas, key: jax.Array, sampling: Sampling) -> Canvas:
        """The LR image with as much noise as the sampling asks for (tasks/augmentation.py)."""
        level = sampling.told.get(AUGMENT.name, 0)
        if not level:
            return lr
        side = self.lr_size
        blocks = functools.partial(self.noise_block, key, shape=(side, side, self.channels))
        noise = tiling.add_noise(
            np.empty_like(lr), 0.0, 1.0, tiling.Noise(blocks, side), AUGMENTATION
        )
        return augment(lr[None], np.full(1, level, np.float32), noise[None])[0]

    def denoise_tiles(
        self,
        signals: Values,
        condition: np.ndarray,
        y: np.ndarray,
        gamma: float,
        guidance: Guidance | None = None,
    ) -> np.ndarray:
        """The network's estimates of y_0 for tiles of one size, (n, h, w, c); v may follow.

        Args:
          signals: Values for each tile.
          condition: The network's first input, of every tile.
          y: The noisy images y_t, of every tile.
          gamma: The noise level of all of them.
          guidance: Classifier-free guidance; None: none.
        """

        def run(params, signals, condition, y, gamma, guidance):
            return self.method.denoiser(params, signals, guidance, variance=True)(
                condition, y, jnp.broadcast_to(gamma, condition.shape[:1])
            )

        whole, split = parallel.replicated(self.mesh), parallel.batch_sharding(self.mesh)
        shardings = (whole, split, split, split, whole, whole)
        program = self._once(
            "tiles", lambda: jax.jit(run, in_shardings=shardings, out_shardings=split)
        )
        tiles = jax.device_put((dict(signals), condition, y), split)
        return np.asarray(program(self.params, *tiles, np.float32(gamma), guidance))

    def _condition_tiles(self, signals: Values, upsampled: np.ndarray) -> np.ndarray:
        """The denoiser's condition for tiles, from a network that predicts and refines."""

        def run(params, signals, upsampled):
            return self.method.condition(params, upsampled, signals)

        whole, split = parallel.replicated(self.mesh), parallel.batch_sharding(self.mesh)
        program = self._once(
            "condition",
            lambda: jax.jit(run, in_shardings=(whole, split, split), out_shardings=split),
        )
        return np.asarray(program(self.params, *jax.device_put((dict(signals), upsampled), split)))

    def noise_block(
        self,
        key: jax.Array,
        t: int,
        row: int,
        column: int,
        shape: tuple[int, int, int] | None = None,
    ) -> np.ndarray:
        """Block (row, column) of the noise of step t, or of the first noise, before all steps.

        Blocks are of the network's own size, or of `shape`. Block (0, 0) is the noise that an
        image of that size gets.
        """
        shape = shape or self.method.shape

        def draw(key, t, place):
            key = jax.random.fold_in(key, t)
            key = jax.lax.cond(place == 0, lambda: key, lambda: jax.random.fold_in(key, place))
            return jax.random.normal(key, shape)

        return np.asarray(
            self._once(("noise", shape), lambda: jax.jit(draw))(key, t, row * 2**15 + column)
        )

    def tiles(self, height: int, width: int) -> int:
        """How many tiles an LR image of height × width is computed in.

        It is 1 for an image of the network's own size.
        """
        if (height, width) == (self.lr_size, self.lr_size):
            return 1
        tile, overlap = self.tile_of(height, width)
        sides = zip(self.method.task.output_size(height, width), tile, strict=True)
        return math.prod(tiling.count(max(length, side), side, overlap) for length, side in sides)

    def tile_of(self, height: int, width: int) -> tuple[tuple[int, int], int]:
        """(height, width) of the tiles of an LR image of that size, and their overlap.

        All are in pixels of the result.
        """
        if self.tile is not None:
            # The overlap is a quarter of the tile, in whole LR pixels
            return (self.tile, self.tile), self.tile // 4 // self.scale * self.scale
        config, factor = self.checkpoint.config, self._factor
        overlap, step = -(-OVERLAP // self.scale) * self.scale, -(-STEP // factor) * factor
        # How many values a feature map has for a pixel of the result. The widest levels hold two
        # maps, and a few of these are in memory at once.
        widest = (
            config.model.channels
            * max(config.model.multipliers)
            * 2
            / config.model.space_to_depth**2
        )
        # Of all memory, not of what is free now: the same machine makes the same picture every time
        room = limits.memory() / 8 / self.mesh.size / (4 * 8 * widest)
        least = -(-max(config.data.hr_size, 2 * overlap) // step) * step
        most = max(least, min(LARGEST_TILE, math.isqrt(int(room))) // step * step)
        tile = tiling.fitting_tile(
            *self.method.task.output_size(height, width),
            least=least,
            most=most,
            step=step,
            overlap=overlap,
            at_a_time=self.tiles_at_a_time,
        )
        return tile, overlap

    @property
    def _factor(self) -> int:
        """What a tile's sides must be divisible by."""
        model = self.checkpoint.config.model
        return int(np.lcm(self.scale, model.space_to_depth * 2 ** (len(model.multipliers) - 1)))

    def _check_tile(self, tile: int | None) -> int | None:
        """The tile's side, or for None the default one; returns None to fit it to each picture."""
        config, factor = self.checkpoint.config, self._factor
        size, model = config.data.hr_size, config.model
        if tile is None:
            # Attention ties a network to the size that it was trained on, and so does training on
            # whole objects. Convolutions alone take any size, and waste less on larger tiles.
            if model.attention or model.middle_attention:
                return size
            return None if jax.default_backend() == "cpu" else -(-max(size, 256) // factor) * factor
        if tile < size or tile % factor:
            raise UserError(
                f"tile = {tile} must be at least {size}, the size the network was trained on, "
                f"and divisible by {factor}"
            )
        return tile

    def _once(self, name: Any, make: Callable[[], Any]) -> Any:
        """What `make` makes, kept under a name and made only once."""
        with self._lock:
            if name not in self._programs:
                self._programs[name] = make()
            return self._programs[name]
