"""What the networks behind the metrics share: their layers, and the search for their files."""

from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from sr3_jax.errors import UserError
from sr3_jax.models.exact import Images, convolution

Weights = Mapping[str, np.ndarray | Array]


def find(path: str | Path | None, flag: str, files: str, needs: str) -> Path:
    """The file of weights that the user supplies.

    Args:
      path: What was given.
      flag: The flag by which it is given.
      files: Which file that should be.
      needs: What needs it.

    Raises:
      UserError: There is no path or no file; the message says which is needed.
    """
    if not path:
        raise UserError(f"{needs}: give {flag}=PATH of {files}")
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist; {flag} wants {files}")
    return Path(path)


def normalized(
    weights: Weights,
    name: str,
    norm: str,
    x: Images,
    stride: int,
    padding: int | tuple[int, int],
    epsilon: float,
) -> Images:
    """PyTorch's convolution `name`, and its batch normalization `norm` with stored statistics."""
    kernel = jnp.transpose(weights[f"{name}.weight"], (2, 3, 1, 0))
    scale = weights[f"{norm}.weight"] / jnp.sqrt(weights[f"{norm}.running_var"] + epsilon)
    shift = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    y = convolution(x, kernel, stride, padding)
    return y * scale[None, None, None] + shift[None, None, None]


def normalized_shapes(
    name: str, norm: str, inputs: int, outputs: int, *kernel: int
) -> dict[str, tuple[int, ...]]:
    """The name and shape of every weight of `normalized`, with a kernel (height, width)."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.weight": (outputs, inputs, *kernel)} | {
        f"{norm}.{part}": (outputs,) for part in parts
    }


def bilinear(x: Images, rows: np.ndarray | Array, columns: np.ndarray | Array) -> Images:
    """The values at some rows and columns that may lie between two pixels, as TensorFlow 1 has it.

    That is without half-pixel centres and without anti-aliasing.
    """
    for axis, place in enumerate((rows, columns), 1):
        low = place.astype(np.int32)
        share = (place - low.astype(place.dtype)).astype(np.float32)
        share = jnp.expand_dims(share, [a for a in range(4) if a != axis])
        below, above = (jnp.take(x, jnp.minimum(low + i, x.shape[axis] - 1), axis) for i in (0, 1))
        x = below + (above - below) * share
    return x
