"""Algorithm 1 (training), the regression baseline's loss, and distillation."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from sr3_jax.diffusion.process import (
    Prediction,
    epsilon_from_y_0,
    q_sample,
    target,
    to_y_0_and_epsilon,
)
from sr3_jax.diffusion.schedules import NoiseSchedule, sample_gamma
from sr3_jax.diffusion.types import Denoiser, Images, Levels, per_image

Norm = Literal["l1", "l2"]
Weights = Float[Array, "b h w 1"]  # of pixels in a loss


def distance(
    output: Images, wanted: Images, norm: Norm, weights: Weights | None = None
) -> Float[Array, " b"]:
    """‖output - wanted‖_p^p over each image, p = 1 or 2.

    Divided by the number of values, so that sizes compare. With `weights`, (b, h, w, 1) from 0 to
    1, it is their weighted mean.
    """
    difference = (output - wanted).astype(jnp.float32)
    error = jnp.abs(difference) if norm == "l1" else jnp.square(difference)
    axes = tuple(range(1, error.ndim))
    if weights is None:
        return error.mean(axis=axes)
    total = weights.sum(axis=axes) * error.shape[-1]
    return (error * weights).sum(axis=axes) / jnp.maximum(total, 1)


def sr3_loss(
    network: Callable[[Array, Array], Array],
    y_0: Images,
    key: Key[Array, ""],
    schedule: NoiseSchedule,
    *,
    predict: Prediction = "epsilon",
    norm: Norm = "l1",
    variance_weight: float = 0.0,
    weights: Weights | None = None,
) -> Float[Array, " b"]:
    """Algorithm 1, lines 2 to 5: the loss of each image.

    `network(y_t, gamma)` gives the output named by `predict`; with a variance_weight
    followed by that of a learned variance, whose loss is then added with this weight. `weights`
    say how much each pixel counts (`distance`).

    With predict = "epsilon" this is the paper's loss to the letter. "v" and "y_0" are reweightings
    of it: for p = 2 by 1 / gamma and by (1 - gamma) / gamma, since v - v̂ = (ε - ε̂) / √gamma and
    y_0 - ŷ_0 = √((1 - gamma) / gamma) (ε̂ - ε).
    """
    gamma_key, epsilon_key = jax.random.split(key)
    gamma = sample_gamma(gamma_key, schedule, y_0.shape[0])
    epsilon = jax.random.normal(epsilon_key, y_0.shape)
    y_t = q_sample(y_0, gamma, epsilon)
    output = network(y_t, gamma)
    seen, share = jnp.split(output, [y_0.shape[-1]], axis=-1)
    loss = distance(seen, target(predict, y_0, gamma, epsilon), norm, weights)
    if not variance_weight:
        return loss
    # The variance must not pull at the mean (Nichol & Dhariwal 2021, section 3.1)
    guess, _ = to_y_0_and_epsilon(predict, jax.lax.stop_gradient(seen), y_t, gamma)
    return loss + variance_weight * variance_bound(y_0 - guess, (share + 1) / 2, gamma, schedule)


def variance_bound(
    error: Images, share: Images, gamma: Levels, schedule: NoiseSchedule
) -> Float[Array, " b"]:
    """What a learned variance costs in the variational bound, in bits a value, for each image.

    It is T times the KL divergence of p(y_{t-1} | y_t) from q(y_{t-1} | y_t, y_0), as in the
    hybrid loss of Nichol & Dhariwal 2021 (arXiv 2102.09672, section 3.1), with

        log variance = v log beta + (1 - v) log posterior

    The level before gamma is as far between its neighbours as gamma is between its own. The last
    step, t = 1, costs nothing here: it adds no noise, whatever the variance.

    Args:
      error: y_0 less the network's estimate.
      share: v, 0 for the posterior's variance, 1 for beta.
      gamma: the level of y_t.
      schedule: of training, whose levels gamma is drawn between.
    """
    t = jnp.clip(jnp.searchsorted(-schedule.gamma, -gamma), 1, schedule.steps)
    low, high = schedule.gamma[t], schedule.gamma[t - 1]
    u = jnp.clip((gamma - low) / (high - low), 0, 1)

    def between(table: Array, t: Array) -> Array:
        return table[t] + u * (table[t - 1] - table[t])

    before = jnp.maximum(t - 1, 1)
    # Before the second level is none without noise: nearest to it, the posterior's variance is 0
    tiny = 0.01 * schedule.one_minus_gamma[1]
    gamma_next = between(schedule.gamma, before)
    one_minus = between(schedule.one_minus_gamma, t)
    one_minus_next = jnp.maximum(between(schedule.one_minus_gamma, before), tiny)
    # The difference of the small ones of two pairs of numbers, for the sake of float32
    rise = jnp.where(gamma > 0.5, one_minus - one_minus_next, gamma_next - gamma)
    beta = jnp.maximum(rise, 1e-9) / gamma_next
    log_ratio = per_image(jnp.log(one_minus_next / one_minus), error)  # posterior's to beta
    # Both in units of the posterior's variance
    log_variance = -share * log_ratio
    mean = per_image(jnp.sqrt(gamma_next * beta / (one_minus * one_minus_next)), error) * error
    # KL of two normal distributions, in nats
    kl = 0.5 * (log_variance - 1 + (1 + jnp.square(mean)) * jnp.exp(-log_variance))
    bits = kl.mean(axis=tuple(range(1, kl.ndim))) / jnp.log(2.0)
    return jnp.where(t > 1, schedule.steps * bits, 0)


class Teacher(NamedTuple):
    """The network that a student learns from, and its DDIM steps for one of the student's."""

    denoise: Denoiser
    steps: int


class Lesson(NamedTuple):
    """What a student is to learn from a batch."""

    gamma: Float[Array, " b"]  # the noise level that it starts at
    epsilon: Images  # the noise in y_t
    y_0: Images  # what it is to say, so that one DDIM step leads where the teacher's steps do


class Distilled(NamedTuple):
    """What a student says."""

    loss: Float[Array, " b"]  # the distance between its output and what the teacher leads to
    y_0: Images  # its estimate of y_0


def lesson(
    teacher: Teacher,
    condition: PyTree,
    y_0: Images,
    key: Key[Array, ""],
    schedule: NoiseSchedule,
) -> Lesson:
    """Where `teacher.steps` DDIM steps of the teacher lead from q(y_t|y_0), for each image.

    Progressive distillation (Salimans & Ho 2022, algorithm 2; there teacher.steps = 2). `schedule`
    holds the few levels the student visits; t is drawn from them, for each image. With the angle
    phi, cos phi = √gamma, the teacher goes from phi to that of the level before, phi', in equal
    parts of the angle, and arrives at y'. The student is to say the y_0 from which a single DDIM
    step leads there:

        cos phi' y_0 + sin phi' (y_t - cos phi y_0) / sin phi = y'
        ⇔   y_0 = (sin phi y' - sin phi' y_t) / sin(phi - phi')
    """
    t_key, epsilon_key = jax.random.split(key)
    angles = schedule.angle
    t = jax.random.randint(t_key, (y_0.shape[0],), 1, schedule.steps + 1)
    phi, phi_end, gamma = angles[t], angles[t - 1], schedule.gamma[t]
    epsilon = jax.random.normal(epsilon_key, y_0.shape)
    y_t = q_sample(y_0, gamma, epsilon)

    def teach(step: Array, y: Array) -> Array:
        before, after = (
            jnp.square(jnp.cos(phi + (phi_end - phi) * (step + i) / teacher.steps)) for i in (0, 1)
        )
        guess = teacher.denoise(condition, y, before)
        return q_sample(guess, after, epsilon_from_y_0(guess, y, before))

    y_end = jax.lax.fori_loop(0, teacher.steps, teach, y_t)
    arrive, start, end = (
        per_image(sine, y_t) for sine in (jnp.sin(phi - phi_end), jnp.sin(phi), jnp.sin(phi_end))
    )
    return Lesson(gamma, epsilon, (start * y_end - end * y_t) / arrive)


def distillation_loss(
    network: Callable[[PyTree, Array, Array], Array],
    taught: Lesson,
    condition: PyTree,
    y_0: Images,
    *,
    predict: Prediction = "epsilon",
    norm: Norm = "l2",
    weights: Weights | None = None,
) -> Distilled:
    """How far the network is from its lesson, at y_t of the lesson's level and noise.

    `weights` say how much each pixel counts (`distance`).
    """
    y_t = q_sample(y_0, taught.gamma, taught.epsilon)
    output = network(condition, y_t, taught.gamma)
    epsilon = epsilon_from_y_0(taught.y_0, y_t, taught.gamma)
    wanted = target(predict, taught.y_0, taught.gamma, epsilon)
    estimate, _ = to_y_0_and_epsilon(predict, output, y_t, taught.gamma)
    return Distilled(distance(output, wanted, norm, weights), estimate)
