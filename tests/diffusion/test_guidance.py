"""Classifier-free guidance, on a mixture of Gaussians whose denoiser is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.diffusion import guidance, samplers, schedules
from sr3_jax.diffusion.guidance import Guidance

# Two classes, each a Gaussian: y_0 ~ N(MEANS[c], SPREAD²), both equally likely
MEANS, SPREAD = jnp.array([-0.6, 0.6]), 0.2
LABEL = 1


def conditional(label):
    """E[y_0 | y_t, class], exact."""

    def denoise(condition, y_t, gamma):
        gamma = gamma[:, None, None, None]
        variance = gamma * SPREAD**2 + 1 - gamma
        return MEANS[label] + jnp.sqrt(gamma) * SPREAD**2 / variance * (
            y_t - jnp.sqrt(gamma) * MEANS[label]
        )

    return denoise


def unconditional(condition, y_t, gamma):
    """E[y_0 | y_t], exact: the classes' estimates, weighted by how likely they are given y_t."""
    level = gamma[:, None, None, None]
    variance = level * SPREAD**2 + 1 - level
    scores = [-0.5 * jnp.square(y_t - jnp.sqrt(level) * mean) / variance for mean in MEANS]
    weights = jax.nn.softmax(jnp.stack(scores), axis=0)
    estimates = jnp.stack([conditional(c)(condition, y_t, gamma) for c in range(2)])
    return (weights * estimates).sum(0)


def both(condition, y_t, gamma):
    return conditional(LABEL)(condition, y_t, gamma), unconditional(condition, y_t, gamma)


def denoiser(*choices):
    return guidance.guided(both, conditional(LABEL), Guidance(*choices))


Y = jax.random.normal(jax.random.key(0), (5, 4, 4, 1))


@pytest.mark.parametrize("gamma", [0.01, 0.3, 0.9])
def test_weight_one_is_the_class_zero_ignores_it_and_between_them_it_interpolates(gamma):
    level = jnp.full(5, gamma)
    with_class, without = both(None, Y, level)
    assert jnp.abs(with_class - without).max() > 0.01
    np.testing.assert_allclose(denoiser(1.0)(None, Y, level), with_class, atol=1e-6)
    np.testing.assert_allclose(denoiser(0.0)(None, Y, level), without, atol=1e-6)
    for weight in (0.25, 0.5, 3.0):
        wanted = (1 - weight) * without + weight * with_class
        np.testing.assert_allclose(denoiser(weight)(None, Y, level), wanted, atol=1e-5)


def test_the_estimate_of_noise_is_guided_by_the_same_formula():
    """As epsilon is linear in y_0 at a given y_t: what papers write for epsilon holds for y_0."""
    gamma = jnp.full(5, 0.4)
    noise = lambda y_0: (Y - jnp.sqrt(0.4) * y_0) / jnp.sqrt(0.6)  # noqa: E731
    with_class, without = both(None, Y, gamma)
    np.testing.assert_allclose(
        noise(denoiser(2.5)(None, Y, gamma)),
        noise(without) + 2.5 * (noise(with_class) - noise(without)),
        atol=1e-5,
    )


def test_guidance_is_only_between_the_two_log_snrs_and_elsewhere_one_estimate_is_enough():
    asked = []

    def counted(condition, y_t, gamma):
        jax.debug.callback(lambda: asked.append("both"))
        return both(condition, y_t, gamma)

    denoise = jax.jit(guidance.guided(counted, conditional(LABEL), Guidance(3.0, -1.0, 1.0)))
    for log_snr, inside in ((-2.0, False), (-0.5, True), (0.9, True), (2.0, False)):
        asked.clear()
        gamma = jnp.full(5, jax.nn.sigmoid(log_snr))
        found = denoise(None, Y, gamma)
        jax.effects_barrier()
        weight = 3.0 if inside else 1.0
        np.testing.assert_allclose(found, denoiser(weight)(None, Y, gamma), atol=1e-5)
        assert bool(asked) == inside


@pytest.mark.parametrize("sampler", [samplers.ancestral, samplers.ddim, samplers.dpm_solver])
def test_every_sampler_draws_the_class_without_guidance_and_both_classes_at_zero(sampler):
    steps = sampler(schedules.log_snr(60, 8.0, -9.0))
    keys = jax.random.split(jax.random.key(1), 400)

    def draw(weight):
        shape = (400, 2, 2, 1)
        return np.asarray(samplers.sample(denoiser(weight), None, keys, steps, shape=shape))

    alone, mixed, strong = draw(1.0), draw(0.0), draw(2.0)
    assert alone.mean() == pytest.approx(float(MEANS[LABEL]), abs=0.04)
    assert alone.std() == pytest.approx(SPREAD, rel=0.15)
    assert (mixed > 0).mean() == pytest.approx(0.5, abs=0.06)
    # away from the other class, and less diverse
    assert strong.mean() > alone.mean() + 0.02
    assert strong.std() < alone.std()
