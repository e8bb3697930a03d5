"""How different several samples of one input are: the paper says that SR3 drops modes, and these numbers say how much.

`samples` are (s, n, h, w, c) uint8: s samples of each of n images. A sampler of the true posterior
has a spread / error of 1, and a coverage of (s - 1) / (s + 1): truth and samples are then
exchangeable, so that truth is the highest or the lowest of the s + 1 values of a pixel in 2 of s +
1 cases. Less of either is overconfidence.
"""

import itertools

import numpy as np
from jaxtyping import Float, UInt8

from sr3_jax.metrics.lpips import lpips

Samples = UInt8[np.ndarray, "s n h w c"]
PerImage = Float[np.ndarray, " n"]


def pairwise_lpips(samples: Samples, network: str = "vgg") -> PerImage:
    """The mean LPIPS of all pairs of samples; 0 if they are all alike."""
    pairs = itertools.combinations(samples, 2)
    return np.stack([lpips(a, b, network) for a, b in pairs]).astype(np.float64).mean(axis=0)


def deviation(samples: Samples) -> PerImage:
    """The standard deviation of a pixel over the samples, in 8-bit levels, averaged over the image."""
    return samples.astype(np.float64).std(axis=0, ddof=1).mean(axis=(1, 2, 3))


def spread_to_error(samples: Samples, references: UInt8[np.ndarray, "n h w c"]) -> PerImage:
    """The spread of the samples over the error of their mean, both root mean squares; 1 for samples of the posterior.

    The error of a mean of s such samples has (s + 1) / s of their variance.
    """
    values, s = samples.astype(np.float64), len(samples)
    spread = values.var(axis=0, ddof=1).mean(axis=(1, 2, 3)) * (s + 1) / s
    error = np.square(values.mean(axis=0) - references).mean(axis=(1, 2, 3))
    return np.sqrt(spread / np.maximum(error, 1e-12))


def coverage(samples: Samples, references: UInt8[np.ndarray, "n h w c"]) -> PerImage:
    """The share of pixels whose true value lies between the lowest and the highest sample; an end itself counts half."""
    low, high = samples.min(axis=0), samples.max(axis=0)
    inside = (low < references) & (references < high)
    at_an_end = ((low == references) | (references == high)) & ~inside
    return (inside + 0.5 * at_an_end).mean(axis=(1, 2, 3))
