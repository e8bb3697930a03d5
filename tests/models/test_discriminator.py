"""The discriminator: heads on the features of a fixed network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.models import discriminator
from sr3_jax.objectives.distillation import init_discriminator


def features(seed, offset=0.0):
    rng = np.random.default_rng(seed)
    maps = (rng.normal(offset, 1, (6, size, size, width)) for size, width in SIZES)
    return [jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32) for x in maps]


SIZES = ((16, 64), (8, 128), (4, 256), (2, 512), (1, 512))  # of VGG16, at 16 pixels


@pytest.fixture(scope="module")
def params():
    return init_discriminator(16, jax.random.key(0))


def test_there_is_a_logit_for_every_place_in_every_feature_map(params):
    logits = discriminator.logits_of(params, features(0))
    assert [x.shape for x in logits] == [(6, size, size) for size, _ in SIZES]


def test_the_hinge_is_two_where_all_logits_are_zero_and_none_where_both_sides_are_sure(params):
    zero = [jnp.zeros((3, 2, 2))] * 2
    np.testing.assert_allclose(discriminator.hinge(zero, zero), 2.0)
    sure, wrong = [jnp.full((3, 2, 2), 1.5)] * 2, [jnp.full((3, 2, 2), -1.5)] * 2
    np.testing.assert_allclose(discriminator.hinge(sure, wrong), 0.0)
    np.testing.assert_allclose(discriminator.hinge(wrong, sure), 5.0)
    np.testing.assert_allclose(discriminator.looks_real(wrong), -1.5)


def test_it_learns_to_tell_two_kinds_apart(params):
    real, made = features(1, 0.3), features(2)

    @jax.jit
    def step(params):
        loss, gradient = jax.value_and_grad(
            lambda p: discriminator.hinge(
                discriminator.logits_of(p, real), discriminator.logits_of(p, made)
            ).mean()
        )(params)
        return jax.tree.map(lambda p, g: p - 0.03 * g, params, gradient), loss

    for _ in range(100):
        params, loss = step(params)
    assert loss < 0.5
    photographs, others = (
        discriminator.looks_real(discriminator.logits_of(params, features(3, x))) for x in (0.3, 0)
    )
    assert photographs.min() > others.max()
