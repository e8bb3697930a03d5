"""How different several samples of one input are.

The paper says that SR3 drops modes, that is, leaves out some possible results; these numbers say
how much.

`samples` are (s, n, h, w, c) uint8: s samples of each of n images. If the samples were drawn from
the true posterior distribution, spread / error would be 1, and coverage (s - 1) / (s + 1): truth
and samples would be exchangeable, so that in 2 of s + 1 cases the true value of a pixel would be
the highest or the lowest of the s + 1 values. If either is less, the samples are overconfident.
"""

import itertools

import numpy as np
from jaxtyping import Float, UInt8

from sr3_jax.metrics.lpips import lpips

Samples = UInt8[np.ndarray, "s n h w c"]
PerImage = Float[np.ndarray, " n"]


def pairwise_lpips(samples: Samples, network: str = "vgg") -> PerImage:
    """The mean LPIPS of all pairs of samples by "vgg" or "alexnet"; 0 if all samples are equal."""
    pairs = itertools.combinations(samples, 2)
    return np.stack([lpips(a, b, network) for a, b in pairs]).astype(np.float64).mean(axis=0)


def deviation(samples: Samples) -> PerImage:
    """The standard deviation of a pixel over the samples, a mean over the image.

    It is in 8-bit levels.
    """
    return samples.astype(np.float64).std(axis=0, ddof=1).mean(axis=(1, 2, 3))


def spread_and_error(
    samples: Samples, references: UInt8[np.ndarray, "n h w c"]
) -> Float[np.ndarray, "n 2"]:
    """The squared spread of each image's samples, and the squared error of their mean.

    They are alike, in the mean over images, for samples of the posterior. The mean of s such
    samples has a squared error of (s + 1) / s of their variance, so the spread is corrected by that
    factor.
    """
    values, s = samples.astype(np.float64), len(samples)
    spread = values.var(axis=0, ddof=1).mean(axis=(1, 2, 3)) * (s + 1) / s
    error = np.square(values.mean(axis=0) - references).mean(axis=(1, 2, 3))
    return np.stack([spread, error], axis=-1)


def spread_to_error(squares: Float[np.ndarray, "n 2"]) -> float:
    """The spread divided by the error, both root mean squares over all images together.

    A mean of the images' own ratios would be that of an image whose mean happens to be exact.
    """
    spread, error = squares.sum(axis=0)
    return float(np.sqrt(spread / np.maximum(error, 1e-12)))


def coverage(samples: Samples, references: UInt8[np.ndarray, "n h w c"]) -> PerImage:
    """The share of pixels whose true value lies between the lowest and the highest sample.

    A true value that equals the lowest or the highest counts half.
    """
    low, high = samples.min(axis=0), samples.max(axis=0)
    inside = (low < references) & (references < high)
    at_an_end = ((low == references) | (references == high)) & ~inside
    return (inside + 0.5 * at_an_end).mean(axis=(1, 2, 3))
