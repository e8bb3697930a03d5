"""Progressive distillation: a student learns to go in one step where its teacher goes in several (arXiv 2202.00512)."""

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from sr3_jax import config as config_lib
from sr3_jax.diffusion import losses, samplers
from sr3_jax.diffusion.samplers import Steps
from sr3_jax.errors import ConfigError
from sr3_jax.objectives.levels import sampling_schedule, training_schedule
from sr3_jax.objectives.objective import Choices, Example, Learner
from sr3_jax.tasks import build_task

# Fields of the network in which student and teacher may differ: none of them changes what the
# parameters mean.
MAY_DIFFER = ("model.dropout", "model.remat", "model.dtype")


class Distillation:
    """DDIM at the student's own levels, sample.steps of them, and at no others."""

    title, takes_noise, needs_teacher, keeps_best = "student", True, True, False

    def __init__(self, config: ConfigDict):
        self._config = config

    def loss(self, learner: Learner, params: PyTree, example: Example) -> Float[Array, " b"]:
        """The distance to what `train.teacher_steps` steps of the teacher reach.

        Without dropout: a teacher's answer has no noise in it that could be overfitted.
        """
        given, config = example.given, self._config
        upsampled = learner.task.condition(given.image)
        # a student keeps its teacher's predictor, if there is one
        condition = jax.lax.stop_gradient(learner.condition(params, upsampled, given.signals))
        return losses.distillation_loss(
            learner.network(params, given.signals),
            learner.denoiser(example.teacher, given.signals),
            condition,
            learner.encode(example.hr, condition),
            example.key,
            sampling_schedule(config, config.sample.steps),
            config.train.teacher_steps,
            predict=config.model.predict,
            norm=config.train.loss,
        )

    def table(
        self, evaluations: int | None = None, changes: Mapping[str, Any] | None = None
    ) -> Steps:
        """What it learned; raises ConfigError for anything else."""
        own = self._config.sample.steps
        if (evaluations or own) != own or (changes or {"sampler": "ddim"}) != {"sampler": "ddim"}:
            raise ConfigError(
                f"this network was distilled for sample.steps = {own} evaluations of DDIM, and knows no others"
            )
        return samplers.ddim(sampling_schedule(self._config, own))

    @property
    def choices(self) -> Choices:
        """None."""
        return Choices(("ddim",), "ddim", self._config.sample.steps)


def check_teacher(config: ConfigDict, teacher: ConfigDict) -> None:
    """Raises ConfigError unless the config's student can learn from a network of the config `teacher`."""
    name = config.train.teacher
    _check_network(config, teacher, name)
    known = {signal.name: signal.high for signal in build_task(teacher).signals}
    for signal in build_task(config).signals:
        most = known.get(signal.name, 0.0)
        if signal.high > most:
            raise ConfigError(
                f"the teacher {name} was trained with {signal.name} up to {most:g}, and the student asks at {signal.high:g}"
            )
    _check_levels(config, teacher, name)


def _check_network(config: ConfigDict, teacher: ConfigDict, name: str) -> None:
    ours, theirs = config_lib.flatten(config), config_lib.flatten(teacher)
    fields = [field for field in ours if field.startswith("model.") and field not in MAY_DIFFER]
    fields += ["data.hr_size", "data.lr_size"]
    differing = [
        f"{field}: {ours[field]!r} here, {theirs[field]!r} there"
        for field in fields
        if ours[field] != theirs[field]
    ]
    if differing:
        raise ConfigError(f"the teacher {name} is another network: {'; '.join(differing)}")


def _check_levels(config: ConfigDict, teacher: ConfigDict, name: str) -> None:
    noisiest, known = (float(training_schedule(each).angle[-1]) for each in (config, teacher))
    if noisiest > known + 1e-3:
        raise ConfigError(
            f"the teacher {name} was trained on levels up to gamma = {np.cos(known) ** 2:.2g}, and the student would "
            f"ask it at {np.cos(noisiest) ** 2:.2g}: take its schedule.* fields"
        )
    if teacher.objective != "distill":
        return
    steps = config.train.teacher_steps
    ends = _angles(config, config.sample.steps)
    visited = np.concatenate(
        [np.linspace(a, b, steps + 1)[1:] for a, b in itertools.pairwise(ends)]
    )
    own = _angles(teacher, teacher.sample.steps)[1:]
    if len(visited) != len(own) or not np.allclose(visited, own, atol=0.01):
        raise ConfigError(
            f"the teacher {name} was distilled itself and knows only its own {len(own)} levels: "
            "sample.steps × train.teacher_steps must be as many, and the levels the same (they are with schedule.name = "
            "'cosine', schedule.log_snr_start = 10 and sample.schedule = 'respaced')"
        )


def _angles(config: ConfigDict, steps: int) -> np.ndarray:
    return np.asarray(sampling_schedule(config, steps).angle, np.float64)
