"""The forward process and its algebra, as pure functions of arrays.

    (1) q(y_t | y_0) = N(√gamma_t · y_0, (1 - gamma_t) I)                       paper, section 2.1
    (2) q(y_{t-1} | y_0, y_t) = N(mu, sigma² I), with                           paper, section 2.1
        mu      = √gamma_{t-1} (1 - alpha_t) / (1 - gamma_t) · y_0
                + √alpha_t (1 - gamma_{t-1}) / (1 - gamma_t) · y_t
        sigma²  = (1 - gamma_{t-1}) (1 - alpha_t) / (1 - gamma_t)
    (3) y_t = √gamma · y_0 + √(1 - gamma) · epsilon
        v   = √gamma · epsilon - √(1 - gamma) · y_0                 Salimans & Ho 2022, appendix D

Images have shape (b, h, w, c); a level has shape (b,), gamma in (0, 1].
"""

from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float

from sr3_jax.diffusion.schedules import NoiseSchedule
from sr3_jax.diffusion.types import Images, Levels, per_image

Prediction = Literal["epsilon", "v", "y_0"]  # what the network's output means
PREDICTIONS: tuple[str, ...] = get_args(Prediction)


def _roots(gamma: Array, images: Array) -> tuple[Array, Array]:
    gamma = per_image(gamma, images)
    return jnp.sqrt(gamma), jnp.sqrt(1 - gamma)


def q_sample(y_0: Images, gamma: Levels, epsilon: Images) -> Images:
    """y_t of level `gamma` from y_0 and the noise `epsilon`, eq. (3)."""
    signal, noise = _roots(gamma, y_0)
    return signal * y_0 + noise * epsilon


def q_posterior(
    y_0: Images, y_t: Images, schedule: NoiseSchedule, t: int | Array
) -> tuple[Images, Float[Array, ""]]:
    """Mean, of the images' shape, and variance of q(y_{t-1} | y_0, y_t), eq. (2).

    The step t, 1 to T, is the same for the whole batch.
    """
    gamma_before, one_minus_before = schedule.gamma[t - 1], schedule.one_minus_gamma[t - 1]
    alpha, beta, one_minus_gamma = schedule.alpha[t], schedule.beta[t], schedule.one_minus_gamma[t]
    mean = (
        jnp.sqrt(gamma_before) * beta / one_minus_gamma * y_0
        + jnp.sqrt(alpha) * one_minus_before / one_minus_gamma * y_t
    )
    return mean, one_minus_before * beta / one_minus_gamma


def target(predict: Prediction, y_0: Images, gamma: Levels, epsilon: Images) -> Images:
    """The right output, for y_0, gamma and epsilon, of a network that predicts `predict`."""
    signal, noise = _roots(gamma, y_0)
    return {"epsilon": epsilon, "y_0": y_0, "v": signal * epsilon - noise * y_0}[predict]


def to_y_0_and_epsilon(
    predict: Prediction, output: Images, y_t: Images, gamma: Levels
) -> tuple[Images, Images]:
    """The (y_0, epsilon) that the output of a network stands for, by eq. (3).

    With "epsilon", y_0 is divided by √gamma, which multiplies the network's error at the start of
    sampling (150 times at gamma = 4e-5). So a small network does worst with it; with "v" nothing is
    divided.
    """
    signal, noise = _roots(gamma, y_t)
    if predict == "epsilon":
        return (y_t - noise * output) / signal, output
    if predict == "y_0":
        return output, epsilon_from_y_0(output, y_t, gamma)
    return signal * y_t - noise * output, noise * y_t + signal * output


def epsilon_from_y_0(y_0: Images, y_t: Images, gamma: Levels) -> Images:
    """The noise that leads from y_0 to y_t, eq. (3)."""
    signal, noise = _roots(gamma, y_t)
    return (y_t - signal * y_0) / jnp.maximum(noise, 1e-6)  # gamma = 1 has no noise to speak of
