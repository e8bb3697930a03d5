"""The seam between the method and what it is used for: a Task, and the Signals by which a network is told of its input."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, Key

Images = Float[Array, "b h w c"]
Signals = Mapping[str, Float[Array, " b"]]  # by name, a value an image


class Signal(NamedTuple):
    """A number about the input image that a network can be told."""

    name: str
    title: str  # in words, with its unit, e.g. "Gaussian noise (standard deviation, 8-bit levels)"
    high: float  # the largest value; the smallest is 0, which says that there is nothing of it
    scale: float = 1.0  # the embedding is fed scale · value


class Given(NamedTuple):
    """What a user would bring: a pytree of arrays."""

    image: Images  # (b, h, w, c) in [-1, 1]
    signals: Signals = {}  # noqa: RUF012 (a NamedTuple's default); those that the network is told


@runtime_checkable
class Task(Protocol):
    """The only owner of what differs between uses of the method."""

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What the network is told, each up to the value that it was trained with."""
        ...

    def corrupt(
        self, image: Images, key: Key[Array, ""] | None = None, *, train: bool = False
    ) -> Given:
        """What a user would have brought of a whole image (b, h, w, c) in [-1, 1].

        Args:
          image: whole images, e.g. HR images.
          key: of the corruptions that are drawn at random; None: none of them happens.
          train: also those that the network is not told of, which are there to make it robust.
        """
        ...

    def condition(self, image: Images) -> Images:
        """The network's first input, on the grid of its output, from a `Given`'s image."""
        ...

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what is made of an image of height × width."""
        ...
