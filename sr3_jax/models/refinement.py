"""Predict and refine: a predictor guesses the HR image, and a denoiser adds what the guess lacks.

The predictor runs once per picture, without noise, and is trained with the mean squared error. The
denoiser is smaller, and samples what the guess leaves out. This is "Deblurring via stochastic
refinement" (Whang et al. 2022, arXiv 2112.02475) for super-resolution. What can be predicted is
predicted once per picture, not in every evaluation, and all of the denoiser's capacity goes into
what cannot. The predictor also hands on features of the picture, so the denoiser need not find them
again in every evaluation (SRDiff, arXiv 2104.14951).

Both are residual networks of 3×3 convolutions on the LR grid. Their last part, of few channels, is
on a grid twice as fine, and sees the inputs once more. They have no normalisation (EDSR, arXiv
1707.02921), since statistics over an image would depend on the tile that the network sees.

What the guess leaves out differs much between regions: nothing in a sky, much in fur. The
denoiser's output is v. Where y_0 has unit variance, v is not correlated with y_t; but in a sky it
is nearly a multiple of y_t. To pass the noise of every pixel through the blocks at the LR grid
would take most of their channels. So the denoiser's output is made from an image and a gain:
v = image + gain · G(gamma) · y_t. Where y_0 has standard deviation s, the best linear estimate of
v = √gamma ε - √(1 - gamma) y_0 is

    √(gamma (1 - gamma)) (1 - s²) / (gamma s² + 1 - gamma) · y_t.

G is the factor of y_t here, without (1 - s²), for s = 0.1, about that of the flattest regions of
photographs; so gains stay within about ±1.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sr3_jax.models.blocks import (
    ZERO,
    Embedding,
    EmbeddingSpec,
    Signals,
    Values,
    conv,
    depth_to_space,
    embed_levels,
    space_to_depth,
)
from sr3_jax.models.platform import DType, Features

FINE = 2  # how much finer than the LR grid the last part's grid is
FLATTEST = 0.1  # standard deviation of y_0 in the flattest regions


class Block(nn.Module):
    """A residual block: 3×3, scaled and shifted by the embedding, SiLU, 3×3, + input."""

    channels: int
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Features, embedding: Embedding | None) -> Features:
        """Applies the block."""
        h = conv(x, self.channels, self.dtype, "conv_0")
        if embedding is not None:
            dense = nn.Dense(
                2 * self.channels, dtype=self.dtype, kernel_init=ZERO, name="embedding"
            )
            scale, shift = jnp.split(dense(nn.silu(embedding))[:, None, None, :], 2, axis=-1)
            h = h * (1 + scale) + shift
        return x + conv(nn.silu(h), self.channels, self.dtype, "conv_1", init=ZERO)


class Trunk(nn.Module):
    """The network that predictor and denoiser both are.

    It computes on a grid that is `space_to_depth` times coarser than its input and output.
    """

    channels: int
    blocks: int
    fine_channels: int  # of the last part, on the finer grid
    fine_blocks: int
    out_channels: int  # of the image
    feature_channels: int = 0  # of the features, which follow the image in the output
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
        told: Values | None = None,
    ) -> Features:
        """An image (b, h, w, out_channels), followed by the features if there are any.

        Args:
          x: what the network is conditioned on, (b, h, w, any number of channels).
          y_t: the noisy image; None in the predictor.
          gamma: its noise level; None in the predictor.
          told: the signals' values, by name; None: all are 0.
        """
        x = (x if y_t is None else jnp.concatenate([x, y_t], axis=-1)).astype(self.dtype)
        rest = self.space_to_depth // FINE
        seen_again, x = space_to_depth(x, rest), space_to_depth(x, self.space_to_depth)
        spec = EmbeddingSpec(self.gamma_embedding, self.channels, 4 * self.channels)
        embedding = embed_levels(spec, self.signals, gamma, told, x.shape[0], self.dtype)
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
    """Both networks, predictor and denoiser."""

    predictor: Mapping[str, Any]  # fields of its Trunk
    denoiser: Mapping[str, Any] | None  # the same; None: regression, which is the predictor alone
    signals: Signals = ()
    dtype: DType = jnp.float32

    def setup(self) -> None:
        """Makes the two networks; called by Flax."""
        self._predictor = Trunk(
            **self.predictor, signals=self.signals, dtype=self.dtype, name="predictor"
        )
        if self.denoiser is not None:
            self._denoiser = Trunk(
                **self.denoiser, signals=self.signals, dtype=self.dtype, name="denoiser"
            )

    def predict(self, upsampled: Features, told: Values | None = None) -> Features:
        """The guess of y_0, relative to the upsampled LR image, followed by the features."""
        return self._predictor(upsampled, told=told)

    def __call__(
        self,
        condition: Features,
        y_t: Features | None = None,
        gamma: Float[Array, " b"] | None = None,
        train: bool = False,
        told: Values | None = None,
    ) -> Features:
        """The denoiser's output; without `y_t`, the predictor's guess (regression).

        Args:
          condition: made from `predict`; in regression, the upsampled LR image.
          y_t: the noisy image.
          gamma: its noise level.
          train: not used, as there is no dropout.
          told: the signals' values, by name; None: all are 0.
        """
        if y_t is None:
            return self.predict(condition, told)[..., : self.predictor["out_channels"]]
        return self._denoiser(condition, y_t, gamma, told)

    def both(
        self,
        upsampled: Features,
        y_t: Features,
        gamma: Float[Array, " b"],
        told: Values | None = None,
    ) -> Features:
        """Both networks one after the other, so that `init` makes the parameters of both."""
        return self(self.predict(upsampled, told), y_t, gamma, told=told)
