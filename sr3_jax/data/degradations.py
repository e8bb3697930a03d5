"""HR → LR → conditioning, in JAX, so that it runs inside the compiled step and is the same in training and inference.

Bicubic is Keys' cubic with a = -0.5, anti-aliased: what Pillow does on float images, to 1e-3 of an 8-bit level. (Pillow on
uint8 rounds between its two passes and is off by up to 4 levels when enlarging.) Images are (b, h, w, c) in [-1, 1].
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Images = Float[Array, "b h w c"]


def to_float(images: Array) -> Images:
    """uint8 in [0, 255] to float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1


def to_uint8(images: Images) -> Array:
    """Float in [-1, 1] to uint8: clipped and rounded (truncation would darken by half a level)."""
    return jnp.round((jnp.clip(images, -1, 1) + 1) * 127.5).astype(jnp.uint8)


def quantize(images: Images) -> Images:
    """Rounds to the 8-bit levels, and clips to [-1, 1]: what writing a file does."""
    return to_float(to_uint8(images))


def resize(images: Images, height: int, width: int) -> Float[Array, "b {height} {width} c"]:
    """Anti-aliased bicubic to (height, width), in float, unclipped."""
    b, _, _, c = images.shape
    return jax.image.resize(images, (b, height, width, c), "cubic", antialias=True)


def gaussian_blur(images: Images, sigma: Float[Array, " b"]) -> Images:
    """Blurs each image with its own sigma in pixels: edges are repeated, 0 changes nothing. At most 4: the kernel ends at 8."""
    radius = 8
    offsets = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    kernel = jnp.exp(-0.5 * jnp.square(offsets[None] / jnp.maximum(sigma, 1e-3)[:, None]))
    kernel = kernel / kernel.sum(axis=1, keepdims=True)
    for axis in (1, 2):
        size = images.shape[axis]
        pad = [(0, 0)] * 4
        pad[axis] = (radius, radius)
        padded = jnp.pad(images, pad, mode="edge")
        shifted = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(2 * radius + 1)]
        images = functools.reduce(jnp.add, [kernel[:, i, None, None, None] * part for i, part in enumerate(shifted)])
    return images


def degrade(hr: Images, lr_size: int, *, quantize_lr: bool = True) -> Float[Array, "b {lr_size} {lr_size} c"]:
    """The LR image: anti-aliased bicubic to lr_size × lr_size, rounded to 8 bits unless `quantize_lr` is off."""
    lr = resize(hr, lr_size, lr_size)
    return quantize(lr) if quantize_lr else jnp.clip(lr, -1, 1)


def augment_blur(lr: Images, key: Key[Array, ""], max_sigma: float) -> tuple[Images, Float[Array, " b"]]:
    """In training only: blurs a random half of the LR images, sigma ~ U(0, max_sigma) LR pixels, and each sigma.

    A network that is not told sigma becomes robust against the output of the stage before it (paper, table 5; kernel and sigma
    are not stated there: half of the examples is Cascaded Diffusion's choice). One that is told it takes the blur off.
    """
    if max_sigma == 0:
        return lr, jnp.zeros(lr.shape[0])
    sigma_key, half_key = jax.random.split(key)
    sigma = jax.random.uniform(sigma_key, (lr.shape[0],), maxval=max_sigma)
    sigma = jnp.where(jax.random.bernoulli(half_key, 0.5, (lr.shape[0],)), sigma, 0.0)
    return gaussian_blur(lr, sigma), sigma


def augment_noise(lr: Images, key: Key[Array, ""], max_sigma: float) -> tuple[Images, Float[Array, " b"]]:
    """In training only: Gaussian noise on a random half of the LR images, sigma ~ U(0, max_sigma) 8-bit levels, and each sigma.

    0 changes nothing. The network is told sigma (noise-conditioning augmentation, SR3+, arXiv 2302.07864), so that it can tell
    noise from texture.
    """
    if max_sigma == 0:
        return lr, jnp.zeros(lr.shape[0])
    sigma_key, half_key, noise_key = jax.random.split(key, 3)
    sigma = jax.random.uniform(sigma_key, (lr.shape[0],), maxval=max_sigma)
    sigma = jnp.where(jax.random.bernoulli(half_key, 0.5, (lr.shape[0],)), sigma, 0.0)
    noise = jax.random.normal(noise_key, lr.shape) / 127.5
    return lr + sigma[:, None, None, None] * noise, sigma


def upsample(lr: Images, hr_size: int) -> Float[Array, "b {hr_size} {hr_size} c"]:
    """The conditioning: LR enlarged to hr_size × hr_size by bicubic, in float, unclipped."""
    return resize(lr, hr_size, hr_size)
