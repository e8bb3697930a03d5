"""Makes images from noise, by one network or by a cascade of them.

>>> from sr3_jax import Generator
>>> generator = Generator.load(["fashion-14", "fashion-14-28"])  # shipped names, workdirs, files
>>> generator(10, classes="balanced", guidance=1.5).shape  # doctest: +SKIP
(10, 28, 28, 1)

The first stage makes images from noise alone; each further stage enlarges the images of the stage
before (the paper's cascades; Ho et al. 2021, arXiv 2106.15282). Image n of a run depends on the
seed and on n alone: not on how many are made, how many at a time, or by how many machines.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.errors import UserError
from sr3_jax.inference.classes import class_names, labels_of
from sr3_jax.inference.engine import Engine, Link, Progress, Values, ignore
from sr3_jax.inference.sampling import LARGEST_SEED, Number, Sampling
from sr3_jax.tasks.augmentation import SIGNAL as AUGMENT
from sr3_jax.tasks.labels import LABEL
from sr3_jax.tasks.operations import to_uint8

# Pixels of the result that a stage computes at a time by default: 64 images of 64², or 4 of 256²
AT_A_TIME = 64 * 64**2
MOST_AT_A_TIME = 256

Each = Number | Sequence[Number]  # one for all stages, or one for each


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How a cascade draws images: the choices that a user has. By default all is the checkpoints'.

    Attributes:
      steps: Network evaluations of each stage; 0: the checkpoint's own number. Empty: all are.
      guidance: The weight of classifier-free guidance of each stage; see `Sampling`. One number
        is for all stages that can be guided.
      guidance_interval: The two log-SNRs between which there is guidance.
      augment: Noise-conditioning augmentation of each stage after the first, in 8-bit levels. One
        number is for all of them.
      truncated: Whether that noise is what the stage before has left, which ends there, instead of
        noise that is added to its finished image.
      sampler: Of all stages; see `Sampling`.
      seed: 0 to 2³¹ - 1.
    """

    steps: tuple[int, ...] = ()
    guidance: tuple[Number, ...] = ()
    guidance_interval: tuple[Number, Number] | None = None
    augment: tuple[Number, ...] = ()
    truncated: bool = False
    sampler: str | None = None
    seed: int = 0


class Stage(NamedTuple):
    """A network of a cascade, and how it draws."""

    engine: Engine
    sampling: Sampling
    link: Link


class Generator:
    """A cascade on all devices of this process.

    Args:
      checkpoints: The stages in their order: one that makes images from noise, then any number that
        enlarge them.
      batch_size: How many images each stage computes at a time; by default fewer, the larger its
        images are.

    Raises:
      UserError: The stages do not fit together.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], batch_size: int | None = None):
        check_stages(checkpoints)
        self.checkpoints = list(checkpoints)
        self.engines = [Engine(one, batch_size or _fitting(one)) for one in checkpoints]
        self.batch_size = max(engine.batch_size for engine in self.engines)

    @classmethod
    def load(cls, places: Sequence[str | Path] | str, batch_size: int | None = None) -> "Generator":
        """A generator with the networks at `places`; see `load_checkpoint`, also for its errors."""
        each = [places] if isinstance(places, str | Path) else places
        return cls([load_checkpoint(place) for place in each], batch_size)

    @property
    def classes(self) -> int:
        """How many classes it knows; 0: none."""
        return self.checkpoints[0].config.model.classes

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, or their numbers where they have no names."""
        return class_names(self.checkpoints[0])

    @property
    def can_be_guided(self) -> list[bool]:
        """Of each stage, whether it has learned to do with a class and without."""
        configs = [one.config for one in self.checkpoints]
        return [one.model.classes > 0 and one.train.label_dropout > 0 for one in configs]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images."""
        return self.engines[-1].method.shape

    def __call__(
        self,
        count: int = 1,
        *,
        classes: str | Sequence[int | str] = "all",
        first: int = 0,
        guidance: Each = (),
        steps: Each = (),
        augment: Each = (),
        **options: Any,
    ) -> UInt8[np.ndarray, "n h w c"]:
        """Makes images, uint8.

        Args:
          count: How many.
          classes: Of which classes; see `labels_of`.
          first: The number of the first image; image n is the same in every call.
          guidance: One number for all stages that can be guided, or one for each stage.
          steps: Network evaluations: one number for all stages, or one for each.
          augment: One number for all stages after the first, or one for each of them.
          **options: Further fields of `Drawing`, e.g. seed=1.

        Raises:
          UserError: The networks cannot be used like that.
        """
        if count < 1:
            raise UserError(f"count = {count} must be at least 1")
        drawing = Drawing(
            steps=tuple(int(value) for value in _each(steps)),
            guidance=_each(guidance),
            augment=_each(augment),
            **_checked(options),
        )
        numbers = np.arange(first, first + count)
        labels = labels_of(self.checkpoints[0], classes, numbers, drawing.seed)
        batches = self.batches(self.stages(drawing), numbers, labels)
        return np.concatenate([made[-1] for _, made in batches])

    def stages(self, drawing: Drawing) -> list[Stage]:
        """The stages, each with how it draws.

        Raises:
          UserError: A network cannot be used like that, or there are more numbers than stages.
        """
        count = len(self.engines)
        steps = _spread("steps", drawing.steps, count) or [0] * count
        guidance = self._guidance(drawing)
        augment = _spread("augment", drawing.augment, count - 1) or [0] * (count - 1)
        if drawing.augment and count == 1:
            raise UserError(
                "augment is for the stages after the first, and there is only one stage"
            )
        if drawing.truncated and not any(augment):
            raise UserError("truncated needs augment: the noise that is left to the next stage")
        if not 0 <= drawing.seed <= LARGEST_SEED:
            raise UserError(f"seed = {drawing.seed} must lie between 0 and {LARGEST_SEED}")
        levels = [0, *augment]
        ends = [
            self._end(i, level) if drawing.truncated else None for i, level in enumerate(augment)
        ]
        found = []
        for i, engine in enumerate(self.engines):
            end = ends[i] if i < len(ends) else None
            sampling = Sampling(
                steps=steps[i] or None,
                sampler=drawing.sampler,
                seed=drawing.seed,
                sample=i,  # stages draw different noise
                guidance=guidance[i],
                guidance_interval=drawing.guidance_interval,
                signals={AUGMENT.name: levels[i]} if levels[i] else {},
            )
            link = Link(end, i > 0 and ends[i - 1] is not None)
            engine.table(sampling, link.end)  # raises here what would fail later
            found.append(Stage(engine, sampling, link))
        return found

    def _guidance(self, drawing: Drawing) -> list[Number | None]:
        """Each stage's guidance: a single number is for the stages that can be guided."""
        weights = drawing.guidance
        if len(weights) != 1:
            return _spread("guidance", weights, len(self.engines)) or [None] * len(self.engines)
        able = self.can_be_guided
        if not any(able):  # says why
            Sampling(guidance=weights[0]).check(self.checkpoints[0])
        return [weights[0] if can else None for can in able]

    def _end(self, stage: int, level: Number) -> float | None:
        """The gamma at which a stage ends, so that its image has `level` levels of noise left."""
        if not level:
            return None
        model = self.checkpoints[stage].config.model
        scale = model.residual_scale if model.predict_residual else 1.0
        return 1 / (1 + (level / 127.5 / scale) ** 2)

    def batches(
        self,
        stages: Sequence[Stage],
        numbers: Int[np.ndarray, " n"],
        labels: Int[np.ndarray, " n"] | None,
    ) -> Iterator[tuple[Int[np.ndarray, " b"], list[UInt8[np.ndarray, "b _h _w c"]]]]:
        """Any number of images, as many at a time as fit: their numbers, and `images` of them."""
        for start in range(0, len(numbers), self.batch_size):
            rows = slice(start, start + self.batch_size)
            some = None if labels is None else labels[rows]
            yield numbers[rows], self.images(stages, numbers[rows], some)

    def images(
        self,
        stages: Sequence[Stage],
        numbers: Int[np.ndarray, " n"],
        labels: Int[np.ndarray, " n"] | None,
        on_images: Progress = ignore,
    ) -> list[UInt8[np.ndarray, "n _h _w c"]]:
        """The images of every stage, of the last one last.

        Args:
          stages: How each stage draws.
          numbers: The numbers of the images, on which their noise depends.
          labels: The class of each; None: the networks know none.
          on_images: Called by every stage after every batch with the number of its images.
        """
        found: list[np.ndarray] = []
        given: Float[np.ndarray, "n h w c"] | None = None
        for stage in stages:
            engine = stage.engine
            if given is None:
                given = np.zeros((len(numbers), *engine.method.shape[:2], 0), np.float32)
            values = self._values(stage, labels, len(numbers))
            made = engine.batch(
                given, numbers.tolist(), stage.sampling, on_images, values, stage.link
            )
            found.append(np.asarray(to_uint8(jnp.asarray(made))))
            # A finished image goes on as a file would hold it; a noisy one would be clipped by that
            given = made if stage.link.end is not None else found[-1] / np.float32(127.5) - 1
        return found

    def _values(self, stage: Stage, labels: Int[np.ndarray, " n"] | None, count: int) -> Values:
        told = {
            name: np.full(count, value, np.float32) for name, value in stage.sampling.told.items()
        }
        if labels is not None and stage.engine.checkpoint.config.model.classes:
            told[LABEL.name] = labels.astype(np.float32)
        return told


def check_stages(checkpoints: Sequence[Checkpoint]) -> None:
    """Raises UserError, naming both stages, unless the stages fit together."""
    if not checkpoints:
        raise UserError("a cascade needs at least one stage")
    first = checkpoints[0]
    if first.config.task.kind != "generation":
        raise UserError(
            f"{first.name} enlarges images, and the first stage has to make them from noise "
            "(task.kind = 'generation')"
        )
    for before, after in itertools.pairwise(checkpoints):
        made, wanted = before.config.data.hr_size, after.config.data.lr_size
        if after.config.task.kind == "generation":
            raise UserError(
                f"{after.name} makes images from noise, and only the first stage can do that"
            )
        if made != wanted:
            raise UserError(
                f"{before.name} makes images of {made}², and {after.name} enlarges images of "
                f"{wanted}²"
            )
        channels = [one.config.model.image_channels for one in (before, after)]
        if channels[0] != channels[1]:
            raise UserError(
                f"{before.name} makes images of {channels[0]} channels, and {after.name} enlarges "
                f"images of {channels[1]}"
            )
        known, needed = first.config.model.classes, after.config.model.classes
        if needed and needed != known:
            raise UserError(
                f"{first.name} knows {known or 'no'} classes, and {after.name} knows {needed}"
            )


def _fitting(checkpoint: Checkpoint) -> int:
    """How many images a stage computes at a time by default."""
    return max(1, min(MOST_AT_A_TIME, AT_A_TIME // checkpoint.config.data.hr_size**2))


def _each(values: Each) -> tuple[Number, ...]:
    return (values,) if isinstance(values, int | float) else tuple(values)


def _spread(name: str, values: Sequence[Any], count: int) -> list[Any]:
    """One value for each of `count` stages: a single one is for all of them; [] if there is none.

    Raises UserError if there are not as many as stages.
    """
    if len(values) == 1:
        return [values[0]] * count
    if values and len(values) != count:
        stages = "stages after the first" if name == "augment" else "stages"
        raise UserError(
            f"{name} = {', '.join(f'{value:g}' for value in values)}: give one number, or one for "
            f"each of the {count} {stages}"
        )
    return list(values)


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    fields = [field.name for field in dataclasses.fields(Drawing)]
    for name in options:
        if name not in fields:
            raise UserError(f"{name} is not known; there are classes, {', '.join(fields)}")
    return options
