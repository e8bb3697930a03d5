"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598): away from the class unknown.

With D(y) the estimate of y_0 without the class and D(y, c) that with it, the sampler is given

    (1)  D(y) + w · (D(y, c) - D(y))

w = 1 is no guidance, w = 0 ignores the class, and above 1 images become more typical of their class
and less diverse. (In the paper w counts from 0: it is w - 1 here.) The noise estimate and v are
linear in y_0 at a given y_t, so the same holds for them. Guidance at all noise levels costs
diversity; between two log-SNRs it costs less (Kynkäänniemi et al. 2024, arXiv 2404.07724), and
where it is off, only one of the two estimates is needed.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from sr3_jax.diffusion.types import Denoiser, Images

Scalar = Float[Array, ""] | Float[np.ndarray, ""] | float


class Guidance(NamedTuple):
    """How strong guidance is, and where; a pytree, so that no choice needs another program."""

    weight: Scalar = 1.0
    low: Scalar = -math.inf  # the log-SNRs between which there is guidance
    high: Scalar = math.inf


def combine(with_class: Images, without: Images, weight: Scalar) -> Images:
    """Eq. (1)."""
    return without + weight * (with_class - without)


def guided(
    both: Callable[[PyTree, Array, Array], tuple[Array, Array]],
    alone: Denoiser,
    guidance: Guidance,
) -> Denoiser:
    """The denoiser with guidance.

    Args:
      both: (condition, y_t, gamma) -> the estimates of y_0 with the class and without.
      alone: the same, but only the estimate with the class.
      guidance: its weight and where it is; within a batch, gamma must be the same for all images.
    """

    def denoise(condition: PyTree, y_t: Array, gamma: Array) -> Array:
        log_snr = jnp.log(gamma[0]) - jnp.log1p(-gamma[0])
        inside = (guidance.low <= log_snr) & (log_snr <= guidance.high)
        return jax.lax.cond(
            inside,
            lambda: combine(*both(condition, y_t, gamma), guidance.weight),
            lambda: alone(condition, y_t, gamma),
        )

    return denoise
