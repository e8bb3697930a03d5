"""Functions that are computed on each kind of device in the form that is fastest there.

`jax.lax.platform_dependent` chooses when a program is compiled, by the device that it is compiled
for: a program for a TPU gets the TPU's form even if it is compiled on a CPU. The measurements are
in benchmarks/tpu.md and benchmarks/README.md.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

DType = Any
Features = Float[Array, "b _h _w _c"]  # sizes vary within a function: only the batch is checked
LAYOUT = ("NHWC", "HWIO", "NHWC")
EXACT = lax.Precision.HIGHEST  # where the default would round float32 to bfloat16


_ONLY: ContextVar[str] = ContextVar("only", default="")


@contextlib.contextmanager
def only(kind: str) -> Iterator[None]:
    """What is traced in the block is for this kind of device alone: "cpu", "cuda" or "tpu"."""
    token = _ONLY.set(kind)
    try:
        yield
    finally:
        _ONLY.reset(token)


def dependent(
    *arguments: Array, default: Callable[..., Array], **forms: Callable[..., Array]
) -> Array:
    """`forms`, by the kind of device, or `default`, of the arguments."""
    if kind := _ONLY.get():
        return forms.get(kind, default)(*arguments)
    return lax.platform_dependent(*arguments, default=default, **forms)


def downsample(x: Features) -> Features:
    """Halves height and width by averaging 2×2 pixels."""
    return dependent(x, tpu=_downsample_matrix, default=_downsample)


def upsample(x: Features) -> Features:
    """Doubles height and width by repeating pixels."""
    return dependent(x, tpu=_upsample_matrix, default=_upsample)


# Each is the gradient of the other, up to a factor of 4. The gradients that JAX derives are slow:
# they scatter, or reduce over axes of length 2.


@jax.custom_vjp
def _downsample(x: Features) -> Features:
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


@jax.custom_vjp
def _upsample(x: Features) -> Features:
    # `jax.image.resize` is slower
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c)).reshape(
        b, 2 * h, 2 * w, c
    )


_downsample.defvjp(lambda x: (_downsample(x), None), lambda _, gradient: (_upsample(gradient) / 4,))
_upsample.defvjp(lambda x: (_upsample(x), None), lambda _, gradient: (4 * _downsample(gradient),))


# On a TPU it is faster to move pixels by a convolution with identity matrices than by reshaping,
# since its compiler does broadcasts and reductions of the middle axes one tile at a time.


def _identity(x: Features, scale: float) -> Array:
    c = x.shape[-1]
    return jnp.broadcast_to(scale * jnp.eye(c, dtype=x.dtype), (2, 2, c, c))


def _downsample_matrix(x: Features) -> Features:
    return lax.conv_general_dilated(
        x, _identity(x, 0.25), (2, 2), "VALID", dimension_numbers=LAYOUT, precision=EXACT
    )


def _upsample_matrix(x: Features) -> Features:
    return lax.conv_general_dilated(
        x,
        _identity(x, 1.0),
        (1, 1),
        ((1, 1), (1, 1)),
        lhs_dilation=(2, 2),
        dimension_numbers=LAYOUT,
        precision=EXACT,
    )
