"""Samplers against closed forms.

For a target N(m, s² I) the exact denoiser is affine in y_t, so a sampler is affine in its noises, y_0 = mean + Σ_t c_t z_t, and
`moments` reads mean and variance = Σ_t c_t² off exactly: image i of a batch gets z_t = 1 at t = i and 0 elsewhere.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.diffusion import process, samplers, schedules
from sr3_jax.diffusion.samplers import VARIANCES, ancestral, noise_like
from sr3_jax.diffusion.types import per_image

GAMMA_END = 4.39e-5
SHAPE = (3, 4, 4, 1)
KEYS = jax.random.split(jax.random.key(3), SHAPE[0])
CONDITION = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, SHAPE), jnp.float32)


def exact_denoiser(m: float, s: float):
    """E[y_0 | y_t] for y_0 ~ N(m, s² I)."""

    def denoise(condition, y_t, gamma):
        gamma = per_image(gamma, y_t)
        y_0 = m + s**2 * jnp.sqrt(gamma) / (s**2 * gamma + 1 - gamma) * (y_t - jnp.sqrt(gamma) * m)
        return y_0, (y_t - jnp.sqrt(gamma) * y_0) / jnp.sqrt(1 - gamma)

    return denoise


def wiggle(condition, y_t, gamma):
    """A network for epsilon that is not affine; for jax and numpy arrays alike."""
    xp = np if isinstance(y_t, np.ndarray) else jnp
    return xp.tanh(y_t + 0.3 * condition) * (1.1 - 0.5 * gamma[:, None, None, None])


def wiggle_denoiser(condition, y_t, gamma):
    return process.to_y_0_and_epsilon("epsilon", wiggle(condition, y_t, gamma), y_t, gamma)


def impulse(images, keys, t):
    return jnp.broadcast_to(per_image((jnp.arange(images.shape[0]) == t).astype(images.dtype), images), images.shape)


@pytest.fixture
def moments(monkeypatch):
    def moments(m, s, schedule, variance):
        """Mean and variance of the sampler's output, to float32 precision."""
        batch = schedule.steps + 2  # image 0 gets no noise, image T + 1 gets y_T
        keys = jax.random.split(jax.random.key(0), batch)
        with monkeypatch.context() as patch:
            patch.setattr(samplers, "noise_like", impulse)
            y_0 = ancestral(exact_denoiser(m, s), None, keys, schedule, shape=(batch, 1, 1, 1), variance=variance)
        y_0 = np.asarray(y_0, np.float64).ravel()
        return y_0[0], np.sum((y_0[1:] - y_0[0]) ** 2)

    return moments


def recursion(m, s, schedule, variance):
    """Mean and variance of Algorithm 2's output, in float64."""
    gamma, one_minus_gamma, alpha, beta = (np.asarray(table, np.float64) for table in schedule)
    mean, total = 0.0, 1.0
    for t in range(schedule.steps, 0, -1):
        pull = s**2 * np.sqrt(gamma[t]) / (s**2 * gamma[t] + one_minus_gamma[t])  # E[y_0 | y_t] = m + pull (y_t - √gamma m)
        # (y_t - beta / √(1 - gamma) · epsilon) / √alpha, with epsilon = (y_t - √gamma E[y_0 | y_t]) / √(1 - gamma)
        share = beta[t] / one_minus_gamma[t]
        slope = (1 - share * (1 - np.sqrt(gamma[t]) * pull)) / np.sqrt(alpha[t])
        offset = share * np.sqrt(gamma[t]) * m * (1 - np.sqrt(gamma[t]) * pull) / np.sqrt(alpha[t])
        noise = beta[t] * (1 if variance == "beta" else one_minus_gamma[t - 1] / one_minus_gamma[t])
        mean, total = slope * mean + offset, slope**2 * total + (noise if t > 1 else 0)
    return mean, total


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("steps", [1, 2, 16, 100])
def test_an_exact_denoiser_of_a_gaussian_yields_the_closed_form_moments(moments, steps, variance):
    for schedule in (schedules.linear_to(steps, GAMMA_END), schedules.log_snr(steps)):
        np.testing.assert_allclose(
            moments(0.7, 0.5, schedule, variance), recursion(0.7, 0.5, schedule, variance), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("variance", VARIANCES)
def test_moments_converge_to_the_targets_at_first_order_in_the_steps(moments, variance):
    m, s = 0.7, 0.5
    errors = []
    for steps in (50, 100, 200):
        mean, total = moments(m, s, schedules.linear(steps, 0.1 / steps, 20 / steps), variance)
        errors.append(total - s**2)
        assert abs(mean - m) < 1e-3
    np.testing.assert_allclose(np.divide(errors[1:], errors[:-1]), 0.5, atol=0.1)  # posterior: log T / T
    assert abs(2 * errors[2] - errors[1]) < 5e-3  # the limit, extrapolated


def test_beta_is_the_right_variance_for_a_standard_normal_image(moments):
    schedule = schedules.linear_to(10, GAMMA_END)
    np.testing.assert_allclose(moments(0.0, 1.0, schedule, "beta"), (0, schedule.alpha[1]), atol=1e-5)  # no noise at t = 1


@pytest.mark.parametrize("steps", [1, 50])
def test_ancestral_is_algorithm_2_to_the_letter(steps):
    schedule = schedules.linear_to(steps, GAMMA_END)
    gamma, one_minus_gamma, alpha, beta = (np.asarray(table, np.float64) for table in schedule)

    def noise(t):
        return np.asarray(noise_like(CONDITION, KEYS, t), np.float64)

    y, x = noise(steps + 1), np.asarray(CONDITION, np.float64)
    for t in range(steps, 0, -1):
        z = noise(t) if t > 1 else 0
        f = wiggle(x, y, np.full(len(y), gamma[t]))
        y = (y - beta[t] / np.sqrt(one_minus_gamma[t]) * f) / np.sqrt(alpha[t]) + np.sqrt(beta[t]) * z
    y_0 = ancestral(wiggle_denoiser, CONDITION, KEYS, schedule, shape=SHAPE)
    np.testing.assert_allclose(y_0, y, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_last_step_adds_no_noise(variance):
    def certain(condition, y_t, gamma):
        return condition, process.epsilon_from_y_0(condition, y_t, gamma)

    y_0 = ancestral(certain, CONDITION, KEYS, schedules.log_snr(3, 2.0, -9.0), shape=SHAPE, variance=variance)
    np.testing.assert_allclose(y_0, CONDITION, atol=1e-6)


def test_an_image_is_the_same_alone_in_any_place_and_beside_padding():
    @jax.jit
    def sample(indices):
        return ancestral(
            wiggle_denoiser, CONDITION[indices], KEYS[indices], schedules.log_snr(4), shape=(len(indices), 4, 4, 1)
        )

    together = sample(jnp.array([0, 1, 2]))
    np.testing.assert_allclose(sample(jnp.array([1])), together[1:2], atol=1e-6)
    np.testing.assert_allclose(sample(jnp.array([2, 0, 1])), together[jnp.array([2, 0, 1])], atol=1e-6)
    np.testing.assert_allclose(sample(jnp.array([1, 2, 2]))[0], together[1], atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 0.1


def test_noise_differs_between_images_steps_and_keys_and_is_standard_normal():
    images = jnp.zeros((2, 64, 64, 1))
    draws = np.stack([noise_like(images, KEYS[:2], t) for t in (1, 2)] + [noise_like(images, KEYS[1:], 1)]).reshape(6, -1)
    assert abs(draws.mean()) < 4 / np.sqrt(draws.size)
    assert abs(draws.var() - 1) < 4 * np.sqrt(2 / draws.size)
    np.testing.assert_array_equal(draws[1], draws[4])  # the same key at another place
    correlation = np.corrcoef(draws[[0, 1, 2, 3, 5]]) - np.eye(5)
    assert np.abs(correlation).max() < 4.5 / 64


def test_devices_do_not_enter():
    mesh = jax.make_mesh((8,), ("data",))
    spread = jax.NamedSharding(mesh, jax.P("data"))
    keys = jax.random.split(jax.random.key(5), 8)
    condition = jnp.tile(CONDITION[:1], (8, 1, 1, 1))
    schedule = schedules.log_snr(3, 5.0, -9.0)

    @jax.jit
    def sample(keys, condition):
        return ancestral(wiggle_denoiser, condition, keys, schedule, shape=condition.shape)

    sharded = sample(jax.device_put(keys, spread), jax.device_put(condition, spread))
    assert len(sharded.sharding.device_set) == 8
    np.testing.assert_allclose(sharded, sample(keys, condition), atol=1e-6)


def test_memory_does_not_grow_with_the_number_of_steps():
    def temporary_bytes(steps):
        def sample(keys, condition, schedule):
            return ancestral(wiggle_denoiser, condition, keys, schedule, shape=SHAPE)

        compiled = jax.jit(sample).lower(KEYS, CONDITION, schedules.log_snr(steps)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(10) == temporary_bytes(1000)
