"""Samplers against closed forms.

A sampler is a table, so for a target N(m, s² I), whose exact denoiser is affine in y, mean and
variance of its output follow from the table alone, in float64. They are compared with each method's
own textbook recursion, and with the truth.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax import config as config_lib
from sr3_jax.diffusion import process, samplers, schedules
from sr3_jax.diffusion.samplers import (
    VARIANCES,
    ancestral,
    ddim,
    dpm_solver,
    heun,
    noise_like,
    sample,
)
from sr3_jax.errors import ConfigError
from sr3_jax.method import sampling_steps

GAMMA_END = 4.39e-5
SHAPE = (3, 4, 4, 1)
KEYS = jax.random.split(jax.random.key(3), SHAPE[0])
CONDITION = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, SHAPE), jnp.float32)
M, S = 0.7, 0.5  # mean and standard deviation of the target

SAMPLERS = {
    "beta": lambda schedule: ancestral(schedule, "beta"),
    "posterior": lambda schedule: ancestral(schedule, "posterior"),
    "ddim": ddim,
    "ddim, half the noise": lambda schedule: ddim(schedule, 0.5),
    "ddim, all the noise": lambda schedule: ddim(schedule, 1.0),
    "dpm_solver": dpm_solver,
    "dpm_solver, all the noise": lambda schedule: dpm_solver(schedule, 1.0),
    "heun": heun,
}


def pull(gamma, one_minus):
    """(offset, slope) of the exact denoiser, E[y_0 | y] = offset + slope · y."""
    slope = S**2 * np.sqrt(gamma) / (S**2 * gamma + one_minus)
    return M * (1 - slope * np.sqrt(gamma)), slope


class Affine:
    """A number that is affine in independent standard normal draws.

    It has a mean, and a coefficient for each draw.
    """

    def __init__(self, mean=0.0, noises=()):
        self.mean, self.noises = mean, dict(noises)

    def __add__(self, other):
        other = other if isinstance(other, Affine) else Affine(other)
        names = self.noises.keys() | other.noises.keys()
        return Affine(
            self.mean + other.mean,
            {n: self.noises.get(n, 0) + other.noises.get(n, 0) for n in names},
        )

    def __rmul__(self, factor):
        return Affine(factor * self.mean, {n: factor * c for n, c in self.noises.items()})

    __radd__ = __add__

    @property
    def variance(self):
        return sum(c**2 for c in self.noises.values())


def denoised(y, gamma, one_minus):
    offset, slope = pull(gamma, one_minus)
    return offset + slope * y


def run(steps, levels):
    """What `sample` does with a table, for the exact denoiser.

    `levels` maps gamma to 1 - gamma, in full precision.
    """
    y, before = Affine(0.0, {"T": 1.0}), Affine()
    for row in range(steps.evaluations):
        gamma, keep, predicted, previous, noise = (float(column[row]) for column in steps[:5])
        found = denoised(y, gamma, levels[np.float32(gamma)])
        y, before = (
            keep * y + predicted * found + previous * before + noise * Affine(0.0, {row: 1.0}),
            found,
        )
    return y


def levels_of(schedule):
    gamma, one_minus = np.asarray(schedule.gamma), np.asarray(schedule.one_minus_gamma)
    return {level: float(rest) for level, rest in zip(gamma, one_minus, strict=True)}


def textbook(name, schedule):
    """The output of each method, step by step as its authors write it."""
    gamma, one_minus, alpha, beta = (np.asarray(table, np.float64) for table in schedule)
    lam = np.log(np.sqrt(gamma[1:]) / np.sqrt(one_minus[1:]))  # of t = 1 ... T
    y, before = Affine(0.0, {"T": 1.0}), None
    for t in range(schedule.steps, 0, -1):
        y_0 = denoised(y, gamma[t], one_minus[t])
        epsilon = (1 / np.sqrt(one_minus[t])) * (y + (-np.sqrt(gamma[t])) * y_0)
        z = Affine(0.0, {t: 1.0})
        if name in ("beta", "posterior"):  # Algorithm 2
            mean = (1 / np.sqrt(alpha[t])) * (y + (-beta[t] / np.sqrt(one_minus[t])) * epsilon)
            variance = beta[t] if name == "beta" else one_minus[t - 1] / one_minus[t] * beta[t]
            y = mean + (np.sqrt(variance) * z if t > 1 else Affine())
        elif name.startswith("ddim"):  # Song et al., eq. 12 and 16
            eta = {"ddim": 0, "ddim, half the noise": 0.5}.get(name, 1)
            sigma = eta * np.sqrt(one_minus[t - 1] / one_minus[t] * (1 - gamma[t] / gamma[t - 1]))
            y = (
                np.sqrt(gamma[t - 1]) * y_0
                + np.sqrt(max(one_minus[t - 1] - sigma**2, 0)) * epsilon
                + sigma * z
            )
        elif t == 1:
            y = 1.0 * y_0  # noise-free
        elif name.startswith(
            "dpm_solver"
        ):  # Lu et al., algorithm 2; its stochastic form from their section on SDEs
            h = lam[t - 2] - lam[t - 1]
            D = y_0
            if before is not None:
                r = (lam[t - 1] - lam[t]) / h
                D = (1 + 1 / (2 * r)) * y_0 + (-1 / (2 * r)) * before
            ratio = np.sqrt(one_minus[t - 1] / one_minus[t])
            if name == "dpm_solver":
                y = ratio * y + np.sqrt(gamma[t - 1]) * -np.expm1(-h) * D
            else:
                share = -np.expm1(-2 * h)
                y = (
                    ratio * np.exp(-h) * y
                    + np.sqrt(gamma[t - 1]) * share * D
                    + np.sqrt(one_minus[t - 1] * share) * z
                )
        else:  # Hochbruck & Ostermann, eq. 2.39 with c_2 = 1, of y / √(1 - gamma) in the log-SNR
            h = lam[t - 2] - lam[t - 1]
            phi_1 = -np.expm1(-h) / h
            phi_2 = (1 - phi_1) / h
            kept = np.sqrt(one_minus[t - 1] / one_minus[t]) * y
            forced = np.sqrt(gamma[t - 1]) * h
            y_euler = kept + forced * phi_1 * y_0
            y_0_next = denoised(y_euler, gamma[t - 1], one_minus[t - 1])
            y = kept + forced * (phi_1 - phi_2) * y_0 + forced * phi_2 * y_0_next
        before = y_0
    return y


@pytest.mark.fast
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 16, 100])
def test_an_exact_denoiser_of_a_gaussian_yields_the_closed_form_moments(name, steps):
    for schedule in (
        schedules.linear_to(steps, GAMMA_END),
        schedules.log_snr(steps),
        schedules.log_snr(steps, rho=7.0),
    ):
        found, wanted = run(SAMPLERS[name](schedule), levels_of(schedule)), textbook(name, schedule)
        atol = 1e-5 * (1 + np.sqrt(wanted.variance))
        np.testing.assert_allclose(
            (found.mean, found.variance), (wanted.mean, wanted.variance), rtol=2e-5, atol=atol
        )


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("posterior", 1),
        ("ddim", 1),
        ("ddim, half the noise", 1),
        ("ddim, all the noise", 1),
        ("dpm_solver", 2),
        ("heun", 2),
    ],
)
def test_the_moments_converge_at_the_promised_order(name, order):
    def moments(steps):
        schedule = schedules.log_snr(steps, 22.0, -10.0)
        y = run(SAMPLERS[name](schedule), levels_of(schedule))
        return np.array([y.mean, np.sqrt(y.variance)])

    coarse, middle, fine = (moments(steps + 1) for steps in (60, 120, 240))
    rate = np.log2(np.linalg.norm(middle - coarse) / np.linalg.norm(fine - middle))
    assert abs(rate - order) < 0.25
    limit = fine + (fine - middle) / (2**order - 1)  # Richardson's
    # the chain starts at N(0, 1) instead of its true start, which is 0.7 % off at this log-SNR
    np.testing.assert_allclose(limit, [M, S], atol=0.01)


@pytest.mark.fast
@pytest.mark.parametrize("spacing", config_lib.CHOICES["sample.schedule"])
@pytest.mark.parametrize("variance", config_lib.CHOICES["sample.variance"])
@pytest.mark.parametrize("sampler", config_lib.CHOICES["sample.sampler"])
def test_no_sampler_that_is_offered_destroys_the_picture_in_few_evaluations(
    sampler, variance, spacing
):
    config = config_lib.base()
    sample_ = config.sample
    sample_.sampler, sample_.variance, sample_.schedule = sampler, variance, spacing
    config.model.learned_variance = variance == "learned"
    # As its peer has it, this one starts below the noisiest level, at a gamma of 0.01 at the most.
    gamma_start = 0.01 if spacing == "ddim_respacing" else 0

    def moments(count):
        steps = sampling_steps(config, count)
        assert steps.evaluations <= count
        y = run(steps, {np.float32(level): 1 - float(level) for level in steps.gamma})
        return y.mean, np.sqrt(y.variance)

    mean, deviation = moments(100)
    refused = []
    for count in range(1, 17):
        try:
            found = moments(count)
        except ConfigError:
            refused.append(count)
            continue
        assert abs(found[0] - mean) < 0.01 + math.sqrt(gamma_start)
        assert found[1] < 2 * deviation
    if spacing == "ddim_respacing":
        assert refused in ([1, 2, 3], [1, 2, 3, 4, 5, 6])  # a step of Heun's takes two
    else:
        assert not refused


@pytest.mark.fast
def test_the_paper_variance_has_the_target_as_its_limit():
    def variance(steps):
        schedule = schedules.linear(steps, 0.1 / steps, 20 / steps)
        return run(ancestral(schedule, "beta"), levels_of(schedule)).variance

    coarse, fine = variance(400), variance(800)
    assert abs(2 * fine - coarse - S**2) < 5e-3


@pytest.mark.fast
def test_beta_is_the_right_variance_for_a_standard_normal_image():
    schedule = schedules.linear_to(10, GAMMA_END)
    steps, variance = ancestral(schedule), 1.0
    for row in range(10):  # E[y_0 | y] = √gamma y
        factor = steps.keep[row] + steps.predicted[row] * np.sqrt(steps.gamma[row])
        variance = factor**2 * variance + steps.noise[row] ** 2
    np.testing.assert_allclose(variance, schedule.alpha[1], atol=1e-5)  # no noise at t = 1


@pytest.mark.fast
def test_ddim_with_all_the_noise_is_the_posterior():
    schedule = schedules.linear_to(20, GAMMA_END)
    tables = ddim(schedule, 1.0), ancestral(schedule, "posterior")
    for found, wanted in zip(*map(jax.tree.leaves, tables), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.fast
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_last_row_is_the_prediction_and_what_is_certain_stays(name, count):
    """At the end y_0 = D.

    At every row a constant D is carried along its own straight line, √gamma' D + noise.
    """
    schedule = schedules.log_snr(count, 2.0, -9.0)
    steps = SAMPLERS[name](schedule)
    assert steps.evaluations == (2 * count - 1 if name == "heun" else count)
    assert (steps.keep[-1], steps.predicted[-1], steps.previous[-1], steps.noise[-1]) == (
        0,
        pytest.approx(1),
        0,
        0,
    )
    after = np.append(steps.gamma[1:], 1.0)
    signal = steps.keep * np.sqrt(steps.gamma) + steps.predicted + steps.previous
    np.testing.assert_allclose(signal, np.sqrt(after), rtol=1e-4, atol=1e-5)


def wiggle(condition, y_t, gamma):
    """A network for epsilon that is not affine; for jax and numpy arrays alike."""
    xp = np if isinstance(y_t, np.ndarray) else jnp
    return xp.tanh(y_t + 0.3 * condition) * (1.1 - 0.5 * gamma[:, None, None, None])


def wiggle_denoiser(condition, y_t, gamma):
    return process.to_y_0_and_epsilon("epsilon", wiggle(condition, y_t, gamma), y_t, gamma)[0]


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
        y = (y - beta[t] / np.sqrt(one_minus_gamma[t]) * f) / np.sqrt(alpha[t]) + np.sqrt(
            beta[t]
        ) * z
    y_0 = sample(wiggle_denoiser, CONDITION, KEYS, ancestral(schedule), shape=SHAPE)
    np.testing.assert_allclose(y_0, y, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_table_is_run_as_equation_1_says(name):
    steps = SAMPLERS[name](schedules.log_snr(4, 5.0, -9.0))
    count = steps.evaluations
    y, before = noise_like(CONDITION, KEYS, count + 1), 0.0
    for row in range(count):
        gamma, keep, predicted, previous, noise = (float(column[row]) for column in steps[:5])
        found = wiggle_denoiser(CONDITION, y, jnp.full(len(y), gamma))
        y = (
            keep * y
            + predicted * found
            + previous * before
            + noise * noise_like(y, KEYS, count - row)
        )
        before = found
    wanted = np.asarray(y)
    np.testing.assert_allclose(
        sample(wiggle_denoiser, CONDITION, KEYS, steps, shape=SHAPE), wanted, rtol=2e-5, atol=2e-5
    )
    as_argument = jax.jit(
        lambda steps: sample(wiggle_denoiser, CONDITION, KEYS, steps, shape=SHAPE)
    )
    np.testing.assert_allclose(as_argument(steps), wanted, rtol=2e-5, atol=2e-5)


def test_an_image_is_the_same_alone_in_any_place_and_beside_padding():
    @jax.jit
    def draw(indices):
        steps = ancestral(schedules.log_snr(4))
        return sample(
            wiggle_denoiser, CONDITION[indices], KEYS[indices], steps, shape=(len(indices), 4, 4, 1)
        )

    together = draw(jnp.array([0, 1, 2]))
    np.testing.assert_allclose(draw(jnp.array([1])), together[1:2], atol=1e-6)
    np.testing.assert_allclose(
        draw(jnp.array([2, 0, 1])), together[jnp.array([2, 0, 1])], atol=1e-6
    )
    np.testing.assert_allclose(draw(jnp.array([1, 2, 2]))[0], together[1], atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 0.1


def test_noise_differs_between_images_steps_and_keys_and_is_standard_normal():
    images = jnp.zeros((2, 64, 64, 1))
    draws = np.stack(
        [noise_like(images, KEYS[:2], t) for t in (1, 2)] + [noise_like(images, KEYS[1:], 1)]
    ).reshape(6, -1)
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
    steps = ancestral(schedules.log_snr(3, 5.0, -9.0))

    @jax.jit
    def draw(keys, condition):
        return sample(wiggle_denoiser, condition, keys, steps, shape=condition.shape)

    sharded = draw(jax.device_put(keys, spread), jax.device_put(condition, spread))
    assert len(sharded.sharding.device_set) == 8
    np.testing.assert_allclose(sharded, draw(keys, condition), atol=1e-6)


def test_memory_does_not_grow_with_the_number_of_steps():
    def temporary_bytes(count):
        def draw(keys, condition, steps):
            return sample(wiggle_denoiser, condition, keys, steps, shape=SHAPE)

        compiled = (
            jax.jit(draw).lower(KEYS, CONDITION, dpm_solver(schedules.log_snr(count))).compile()
        )
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(10) == temporary_bytes(1000)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_noise_is_drawn_only_where_it_is_used(eta, monkeypatch):
    drawn = []
    monkeypatch.setattr(samplers, "noise_like", lambda images, keys, t: drawn.append(t) or images)
    jax.eval_shape(
        lambda: sample(
            wiggle_denoiser, CONDITION, KEYS, ddim(schedules.log_snr(3), eta), shape=SHAPE
        )
    )
    assert len(drawn) == 1 + (eta > 0)


def test_every_variance_is_known_to_the_config():
    from sr3_jax.config import CHOICES

    assert CHOICES["sample.variance"] == VARIANCES
    assert all(hasattr(samplers, name) for name in CHOICES["sample.sampler"])
