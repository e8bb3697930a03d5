"""JPEG compression.

The strength is 100 minus the quality, so that 0 stands for no compression, as with all signals.
Half of the images have their chroma at half the resolution (4:2:0), the others whole (4:4:4).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from sr3_jax.tasks.corruptions.corruption import Corruption, Strength
from sr3_jax.tasks.jpeg import jpeg
from sr3_jax.tasks.task import Images, Signal


def apply(images: Images, strength: Strength, key: Key[Array, ""]) -> Images:
    """Compresses each image by its own strength; 0 changes nothing."""
    subsample = jax.random.bernoulli(key, 0.5, (len(images),))
    compressed = jpeg(images, 100 - strength, subsample)
    return jnp.where((strength > 0)[:, None, None, None], compressed, images)


# Scale 1/4: qualities of 30 and less are as strong as a large blur or noise, and not five times so
CORRUPTION = Corruption(
    Signal("jpeg", "JPEG compression (100 - quality)", 99.0, scale=0.25), apply, told=True
)
