"""Layers of fixed networks, in full precision on every device."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

EXACT = jax.lax.Precision.HIGHEST  # accelerators would round more by default
Images = Float[Array, "n _h _w _c"]


def convolution(
    x: Images, kernel: Any, stride: int = 1, padding: int | tuple[int, int] = 0
) -> Images:
    """A convolution by a kernel (height, width, inputs, outputs).

    Args:
      x: What is convolved.
      kernel: The kernel.
      stride: How many pixels it moves at a time.
      padding: How many zeros there are at every side, or (above and below, left and right).
    """
    sides = padding if isinstance(padding, tuple) else (padding, padding)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(side, side) for side in sides],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=EXACT,
    )


def window(x: Images, start: float, combine: Any, size: int, stride: int, padding: int) -> Images:
    """What a function makes of every square of pixels, starting from `start`."""
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return jax.lax.reduce_window(
        x, start, combine, (1, size, size, 1), (1, stride, stride, 1), pads
    )


def max_pool(x: Images, size: int = 3, stride: int = 2, padding: int = 0) -> Images:
    """The largest value in every square of pixels."""
    return window(x, -jnp.inf, jax.lax.max, size, stride, padding)
