"""Gaussian noise.

A network that is told how strong it is can distinguish noise from texture (SR3+, arXiv 2302.07864).
"""

import jax
from jaxtyping import Array, Key

from sr3_jax.tasks.corruptions.corruption import Corruption, Strength
from sr3_jax.tasks.task import Images, Signal


def apply(images: Images, sigma: Strength, key: Key[Array, ""]) -> Images:
    """Adds independent noise to every value; sigma, one per image, is in 8-bit levels."""
    noise = jax.random.normal(key, images.shape) / 127.5
    return images + sigma[:, None, None, None] * noise


CORRUPTION = Corruption(
    Signal("noise", "Gaussian noise (standard deviation, 8-bit levels)", 128.0), apply, told=True
)
