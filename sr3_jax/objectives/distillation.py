"""Progressive distillation (arXiv 2202.00512).

A student network learns to do in one sampling step what its teacher does in several.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree
from ml_collections import ConfigDict

from sr3_jax import config as config_lib
from sr3_jax.diffusion import losses, samplers
from sr3_jax.diffusion.samplers import Steps
from sr3_jax.diffusion.types import Images
from sr3_jax.errors import ConfigError
from sr3_jax.models import perceptual
from sr3_jax.models.discriminator import Discriminator, hinge, logits_of, looks_real
from sr3_jax.objectives.levels import sampling_schedule, training_schedule
from sr3_jax.objectives.objective import Choices, Example, Learner
from sr3_jax.tasks import build_task

# Fields of the network in which student and teacher may differ, since the parameters mean the same
# with any value of them.
MAY_DIFFER = ("model.dropout", "model.remat", "model.dtype")


class Distillation:
    """Distillation for DDIM in sample.steps steps; the student knows no other noise levels."""

    title, takes_noise, needs_teacher, keeps_best = "student", True, True, False

    def __init__(self, config: ConfigDict):
        self._config = config

    def loss(self, learner: Learner, params: PyTree, example: Example) -> Float[Array, " b"]:
        """The distance of one student step from `train.teacher_steps` steps of the teacher.

        Without dropout, since the teacher's result has no noise that could be overfitted. With
        train.perceptual_weight, LPIPS between the student's image and the HR image is added; with
        train.adversarial_weight, how far it is from what the discriminator takes for a photograph,
        and the discriminator's own loss.
        """
        given, config = example.given, self._config
        upsampled = learner.task.condition(given.image)
        ours = learner.condition(params, upsampled, given.signals)
        more = needs_features(config)
        if more:
            theirs = learner.condition(example.teacher, upsampled, given.signals)
        else:  # a student keeps its teacher's predictor, if there is one, as it is
            ours = theirs = jax.lax.stop_gradient(ours)
        taught = losses.lesson(
            losses.Teacher(
                learner.denoiser(example.teacher, given.signals), config.train.teacher_steps
            ),
            theirs,
            learner.encode(example.hr, theirs),
            example.key,
            sampling_schedule(config, config.sample.steps),
        )
        if more:
            image = learner.decode(taught.y_0, theirs)
            taught = taught._replace(y_0=learner.encode(image, jax.lax.stop_gradient(ours)))
        distilled = losses.distillation_loss(
            learner.network(params, given.signals),
            taught,
            ours,
            learner.encode(example.hr, ours),
            predict=config.model.predict,
            norm=config.train.loss,
            weights=learner.task.weights(given.image),
        )
        if not more:
            return distilled.loss
        image = jnp.clip(learner.decode(distilled.y_0, ours), -1, 1)
        return distilled.loss + self._seen(example, image)

    def _seen(self, example: Example, image: Images) -> Float[Array, " b"]:
        """What is added to the loss for how an image looks."""
        train, weights = self._config.train, example.features
        rgb = (*image.shape[:3], 3)
        made, wanted = (
            perceptual.features(weights, jnp.broadcast_to(x, rgb)) for x in (image, example.hr)
        )
        loss = train.perceptual_weight * perceptual.distance(weights, made, wanted)
        if not train.adversarial_weight:
            return loss
        fixed = jax.lax.stop_gradient(example.discriminator)
        loss -= train.adversarial_weight * looks_real(logits_of(fixed, made))
        real, false = (
            logits_of(example.discriminator, jax.lax.stop_gradient(x)) for x in (wanted, made)
        )
        return loss + hinge(real, false)

    def table(
        self,
        evaluations: int | None = None,
        changes: Mapping[str, Any] | None = None,
        end: float | None = None,
    ) -> Steps:
        """The table of DDIM at the levels that the student learned.

        Raises:
          ConfigError: another number of evaluations, sampler or end is asked for.
        """
        own = self._config.sample.steps
        if end is not None:
            raise ConfigError(
                "this network was distilled and knows no other levels than its own: it cannot end "
                "at one that has noise"
            )
        if (evaluations or own) != own or (changes or {"sampler": "ddim"}) != {"sampler": "ddim"}:
            raise ConfigError(
                f"this network was distilled for sample.steps = {own} evaluations of DDIM, "
                "and knows no others"
            )
        return samplers.ddim(sampling_schedule(self._config, own))

    @property
    def choices(self) -> Choices:
        """Only DDIM, in the number of evaluations that the student learned."""
        return Choices(("ddim",), "ddim", self._config.sample.steps)


def needs_features(config: ConfigDict) -> bool:
    """Whether the loss looks at images through VGG16, and `Example.features` has to be given."""
    return bool(config.train.perceptual_weight or config.train.adversarial_weight)


def feature_shapes() -> PyTree:
    """The shapes of what `Example.features` holds."""
    return perceptual.shapes()


def init_discriminator(size: int, key: Key[Array, ""]) -> PyTree:
    """Random parameters of `Example.discriminator`, for images of a given size."""
    weights = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), feature_shapes())
    shown = perceptual.features(weights, jnp.zeros((1, size, size, 3)))
    return Discriminator().init(key, shown)["params"]


def check_teacher(config: ConfigDict, teacher: ConfigDict) -> None:
    """Checks that the student of a config can learn from a given teacher.

    Args:
      config: the student's.
      teacher: the teacher's config.

    Raises:
      ConfigError: it cannot: networks, signals or noise levels differ.
    """
    name = config.train.teacher
    _check_network(config, teacher, name)
    known = {signal.name: signal.high for signal in build_task(teacher).signals}
    for signal in build_task(config).signals:
        most = known.get(signal.name, 0.0)
        if signal.high > most:
            raise ConfigError(
                f"the teacher {name} was trained with {signal.name} up to {most:g}, "
                f"and the student asks at {signal.high:g}"
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
            f"the teacher {name} was trained on levels up to gamma = {np.cos(known) ** 2:.2g}, "
            f"and the student would ask it at {np.cos(noisiest) ** 2:.2g}: "
            "take its schedule.* fields"
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
            "sample.steps × train.teacher_steps must be as many, and the levels the same (they are "
            "with schedule.name = 'cosine', schedule.log_snr_start = 10 and "
            "sample.schedule = 'respaced')"
        )


def _angles(config: ConfigDict, steps: int) -> np.ndarray:
    return np.asarray(sampling_schedule(config, steps).angle, np.float64)
