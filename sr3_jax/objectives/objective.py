"""The interface of objectives, and of the Learner through which they use the network."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, Key, PyTree
from ml_collections import ConfigDict

from sr3_jax.diffusion.samplers import Steps
from sr3_jax.diffusion.schedules import NoiseSchedule
from sr3_jax.diffusion.types import Denoiser, Images
from sr3_jax.tasks.task import Given, Signals, Task


class Choices(NamedTuple):
    """What users may choose when they make images with a network."""

    samplers: tuple[str, ...]
    sampler: str  # the default
    steps: int | None = None  # the only possible number of network evaluations; None: any


@runtime_checkable
class Learner(Protocol):
    """The part of `Method` that objectives use; see there."""

    @property
    def task(self) -> Task:
        """Makes LR images."""
        ...

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule of training."""
        ...

    @property
    def refines(self) -> bool:
        """Whether a predictor makes the condition."""
        ...

    def encode(self, hr: Images, condition: Array) -> Images:
        """y_0 of an HR image."""
        ...

    def decode(self, y_0: Any, condition: Any) -> Any:
        """The HR image of y_0."""
        ...

    def condition(self, params: PyTree, upsampled: Images, signals: Signals | None = None) -> Array:
        """What the network is conditioned on, made from the upsampled LR image."""
        ...

    def network(
        self,
        params: PyTree,
        signals: Signals | None = None,
        dropout: Key[Array, ""] | None = None,
        variance: bool = False,
    ) -> Callable[..., Array]:
        """The bare network."""
        ...

    def denoiser(self, params: PyTree, signals: Signals | None = None) -> Denoiser:
        """The network as the samplers see it."""
        ...


class Example(NamedTuple):
    """A batch, and the random keys of one training step."""

    hr: Images
    given: Given  # the LR images, and what the network is told of them
    key: Key[Array, ""]  # of noise levels and noise
    dropout: Key[Array, ""] | None = None  # None: no dropout
    teacher: PyTree = None  # the teacher's parameters, in distillation
    features: PyTree = None  # the weights of LPIPS, if the loss looks at images
    discriminator: PyTree = None  # its parameters, if there is one


@runtime_checkable
class Objective(Protocol):
    """What the network learns."""

    title: str  # what tables of results call it
    takes_noise: bool  # whether the network sees y_t and gamma, and its images are random samples
    needs_teacher: bool
    # Whether training keeps the parameters of the best held-out PSNR; in the paper only regression
    keeps_best: bool

    def __init__(self, config: ConfigDict): ...

    def loss(self, learner: Learner, params: PyTree, example: Example) -> Float[Array, " b"]:
        """The loss of each image."""
        ...

    def table(
        self,
        evaluations: int | None = None,
        changes: Mapping[str, Any] | None = None,
        end: float | None = None,
    ) -> Steps:
        """The table of a sampler, by default the config's.

        Args:
          evaluations: the most network evaluations that it may take; None: sample.steps.
          changes: fields of config.sample to replace.
          end: the level gamma where it ends; None: 1, without noise.

        Raises:
          ConfigError: the network cannot be used like that.
        """
        ...

    @property
    def choices(self) -> Choices:
        """What users may choose when they make images."""
        ...
