"""A kernel distance of a few large pictures from others, by the features of many squares in each.

KID compares sets of images by one vector of features an image, and needs a thousand images or more.
Here a picture gives many vectors: VGG16 (as LPIPS takes it) runs over the whole picture, and its
features after relu4_3 are averaged over squares of 64×64 pixels, 16 pixels apart, at the same
places in every picture. So a square's features have seen what surrounds it, as those of a square
cut out would not: these would be of its new edges for the most part. Two such sets of vectors are
compared by the kernel distance of `distributions`.
"""

import itertools

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from sr3_jax.metrics import distributions, lpips
from sr3_jax.models import perceptual

SIDE, STEP = 64, 16  # pixels
LAYER, STRIDE, DIMENSIONS = 3, 8, 512  # relu4_3, counted from 0; pixels between its features
SUBSETS = 20  # of the kernel distance, each of 1,000 squares
FEWEST = 1000  # squares of a set: with fewer the distance is mostly noise
BATCH = 8  # images at once

Vectors = Float[np.ndarray, "_k 512"]


def squares(height: int, width: int) -> int:
    """How many squares there are in a picture."""
    rows, columns = (
        max(0, (side // STRIDE - SIDE // STRIDE) // (STEP // STRIDE) + 1)
        for side in (height, width)
    )
    return rows * columns


def features(images: UInt8[np.ndarray, "n h w c"]) -> Float[np.ndarray, "k 512"]:
    """The features of all squares of all images, image by image.

    Raises:
      UserError: The package that holds VGG16's weights is missing.
    """
    if not squares(*images.shape[1:3]):
        return np.zeros((0, DIMENSIONS), np.float32)
    trunk = lpips.load("vgg")["trunk"]
    parts = lpips.in_batches(images, BATCH)
    found = [np.asarray(_features(trunk, lpips.to_rgb(part))) for part in parts]
    return np.concatenate([part.reshape(-1, DIMENSIONS) for part in found])


def distance(ours: Vectors, theirs: Vectors) -> float:
    """The kernel distance of two sets of squares; lower is better.

    The squares of a method and of the references are of the same pictures, which makes it smaller
    than of independent sets: it compares methods on the same pictures, and equal sets are a little
    below 0.
    """
    return distributions.kid(ours, theirs, subsets=SUBSETS)[0]


@jax.jit
def _features(trunk: list, images: Array) -> Float[Array, "n rows columns 512"]:
    layers = perceptual.vgg(trunk, perceptual.normalized(images))
    found = next(itertools.islice(layers, LAYER, None))
    side, step = SIDE // STRIDE, STEP // STRIDE
    sums = jax.lax.reduce_window(
        found, 0.0, jax.lax.add, (1, side, side, 1), (1, step, step, 1), "valid"
    )
    return sums / side**2
