"""The networks. Only this package imports Flax; the others use their `init` and `apply`."""

from typing import Any

import jax.numpy as jnp

from sr3_jax.models.blocks import Signals, Told
from sr3_jax.models.refinement import PredictAndRefine
from sr3_jax.models.unet import UNet

__all__ = ["Told", "build_model"]


def build_model(
    model: Any,
    size: int,
    regression: bool = False,
    signals: Signals = (),
    levels: tuple[float, ...] = (),
) -> UNet | PredictAndRefine:
    """The network of a config's `model` section.

    Args:
      model: that section.
      size: height and width of the training images.
      regression: whether it is a network without a noise level.
      signals: what it is told beside the noise level.
      levels: the log-SNRs of the training schedule, for networks that are told their numbers.
    """
    if model.kind == "refine":
        shared = {
            "out_channels": model.image_channels,
            "space_to_depth": model.space_to_depth,
            "fine_channels": model.fine_channels,
            "fine_blocks": model.fine_blocks,
        }
        predictor = shared | {
            "channels": model.predictor_channels,
            "blocks": model.predictor_blocks,
            "feature_channels": model.feature_channels,
        }
        denoiser = shared | {
            "channels": model.channels,
            "blocks": model.blocks,
            "gamma_embedding": model.gamma_embedding,
        }
        return PredictAndRefine(
            predictor, None if regression else denoiser, signals, jnp.dtype(model.dtype)
        )
    return UNet(
        channels=model.channels,
        multipliers=tuple(model.multipliers),
        blocks=model.blocks,
        attention=tuple(model.attention),
        middle_attention=model.middle_attention,
        out_channels=model.image_channels * (2 if model.learned_variance else 1),
        size=size,
        signals=signals,
        gamma_embedding="none" if regression else model.gamma_embedding,
        embedding_channels=model.embedding_channels,
        embedding_width=model.embedding_width,
        timesteps=levels if model.gamma_embedding == "timestep" else (),
        gamma_injection=model.gamma_injection,
        resample=model.resample,
        rescale_skip=model.rescale_skip,
        dropout=model.dropout,
        head_channels=model.head_channels,
        heads=model.heads,
        groups=model.groups,
        embedding_silu=model.embedding_silu,
        space_to_depth=model.space_to_depth,
        remat=tuple(model.remat),
        dtype=jnp.dtype(model.dtype),
    )
