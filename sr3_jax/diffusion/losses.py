"""Algorithm 1 (training) and the regression baseline's loss."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from sr3_jax.diffusion.process import Prediction, q_sample, target
from sr3_jax.diffusion.schedules import NoiseSchedule, sample_gamma
from sr3_jax.diffusion.types import Images

Norm = Literal["l1", "l2"]


def distance(output: Images, wanted: Images, norm: Norm) -> Float[Array, " b"]:
    """‖output - wanted‖_p^p over each image, divided by its number of values (so that sizes compare); p = 1 or 2."""
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
    """Algorithm 1, lines 2 to 5, the loss of each image; `network(condition, y_t, gamma)` gives the output named by `predict`.

    With predict = "epsilon" this is the paper's loss to the letter. "v" and "y_0" are reweightings of it: for p = 2 by
    1 / gamma and by (1 - gamma) / gamma, since v - v̂ = (ε - ε̂) / √gamma and y_0 - ŷ_0 = √((1 - gamma) / gamma) (ε̂ - ε).
    """
    gamma_key, epsilon_key = jax.random.split(key)
    gamma = sample_gamma(gamma_key, schedule, y_0.shape[0])
    epsilon = jax.random.normal(epsilon_key, y_0.shape)
    output = network(condition, q_sample(y_0, gamma, epsilon), gamma)
    return distance(output, target(predict, y_0, gamma, epsilon), norm)
