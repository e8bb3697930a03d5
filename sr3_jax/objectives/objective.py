"""The seam: an Objective, and the Learner by which it sees the network."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, Key, PyTree
from ml_collections import ConfigDict

from sr3_jax.diffusion.samplers import Steps
from sr3_jax.diffusion.schedules import NoiseSchedule
from sr3_jax.diffusion.types import Denoiser, Images
from sr3_jax.tasks.task import Given, Signals, Task


class Choices(NamedTuple):
    """What may be chosen when images are made."""

    samplers: tuple[str, ...]
    sampler: str  # the default
    steps: int | None = None  # the only number of network evaluations; None: any


@runtime_checkable
class Learner(Protocol):
    """What an objective sees of `Method`."""

    @property
    def task(self) -> Task: ...
    @property
    def schedule(self) -> NoiseSchedule: ...
    @property
    def refines(self) -> bool: ...
    def encode(self, hr: Images, condition: Array) -> Images: ...
    def condition(
        self, params: PyTree, upsampled: Images, signals: Signals | None = None
    ) -> Array: ...
    def network(
        self, params: PyTree, signals: Signals | None = None, dropout: Key[Array, ""] | None = None
    ) -> Callable[..., Array]: ...
    def denoiser(self, params: PyTree, signals: Signals | None = None) -> Denoiser: ...


class Example(NamedTuple):
    """A batch, and the random keys of one step."""

    hr: Images
    given: Given
    key: Key[Array, ""]
    dropout: Key[Array, ""] | None = None  # None: no dropout
    teacher: PyTree = None  # its parameters


@runtime_checkable
class Objective(Protocol):
    """What the network learns. `title` heads its rows in tables."""

    title: str
    takes_noise: bool  # whether the network sees y_t and gamma, and its images are random samples
    needs_teacher: bool
    # Whether training keeps the parameters of the best held-out PSNR (the paper: of the regression
    # alone)
    keeps_best: bool

    def __init__(self, config: ConfigDict): ...

    def loss(self, learner: Learner, params: PyTree, example: Example) -> Float[Array, " b"]:
        """The loss of each image."""
        ...

    def table(
        self, evaluations: int | None = None, changes: Mapping[str, Any] | None = None
    ) -> Steps:
        """The table of a sampler for at most that many network evaluations, by default the config's.

        Args:
          evaluations: None: sample.steps.
          changes: fields of config.sample to replace.

        Raises:
          ConfigError: the network cannot be used like that.
        """
        ...

    @property
    def choices(self) -> Choices: ...
