"""Regression, the paper's baseline: the same network without noise, trained with the MSE."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from sr3_jax.diffusion import losses, samplers
from sr3_jax.diffusion.samplers import Steps
from sr3_jax.errors import ConfigError
from sr3_jax.objectives.levels import sampling_schedule
from sr3_jax.objectives.objective import Choices, Example, Learner


class Regression:
    """The network's output, from the condition alone, is the image: a single evaluation."""

    title, takes_noise, needs_teacher, keeps_best = "regression", False, False, True

    def __init__(self, config: ConfigDict):
        self._config = config

    def loss(self, learner: Learner, params: PyTree, example: Example) -> Float[Array, " b"]:
        """The mean squared error of each image."""
        given = example.given
        upsampled = learner.task.condition(given.image)
        network = learner.network(params, given.signals, example.dropout)
        wanted, weights = learner.encode(example.hr, upsampled), learner.task.weights(given.image)
        return losses.distance(network(upsampled), wanted, "l2", weights)

    def table(
        self,
        evaluations: int | None = None,
        changes: Mapping[str, Any] | None = None,
        end: float | None = None,
    ) -> Steps:
        """A single row, whose result is the prediction; the arguments change nothing.

        Raises:
          ConfigError: it is to end at a noise level: there is no noise.
        """
        if end is not None:
            raise ConfigError("a regression network has no noise, and cannot end with some")
        return samplers.ddim(sampling_schedule(self._config, 1))

    @property
    def choices(self) -> Choices:
        """There is nothing to choose: a single evaluation."""
        return Choices(("ddim",), "ddim", 1)
