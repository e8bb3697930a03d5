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
from jaxtyping import UInt8
from PIL import Image

from sr3_jax.checkpoints import Checkpoint, load_checkpoint
from sr3_jax.data import degradations
from sr3_jax.data.sources import image_id
from sr3_jax.errors import UserError
from sr3_jax.method import image_key, sampling_schedule


class Upscaler:
    """Upscales images of the network's own size. The compiled program is kept for each number of steps."""

    def __init__(self, checkpoint: Checkpoint, batch_size: int = 16):
        self.checkpoint, self.batch_size = checkpoint, batch_size
        self.method = checkpoint.method
        if not self.method.regression:
            sampling_schedule(checkpoint.config, checkpoint.config.sample.steps)  # raises here rather than at the first image
        self.params = jax.device_put(checkpoint.params)
        self._compiled = functools.lru_cache(self._compile)

    @classmethod
    def load(cls, place: str | Path, batch_size: int = 16) -> "Upscaler":
        """From whatever `load_checkpoint` takes; raises CheckpointError."""
        return cls(load_checkpoint(place), batch_size)

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

        return jax.jit(run)

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
            out = run(self.params, jnp.asarray(lr[rows]), jnp.asarray(numbers), seed, sample)
            count = min(size, len(lr) - start)
            outputs.append(np.asarray(out)[:count])
            on_batch(count)
        return np.concatenate(outputs)

    def image(
        self, pixels: UInt8[np.ndarray, "h w c"], name: str, *, seed: int = 0, sample: int = 0, steps: int | None = None
    ) -> UInt8[np.ndarray, "h2 w2 c2"]:
        """One image of the network's LR size, grey or RGB, enlarged; `name` stands for it in the random key.

        A one-channel network upscales the luma of a colour image; its chroma is enlarged by bicubic. A grey image given to a
        colour network comes back in colour channels. Raises UserError for any other size.
        """
        height, width, channels = pixels.shape
        if (height, width) != (self.lr_size, self.lr_size):
            raise UserError(
                f"{name} is {width}×{height}; {self.checkpoint.name} takes images of {self.lr_size}×{self.lr_size} only, "
                "resize it to that first"
            )
        chroma = None
        if channels == 3 and self.channels == 1:
            luma = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
            chroma = (pixels.astype(np.float32) - luma.astype(np.float32)) / 127.5  # R - Y, G - Y, B - Y
            pixels = luma
        if channels == 1 and self.channels == 3:
            pixels = np.repeat(pixels, 3, axis=-1)
        hr = jnp.asarray(self.batch(pixels[None], [image_id(name)], seed=seed, sample=sample, steps=steps))
        if chroma is not None:
            hr = jnp.repeat(hr, 3, axis=-1) + degradations.resize(jnp.asarray(chroma[None]), *hr.shape[1:3])
        return np.asarray(degradations.to_uint8(hr))[0]
