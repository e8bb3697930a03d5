"""The forward process against Bayes' rule, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.diffusion import process, schedules
from sr3_jax.diffusion.process import PREDICTIONS

pytestmark = pytest.mark.fast

LEVELS = np.array([4e-5, 1e-3, 0.1, 0.5, 0.9, 0.999, 1 - 1e-5, 1 - 1e-6], np.float32)
LEVELS_ON_DEVICE = jnp.asarray(LEVELS)
SCHEDULES = {
    "training": schedules.linear(),
    "few": schedules.linear_to(8, 4.39e-5),
    "log_snr": schedules.log_snr(30),
}


def images(seed: int, batch: int = len(LEVELS)):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, 2, 3, 1)), jnp.float32)


def tables(name):
    """gamma, 1 - gamma, alpha, beta in float64."""
    return (np.asarray(table, np.float64) for table in SCHEDULES[name])


def some_steps(name):
    return sorted({1, 2, 3, SCHEDULES[name].steps // 2, SCHEDULES[name].steps})


def test_q_sample_preserves_the_variance():
    one, zero = jnp.ones((len(LEVELS), 1, 1, 1)), jnp.zeros((len(LEVELS), 1, 1, 1))
    signal, noise = (
        process.q_sample(one, LEVELS_ON_DEVICE, zero),
        process.q_sample(zero, LEVELS_ON_DEVICE, one),
    )
    np.testing.assert_allclose(signal**2 + noise**2, 1, rtol=1e-6)
    np.testing.assert_allclose(signal.ravel() ** 2, LEVELS, rtol=1e-6)


def test_q_sample_has_the_marginals_mean_and_variance():
    epsilon, y_0 = images(0), images(1)
    gamma = np.float64(LEVELS)[:, None, None, None]
    expected = np.sqrt(gamma) * np.asarray(y_0) + np.sqrt(1 - gamma) * np.asarray(epsilon)
    np.testing.assert_allclose(
        process.q_sample(y_0, LEVELS_ON_DEVICE, epsilon), expected, atol=1e-6
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_composing_forward_steps_gives_the_marginal(name):
    gamma, one_minus_gamma, alpha, beta = tables(name)
    signal, variance = 1.0, 0.0
    for t in range(1, len(gamma)):
        signal, variance = np.sqrt(alpha[t]) * signal, alpha[t] * variance + beta[t]
        np.testing.assert_allclose(
            [signal, variance], [np.sqrt(gamma[t]), one_minus_gamma[t]], rtol=5e-6
        )


@pytest.mark.parametrize("name", SCHEDULES)
def test_q_posterior_is_bayes_rule(name):
    gamma, one_minus_gamma, alpha, beta = tables(name)
    y_0, y_t = images(2, 2), images(3, 2)
    for t in some_steps(name)[1:]:
        # q(y_{t-1} | y_0) as prior, q(y_t | y_{t-1}) as likelihood: precisions add
        prior, likelihood = 1 / one_minus_gamma[t - 1], alpha[t] / beta[t]
        mean = prior * np.sqrt(gamma[t - 1]) * np.asarray(y_0) + likelihood * np.asarray(
            y_t
        ) / np.sqrt(alpha[t])
        actual_mean, actual_variance = process.q_posterior(y_0, y_t, SCHEDULES[name], t)
        np.testing.assert_allclose(actual_mean, mean / (prior + likelihood), atol=2e-6)
        np.testing.assert_allclose(actual_variance, 1 / (prior + likelihood), rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_last_step_back_knows_y_0_without_doubt(name):
    y_0 = images(4, 2)
    mean, variance = process.q_posterior(y_0, images(5, 2), SCHEDULES[name], 1)
    np.testing.assert_allclose(mean, y_0, rtol=1e-6)
    assert variance == 0


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_posterior_averaged_over_y_t_is_the_marginal_one_step_before(name):
    gamma, one_minus_gamma, _, _ = tables(name)
    one, zero = jnp.ones((1, 1, 1, 1)), jnp.zeros((1, 1, 1, 1))
    for t in some_steps(name):
        on_y_0, variance = process.q_posterior(one, zero, SCHEDULES[name], t)
        on_y_t, _ = process.q_posterior(zero, one, SCHEDULES[name], t)
        on_y_0, on_y_t, variance = float(on_y_0.item()), float(on_y_t.item()), float(variance)
        np.testing.assert_allclose(
            on_y_0 + on_y_t * np.sqrt(gamma[t]), np.sqrt(gamma[t - 1]), rtol=1e-6
        )
        np.testing.assert_allclose(
            variance + on_y_t**2 * one_minus_gamma[t], one_minus_gamma[t - 1], rtol=1e-6
        )


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_y_0_and_epsilon_come_back_from_what_a_perfect_network_says(predict):
    y_0, epsilon = images(6), images(7)
    y_t = process.q_sample(y_0, LEVELS_ON_DEVICE, epsilon)
    output = process.target(predict, y_0, LEVELS_ON_DEVICE, epsilon)
    y_0_back, epsilon_back = process.to_y_0_and_epsilon(predict, output, y_t, LEVELS_ON_DEVICE)
    # dividing by √gamma or √(1 - gamma) multiplies rounding; v divides by nothing
    tolerance = {"epsilon": (LEVELS**-0.5, 1), "y_0": (1, (1 - LEVELS) ** -0.5), "v": (1, 1)}[
        predict
    ]
    for back, exact, factor in zip(
        (y_0_back, epsilon_back), (y_0, epsilon), tolerance, strict=True
    ):
        error = np.abs(back - exact).max(axis=(1, 2, 3))
        np.testing.assert_array_less(error, 1e-6 * np.broadcast_to(factor, LEVELS.shape))


def test_the_v_target_is_salimans_and_hos():
    y_0, epsilon = images(8), images(9)
    gamma = np.float64(LEVELS)[:, None, None, None]
    expected = np.sqrt(gamma) * np.asarray(epsilon) - np.sqrt(1 - gamma) * np.asarray(y_0)
    np.testing.assert_allclose(
        process.target("v", y_0, LEVELS_ON_DEVICE, epsilon), expected, atol=1e-6
    )


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_any_output_becomes_a_y_0_and_an_epsilon_that_lead_to_y_t(predict):
    """Also a wrong network's: the two always agree with each other."""
    y_t, output = images(10), images(11)
    y_0, epsilon = process.to_y_0_and_epsilon(predict, output, y_t, LEVELS_ON_DEVICE)
    np.testing.assert_allclose(process.q_sample(y_0, LEVELS_ON_DEVICE, epsilon), y_t, atol=1e-5)
    again = process.target(predict, y_0, LEVELS_ON_DEVICE, epsilon)
    np.testing.assert_allclose(again, output, atol=1e-5)


def test_epsilon_from_y_0_inverts_q_sample_and_is_finite_without_noise():
    y_0, epsilon = images(12), images(13)
    back = process.epsilon_from_y_0(
        y_0, process.q_sample(y_0, LEVELS_ON_DEVICE, epsilon), LEVELS_ON_DEVICE
    )
    error = np.abs(back - epsilon).max(axis=(1, 2, 3))
    np.testing.assert_array_less(error, 1e-6 * (1 - LEVELS) ** -0.5)
    assert np.all(process.epsilon_from_y_0(y_0, y_0, jnp.ones(len(LEVELS))) == 0)
