"""Schedules against float64, and p(gamma) against its cumulative distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.diffusion import schedules
from sr3_jax.diffusion.schedules import NoiseSchedule

pytestmark = pytest.mark.fast

TRAINING_BETA = np.linspace(1e-6, 0.01, 2000)
GAMMA_END = np.prod(1 - TRAINING_BETA)

ALL = {
    "linear": lambda: schedules.linear(),
    "linear_to": lambda: schedules.linear_to(8, GAMMA_END),
    "linear_to_one": lambda: schedules.linear_to(1, GAMMA_END),
    "cosine": lambda: schedules.cosine(50),
    "cosine_one": lambda: schedules.cosine(1),
    "log_snr": lambda: schedules.log_snr(16),
    "log_snr_one": lambda: schedules.log_snr(1),
    "respaced": lambda: schedules.respaced(schedules.linear(), 7),
    "from_gamma": lambda: schedules.from_gamma(np.array([0.9, 0.5, 0.1])),
}


@pytest.fixture(params=ALL)
def schedule(request) -> NoiseSchedule:
    return ALL[request.param]()


def float64(schedule: NoiseSchedule) -> NoiseSchedule:
    return NoiseSchedule(*(np.asarray(table, np.float64) for table in schedule))


def test_tables_have_one_entry_more_than_steps_start_clean_and_fall(schedule):
    assert all(
        table.shape == (schedule.steps + 1,) and table.dtype == jnp.float32 for table in schedule
    )
    assert [float(table[0]) for table in schedule] == [1, 0, 1, 0]
    assert np.all(np.diff(schedule.gamma) < 0)
    assert np.all(np.diff(schedule.one_minus_gamma) > 0)
    assert np.all(schedule.gamma > 0)


def test_the_four_tables_describe_the_same_chain(schedule):
    tables = float64(schedule)
    np.testing.assert_allclose(tables.gamma + tables.one_minus_gamma, 1, atol=1e-7)
    np.testing.assert_allclose(tables.alpha + tables.beta, 1, atol=1e-7)
    np.testing.assert_allclose(np.cumprod(tables.alpha), tables.gamma, rtol=1e-5)


def test_every_table_of_the_training_schedule_is_the_float64_value_cast_once():
    schedule, alpha = schedules.linear(), 1 - TRAINING_BETA
    gamma = np.cumprod(alpha)
    for table, exact in zip(schedule, (gamma, 1 - gamma, alpha, TRAINING_BETA), strict=True):
        np.testing.assert_array_max_ulp(np.asarray(table)[1:], exact.astype(np.float32), maxulp=1)
    # what this guards against: in float32, beta from alpha and 1 - gamma from gamma are 1.3 % off
    # at t = 1
    assert abs((1 - schedule.alpha[1]) / schedule.beta[1] - 1) > 0.01
    assert abs((1 - schedule.gamma[1]) / schedule.one_minus_gamma[1] - 1) > 0.01


def test_the_training_schedule_ends_at_4_39e_5():
    assert float(schedules.linear().gamma[-1]) == pytest.approx(4.39e-5, abs=5e-8)


@pytest.mark.parametrize(
    ("steps", "beta_end"),
    [(250, 0.078), (100, 0.1875), (50, 0.3505), (25, 0.610), (16, 0.811), (8, 0.9933)],
)
def test_linear_to_ends_where_training_ended(steps, beta_end):
    schedule = schedules.linear_to(steps, GAMMA_END)
    assert schedule.steps == steps
    assert float(schedule.gamma[-1]) == pytest.approx(GAMMA_END, rel=1e-6)
    assert float(schedule.beta[1]) == pytest.approx(1e-4, rel=1e-6)
    assert float(schedule.beta[-1]) == pytest.approx(
        beta_end, abs=6e-4 if beta_end < 0.1 or steps in (25, 16) else 6e-5
    )
    np.testing.assert_allclose(np.diff(schedule.beta[1:], 2), 0, atol=2e-7)


def test_cosine_steps_are_equal_in_the_angle_whose_cosine_is_the_root_of_gamma():
    schedule = float64(schedules.cosine(20, log_snr_start=8.0, log_snr_end=-6.0))
    angle = np.arctan2(np.sqrt(schedule.one_minus_gamma), np.sqrt(schedule.gamma))[1:]
    np.testing.assert_allclose(angle, np.linspace(angle[0], angle[-1], 20), atol=1e-6)
    np.testing.assert_allclose(-2 * np.log(np.tan(angle[[0, -1]])), [8, -6], atol=1e-6)


def test_log_snr_steps_are_equal_in_the_log_snr():
    schedule = float64(schedules.log_snr(21, log_snr_start=8.0, log_snr_end=-12.0))
    np.testing.assert_allclose(
        np.log(schedule.gamma[1:] / schedule.one_minus_gamma[1:]), np.arange(8, -13, -1), atol=1e-6
    )


@pytest.mark.parametrize("make", [schedules.cosine, schedules.log_snr])
def test_one_step_goes_straight_to_the_end(make):
    schedule = make(1, log_snr_end=-9.0)
    np.testing.assert_allclose(schedule.gamma, [1, 1 / (1 + np.exp(9))], rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 3, 50, 1999])
def test_respacing_visits_equally_spaced_levels_and_keeps_the_last(steps):
    full, some = schedules.linear(), schedules.respaced(schedules.linear(), steps)
    visited = np.interp(-np.asarray(some.gamma), -np.asarray(full.gamma), np.arange(2001))
    np.testing.assert_allclose(visited, np.round(visited), atol=0.1)
    np.testing.assert_allclose(visited, np.linspace(0, 2000, steps + 1), atol=0.6)
    np.testing.assert_allclose(some.gamma[-1], full.gamma[-1], rtol=2e-7)


def test_respacing_to_all_steps_changes_nothing():
    full = schedules.linear()
    again = schedules.respaced(full, full.steps)
    np.testing.assert_allclose(again.gamma, full.gamma, rtol=2e-7)
    np.testing.assert_allclose(again.one_minus_gamma, full.one_minus_gamma, rtol=2e-7)
    np.testing.assert_allclose(again.alpha, full.alpha, rtol=2e-7)
    np.testing.assert_allclose(again.beta, full.beta, rtol=1e-4)  # a difference of float32 levels


def test_a_schedule_can_be_made_in_jit_and_handed_to_jit():
    outside = schedules.linear_to(8, GAMMA_END)
    made_inside = jax.jit(lambda t: schedules.linear_to(8, GAMMA_END).gamma[t])(3)
    handed_in = jax.jit(lambda schedule, t: schedule.gamma[t] + 0 * schedule.steps)(outside, 3)
    assert made_inside == handed_in == outside.gamma[3]


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.from_log_gamma(np.array([])),
        lambda: schedules.from_log_gamma(np.array([-1.0, -0.5])),
        lambda: schedules.from_log_gamma(np.array([-1.0, np.nan])),
        lambda: schedules.from_gamma(np.array([0.9, 0.9])),
        lambda: schedules.from_gamma(np.array([1.0, 0.9])),
        lambda: schedules.linear(0),
        lambda: schedules.linear(10, 0.0, 0.01),
        lambda: schedules.linear_to(10, 1.5),
        lambda: schedules.linear_to(10, 0.0),
        lambda: schedules.linear_to(2000, 0.9),
        lambda: schedules.linear_to(0, 0.1),
        lambda: schedules.from_gamma(np.array([0.5, 0.0])),
        lambda: schedules.linear(10, 0.1, 1.0),
        lambda: schedules.linear(10, 0.1, 1.5),
        lambda: schedules.cosine(5, -3.0, 3.0),
        lambda: schedules.cosine(0),
        lambda: schedules.log_snr(0),
        lambda: schedules.linear_to(2, 1e-20),
        lambda: schedules.log_snr(5, -3.0, 3.0),
        lambda: schedules.respaced(schedules.linear(10), 0),
        lambda: schedules.respaced(schedules.linear(10), 11),
    ],
)
def test_impossible_schedules_raise_value_error(make):
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=r"schedule|gamma"):
        make()


# -- p(gamma)

DRAWS = 20_000


@pytest.mark.parametrize("make", [schedules.linear, lambda: schedules.log_snr(4, 3.0, -3.0)])
def test_gamma_is_drawn_from_p_of_gamma(make):
    schedule = make()
    gamma = np.asarray(schedules.sample_gamma(jax.random.key(0), schedule, DRAWS))
    assert gamma.shape == (DRAWS,)
    assert float(schedule.gamma[-1]) < gamma.min() <= gamma.max() <= 1
    # p is uniform between neighbours, each with probability 1/T: its distribution function is
    # linear from knot to knot
    uniform = np.interp(gamma, schedule.gamma[::-1], np.linspace(0, 1, schedule.steps + 1))
    distance = np.abs(np.sort(uniform) - (np.arange(DRAWS) + 0.5) / DRAWS).max()
    assert distance < 1.95 / np.sqrt(DRAWS)  # Kolmogorov-Smirnov at 0.1 %


def test_gamma_is_drawn_for_each_image_on_its_own():
    gamma = np.asarray(schedules.sample_gamma(jax.random.key(1), schedules.linear(), DRAWS))
    assert len(np.unique(gamma)) > 0.9 * DRAWS
    for lag in (1, 2, DRAWS // 2):
        assert abs(np.corrcoef(gamma[lag:], gamma[:-lag])[0, 1]) < 4 / np.sqrt(DRAWS - lag)


def test_gamma_depends_on_the_key_alone():
    def draw(seed):
        return schedules.sample_gamma(jax.random.key(seed), schedules.linear(), 8)

    np.testing.assert_array_equal(draw(0), draw(0))
    np.testing.assert_array_equal(draw(0), jax.jit(draw, static_argnums=0)(0))
    assert not np.any(draw(0) == draw(1))


@pytest.mark.parametrize("rho", [1.0, 7.0])
def test_log_snr_with_rho_is_equally_spaced_in_that_root_of_the_relative_noise(rho):
    schedule = schedules.log_snr(9, 6.0, -8.0, rho)
    gamma, one_minus = (
        np.asarray(table, np.float64)[1:] for table in (schedule.gamma, schedule.one_minus_gamma)
    )
    roots = np.sqrt(one_minus / gamma) ** (1 / rho)
    np.testing.assert_allclose(np.diff(roots), np.diff(roots).mean(), rtol=1e-3)
    np.testing.assert_allclose(np.log(gamma / one_minus)[[0, -1]], [6.0, -8.0], rtol=1e-5)
    limit = schedules.log_snr(9, 6.0, -8.0, 1e5)
    np.testing.assert_allclose(limit.gamma, schedules.log_snr(9, 6.0, -8.0).gamma, rtol=1e-3)
