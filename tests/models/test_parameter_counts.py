"""The four networks of the paper's table A.1, counted without allocating them."""

import math

import jax
import jax.numpy as jnp
import pytest

from sr3_jax.models import UNet


def millions(*inputs, **fields) -> float:
    shapes = jax.eval_shape(
        UNet(attention=(16,), out_channels=3, **fields).init, jax.random.key(0), *inputs
    )
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) / 1e6


@pytest.mark.parametrize(
    ("size", "channels", "multipliers", "blocks", "ours", "paper"),
    [
        (128, 128, (1, 2, 4, 8, 8), 3, 561.0, 550),
        (256, 128, (1, 2, 4, 4, 8, 8), 3, 617.0, 625),
        (512, 64, (1, 2, 4, 8, 8, 16, 16), 3, 610.0, 625),
        (1024, 16, (1, 2, 4, 8, 16, 32, 32, 32), 2, 149.0, 150),
    ],
)
def test_the_networks_of_table_a1_have_the_papers_size_within_2_5_percent(
    size, channels, multipliers, blocks, ours, paper
):
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    gamma = jax.ShapeDtypeStruct((1,), jnp.float32)
    count = millions(
        image, image, gamma, channels=channels, multipliers=multipliers, blocks=blocks, size=size
    )
    assert count == pytest.approx(ours, rel=2e-3)
    assert count == pytest.approx(paper, rel=2.5e-2)
