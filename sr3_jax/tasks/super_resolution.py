"""Super-resolution: the HR image of an LR image, which may also be blurred and noisy."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from sr3_jax.tasks import augmentation, operations
from sr3_jax.tasks.corruptions import CORRUPTIONS
from sr3_jax.tasks.labels import label_signals
from sr3_jax.tasks.task import Canvas, Given, Images, Signal, Weights


class SuperResolution:
    """Makes LR images by anti-aliased bicubic, followed by `CORRUPTIONS`, then rounded to 8 bits.

    The rounding, as a file would have it, can be turned off (task.quantize_lr).
    """

    def __init__(self, config: ConfigDict):
        self.input_channels = self.condition_channels = config.model.image_channels
        self._scale = config.data.hr_size // config.data.lr_size
        self._quantize, self._upsample = config.task.quantize_lr, config.task.upsample
        self._augment = config.task.augment
        self._labels = label_signals(config)
        self._strongest = {name: config.task[name] for name in CORRUPTIONS if config.task[name]}
        # The last one first. In this order their embeddings are added, and any other order would
        # change the shipped networks' results in the last bits.
        self._told = [name for name in reversed(self._strongest) if config.task[f"tell_{name}"]]

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The strengths of the corruptions that it is told of, noise-conditioning, the class."""
        told = (
            CORRUPTIONS[name].signal._replace(high=self._strongest[name]) for name in self._told
        )
        high = self._augment
        augment = (augmentation.SIGNAL._replace(high=high),) if high else ()
        return (*told, *augment, *self._labels)

    def corrupt(
        self, image: Images, key: Key[Array, ""] | None = None, *, train: bool = False
    ) -> Given:
        """LR images (b, h / scale, w / scale, c) of HR images; see `Task.corrupt`."""
        height, width = image.shape[1:3]
        lr = operations.resize(image, height // self._scale, width // self._scale)
        signals = {name: jnp.zeros(len(lr)) for name in self._told}
        for name, high in self._strongest.items():
            if key is None or not (train or name in self._told):
                continue
            strength_key, half_key, own_key = jax.random.split(
                jax.random.fold_in(key, zlib.crc32(name.encode())), 3
            )
            strength = jax.random.uniform(strength_key, (len(lr),), maxval=high)
            strength = jnp.where(jax.random.bernoulli(half_key, 0.5, (len(lr),)), strength, 0.0)
            lr = CORRUPTIONS[name].apply(lr, strength, own_key)
            if name in self._told:
                signals[name] = strength
        lr = operations.quantize(lr) if self._quantize else jnp.clip(lr, -1, 1)
        return Given(lr, signals)

    def condition(self, image: Images) -> Float[Array, "b _h _w c"]:
        """The LR images, enlarged to HR size (task.upsample), in float, unclipped."""
        return operations.resize(image, *self.output_size(*image.shape[1:3]), self._upsample)

    def condition_canvas(self, image: Canvas) -> Canvas:
        """The LR image, enlarged; see `Task.condition_canvas`."""
        return operations.resize_canvas(image, *self.output_size(*image.shape[:2]), self._upsample)

    def weights(self, image: Images) -> Weights | None:
        """None: all of the image is to be learned."""
        return None

    def known(self, condition: Any) -> Any:
        """None: nothing of the result is known."""
        return None

    def compose(self, image: Canvas, output: Canvas) -> Canvas:
        """The result, changed in its low frequencies until, down-sampled, it is the LR image.

        What the down-sampled result lacks is enlarged and added. The two resamplings are not each
        other's inverse, and the result is clipped, so this is done until a tenth of an 8-bit level
        is left, a dozen times at most.
        """
        for _ in range(12):
            lacking = image - operations.resize_canvas(output, *image.shape[:2])
            if np.sqrt(np.square(lacking).mean()) < 0.1 / 127.5:
                break
            enlarged = operations.resize_canvas(lacking, *output.shape[:2])
            output = np.clip(output + enlarged, -1, 1)
        return output

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the HR image for an LR image of height × width."""
        return height * self._scale, width * self._scale
