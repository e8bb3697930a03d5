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
from sr3_jax.diffusion.types import Denoiser, Images, per_image

Norm = Literal["l1", "l2"]


def distance(output: Images, wanted: Images, norm: Norm) -> Float[Array, " b"]:
    """‖output - wanted‖_p^p over each image, p = 1 or 2.

    Divided by the number of values, so that sizes compare.
    """
    difference = (output - wanted).astype(jnp.float32)
    error = jnp.abs(difference) if norm == "l1" else jnp.square(difference)
    return error.mean(axis=tuple(range(1, error.ndim)))


def sr3_loss(
    network: Callable[[PyTree, Array, Array], Array],
    condition: PyTree,
    y_0: Images,
    key: Key[Array, ""],
    schedule: NoiseSchedule,
    *,
    predict: Prediction = "epsilon",
    norm: Norm = "l1",
) -> Float[Array, " b"]:
    """Algorithm 1, lines 2 to 5: the loss of each image.

    `network(condition, y_t, gamma)` gives the output named by `predict`.

    With predict = "epsilon" this is the paper's loss to the letter. "v" and "y_0" are reweightings
    of it: for p = 2 by 1 / gamma and by (1 - gamma) / gamma, since v - v̂ = (ε - ε̂) / √gamma and
    y_0 - ŷ_0 = √((1 - gamma) / gamma) (ε̂ - ε).
    """
    gamma_key, epsilon_key = jax.random.split(key)
    gamma = sample_gamma(gamma_key, schedule, y_0.shape[0])
    epsilon = jax.random.normal(epsilon_key, y_0.shape)
    output = network(condition, q_sample(y_0, gamma, epsilon), gamma)
    return distance(output, target(predict, y_0, gamma, epsilon), norm)


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
) -> Distilled:
    """How far the network is from its lesson, at y_t of the lesson's level and noise."""
    y_t = q_sample(y_0, taught.gamma, taught.epsilon)
    output = network(condition, y_t, taught.gamma)
    epsilon = epsilon_from_y_0(taught.y_0, y_t, taught.gamma)
    wanted = target(predict, taught.y_0, taught.gamma, epsilon)
    estimate, _ = to_y_0_and_epsilon(predict, output, y_t, taught.gamma)
    return Distilled(distance(output, wanted, norm), estimate)
