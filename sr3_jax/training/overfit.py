"""One small batch, a minute: does the loss fall at all?"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import track

from sr3_jax.data.pipeline import load_evaluation
from sr3_jax.data.sources import open_source
from sr3_jax.errors import UserError
from sr3_jax.method import Method


class Outcome(NamedTuple):
    """The loss before and after, and the one that had to be reached."""

    before: float
    after: float
    goal: float

    @property
    def reached(self) -> bool:
        """Whether the loss fell below the goal."""
        return self.after < self.goal


def overfit(config: ConfigDict) -> Outcome:
    """Train on the same few images, with new noise each step, and compare the loss.

    There are train.overfit_batch images and train.overfit_steps steps; no dropout and no
    augmentation. The loss before and after is the mean over 16 fixed draws of noise; the goal is
    train.overfit_loss times the one before. The learning rate is 1e-3 after a short warm-up,
    whatever the config's: that one is meant for a million steps.
    """
    method = Method(config)
    if method.objective.needs_teacher:
        raise UserError(
            "overfit is for objective = 'sr3' or 'regression': "
            "a student starts from weights that have learned"
        )
    data = load_evaluation(open_source(config, "train"), config, config.train.overfit_batch)
    images = jnp.asarray(data.images)
    labels = jnp.asarray(data.labels) if config.model.classes else None
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.linear_schedule(0.0, 1e-3, 20))
    )
    params = jax.jit(method.init)(jax.random.key(config.seed))
    opt_state = jax.jit(optimizer.init)(params)

    def loss(params: PyTree, key: Array) -> Array:
        return method.loss(params, images, key, train=False, labels=labels).mean()

    @jax.jit
    def measure(params: PyTree) -> Array:
        keys = jax.random.split(jax.random.key(config.seed + 1), 16)
        return jax.lax.map(lambda key: loss(params, key), keys).mean()

    @jax.jit
    def step(params: PyTree, opt_state: PyTree, number: Array) -> tuple[PyTree, PyTree]:
        gradient = jax.grad(loss)(params, jax.random.fold_in(jax.random.key(config.seed), number))
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    before = float(measure(params))
    console = Console(stderr=True)
    for number in track(
        range(config.train.overfit_steps),
        "overfitting",
        console=console,
        disable=not console.is_terminal,
    ):
        params, opt_state = step(params, opt_state, jnp.asarray(number))
    return Outcome(before, float(measure(params)), config.train.overfit_loss * before)
