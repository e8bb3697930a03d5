"""Blur of any shape and resizing by any factor, with their own parameters for each image, in JAX.

Everything is of static shape: a kernel is an array, however small its sigma, and a resize is a
product with two matrices, however large its factor. So a batch may hold images of every kind.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import special

from sr3_jax.tasks.task import Images

PerImage = Float[Array, " b"]
Kernels = Float[Array, "b k k"]

# J_1(x) / x, between whose entries is interpolated: JAX has no Bessel function that is fast enough
_X = np.linspace(0, 64, 8192)
_JINC = np.concatenate([[0.5], special.j1(_X[1:]) / _X[1:]])


class Shape(NamedTuple):
    """What a blur's kernel looks like, a value for each image."""

    sigma: PerImage  # in pixels, along the longer axis
    ratio: PerImage  # of the shorter axis to the longer, in (0, 1]; 1: isotropic
    angle: PerImage  # of the longer axis, radians
    beta: PerImage  # exponent; 1: Gaussian, above: flatter at the centre, below: more pointed
    plateau: PerImage  # 1: 1 / (1 + d^beta) instead of exp(-d^beta / 2), d the squared distance


def blur_kernels(shape: Shape, size: int) -> Kernels:
    """Kernels of an odd size, each of sum 1 (Real-ESRGAN, arXiv 2107.10833, appendix A).

    A sigma of 0 changes nothing.
    """
    offsets = jnp.arange(size, dtype=jnp.float32) - size // 2
    x, y = offsets[None, None, :], offsets[None, :, None]
    cos, sin = (wave(shape.angle)[:, None, None] for wave in (jnp.cos, jnp.sin))
    along, across = cos * x + sin * y, cos * y - sin * x
    sigma = jnp.maximum(shape.sigma, 1e-2)[:, None, None]
    squared = (along**2 + (across / shape.ratio[:, None, None]) ** 2) / sigma**2
    powers = jnp.maximum(squared, 1e-12) ** shape.beta[:, None, None]
    plateau = shape.plateau[:, None, None] > 0.5
    kernels = jnp.where(plateau, 1 / (1 + powers), jnp.exp(-0.5 * powers))
    return kernels / kernels.sum(axis=(1, 2), keepdims=True)


def spread_of(kernels: Kernels) -> PerImage:
    """The standard deviation of each kernel, in pixels: the mean of both directions' variances."""
    offsets = jnp.arange(kernels.shape[1], dtype=jnp.float32) - kernels.shape[1] // 2
    squared = (offsets[:, None] ** 2 + offsets[None] ** 2) / 2
    return jnp.sqrt(jnp.einsum("bij,ij->b", kernels, squared, precision="highest"))


def sinc_kernels(cutoff: PerImage, size: int) -> Kernels:
    """Low-pass filters that ring, as over-sharpened and compressed pictures do.

    Args:
      cutoff: the highest frequency that passes, in radians a pixel, in (0, π].
      size: of the kernels, an odd number.

    Returns:
      cutoff J_1(cutoff r) / (2 π r), r the distance from the centre, of sum 1.
    """
    offsets = np.arange(size) - size // 2
    distance = np.hypot(offsets, offsets[:, None]).astype(np.float32)
    kernels = jnp.interp(cutoff[:, None, None] * distance[None], _X, _JINC)
    return kernels / kernels.sum(axis=(1, 2), keepdims=True)


def convolve(images: Images, kernels: Kernels) -> Images:
    """Each image convolved with its kernel, continued at its edges by its edge pixels."""
    size, (height, width) = kernels.shape[1], images.shape[1:3]
    edge = ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0))
    padded = jnp.pad(images, edge, mode="edge")

    # A sum of shifted images: on a CPU a tenth of the time of a convolution with one kernel an
    # image. The transform would be as fast, but XLA's refuses the layouts of some programs.
    def add_row(row: Array, total: Array) -> Array:
        shifted = jax.lax.dynamic_slice_in_dim(padded, row, height, axis=1)
        weights = jax.lax.dynamic_index_in_dim(kernels, size - 1 - row, axis=1, keepdims=False)
        for column in range(size):
            weight = weights[:, size - 1 - column, None, None, None]
            total = total + weight * shifted[:, :, column : column + width]
        return total

    return jax.lax.fori_loop(0, size, add_row, jnp.zeros_like(images))


METHODS = ("area", "bilinear", "bicubic", "lanczos")  # of `resample`, by number


def resample(
    images: Images,
    before: Float[Array, "b 2"],
    after: Float[Array, "b 2"],
    method: Int[Array, " b"],
    size: tuple[int, int],
) -> Float[Array, "b {size[0]} {size[1]} c"]:
    """Resizes each image's upper left part, by its own factor and method, anti-aliased.

    Args:
      images: (b, h, w, c), of which pixels outside of `before` are not looked at.
      before: height and width of the part of each image that is resized, whole numbers.
      after: height and width that it gets, whole numbers.
      method: a place in METHODS for each image.
      size: (height, width) of the result, at least `after`; the rest is filled by edge pixels.
    """
    rows = _weights(before[:, 0], after[:, 0], method, images.shape[1], size[0])
    columns = _weights(before[:, 1], after[:, 1], method, images.shape[2], size[1])
    return jnp.einsum("byi,bxj,bijc->byxc", rows, columns, images, precision="highest")


def _weights(
    before: PerImage, after: PerImage, method: Int[Array, " b"], length: int, size: int
) -> Float[Array, "b size length"]:
    """What each pixel of a line contributes to each pixel of the resized line."""
    before, after = before[:, None, None], after[:, None, None]
    step = before / after
    target = jnp.minimum(jnp.arange(size, dtype=jnp.float32)[None, :, None], after - 1)
    place = jnp.arange(length, dtype=jnp.float32)[None, None]
    # Reductions average over as many pixels as become one
    distance = jnp.abs(place - ((target + 0.5) * step - 0.5)) / jnp.maximum(step, 1)
    chosen = [jnp.broadcast_to(method[:, None, None] == i, distance.shape) for i in range(4)]
    weights = jnp.select(chosen, [kernel(distance) for kernel in _KERNELS])
    weights = jnp.where(place < before, weights, 0)
    return weights / weights.sum(axis=-1, keepdims=True)


def _box(x: Array) -> Array:
    return jnp.where(x < 0.5 + 1e-4, 1.0, 0.0)


def _triangle(x: Array) -> Array:
    return jnp.maximum(1 - x, 0)


def _keys(x: Array) -> Array:
    """Keys' cubic, a = -0.5."""
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0))


def _lanczos(x: Array) -> Array:
    return jnp.where(x < 3, jnp.sinc(x) * jnp.sinc(x / 3), 0)


_KERNELS = (_box, _triangle, _keys, _lanczos)
