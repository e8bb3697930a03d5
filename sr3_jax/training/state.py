"""What training carries from step to step, and the optimizer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from sr3_jax.config import decay_steps
from sr3_jax.method import Method
from sr3_jax.objectives.distillation import init_discriminator


class TrainState(NamedTuple):
    """A pytree.

    Parameters, EMA and optimizer state are always float32: a bfloat16 EMA at 0.9999 never moves.
    """

    step: jax.Array  # batches seen, int32
    params: PyTree
    ema: PyTree  # exponential moving average of params: what is evaluated and shipped
    opt_state: PyTree
    bad_steps: jax.Array  # updates dropped in all, because loss or gradient was not finite
    bad_in_a_row: jax.Array  # ... and since the last good one
    discriminator: "DiscriminatorState | None" = None  # with train.adversarial_weight


class DiscriminatorState(NamedTuple):
    """The discriminator that a student learns against."""

    params: PyTree
    opt_state: PyTree


def learning_rate(config: ConfigDict) -> optax.Schedule:
    """Linear warm-up, then constant (the paper: 10k steps, 1e-4) or a cosine down to zero."""
    c = config.train
    if c.learning_rate_schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0, c.learning_rate, c.warmup_steps, max(decay_steps(config), c.warmup_steps + 1)
        )
    return (
        optax.linear_schedule(0.0, c.learning_rate, c.warmup_steps)
        if c.warmup_steps
        else lambda _: c.learning_rate
    )


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Adam, with the gradient's norm clipped."""
    clip = (
        optax.clip_by_global_norm(config.train.clip_norm)
        if config.train.clip_norm
        else optax.identity()
    )
    return optax.chain(clip, optax.adam(learning_rate(config)))


def discriminator_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Adam for the discriminator: with less momentum, as what it is shown changes all the time."""
    return optax.adam(learning_rate(config), b1=0.5, b2=0.99)


def init_state(method: Method, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before step 1.

    Run it inside `jit` with output shardings: nothing is ever whole on one device.
    """
    params = method.init(jax.random.fold_in(jax.random.key(method.config.seed), 0))
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(
        zero, params, jax.tree.map(jnp.copy, params), optimizer.init(params), zero, zero
    )
    if not method.config.train.adversarial_weight:
        return state
    key = jax.random.fold_in(jax.random.key(method.config.seed), 2)
    other = init_discriminator(method.config.data.hr_size, key)
    opt_state = discriminator_optimizer(method.config).init(other)
    return state._replace(discriminator=DiscriminatorState(other, opt_state))
