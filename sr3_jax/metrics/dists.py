"""DISTS (Ding et al. 2020, arXiv 2004.07728): how unlike two images are in structure and texture.

It compares the mean and the covariance of every channel of the image itself and of five layers of
VGG16, so that another sample of the same texture counts as near. VGG16's weights are those that
`lpips` reads. The weights of the channels are a file in the package DISTS-pytorch, which would
bring PyTorch with it; it is only read, so it is installed without what it depends on.
"""

import functools
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sr3_jax.checkpoints import torch_files
from sr3_jax.errors import UserError
from sr3_jax.metrics import lpips
from sr3_jax.models import perceptual

INSTALL = "pip install --no-deps DISTS-pytorch"
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of images in [0, 1]
CHANNELS = (3, 64, 128, 256, 512, 512)  # of the image and of the layers
C1, C2 = 1e-6, 1e-6  # of equations 5 and 6
BATCH = 8  # images at once

Images = np.ndarray | Array
Weights = list[Float[Array, "_c"]]  # one array for each of CHANNELS


def dists(images: Images, references: Images) -> Float[np.ndarray, " n"]:
    """The distance between the two images of each of n pairs; 0 for equal images, lower is better.

    Args:
      images: (n, h, w, 1 or 3), uint8 or float in [-1, 1].
      references: Likewise.

    Raises:
      UserError: A package that holds the weights is missing.
    """
    trunk, (alpha, beta) = lpips.load("vgg")["trunk"], load()
    batches = (lpips.in_batches(each, BATCH) for each in (images, references))
    pairs = (map(lpips.to_rgb, pair) for pair in zip(*batches, strict=True))
    return np.concatenate([np.asarray(_distance(trunk, alpha, beta, x, y)) for x, y in pairs])


def find_file() -> Path | None:
    """The package's file of weights; None if the package is not installed."""
    package = find_spec("DISTS_pytorch")
    return Path(package.origin).parent / "weights.pt" if package and package.origin else None


@functools.cache
def load() -> tuple[Weights, Weights]:
    """Alpha and beta, the weights of the means and of the covariances; their sum is 1.

    Raises:
      UserError: The file is missing or is not of DISTS.
    """
    path = find_file()
    if path is None:
        raise UserError(
            f"DISTS needs the package DISTS-pytorch, which holds its weights; run: {INSTALL}"
        )
    shape: tuple[int, ...] = (1, sum(CHANNELS), 1, 1)
    shapes = {"alpha": shape, "beta": shape}
    found = torch_files.require(torch_files.load(path), shapes, path, "DISTS")
    total = sum(float(array.sum(dtype=np.float64)) for array in found.values())
    borders = np.cumsum(CHANNELS)[:-1]
    alpha, beta = (
        [jnp.asarray(part) for part in np.split(found[name].ravel() / total, borders)]
        for name in shapes
    )
    return alpha, beta


@jax.jit
def _distance(trunk: list, alpha: Weights, beta: Weights, a: Array, b: Array) -> Array:
    likeness = jnp.zeros(len(a))
    layers = zip(alpha, beta, _features(trunk, a), _features(trunk, b), strict=True)
    for weight_mean, weight_covariance, x, y in layers:
        mean_x, mean_y = (z.mean((1, 2), keepdims=True) for z in (x, y))
        var_x, var_y = jnp.square(x - mean_x).mean((1, 2)), jnp.square(y - mean_y).mean((1, 2))
        covariance = ((x - mean_x) * (y - mean_y)).mean((1, 2))
        mean_x, mean_y = mean_x[:, 0, 0], mean_y[:, 0, 0]
        texture = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)  # equation 5
        structure = (2 * covariance + C2) / (var_x + var_y + C2)  # equation 6
        likeness += (weight_mean[None] * texture + weight_covariance[None] * structure).sum(1)
    return 1 - likeness  # equation 7


def _features(trunk: list, images: Array) -> list[Array]:
    """The image in [0, 1], and VGG16's features of it."""
    x = images / 2 + 0.5
    mean, deviation = (jnp.asarray(values)[None, None, None] for values in (MEAN, DEVIATION))
    return [x, *perceptual.vgg(trunk, (x - mean) / deviation, _pool)]


def _pool(x: Array) -> Array:
    """Halves the size by a root of means of squares under a Hanning window, without aliasing."""
    squares = jnp.square(x)
    for axis in (1, 2):
        sides = [(1, 1) if axis == other else (0, 0) for other in range(4)]
        padded, last = jnp.pad(squares, sides), squares.shape[axis]
        before, here, after = (
            jax.lax.slice_in_dim(padded, start, start + last, stride=2, axis=axis)
            for start in range(3)
        )
        squares = (before + 2 * here + after) / 4
    return jnp.sqrt(squares + 1e-12)
