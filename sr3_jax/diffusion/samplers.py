"""Samplers: from noise y_T to an image y_0. One signature, pure, for `jit`.

A sampler is `sample(denoise, condition, keys, schedule, *, shape, ...) -> y_0`. `keys` holds one random key per image, and
the noise of image i at step t depends on keys[i] and t alone: batch size, position in the batch, padding and the number of
devices never enter. The loop carries only the image, so memory does not grow with the number of steps.
"""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from sr3_jax.diffusion.process import q_posterior
from sr3_jax.diffusion.schedules import NoiseSchedule
from sr3_jax.diffusion.types import Denoiser, Images, Keys

Variance = Literal["beta", "posterior"]
VARIANCES: tuple[str, ...] = get_args(Variance)


def noise_like(images: Images, keys: Keys, t: int | Array) -> Images:
    """Standard normal noise of the images' shape, image i's from fold_in(keys[i], t)."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, t), images.shape[1:], images.dtype))(keys)


def run(step: Callable[[Array, Array], Array], keys: Keys, schedule: NoiseSchedule, shape: tuple[int, ...]) -> Images:
    """Draws y_T ~ N(0, I), of shape (b, h, w, c), and applies y_{t-1} = step(y_t, t) for t = T ... 1."""
    steps = schedule.steps
    y_T = noise_like(jnp.zeros(shape), keys, steps + 1)  # t = T + 1 is a number that no step uses
    return jax.lax.fori_loop(0, steps, lambda i, y_t: step(y_t, steps - i), y_T)


def ancestral(
    denoise: Denoiser,
    condition: PyTree,
    keys: Keys,
    schedule: NoiseSchedule,
    *,
    shape: tuple[int, ...],
    variance: Variance = "beta",
) -> Images:
    """Algorithm 2 of the paper (section 2.3).

    y_{t-1} = (y_t - (1 - alpha_t) / √(1 - gamma_t) · epsilon) / √alpha_t + √variance · z,   z = 0 at t = 1.

    The fraction is the mean of the posterior q(y_{t-1} | y_0, y_t) at the predicted y_0 (section 2.3), which is how it is
    computed here: the same number, and a y_0 that was clipped by `denoise` is respected. variance = "beta" is the paper's,
    1 - alpha_t, right when y_0 is itself N(0, I); "posterior" is that of q, right when y_0 is known. With few steps
    "beta" leaves visible grain, "posterior" does not.
    """

    def step(y_t: Array, t: Array) -> Array:
        gamma = jnp.broadcast_to(schedule.gamma[t], y_t.shape[:1])
        y_0, _ = denoise(condition, y_t, gamma)
        mean, posterior_variance = q_posterior(y_0, y_t, schedule, t)
        sigma = jnp.sqrt(schedule.beta[t] if variance == "beta" else posterior_variance)
        return mean + jnp.where(t > 1, sigma, 0.0) * noise_like(y_t, keys, t)

    return run(step, keys, schedule, shape)
