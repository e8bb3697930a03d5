"""How images are drawn: one value for Python, the command line, the web page and evaluation alike."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.config import CHOICES
from sr3_jax.errors import UserError
from sr3_jax.tasks.corruptions import CORRUPTIONS

Number = float | int
LARGEST_SEED = 2**31 - 1
LARGEST_SCALE = 64


@dataclass(frozen=True)
class Sampling:
    """Choices for one sample of an image. Hashable; the default is the checkpoint's own way.

    Attributes:
      steps: Network evaluations, at least 1; the levels are those that `sr3 search` found for so
        many, if any.
      sampler: One of config.CHOICES["sample.sampler"].
      seed: 0 to 2³¹ - 1. The same seed gives the same pictures.
      sample: 0, 1, 2, …: several samples of one image and seed.
      match_input: Correct the result until, down-sampled, it is the image that was given. By
        default the checkpoint's, but never where a signal is given: what is to be removed would
        come back.
      scale: How many times larger, above 1 and at most 64: several passes of the network, then
        bicubic.
      signals: What the network is told of the image: values by name, e.g. {"noise": 8.0}; kept as
        sorted pairs.
    """

    steps: int | None = None
    sampler: str | None = None
    seed: int = 0
    sample: int = 0
    match_input: bool | None = None
    scale: Number | None = None
    signals: Mapping[str, Number] | tuple[tuple[str, Number], ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "signals", tuple(sorted(dict(self.signals).items())))

    @property
    def told(self) -> dict[str, Number]:
        """The signals by name."""
        return dict(self.signals)

    def with_options(self, options: Mapping[str, Any]) -> "Sampling":
        """With some of the fields replaced; names that are no field are signals, such as `noise`."""
        fields = {field.name for field in dataclasses.fields(self)}
        own = {name: value for name, value in options.items() if name in fields}
        signals = self.told | {name: value for name, value in options.items() if name not in fields}
        own.setdefault("signals", {name: value for name, value in signals.items() if value})
        return dataclasses.replace(self, **own)

    def check(self, checkpoint: Checkpoint) -> None:
        """Raises UserError, in one sentence, for what cannot be had of a checkpoint."""
        if self.steps is not None and self.steps < 1:
            raise UserError(f"steps = {self.steps} must be at least 1")
        samplers = CHOICES["sample.sampler"]
        if self.sampler is not None and self.sampler not in samplers:
            raise UserError(f"sampler = {self.sampler!r} can be {', '.join(samplers)}")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UserError(f"seed = {self.seed} must lie between 0 and {LARGEST_SEED}")
        if self.scale is not None and not 1 < self.scale <= LARGEST_SCALE:
            raise UserError(
                f"scale = {self.scale:g} must lie above 1 and at most at {LARGEST_SCALE}"
            )
        for name, value in self.told.items():
            _check_signal(checkpoint, name, value)


def _check_signal(checkpoint: Checkpoint, name: str, value: Number) -> None:
    known = {signal.name: signal.high for signal in checkpoint.method.task.signals}
    if name in known:
        if not 0 <= value <= known[name]:
            raise UserError(
                f"{name} = {value:g} must lie between 0 and {known[name]:g}, which {checkpoint.name} was trained with"
            )
        return
    if name in CORRUPTIONS:
        raise UserError(
            f"{checkpoint.name} was not trained with task.{name} and task.tell_{name}, so it cannot be told of {name}"
        )
    fields = [field.name for field in dataclasses.fields(Sampling) if field.name != "signals"]
    raise UserError(f"{name} is not known; there are {', '.join([*fields, *CORRUPTIONS])}")
