"""Tiny networks with random weights, made once."""

import pytest

from sr3_jax.inference.upscaler import Upscaler
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def grey() -> Upscaler:
    return Upscaler(tiny_checkpoint(), batch_size=4)


@pytest.fixture(scope="session")
def colour() -> Upscaler:
    return Upscaler(tiny_checkpoint(channels=3), batch_size=1)


@pytest.fixture(scope="session")
def regression() -> Upscaler:
    return Upscaler(tiny_checkpoint(objective="regression"), batch_size=1)
