"""From a checkpoint and LR images to HR images.

upscaler = Upscaler.load("faces-16-64")        # a shipped name, a workdir or an exported file
hr = upscaler.batch(lr, ids=[0], seed=0)       # (n, 16, 16, 1) uint8 -> (n, 64, 64, 1) uint8
picture = upscaler.image(pixels, name="in.png")
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree, UInt8

from sr3_jax import parallel
from sr3_jax.checkpoints import Checkpoint, load_checkpoint
from sr3_jax.data import degradations
from sr3_jax.data.sources import image_id
from sr3_jax.errors import UserError
from sr3_jax.images import as_channels
from sr3_jax.method import image_key, sampling_schedule


class Upscaler:
    """Upscales images of the network's own size, on all devices of this process.

    A batch is `batch_size` images, rounded up to a multiple of the devices; devices beyond `batch_size` stay idle. The
    compiled program is kept for each number of steps.
    """

    def __init__(self, checkpoint: Checkpoint, batch_size: int = 16):
        self.checkpoint, self.mesh = checkpoint, parallel.local_mesh(batch_size)
        self.batch_size = -(-batch_size // self.mesh.size) * self.mesh.size
        self.method = checkpoint.method
        if not self.method.regression:
            sampling_schedule(checkpoint.config, checkpoint.config.sample.steps)  # raises here rather than at the first image
        self.set_params(checkpoint.params)
        self._compiled = functools.lru_cache(self._compile)

    @classmethod
    def load(cls, place: str | Path, batch_size: int = 16) -> "Upscaler":
        """From whatever `load_checkpoint` takes; raises CheckpointError."""
        return cls(load_checkpoint(place), batch_size)

    def set_params(self, params: PyTree) -> None:
        """Other weights of the same network, wherever they are."""
        self.params = parallel.whole_on(self.mesh, params)

    @property
    def lr_size(self) -> int:
        return self.checkpoint.config.data.lr_size

    @property
    def channels(self) -> int:
        return self.checkpoint.config.model.image_channels

    def _compile(self, steps: int | None) -> Callable:
        def run(params, lr, ids, seed, sample):
            keys = jax.vmap(lambda i: image_key(seed, i, sample))(ids)
            return self.method.super_resolve(params, degradations.to_float(lr), keys, steps)

        whole, split = parallel.replicated(self.mesh), parallel.batch_sharding(self.mesh)
        return jax.jit(run, in_shardings=(whole, split, split, whole, whole), out_shardings=split)

    def batch(
        self,
        lr: UInt8[np.ndarray, "n l l c"],
        ids: Sequence[int],
        *,
        seed: int = 0,
        sample: int = 0,
        steps: int | None = None,
        on_batch: Callable[[int], object] = lambda count: None,
    ) -> np.ndarray:
        """HR images (n, h, h, c), float32 in [-1, 1], of LR images, uint8.

        Sample number `sample` of image ids[i] depends on (seed, ids[i], sample) alone. `steps` replaces sample.steps;
        `on_batch(count)` is called after every `count` images.
        """
        if steps is not None and steps < 1:
            raise UserError(f"steps = {steps} must be at least 1")
        size, outputs = self.batch_size, []
        run = self._compiled(steps)
        for start in range(0, len(lr), size):
            rows = np.arange(start, start + size).clip(max=len(lr) - 1)  # the last batch is padded: one shape, one compilation
            numbers = np.asarray(ids, np.int32)[rows]
            inputs = jax.device_put((lr[rows], numbers), parallel.batch_sharding(self.mesh))
            out = run(self.params, *inputs, seed, sample)
            count = min(size, len(lr) - start)
            outputs.append(np.asarray(out)[:count])
            on_batch(count)
        return np.concatenate(outputs) if outputs else np.zeros((0, *self.method.shape), np.float32)

    def image(
        self, pixels: UInt8[np.ndarray, "h w c"], name: str, *, seed: int = 0, sample: int = 0, steps: int | None = None
    ) -> UInt8[np.ndarray, "h2 w2 c2"]:
        """As `images`, for one."""
        return self.images([pixels], [name], seed=seed, sample=sample, steps=steps)[0]

    def images(
        self,
        pictures: Sequence[UInt8[np.ndarray, "_ _ _"]],
        names: Sequence[str],
        *,
        seed: int = 0,
        sample: int = 0,
        steps: int | None = None,
    ) -> list[UInt8[np.ndarray, "_ _ _"]]:
        """Images (h, w, 1 or 3) of the network's LR size enlarged; a name stands for its image in the random key.

        A one-channel network upscales the luma of a colour image; its chroma is enlarged by bicubic. A grey image given to a
        colour network comes back in colour channels. Raises UserError for any other size.
        """
        for pixels, name in zip(pictures, names, strict=True):
            self.check_size(pixels, name)
        lr = np.stack([as_channels(pixels, self.channels) for pixels in pictures])
        batch = self.batch(lr, [image_id(name) for name in names], seed=seed, sample=sample, steps=steps)
        return [self._finish(hr, pixels) for hr, pixels in zip(batch, pictures, strict=True)]

    def check_size(self, pixels: UInt8[np.ndarray, "h w c"], name: str) -> None:
        """Raises UserError unless the image has the network's LR size."""
        height, width, _ = pixels.shape
        if (height, width) != (self.lr_size, self.lr_size):
            raise UserError(
                f"{name} is {width}×{height}; {self.checkpoint.name} takes images of {self.lr_size}×{self.lr_size} only, "
                "resize it to that first"
            )

    def _finish(self, output: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        hr = jnp.asarray(output[None])
        if pixels.shape[-1] == 3 and self.channels == 1:
            chroma = (pixels.astype(np.float32) - as_channels(pixels, 1).astype(np.float32)) / 127.5  # R - Y, G - Y, B - Y
            hr = jnp.repeat(hr, 3, axis=-1) + degradations.resize(jnp.asarray(chroma[None]), *hr.shape[1:3])
        return np.asarray(degradations.to_uint8(hr))[0]
