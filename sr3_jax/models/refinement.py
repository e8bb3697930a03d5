"""Predict and refine: a network that guesses each pixel best, run once, and a smaller one that draws what the guess leaves out.

Deblurring via stochastic refinement (Whang et al. 2022, arXiv 2112.02475) for super-resolution.
What can be predicted is predicted once a picture, not once an evaluation, and all of the denoiser's
capacity goes into what cannot. The predictor also hands on features of the picture, so the denoiser
need not find them again in every evaluation (SRDiff, arXiv 2104.14951).

Both are residual networks of 3×3 convolutions on the LR grid, with a thin end at twice that grid
that sees the inputs once more, and without normalisation (EDSR, arXiv 1707.02921): statistics over
an image would depend on the tile that is seen.

What is left out is far from uniform: nothing in a sky, much in fur. v has no correlation with y_t
where y_0 has unit variance, but in a sky it is nearly a multiple of y_t, and to pass the noise of
every pixel through a trunk at the LR grid would take most of its channels. So the denoiser makes an
image and a gain: v = image + gain · G(gamma) · y_t. Where y_0 has standard deviation s, the best
linear estimate of v = √gamma ε - √(1 - gamma) y_0 is

    √(gamma (1 - gamma)) (1 - s²) / (gamma s² + 1 - gamma) · y_t,

and G is that of s = 0.1, about the flattest regions of photographs, but for (1 - s²): gains stay
within about ±1.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sr3_jax.models.blocks import (
    ZERO,
    Embedding,
    Signals,
    Told,
    conv,
    depth_to_space,
    embed_levels,
    space_to_depth,
)
from sr3_jax.models.platform import DType, Features

FINE = 2  # how much finer than the LR grid the thin end is
FLATTEST = 0.1  # standard deviation of y_0 in the flattest regions


class Block(nn.Module):
    """3×3, scaled and shifted by the embedding, SiLU, 3×3, added to the input."""

    channels: int
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Features, embedding: Embedding | None) -> Features:
        h = conv(x, self.channels, self.dtype, "conv_0")
        if embedding is not None:
            dense = nn.Dense(
                2 * self.channels, dtype=self.dtype, kernel_init=ZERO, name="embedding"
            )
            scale, shift = jnp.split(dense(nn.silu(embedding))[:, None, None, :], 2, axis=-1)
            h = h * (1 + scale) + shift
        return x + conv(nn.silu(h), self.channels, self.dtype, "conv_1", init=ZERO)


class Trunk(nn.Module):
    """Images (b, h, w, any channels) to (b, h, w, out_channels), computed on a grid that is `space_to_depth` times coarser."""

    channels: int
    blocks: int
    fine_channels: int
    fine_blocks: int
    out_channels: int  # of the image
    feature_channels: int = 0  # that are handed on beside it
    space_to_depth: int = 4
    gamma_embedding: str = "none"
    signals: Signals = ()
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Features,
        y_t: Features | None = None,
        gamma: Float[Array, " b"] | None = None,
        told: Told | None = None,
    ) -> Features:
        x = (
            x.astype(self.dtype)
            if y_t is None
            else jnp.concatenate([x, y_t], axis=-1).astype(self.dtype)
        )
        rest = self.space_to_depth // FINE
        seen_again = space_to_depth(x, rest)
        x = space_to_depth(x, self.space_to_depth)
        embedding = embed_levels(
            self.channels, self.gamma_embedding, self.signals, gamma, told, x.shape[0], self.dtype
        )
        x = conv(x, self.channels, self.dtype, "stem")
        for i in range(self.blocks):
            x = Block(self.channels, self.dtype, name=f"block_{i}")(x, embedding)
        fine = depth_to_space(conv(x, self.fine_channels * FINE**2, self.dtype, "fine"), FINE)
        fine = conv(
            jnp.concatenate([fine, seen_again], axis=-1),
            self.fine_channels,
            self.dtype,
            "fine_stem",
        )
        for i in range(self.fine_blocks):
            fine = Block(self.fine_channels, self.dtype, name=f"fine_block_{i}")(fine, embedding)
        # the last convolution in float32: its output is an image
        channels = self.out_channels * (1 if y_t is None else 2)
        image = conv(
            nn.silu(fine).astype(jnp.float32), channels * rest**2, jnp.float32, "out", init=ZERO
        )
        image = depth_to_space(image, rest)
        if y_t is not None:
            assert gamma is not None
            image, gain = jnp.split(image, 2, axis=-1)
            flat = jnp.sqrt(gamma * (1 - gamma)) / (gamma * FLATTEST**2 + 1 - gamma)
            image = image + gain * flat[:, None, None, None] * y_t
        if not self.feature_channels:
            return image
        features = conv(
            nn.silu(x),
            self.feature_channels * self.space_to_depth**2,
            self.dtype,
            "features",
            size=1,
        )
        features = depth_to_space(features, self.space_to_depth).astype(jnp.float32)
        return jnp.concatenate([image, features], axis=-1)


class PredictAndRefine(nn.Module):
    """Both networks; `predictor` and `denoiser` are a Trunk's fields.

    A regression is the predictor alone.
    """

    predictor: Mapping[str, Any]
    denoiser: Mapping[str, Any] | None
    signals: Signals = ()
    dtype: DType = jnp.float32

    def setup(self) -> None:
        self._predictor = Trunk(
            **self.predictor, signals=self.signals, dtype=self.dtype, name="predictor"
        )
        if self.denoiser is not None:
            self._denoiser = Trunk(
                **self.denoiser, signals=self.signals, dtype=self.dtype, name="denoiser"
            )

    def predict(self, upsampled: Features, told: Told | None = None) -> Features:
        """The guess of y_0, relative to the upsampled LR image, and the features that are handed on."""
        return self._predictor(upsampled, told=told)

    def __call__(
        self,
        condition: Features,
        y_t: Features | None = None,
        gamma: Float[Array, " b"] | None = None,
        train: bool = False,
        told: Told | None = None,
    ) -> Features:
        """The denoiser's output for a condition made from `predict`; of a regression, the guess for the upsampled LR image."""
        if y_t is None:
            return self.predict(condition, told)[..., : self.predictor["out_channels"]]
        return self._denoiser(condition, y_t, gamma, told)

    def both(
        self,
        upsampled: Features,
        y_t: Features,
        gamma: Float[Array, " b"],
        told: Told | None = None,
    ) -> Features:
        """One after the other, for `init`."""
        return self(self.predict(upsampled, told), y_t, gamma, told=told)
