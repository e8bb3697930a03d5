"""Editing: colours for a grey image, and what is missing in one (Palette, arXiv 2111.05826).

The network is the same as ever, and sees its input beside the noisy image; what differs is what
happens to an image in training, and what of the input is put into the result.
"""

import zlib
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from sr3_jax.tasks import masks, operations
from sr3_jax.tasks.filling import filled
from sr3_jax.tasks.same_size import SameSize
from sr3_jax.tasks.task import Canvas, Given, Images, Weights

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as JPEG and Pillow have it


class Colourise(SameSize):
    """Colour images of grey ones.

    The input is the luma, one channel, rounded to 8 bits; the network is shown it three times. The
    result has the input's luma: only the colour is the network's.
    """

    input_channels = 1

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        self.condition_channels = config.model.image_channels

    def corrupt(
        self, image: Images, key: Key[Array, ""] | None = None, *, train: bool = False
    ) -> Given:
        """The luma (b, h, w, 1) of colour images; nothing in it is random."""
        return Given(operations.quantize(image @ LUMA[:, None]))

    def condition(self, image: Images) -> Float[Array, "b h w _k"]:
        """The luma as a grey colour image."""
        return jnp.repeat(image, self.condition_channels, axis=-1)

    def condition_canvas(self, image: Canvas) -> Canvas:
        """The luma as a grey colour image."""
        return np.repeat(image, self.condition_channels, axis=-1)

    def compose(self, image: Canvas, output: Canvas) -> Canvas:
        """The output's colour on the input's luma.

        A colour that does not exist with that luma is brought nearer to grey, of the same hue.
        """
        chroma = output - output @ LUMA[:, None]
        # The largest share of the chroma with which every channel stays in [-1, 1]
        room = np.where(chroma > 0, 1 - image, 1 + image) / np.maximum(np.abs(chroma), 1e-6)
        return image + np.minimum(room.min(axis=-1, keepdims=True), 1) * chroma


class Inpaint(SameSize):
    """Whole images of images with a hole; a hole may also be all around (uncropping).

    The input has one channel more than the image: the mask, 1 in the hole and -1 elsewhere. The
    network is shown the same with a smooth guess in the hole (filling.py), which it may diffuse the
    difference to. Only the hole is learned, and only it is the network's.
    """

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        self._channels, self._holes = config.model.image_channels, tuple(config.task.holes)
        self.input_channels = self.condition_channels = self._channels + 1

    def corrupt(
        self, image: Images, key: Key[Array, ""] | None = None, *, train: bool = False
    ) -> Given:
        """Images (b, h, w, c + 1) with holes of random kinds (task.holes); see `Task.corrupt`.

        Without a key all have the same hole, in the middle.
        """
        b, height, width = image.shape[:3]
        if key is None:
            hole = masks.centre(b, height, width)
        else:
            key = jax.random.fold_in(key, zlib.crc32(b"hole"))
            kind_key, *keys = jax.random.split(key, 1 + len(masks.KINDS))
            logits = jnp.log(jnp.asarray(self._holes, jnp.float32))
            kind = jax.random.categorical(kind_key, logits, shape=(b,))
            each = [
                make(own, b, height, width)
                for own, make in zip(keys, masks.KINDS.values(), strict=True)
            ]
            hole = jnp.stack(each)[kind, jnp.arange(b)]
        return Given(with_hole(image, hole))

    def condition(self, image: Images) -> Images:
        """The input with a guess in its hole, and its mask."""
        return self._guessed(image, jnp)

    def condition_canvas(self, image: Canvas) -> Canvas:
        """The input with a guess in its hole, and its mask."""
        return np.asarray(self._guessed(image[None], np)[0], np.float32)

    def _guessed(self, image: Any, numpy: ModuleType) -> Any:
        colour, mask = image[..., : self._channels], image[..., self._channels :]
        known = (mask <= 0).astype(image.dtype)
        return numpy.concatenate([filled(colour, known, numpy), mask], -1)

    def weights(self, image: Images) -> Weights | None:
        """The hole (b, h, w, 1)."""
        return (image[..., self._channels :] > 0).astype(jnp.float32)

    def known(self, condition: Any) -> Any:
        """All but the hole."""
        return condition[..., self._channels :] <= 0

    def compose(self, image: Canvas, output: Canvas) -> Canvas:
        """The output in the hole, and the input's own pixels elsewhere."""
        return np.where(image[..., self._channels :] > 0, output, image[..., : self._channels])


def with_hole(image: Images, hole: Weights) -> Float[Array, "b _h _w k"]:
    """The input of an inpainting network, from an image and its hole (b, h, w, 1), 1 or 0."""
    return jnp.concatenate([image * (1 - hole), 2 * hole - 1], axis=-1)
