"""How images are drawn: the choices that a user has.

Python, the command line, the web page and evaluation all use the same class for them.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.config import CHOICES, check_guidance
from sr3_jax.diffusion.guidance import Guidance
from sr3_jax.errors import UserError
from sr3_jax.tasks.corruptions import known_signals
from sr3_jax.tasks.labels import LABEL

Number = float | int
LARGEST_SEED = 2**31 - 1
LARGEST_SCALE = 64


@dataclass(frozen=True)
class Sampling:
    """Choices for one sample of an image. Hashable; by default all is as the checkpoint has it.

    Attributes:
      steps: The number of network evaluations, at least 1. The noise levels are those that
        `sr3 search` has found for that number, if any, unless `sampler` is given.
      sampler: One of config.CHOICES["sample.sampler"].
      seed: 0 to 2³¹ - 1. The same seed gives the same pictures.
      sample: 0, 1, 2, …: the number of the sample, for several of one image and seed.
      match_input: Whether the result is corrected until, down-sampled, it is the image that was
        given. By default the checkpoint's choice, but not where a signal is given: what the network
        is to remove, such as noise, would come back.
      scale: How many times larger the image becomes, above 1 and at most 64. It takes as many
        passes of the network as needed, then bicubic to the exact size.
      signals: What the network is told of the image: values by name, e.g. {"noise": 8.0}. They are
        kept as sorted pairs. The class of an image is one of them, "label": its number.
      guidance: The weight of classifier-free guidance, for networks that know classes: 1 is none,
        above 1 images are more typical of their class and less diverse.
      guidance_interval: The two log-SNRs between which there is guidance, the lower one first.
    """

    steps: int | None = None
    sampler: str | None = None
    seed: int = 0
    sample: int = 0
    match_input: bool | None = None
    scale: Number | None = None
    signals: Mapping[str, Number] | tuple[tuple[str, Number], ...] = ()
    guidance: Number | None = None
    guidance_interval: tuple[Number, Number] | None = None

    def __post_init__(self):
        object.__setattr__(self, "signals", tuple(sorted(dict(self.signals).items())))

    @property
    def told(self) -> dict[str, Number]:
        """The signals by name."""
        return dict(self.signals)

    def with_options(self, options: Mapping[str, Any]) -> "Sampling":
        """A copy in which some fields are replaced.

        Names that are not fields are signals, such as `noise`; those that are None are left out.
        """
        fields = {field.name for field in dataclasses.fields(self)}
        own = {name: value for name, value in options.items() if name in fields}
        signals = self.told | {name: value for name, value in options.items() if name not in fields}
        told = {name: value for name, value in signals.items() if value is not None}
        own.setdefault("signals", told)
        return dataclasses.replace(self, **own)

    def check(self, checkpoint: Checkpoint) -> None:
        """Raises UserError if a checkpoint's network cannot be used like that."""
        for name in ("seed", "sample", "steps", "scale", "guidance"):
            value = getattr(self, name)
            if value is not None or name in ("seed", "sample"):
                _check_number(name, value, whole=name not in ("scale", "guidance"))
        for name, value in self.told.items():
            _check_number(name, value)
        if self.steps is not None and self.steps < 1:
            raise UserError(f"steps = {self.steps} must be at least 1")
        samplers = CHOICES["sample.sampler"]
        if self.sampler is not None and self.sampler not in samplers:
            raise UserError(f"sampler = {self.sampler!r} can be {', '.join(samplers)}")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UserError(f"seed = {self.seed} must lie between 0 and {LARGEST_SEED}")
        if self.scale is not None and not 1 <= self.scale <= LARGEST_SCALE:
            raise UserError(f"scale = {self.scale:g} must lie between 1 and {LARGEST_SCALE}")
        for name, value in self.told.items():
            _check_signal(checkpoint, name, value)
        weight, interval = self._guidance(checkpoint.config)
        check_guidance(checkpoint.config, weight, interval)

    def _guidance(self, config: ConfigDict) -> tuple[Number, Sequence[Number]]:
        """Weight and interval, the checkpoint's own where there is no choice."""
        own = config.sample
        weight = own.guidance if self.guidance is None else self.guidance
        chosen = self.guidance_interval
        return weight, tuple(own.guidance_interval) if chosen is None else chosen

    def guidance_of(self, config: ConfigDict) -> Guidance | None:
        """The guidance for a config's network; None if there is none."""
        weight, interval = self._guidance(config)
        if weight == 1:
            return None
        low, high = interval or (-math.inf, math.inf)
        # float32, and not weakly typed: one program for all choices
        return Guidance(*(np.asarray(x, np.float32) for x in (weight, low, high)))


def _check_number(name: str, value: Any, whole: bool = False) -> None:
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind):
        raise UserError(f"{name} = {value!r} must be a {'whole ' if whole else ''}number")


def _check_signal(checkpoint: Checkpoint, name: str, value: Number) -> None:
    known = {signal.name: signal.high for signal in checkpoint.method.task.signals}
    if name == LABEL.name:
        _check_label(checkpoint, value)
    elif name in known:
        if not 0 <= value <= known[name]:
            raise UserError(
                f"{name} = {value:g} must lie between 0 and {known[name]:g}, "
                f"which {checkpoint.name} was trained with"
            )
    elif name in known_signals():
        if not value:
            return  # there is nothing to tell
        raise UserError(
            f"{checkpoint.name} was not trained with task.{name}"
            + (f" and task.tell_{name}" if known_signals()[name].removed else "")
            + f", so it cannot be told of {name}"
        )
    else:
        fields = [field.name for field in dataclasses.fields(Sampling) if field.name != "signals"]
        names = ", ".join([*fields, *known_signals(), LABEL.name])
        raise UserError(f"{name} is not known; there are {names}")


def _check_label(checkpoint: Checkpoint, value: Number) -> None:
    classes = checkpoint.config.model.classes
    if not classes:
        raise UserError(f"{checkpoint.name} was trained without classes: label = {value:g}")
    if value != int(value) or not 0 <= value < classes:
        raise UserError(
            f"label = {value:g} must be a whole number between 0 and {classes - 1}, "
            f"the classes of {checkpoint.name}"
        )
