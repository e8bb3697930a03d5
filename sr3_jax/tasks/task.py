"""The interface between the method and what it is used for.

A Task makes the network's input. Its Signals are numbers about the image that the network is told,
such as how strong the noise is, or its class.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

Images = Float[Array, "b h w c"]
Canvas = Float[np.ndarray, "_h _w _c"]
UNKNOWN = math.nan  # the value of an optional signal that the network is not told
Weights = Float[Array, "b h w 1"]  # how much each pixel counts in the loss
Signals = Mapping[str, Float[Array, " b"]]  # by name, one value per image


class Signal(NamedTuple):
    """A number about the input image that a network can be told."""

    name: str
    title: str  # in words, with its unit, e.g. "Gaussian noise (standard deviation, 8-bit levels)"
    high: float  # the largest value; the smallest is 0, e.g. no noise at all
    scale: float = 1.0  # the network's embedding gets scale · value
    optional: bool = False  # whether the network can do without it: then its value is UNKNOWN
    removed: bool = True  # whether it is a flaw of the input, which the network takes away
    classes: int = 0  # 0: a quantity; else a class number, one of so many

    @property
    def label(self) -> str:
        """What a user is asked for."""
        return f"{self.title} to remove" if self.removed else self.title

    @property
    def missing(self) -> float:
        """The value where nothing is said of the image: UNKNOWN, or 0, e.g. no noise at all."""
        return UNKNOWN if self.optional or self.classes else 0.0


class Given(NamedTuple):
    """The input, as a user would bring it: a batch of images, and the signals about them.

    A pytree of arrays.
    """

    image: Images  # (b, h, w, c) in [-1, 1]
    signals: Signals = {}  # noqa: RUF012 (a NamedTuple's default); those that the network is told


@runtime_checkable
class Task(Protocol):
    """What the method is used for; everything that is particular to one use is in its Task."""

    input_channels: int  # of a `Given`'s image
    condition_channels: int  # of `condition`; the first ones are an image, if there are any

    def __init__(self, config: ConfigDict): ...

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The signals that the network is told, with the largest values that it is trained with."""
        ...

    def corrupt(
        self, image: Images, key: Key[Array, ""] | None = None, *, train: bool = False
    ) -> Given:
        """Makes the input that a user would have brought from the wanted result, e.g. LR from HR.

        Args:
          image: wanted results, such as HR images, (b, h, w, c) in [-1, 1].
          key: of the random corruptions, such as noise; None: without them.
          train: apply those corruptions, too, that the network is not told of. They only serve to
            make it robust.
        """
        ...

    def condition(self, image: Images) -> Images:
        """The image that the network is conditioned on, from a `Given`'s image.

        It has the height and width of the network's output.
        """
        ...

    def condition_canvas(self, image: Canvas) -> Canvas:
        """`condition` of one image (h, w, c) on the host, without a compilation for each size."""
        ...

    def weights(self, image: Images) -> Weights | None:
        """How much each pixel of the result counts in the loss, (b, h, w, 1); None: all the same.

        Args:
          image: a `Given`'s.
        """
        ...

    def known(self, condition: Any) -> Any:
        """Where the result is the condition's image itself, (b, h, w, 1) bool; None: nowhere.

        Args:
          condition: what `condition` made.
        """
        ...

    def compose(self, image: Canvas, output: Canvas) -> Canvas:
        """The result, with what the input image already says about it put in.

        Args:
          image: the input, (h, w, c) in [-1, 1], on the host.
          output: what the network made of it, in [-1, 1], of the result's size.
        """
        ...

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the result for an input image of height × width."""
        ...
