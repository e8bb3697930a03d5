"""Metrics of images against references, with one value for each image.

They take images of shape (n, h, w, c), uint8 or a luma of 0 to 255, and return values (n,).

PSNR and SSIM compare with the HR image. Consistency compares the down-sampled output with the LR
image that it came from: a super-resolution that contradicts its input is wrong whatever it looks
like (paper, table 1).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from sr3_jax.tasks.operations import resize

Batch = UInt8[np.ndarray, "n h w c"] | UInt8[Array, "n h w c"] | Float[np.ndarray, "n h w 1"]
LowResolution = UInt8[np.ndarray, "n l k c"] | UInt8[Array, "n l k c"]
PerImage = Float[np.ndarray, " n"]


def scores(images: Batch, references: Batch, lr: LowResolution | None) -> dict[str, PerImage]:
    """What training measures on held-out images: psnr in dB, ssim in [-1, 1], and `consistency`.

    The last one only with LR images.
    """
    found = {"psnr": psnr(images, references), "ssim": ssim(images, references)}
    return found if lr is None else found | consistency(images, lr)


def consistency(images: Batch, lr: LowResolution) -> dict[str, PerImage]:
    """The consistency mean squared error × 10⁵, as in the paper's table 1, and the same in dB."""
    mse = consistency_mse(images, lr)
    return {
        "consistency_mse_1e5": 1e5 * mse,
        "consistency_db": -10 * np.log10(np.maximum(mse, 1e-12)),
    }


def luma(images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n h w 1"]:
    """Y of ITU-R BT.601 in [16, 235], not rounded.

    Much of the field computes PSNR and SSIM of it, with 255 as the range all the same.
    """
    return 16 + np.asarray(images, np.float64) @ (np.array([[65.481], [128.553], [24.966]]) / 255)


def psnr(images: Batch, references: Batch) -> PerImage:
    """The peak signal-to-noise ratio in dB; at most 120, for equal images.

    It is -10 log10 of the mean squared error over all pixels and channels, of values in [0, 1].
    """
    error = (np.asarray(images, np.float64) - np.asarray(references, np.float64)) / 255
    return -10 * np.log10(np.maximum(np.square(error).mean((1, 2, 3)), 1e-12))


def psnr_within(
    images: Batch, references: Batch, within: Bool[np.ndarray, "n h w"]
) -> Float[np.ndarray, " n"]:
    """The PSNR in dB of some pixels of each image, those that are true in `within`."""
    error = (np.asarray(images, np.float64) - np.asarray(references, np.float64)) / 255
    squares = np.square(error).mean(-1)
    mean = (squares * within).sum((1, 2)) / within.sum((1, 2))
    return -10 * np.log10(np.maximum(mean, 1e-12))


def ssim(images: Batch, references: Batch) -> PerImage:
    """The structural similarity (Wang et al. 2004), a mean over the channels.

    The window is an 11×11 Gaussian of sigma 1.5. It equals scikit-image's with gaussian_weights and
    use_sample_covariance=False.

    Raises:
      ValueError: The images are smaller than 11×11.
    """
    if min(images.shape[1:3]) < 11:
        raise ValueError(
            f"SSIM needs images of at least 11×11, not {images.shape[2]}×{images.shape[1]}"
        )
    return np.asarray(_ssim(jnp.asarray(images), jnp.asarray(references)), np.float64)


def consistency_mse(images: Batch, lr: LowResolution) -> PerImage:
    """The mean squared error, of values in [0, 1], between LR image and down-sampled output.

    The output is down-sampled in float to the size of the LR image.
    """
    return np.asarray(_consistency_mse(jnp.asarray(images), jnp.asarray(lr)), np.float64)


@jax.jit
def _ssim(images: Array, references: Array) -> Array:
    # Values are centred at 0, because variances are differences of squares, and in float32 those of
    # small numbers keep more digits.
    x, y = (array.astype(jnp.float32) / 255 - 0.5 for array in (images, references))
    window = np.exp(-0.5 * np.square(np.arange(-5, 6) / 1.5)).astype(np.float32)
    window /= window.sum()

    def mean(z: Array) -> Array:
        """The weighted mean over each window that lies inside the image."""
        for axis in (1, 2):
            size = z.shape[axis] - 10
            z = functools.reduce(
                jnp.add,
                [w * jax.lax.slice_in_dim(z, i, i + size, axis=axis) for i, w in enumerate(window)],
            )
        return z

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + 0.5, mean_y + 0.5
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (numerator / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean((1, 2, 3))


@jax.jit
def _consistency_mse(images: Array, lr: Array) -> Array:
    down = resize(images.astype(jnp.float32) / 255, lr.shape[1], lr.shape[2])
    return jnp.square(down - lr.astype(jnp.float32) / 255).mean((1, 2, 3))
