"""The types of arrays in the diffusion core.

Images are NHWC, float32, in [-1, 1]; residuals have about the same range.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Key, PyTree

Images = Float[Array, "b h w c"]
Levels = Float[Array, " b"]  # one noise level gamma per image, in (0, 1]
Keys = Key[Array, " b"]  # one random key per image

# (condition, y_t, gamma) -> y_0: all that this package knows of a network, whatever the network
# itself predicts. Further channels say where a learned variance lies (samplers.ancestral).
Denoiser = Callable[[PyTree, jax.Array, jax.Array], jax.Array]


def per_image(values: Array, images: Array) -> Array:
    """Reshapes `values`, of shape (b,), so that they broadcast over `images`, of shape (b, ...)."""
    return values.reshape(values.shape + (1,) * (images.ndim - values.ndim))
