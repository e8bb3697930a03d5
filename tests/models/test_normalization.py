"""GroupNorm with SiLU: Flax's function and gradients, in both of its forms."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.models import normalization
from sr3_jax.models.normalization import GroupNorm, group_norm

pytestmark = pytest.mark.fast


def drawn(*shape, offset=0.0):
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape) + offset, jnp.float32)


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("form", [group_norm, normalization._value, normalization._with_gradient])
def test_value_and_gradients_are_those_of_flax(form, silu):
    x, scale, bias, dy = drawn(2, 4, 6, 24, offset=3.0), drawn(24), drawn(24), drawn(2, 4, 6, 24)
    norm = nn.GroupNorm(num_groups=6, epsilon=1e-5)

    def reference(x, scale, bias):
        y = norm.apply({"params": {"scale": scale, "bias": bias}}, x)
        return nn.silu(y) if silu else y

    with jax.numpy_rank_promotion("allow"):
        expected, pullback = jax.vjp(reference, x, scale, bias)
        gradients = pullback(dy)
    value, ours = jax.vjp(lambda *args: form(*args, 6, silu), x, scale, bias)
    np.testing.assert_allclose(value, expected, atol=2e-5)
    for gradient, wanted in zip(ours(dy), gradients, strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("form", [normalization._value, normalization._with_gradient])
def test_a_mean_that_is_large_beside_the_deviation_costs_no_digits(form):
    """E[x²] - E[x]² in float32 would have none left."""
    x = drawn(2, 8, 8, 8, offset=3000.0)
    wide = np.asarray(x, np.float64).reshape(2, 64, 2, 4)
    expected = (wide - wide.mean((1, 3), keepdims=True)) / np.sqrt(
        wide.var((1, 3), keepdims=True) + 1e-5
    )
    found = form(x, jnp.ones(8), jnp.zeros(8), 2, False)
    np.testing.assert_allclose(found, expected.reshape(x.shape), atol=2e-3)


def test_the_gradient_of_its_own_is_for_the_cpu_alone():
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 4, 4, 8), (8,), (8,))]
    program = jax.jit(jax.grad(lambda *args: group_norm(*args, 2, True).sum())).trace(*arguments)
    default = jax.jit(jax.grad(lambda *args: normalization._value(*args, 2, True).sum())).trace(
        *arguments
    )
    texts = {
        name: program.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "tpu", "cuda")
    }
    count = {name: text.count("stablehlo.multiply") for name, text in texts.items()}
    assert (
        count["tpu"]
        == count["cuda"]
        == default.lower(lowering_platforms=("tpu",)).as_text().count("stablehlo.multiply")
    )
    assert count["cpu"] != count["tpu"]


@pytest.mark.parametrize(("channels", "groups"), [(32, 8), (128, 32), (512, 32), (6, 1), (96, 24)])
def test_at_most_32_groups_of_at_least_4_channels(channels, groups, monkeypatch):
    seen = []
    monkeypatch.setattr(
        normalization, "group_norm", lambda x, scale, bias, groups, silu: seen.append(groups) or x
    )
    jax.eval_shape(
        functools.partial(GroupNorm(jnp.float32).init, jax.random.key(0)),
        jnp.zeros((1, 2, 2, channels)),
    )
    assert seen == [groups]


def test_bfloat16_in_and_out_with_statistics_in_float32():
    x = drawn(1, 16, 16, 8, offset=100.0)
    exact = group_norm(
        x.astype(jnp.bfloat16).astype(jnp.float32), jnp.ones(8), jnp.zeros(8), 2, False
    )
    rounded = group_norm(x.astype(jnp.bfloat16), jnp.ones(8), jnp.zeros(8), 2, False)
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.astype(jnp.float32), exact, rtol=2**-7, atol=1e-3)
