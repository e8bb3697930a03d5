"""Algorithm 1."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.diffusion import losses, process, samplers, schedules
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
        calls.append(
            (
                np.asarray(condition, np.float64),
                np.asarray(y_t, np.float64),
                np.asarray(gamma, np.float64),
            )
        )
        return network(condition, y_t, gamma)

    return listening


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("predict", PREDICTIONS)
def test_a_network_that_knows_the_answer_has_no_loss(predict, norm):
    def oracle(y_0, y_t, gamma):
        return process.target(predict, y_0, gamma, process.epsilon_from_y_0(y_0, y_t, gamma))

    loss = losses.sr3_loss(partial(oracle, Y_0), Y_0, KEY, SCHEDULE, predict=predict, norm=norm)
    np.testing.assert_allclose(loss, 0, atol=1e-5)


@pytest.mark.parametrize(("norm", "p"), [("l1", 1), ("l2", 2)])
def test_the_loss_is_algorithm_1_to_the_letter(norm, p):
    calls, condition = [], -Y_0
    loss = losses.sr3_loss(partial(listen(guess, calls), condition), Y_0, KEY, SCHEDULE, norm=norm)
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


@pytest.mark.parametrize(
    ("predict", "weight"),
    [("v", lambda gamma: 1 / gamma), ("y_0", lambda gamma: (1 - gamma) / gamma)],
)
def test_the_l2_losses_of_v_and_y_0_reweight_that_of_epsilon(predict, weight):
    def same_guess(condition, y_t, gamma):
        y_0, epsilon = process.to_y_0_and_epsilon(
            "epsilon", guess(condition, y_t, gamma), y_t, gamma
        )
        return process.target(predict, y_0, gamma, epsilon)

    calls = []
    of_epsilon = losses.sr3_loss(partial(listen(guess, calls), Y_0), Y_0, KEY, SCHEDULE, norm="l2")
    of_other = losses.sr3_loss(
        partial(same_guess, Y_0), Y_0, KEY, SCHEDULE, predict=predict, norm="l2"
    )
    np.testing.assert_allclose(of_other, weight(calls[0][2]) * of_epsilon, rtol=1e-3)


def test_the_loss_of_an_image_does_not_depend_on_its_neighbours():
    before = losses.sr3_loss(partial(guess, Y_0), Y_0, KEY, SCHEDULE)
    changed = Y_0.at[2].add(0.5)
    after = losses.sr3_loss(partial(guess, changed), changed, KEY, SCHEDULE)
    assert before.shape == (len(Y_0),)
    assert list(np.flatnonzero(before != after)) == [2]


def test_the_key_decides_the_loss():
    first, again, other = (
        losses.sr3_loss(partial(guess, Y_0), Y_0, jax.random.key(seed), SCHEDULE)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)


@pytest.mark.parametrize(("norm", "expected"), [("l1", [0.5, 2.0]), ("l2", [0.25, 4.0])])
def test_distance_is_a_mean_over_each_image_in_float32(norm, expected):
    wanted = jnp.zeros((2, 3, 5, 1), jnp.bfloat16)
    output = wanted.at[0].set(-0.5).at[1].set(2.0)
    distance = losses.distance(output, wanted, norm)
    assert distance.dtype == jnp.float32
    np.testing.assert_allclose(distance, expected)


# -- distillation

# Its levels are equally spaced in the angle
STUDENT = schedules.respaced(schedules.cosine(400, 10.0, -6.0), 4)


def exact(scale):
    """The best denoiser of y_0 ~ N(0, scale²).

    Its probability flow keeps y / √(gamma scale² + 1 - gamma) constant.
    """

    def denoise(condition, y, gamma):
        gamma = gamma[:, None, None, None]
        return jnp.sqrt(gamma) * scale**2 / (gamma * scale**2 + 1 - gamma) * y

    return denoise


def perfect_student(scale, levels=STUDENT):
    """The y_0 from which one DDIM step arrives where that flow does, at the level before."""
    angles = np.asarray(levels.angle, np.float64)

    def spread(phi):
        return np.sqrt((np.cos(phi) * scale) ** 2 + np.sin(phi) ** 2)

    def network(condition, y, gamma):
        t = np.abs(np.asarray(levels.gamma)[None, :] - np.asarray(gamma)[:, None]).argmin(1)
        phi, phi_end = angles[t], angles[t - 1]
        factor = (np.sin(phi) * spread(phi_end) / spread(phi) - np.sin(phi_end)) / np.sin(
            phi - phi_end
        )
        return jnp.asarray(factor, jnp.float32)[:, None, None, None] * y

    return network


def distilled(network, teacher, condition, y_0, predict="epsilon"):
    taught = losses.lesson(teacher, condition, y_0, KEY, STUDENT)
    return losses.distillation_loss(network, taught, condition, y_0, predict=predict)


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_a_student_of_single_steps_has_nothing_to_learn(predict):
    def same(condition, y_t, gamma):
        y_0 = exact(0.5)(condition, y_t, gamma)
        return process.target(predict, y_0, gamma, process.epsilon_from_y_0(y_0, y_t, gamma))

    loss, estimate = distilled(same, losses.Teacher(exact(0.5), 1), Y_0, Y_0, predict)
    assert loss.shape == (len(Y_0),)
    assert estimate.shape == Y_0.shape
    np.testing.assert_allclose(loss, 0, atol=1e-8)
    assert np.all(distilled(same, losses.Teacher(exact(0.5), 4), Y_0, Y_0, predict).loss > 1e-6)


def test_the_more_steps_the_teacher_takes_the_closer_its_answer_to_the_flow():
    """DDIM is of first order, so the squared error falls by four when the steps double."""
    y_0 = 0.5 * jax.random.normal(KEY, (64, 4, 4, 1))
    found = [
        distilled(
            perfect_student(0.5), losses.Teacher(exact(0.5), steps), y_0, y_0, "y_0"
        ).loss.mean()
        for steps in (8, 16, 32)
    ]
    assert found[0] / found[1] == pytest.approx(4, rel=0.2)
    assert found[1] / found[2] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_perfect_student_arrives_where_the_flow_does_in_any_number_of_evaluations(steps):
    levels = schedules.respaced(schedules.cosine(400, 10.0, -6.0), steps)
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    table, shape = samplers.ddim(levels), (3, 4, 4, 1)
    start = samplers.noise_like(jnp.zeros(shape), keys, steps + 1)
    y = start
    for row in range(steps):  # `sample`, outside of jit
        found = perfect_student(0.5, levels)(None, y, jnp.full(3, table.gamma[row]))
        y = table.keep[row] * y + table.predicted[row] * found
    gamma = float(levels.gamma[-1])
    np.testing.assert_allclose(y, start * 0.5 / np.sqrt(gamma * 0.25 + 1 - gamma), rtol=1e-4)


def test_each_image_is_taught_at_a_level_of_its_own_which_is_one_of_the_students():
    student = []
    condition = -jnp.tile(Y_0, (6, 1, 1, 1))
    distilled(listen(guess, student), losses.Teacher(guess, 1), condition, -condition)
    ((seen, y_t, gamma),) = student
    np.testing.assert_array_equal(seen, condition)
    assert {*gamma.tolist()} == {*np.asarray(STUDENT.gamma[1:], np.float64).tolist()}
    epsilon = (y_t - np.sqrt(gamma)[:, None, None, None] * -np.asarray(condition)) / np.sqrt(
        1 - gamma
    )[:, None, None, None]
    assert abs(epsilon.var() - 1) < 4 * np.sqrt(2 / epsilon.size)


# -- a learned variance


@pytest.mark.parametrize("schedule", [SCHEDULE, schedules.cosine_beta(50)], ids=["paper", "cosine"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_cost_of_a_variance_is_the_divergence_of_two_normal_distributions(schedule, share):
    gamma, one_minus, _, beta = (np.asarray(table, np.float64) for table in schedule)
    steps = schedule.steps
    t = np.array([3, 7, steps // 2, steps - 1, steps])
    error = 0.1
    found = losses.variance_bound(
        jnp.full((5, 2, 2, 1), error), jnp.full((5, 2, 2, 1), share), schedule.gamma[t], schedule
    )
    posterior = one_minus[t - 1] / one_minus[t] * beta[t]
    variance = beta[t] ** share * posterior ** (1 - share)
    mean = np.sqrt(gamma[t - 1]) * beta[t] / one_minus[t] * error
    kl = np.log(variance / posterior) / 2 + (posterior + mean**2) / (2 * variance) - 1 / 2
    np.testing.assert_allclose(found, steps * kl / np.log(2), rtol=2e-3, atol=1e-3)


def test_between_its_levels_the_cost_of_a_variance_is_continuous_and_finite():
    levels = np.asarray(schedules.cosine_beta(6).gamma, np.float64)
    gamma = np.interp(np.linspace(0, 6, 601), np.arange(7), levels)[1:]
    bound = losses.variance_bound(
        jnp.full((600, 1, 1, 1), 0.1),
        jnp.full((600, 1, 1, 1), 0.5),
        jnp.asarray(gamma, jnp.float32),
        schedules.cosine_beta(6),
    )
    assert np.isfinite(bound).all()
    assert not bound[:99].any()  # the last step adds no noise
    assert (bound[100:] > 0).all()
    assert np.abs(np.diff(bound[110:])).max() < 0.05 * np.max(bound)


def test_a_variance_costs_least_where_it_is_the_mean_square_of_what_is_drawn():
    t, error, share = 20, 0.5, np.linspace(0, 1, 401)
    cosine = schedules.cosine_beta(50)
    gamma, one_minus, _, beta = (np.asarray(table, np.float64) for table in cosine)
    costs = losses.variance_bound(
        jnp.full((401, 1, 1, 1), error),
        jnp.asarray(share, jnp.float32).reshape(-1, 1, 1, 1),
        jnp.full(401, cosine.gamma[t]),
        cosine,
    )
    posterior = one_minus[t - 1] / one_minus[t] * beta[t]
    wanted = posterior + gamma[t - 1] * (beta[t] / one_minus[t] * error) ** 2
    assert posterior < wanted < beta[t]
    best = share[np.argmin(costs)]
    assert abs(best - np.log(wanted / posterior) / np.log(beta[t] / posterior)) < 0.01


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_a_learned_variance_is_learned_and_does_not_pull_at_the_mean(predict):
    def loss(values, weight):
        mean, share = values

        def network(y_t, gamma):
            return jnp.concatenate([mean * jnp.tanh(y_t), share + 0 * y_t], axis=-1)

        return losses.sr3_loss(
            network, Y_0, KEY, SCHEDULE, predict=predict, variance_weight=weight
        ).sum()

    plain, whole = (jax.grad(loss)((0.7, 0.2), weight) for weight in (0.0, 0.5))
    assert plain[0] == whole[0]
    assert plain[1] == 0 != whole[1]
    slope = (loss((0.7, 0.3), 0.5) - loss((0.7, 0.1), 0.5)) / 0.2
    np.testing.assert_allclose(whole[1], slope, rtol=0.05)


def test_weights_say_how_much_each_pixel_counts():
    weights = jnp.zeros((6, 4, 4, 1)).at[:, :2].set(1.0)
    whole = losses.distance(Y_0[:, :2], 0 * Y_0[:, :2], "l2")
    np.testing.assert_allclose(losses.distance(Y_0, 0 * Y_0, "l2", weights), whole, rtol=1e-5)
    elsewhere = Y_0.at[:, 2:].add(9.0)
    kwargs = {"norm": "l2", "weights": weights}
    found = [
        losses.sr3_loss(lambda y_t, gamma, y=y: 0 * y_t + y, Y_0, KEY, SCHEDULE, **kwargs)
        for y in (Y_0, elsewhere)
    ]
    np.testing.assert_array_equal(*found)
    assert not losses.distance(Y_0, 0 * Y_0, "l1", 0 * weights).any()  # no hole, nothing to learn
