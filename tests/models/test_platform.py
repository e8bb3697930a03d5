"""Every form of a function is the same function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.models import platform

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("default", "tpu"),
    [
        (platform._downsample, platform._downsample_matrix),
        (platform._upsample, platform._upsample_matrix),
    ],
)
def test_the_tpu_resamples_as_all_others_do(default, tpu):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 4, 6, 3)), jnp.float32)
    (value, pullback), (tpu_value, tpu_pullback) = jax.vjp(default, x), jax.vjp(tpu, x)
    np.testing.assert_allclose(tpu_value, value, rtol=1e-6, atol=1e-6)
    gradient = jnp.asarray(rng.normal(size=value.shape), jnp.float32)
    np.testing.assert_allclose(
        tpu_pullback(gradient)[0], pullback(gradient)[0], rtol=1e-5, atol=1e-5
    )


def test_the_platform_is_chosen_when_the_program_is_compiled():
    x = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32)
    program = jax.jit(platform.upsample).trace(x)
    for name, expected in (("cpu", False), ("tpu", True)):
        text = program.lower(lowering_platforms=(name,)).as_text()
        assert ("stablehlo.convolution" in text) == expected
