"""Dropout whose random bits cost next to nothing.

JAX's generators are made for statistics: threefry spends about a hundred instructions on a number,
more than all other elementwise work of a residual block, and the TPU compiler, which fuses them
into the convolution that follows, takes minutes to do so. A dropout mask only needs bits without
visible structure, so here each is a hash of the element's index.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, UInt32


def mix(bits: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """A hash of 32-bit numbers: one-to-one, and every bit of it depends on every bit of the input.

    Two rounds of xor-shift and multiply, with the constants of Wellons' "lowbias32" (2018).
    """
    bits = (bits ^ (bits >> 16)) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * np.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def keep_mask(key: Key[Array, ""], rate: float, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """A mask of `shape` whose elements are False with probability `rate`.

    The first axis is the batch; of the others there are at most 2³² elements. An element depends on
    the key and its index alone, so the mask is the same on any device and with any sharding.
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    # The row of the batch is hashed apart: all indices together may be more than 2³²
    row = mix(jax.lax.broadcasted_iota(jnp.uint32, shape, 0) ^ second)
    index = jnp.zeros((), jnp.uint32)
    for axis, size in enumerate(shape[1:], 1):
        index = index * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    keep = mix(mix(index ^ first) + row) >= np.uint32(min(round(rate * 2**32), 2**32 - 1))
    # The barrier makes the compiler keep the mask, a byte per element. Otherwise it would be fused
    # into several convolutions and computed again in each.
    return jax.lax.optimization_barrier(keep)


class Dropout(nn.Module):
    """Dropout: in training, zeros a fraction `rate` and scales the rest by 1 / (1 - rate)."""

    rate: float

    def __call__(self, x: Float[Array, "..."], train: bool) -> Float[Array, "..."]:
        """Applies dropout if `train`; else returns `x` as it is."""
        if self.rate == 0 or not train:
            return x
        if self.rate == 1:
            return jnp.zeros_like(x)
        keep = keep_mask(self.make_rng("dropout"), self.rate, x.shape)
        return jnp.where(
            keep, x * jnp.asarray(1 / (1 - self.rate), x.dtype), jnp.zeros((), x.dtype)
        )
