"""Operations on batches of images for tasks: pure functions in JAX, for the compiled step.

Bicubic is Keys' cubic with a = -0.5, anti-aliased: what Pillow does on float images, to 1e-3 of an
8-bit level. (Pillow on uint8 rounds between its two passes and is off by up to 4 levels when
enlarging.) Images are (b, h, w, c) in [-1, 1].
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# by name: converters to ONNX replace `jax.image.resize` by an operation that weighs otherwise
from jax.image import resize as resize_array
from jaxtyping import Array, Float
from PIL import Image as PillowImage

from sr3_jax.tasks.task import Canvas, Images


def to_float(images: Array) -> Images:
    """uint8 in [0, 255] to float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1


def to_uint8(images: Images) -> Array:
    """Float in [-1, 1] to uint8: clipped and rounded (truncation would darken by half a level)."""
    return jnp.round((jnp.clip(images, -1, 1) + 1) * 127.5).astype(jnp.uint8)


def quantize(images: Images) -> Images:
    """Rounds to the 8-bit levels and clips to [-1, 1], as writing to a file would."""
    return to_float(to_uint8(images))


# The names of both libraries for how an image is resized
METHODS = {
    "bicubic": ("cubic", PillowImage.Resampling.BICUBIC),
    "bilinear": ("linear", PillowImage.Resampling.BILINEAR),
}


def resize(
    images: Images, height: int, width: int, method: str = "bicubic"
) -> Float[Array, "b {height} {width} c"]:
    """Resizes to (height, width), with anti-aliasing, in float, unclipped."""
    b, _, _, c = images.shape
    return resize_array(images, (b, height, width, c), METHODS[method][0], antialias=True)


def resize_canvas(canvas: Canvas, height: int, width: int, method: str = "bicubic") -> Canvas:
    """`resize` of one image (h, w, c) on the host, without a compilation for each size."""
    if not canvas.shape[-1]:  # the input of generation
        return np.zeros((height, width, 0), np.float32)
    planes = [
        np.asarray(PillowImage.fromarray(plane).resize((width, height), METHODS[method][1]))
        for plane in np.moveaxis(np.ascontiguousarray(canvas, np.float32), -1, 0)
    ]
    return np.stack(planes, axis=-1)


def gaussian_blur(images: Images, sigma: Float[Array, " b"]) -> Images:
    """Blurs each image with its own sigma, in pixels, 0 to 4.

    0 changes nothing; above 4 too much of the kernel would be cut off, whose radius is 8 pixels.
    Beyond the edges, the image is continued by its edge pixels.
    """
    radius = 8
    offsets = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    kernel = jnp.exp(-0.5 * jnp.square(offsets[None] / jnp.maximum(sigma, 1e-3)[:, None]))
    kernel = kernel / kernel.sum(axis=1, keepdims=True)
    for axis in (1, 2):
        size = images.shape[axis]
        pad = [(0, 0)] * 4
        pad[axis] = (radius, radius)
        padded = jnp.pad(images, pad, mode="edge")
        shifted = [
            jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(2 * radius + 1)
        ]
        images = functools.reduce(
            jnp.add, [kernel[:, i, None, None, None] * part for i, part in enumerate(shifted)]
        )
    return images
