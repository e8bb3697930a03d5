"""What a corruption is."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float, Key

from sr3_jax.tasks.task import Images, Signal

Strength = Float[Array, " b"]  # an image's, in the signal's unit; 0 changes nothing


class Corruption(NamedTuple):
    """Something that happens to LR images, and the signal that says how much of it did."""

    signal: Signal  # `high` is the largest strength that `apply` can do
    apply: Callable[[Images, Strength, Key[Array, ""]], Images]
    told: bool  # the default of task.tell_NAME
