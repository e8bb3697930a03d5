"""The arithmetic that a function needs, counted from its jaxpr.

The model FLOPs utilisation (MFU) is computed from it.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import numpy as np


def matrix_flops(function: Callable, *args: Any) -> int:
    """The FLOPs of all convolutions and matrix products in function(*args).

    A multiplication and an addition are two. Products with padding are not counted, nor is anything
    that a compiler recomputes.

    Args:
      function: Any function that JAX can trace.
      *args: Its arguments, or their shapes (jax.ShapeDtypeStruct).
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "conv_general_dilated":
            total += _convolution(equation)
        elif name == "dot_general":
            (contracting, _), _ = params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * prod(shape[axis] for axis in contracting)
        elif name == "scan":
            total += params["length"] * _count(params["jaxpr"].jaxpr)
        elif name == "cond":
            # Branches compute the same in different ways, on different platforms
            # (models/platform.py); the mathematics needs no more FLOPs than the cheapest branch.
            total += min(_count(branch.jaxpr) for branch in params["branches"])
        else:
            total += sum(
                _count(getattr(value, "jaxpr", value))
                for value in params.values()
                if hasattr(value, "eqns") or hasattr(value, "jaxpr")
            )
    return total


def _convolution(equation: Any) -> int:
    lhs, rhs = (variable.aval.shape for variable in equation.invars)
    out, params = equation.outvars[0].aval.shape, equation.params
    numbers = params["dimension_numbers"]
    # How many products with a pixel that is there, and not padding, one channel of one image has
    taps = 1
    for axis, (low, _) in enumerate(params["padding"]):
        size, kernel = lhs[numbers.lhs_spec[2 + axis]], rhs[numbers.rhs_spec[2 + axis]]
        stride, base, window = (
            params[name][axis] for name in ("window_strides", "lhs_dilation", "rhs_dilation")
        )
        positions = (
            np.arange(out[numbers.out_spec[2 + axis]])[:, None] * stride
            - low
            + np.arange(kernel) * window
        )
        taps *= int(
            ((positions >= 0) & (positions < (size - 1) * base + 1) & (positions % base == 0)).sum()
        )
    batch, channels = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
    return 2 * batch * channels * taps * rhs[numbers.rhs_spec[1]] // params["batch_group_count"]
