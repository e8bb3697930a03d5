"""The type of corruptions, such as blur and noise."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float, Key

from sr3_jax.tasks.task import Images, Signal

Strength = Float[Array, " b"]  # one per image, in the signal's unit; 0 changes nothing


class Corruption(NamedTuple):
    """A change for the worse of LR images, and the signal that says how strong it is."""

    signal: Signal  # its `high` is the largest strength that `apply` can handle
    apply: Callable[[Images, Strength, Key[Array, ""]], Images]  # corrupts a batch of images
    told: bool  # the default of task.tell_NAME
