"""Tiny networks with random weights, made once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax import config as config_lib
from sr3_jax.checkpoints import Checkpoint
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.method import Method


def tiny_checkpoint(channels: int = 1, objective: str = "sr3") -> Checkpoint:
    """8×8 to 16×16; random weights everywhere: a new network's output layer is zero."""
    config = config_lib.base()
    config.objective = objective
    config.data.hr_size, config.data.lr_size = 16, 8
    model = config.model
    model.channels, model.multipliers, model.blocks, model.attention, model.dropout = 8, (1,), 1, (), 0.0
    model.image_channels, model.space_to_depth = channels, 2
    model.predict, model.predict_residual, model.residual_scale = "v", True, 0.1
    config.sample.steps, config.sample.schedule = 2, "log_snr"
    config_lib.validate(config)
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(Method(config).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), jnp.float32), shapes)
    return Checkpoint(config, params, 7, "tiny")


@pytest.fixture(scope="session")
def grey() -> Upscaler:
    return Upscaler(tiny_checkpoint(), batch_size=4)


@pytest.fixture(scope="session")
def colour() -> Upscaler:
    return Upscaler(tiny_checkpoint(channels=3), batch_size=1)


@pytest.fixture(scope="session")
def regression() -> Upscaler:
    return Upscaler(tiny_checkpoint(objective="regression"), batch_size=1)
