"""A discriminator: which images are photographs, and which were made by a network.

It sees an image as a fixed classifier does: small heads, which learn, on features of VGG16, which
do not (Projected GANs, arXiv 2111.01007; for students of diffusion models arXiv 2311.17042). The
perceptual loss needs those features anyway, and a discriminator that need not learn to see first
is of use after some hundred steps.
"""

from collections.abc import Sequence
from typing import cast

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sr3_jax.models.blocks import conv

Logits = list[Float[Array, "b _h _w"]]  # for each feature map, above 0: a photograph


class Discriminator(nn.Module):
    """A head for each feature map: a patch's logit from 5×5 of its pixels."""

    channels: int = 64

    @nn.compact
    def __call__(self, features: Sequence[Float[Array, "b _h _w _c"]]) -> Logits:
        """Judges a batch.

        Args:
          features: of `models.perceptual.features`, vectors of length 1.
        """
        logits = []
        for i, x in enumerate(features):
            # of unit variance, about, since the layers' initial weights expect that
            x = x * x.shape[-1] ** 0.5
            x = nn.leaky_relu(conv(x, self.channels, jnp.float32, f"head_{i}_in", size=1), 0.2)
            x = nn.leaky_relu(conv(x, self.channels, jnp.float32, f"head_{i}_middle"), 0.2)
            logits.append(conv(x, 1, jnp.float32, f"head_{i}_out")[..., 0])
        return logits


def logits_of(params: PyTree, features: Sequence[Float[Array, "b _h _w _c"]]) -> Logits:
    """The logits of images with given features; see `Discriminator`."""
    return cast(Logits, Discriminator().apply({"params": params}, features))


def looks_real(logits: Logits) -> Float[Array, " b"]:
    """How real each image looks, the mean of its logits: what a network is to raise."""
    return sum(map(_mean, logits), jnp.zeros(len(logits[0]))) / len(logits)


def hinge(real: Logits, made: Logits) -> Float[Array, " b"]:
    """The discriminator's own loss: logits of photographs above 1, of made images below -1."""
    pairs = zip(real, made, strict=True)
    lacking = [_mean(nn.relu(1 - a)) + _mean(nn.relu(1 + b)) for a, b in pairs]
    return sum(lacking, jnp.zeros(len(real[0]))) / len(real)


def _mean(values: Float[Array, "b _h _w"]) -> Float[Array, " b"]:
    return values.mean((1, 2))
