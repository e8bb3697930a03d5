"""Noise-conditioning augmentation (Ho et al., arXiv 2106.15282; SR3+, arXiv 2302.07864).

Noise is added to the LR image before the network sees it, and the network is told how much. In
training the level is drawn at random. In use it is a choice: what the noise hides, such as traces
of compression, is drawn anew and not enlarged, so a higher level means more invented detail. It is
not a corruption: whatever level is asked for, the program adds that noise itself.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from sr3_jax.tasks.task import Given, Signal

SIGNAL = Signal(
    "augment",
    "noise added before the network looks, for more invented detail (8-bit levels)",
    128.0,
    removed=False,
)


def augment(images: Any, level: Any, noise: Any) -> Any:
    """LR images (b, h, w, c) with noise of `level` 8-bit levels for each, (b,).

    `noise` is standard normal, of their shape. All are arrays of JAX or of NumPy.
    """
    return images + level[:, None, None, None] / 127.5 * noise


def augmented(given: Given, high: float, key: Key[Array, ""]) -> Given:
    """A training batch with noise of levels from [0, high], for half of the images.

    Weak noise is more likely: the square of what is drawn evenly. With high = 0, task.augment of a
    network without augmentation, the batch stays as it is.
    """
    if not high:
        return given
    level_key, half_key, noise_key = jax.random.split(key, 3)
    b = len(given.image)
    level = high * jnp.square(jax.random.uniform(level_key, (b,)))
    level = jnp.where(jax.random.bernoulli(half_key, 0.5, (b,)), level, 0.0)
    noise = jax.random.normal(noise_key, given.image.shape)
    return Given(augment(given.image, level, noise), {**given.signals, SIGNAL.name: level})
