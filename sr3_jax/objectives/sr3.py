"""SR3: the network learns to remove noise of every level (paper, Algorithm 1).

Afterwards it can be used at any levels, and so with any sampler and number of evaluations.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from sr3_jax.config import validate
from sr3_jax.diffusion import losses
from sr3_jax.diffusion.registry import SAMPLERS
from sr3_jax.diffusion.samplers import Steps
from sr3_jax.objectives.levels import sampling_schedule, truncated_schedule
from sr3_jax.objectives.objective import Choices, Example, Learner


class SR3:
    """Images are random samples, in any number of evaluations, by any sampler."""

    title, takes_noise, needs_teacher, keeps_best = "SR3", True, False, False

    def __init__(self, config: ConfigDict):
        self._config = config

    def loss(self, learner: Learner, params: PyTree, example: Example) -> Float[Array, " b"]:
        """L1 or L2 of what the network predicts, for each image.

        For a network that predicts and refines, the predictor's own loss (L2) is added; for one
        with a learned variance, that of the variance.
        """
        given, c = example.given, self._config.model.image_channels
        upsampled = learner.task.condition(given.image)
        condition = learner.condition(params, upsampled, given.signals)
        weights = learner.task.weights(given.image)
        predictor_loss: Any = 0.0
        # Predictor and denoiser learn at once, each by its own loss: that of the denoiser must not
        # change the predictor's guess
        if learner.refines:
            guess = condition[..., :c]
            guessed, wanted = (learner.encode(x, upsampled) for x in (guess, example.hr))
            predictor_loss = losses.distance(guessed, wanted, "l2", weights)
            condition = jnp.concatenate([jax.lax.stop_gradient(guess), condition[..., c:]], axis=-1)
        y_0 = learner.encode(example.hr, condition)
        model, train = self._config.model, self._config.train
        network = learner.network(params, given.signals, example.dropout, variance=True)
        loss = losses.sr3_loss(
            functools.partial(network, condition),
            y_0,
            example.key,
            learner.schedule,
            predict=model.predict,
            norm=train.loss,
            weights=weights,
            variance_weight=train.variance_weight if model.learned_variance else 0.0,
        )
        return predictor_loss + loss

    def table(
        self,
        evaluations: int | None = None,
        changes: Mapping[str, Any] | None = None,
        end: float | None = None,
    ) -> Steps:
        """The table of config.sample's sampler, with `changes`; see `Objective.table`."""
        config = self._config.copy_and_resolve_references()
        config.sample.update(changes or {})
        validate(config)
        sample = config.sample
        sampler = SAMPLERS[sample.sampler]
        steps = sampler.steps(sample.steps if evaluations is None else evaluations)
        schedule = sampling_schedule(config, steps)
        if end is not None:
            schedule = truncated_schedule(schedule, end)
        return sampler.table(schedule, sample.variance, sample.eta)

    @property
    def choices(self) -> Choices:
        """All samplers, in any number of evaluations."""
        return Choices(tuple(SAMPLERS), self._config.sample.sampler)
