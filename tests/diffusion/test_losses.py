"""Algorithm 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.diffusion import losses, process, schedules
from sr3_jax.diffusion.process import PREDICTIONS

pytestmark = pytest.mark.fast

SCHEDULE = schedules.linear()
KEY = jax.random.key(7)
Y_0 = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (6, 4, 4, 3)), jnp.float32)


def guess(condition, y_t, gamma):
    """A wrong network for epsilon."""
    return jnp.tanh(y_t) + 0.1 * condition * gamma[:, None, None, None]


def listen(network, calls):
    """`network`, noting what it is asked."""

    def listening(condition, y_t, gamma):
        calls.append((np.asarray(condition, np.float64), np.asarray(y_t, np.float64), np.asarray(gamma, np.float64)))
        return network(condition, y_t, gamma)

    return listening


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("predict", PREDICTIONS)
def test_a_network_that_knows_the_answer_has_no_loss(predict, norm):
    def oracle(y_0, y_t, gamma):
        return process.target(predict, y_0, gamma, process.epsilon_from_y_0(y_0, y_t, gamma))

    loss = losses.sr3_loss(oracle, Y_0, Y_0, KEY, SCHEDULE, predict=predict, norm=norm)
    np.testing.assert_allclose(loss, 0, atol=1e-5)


@pytest.mark.parametrize(("norm", "p"), [("l1", 1), ("l2", 2)])
def test_the_loss_is_algorithm_1_to_the_letter(norm, p):
    calls, condition = [], -Y_0
    loss = losses.sr3_loss(listen(guess, calls), condition, Y_0, KEY, SCHEDULE, norm=norm)
    ((seen, y_t, gamma),) = calls
    np.testing.assert_array_equal(seen, condition)
    assert np.all((gamma > SCHEDULE.gamma[-1]) & (gamma <= 1))
    assert len(np.unique(gamma)) == len(gamma)
    gamma = gamma[:, None, None, None]
    epsilon = (y_t - np.sqrt(gamma) * np.asarray(Y_0)) / np.sqrt(1 - gamma)
    assert abs(epsilon.mean()) < 4 / np.sqrt(epsilon.size)
    assert abs(epsilon.var() - 1) < 4 * np.sqrt(2 / epsilon.size)
    output = np.tanh(y_t) + 0.1 * seen * gamma
    np.testing.assert_allclose(loss, (np.abs(output - epsilon) ** p).mean((1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize(("predict", "weight"), [("v", lambda gamma: 1 / gamma), ("y_0", lambda gamma: (1 - gamma) / gamma)])
def test_the_l2_losses_of_v_and_y_0_reweight_that_of_epsilon(predict, weight):
    def same_guess(condition, y_t, gamma):
        y_0, epsilon = process.to_y_0_and_epsilon("epsilon", guess(condition, y_t, gamma), y_t, gamma)
        return process.target(predict, y_0, gamma, epsilon)

    calls = []
    of_epsilon = losses.sr3_loss(listen(guess, calls), Y_0, Y_0, KEY, SCHEDULE, norm="l2")
    of_other = losses.sr3_loss(same_guess, Y_0, Y_0, KEY, SCHEDULE, predict=predict, norm="l2")
    np.testing.assert_allclose(of_other, weight(calls[0][2]) * of_epsilon, rtol=1e-3)


def test_the_loss_of_an_image_does_not_depend_on_its_neighbours():
    before = losses.sr3_loss(guess, Y_0, Y_0, KEY, SCHEDULE)
    changed = Y_0.at[2].add(0.5)
    after = losses.sr3_loss(guess, changed, changed, KEY, SCHEDULE)
    assert before.shape == (len(Y_0),)
    assert list(np.flatnonzero(before != after)) == [2]


def test_the_key_decides_the_loss():
    first, again, other = (losses.sr3_loss(guess, Y_0, Y_0, jax.random.key(seed), SCHEDULE) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)


@pytest.mark.parametrize(("norm", "expected"), [("l1", [0.5, 2.0]), ("l2", [0.25, 4.0])])
def test_distance_is_a_mean_over_each_image_in_float32(norm, expected):
    wanted = jnp.zeros((2, 3, 5, 1), jnp.bfloat16)
    output = wanted.at[0].set(-0.5).at[1].set(2.0)
    distance = losses.distance(output, wanted, norm)
    assert distance.dtype == jnp.float32
    np.testing.assert_allclose(distance, expected)
