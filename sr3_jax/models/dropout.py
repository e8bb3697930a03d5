"""Dropout whose random bits cost next to nothing.

JAX's generators are made for statistics: threefry spends about a hundred instructions on a number,
more than the rest of a residual block's elementwise work together, and the TPU compiler, which
fuses them into the convolution that follows, takes minutes over it. A mask needs no more than bits
without visible structure, so it is hashed from the index of the element.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, UInt32


def mix(bits: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """A bijection of 32-bit numbers in which every bit of the result depends on every bit of the argument.

    Two rounds of xor-shift and multiply, with the constants of Wellons' "lowbias32" (2018).
    """
    bits = (bits ^ (bits >> 16)) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * np.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def keep_mask(key: Key[Array, ""], rate: float, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """False with probability `rate`.

    A function of the key and the element's index alone, so of no device or sharding.
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    index = jnp.zeros((), jnp.uint32)
    for axis, size in enumerate(shape):
        index = index * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    keep = mix(mix(index ^ first) + second) >= np.uint32(min(round(rate * 2**32), 2**32 - 1))
    # Kept, a byte per element, instead of hashed again in every convolution that it could be fused
    # into.
    return jax.lax.optimization_barrier(keep)


class Dropout(nn.Module):
    """Zeros a fraction `rate` of the elements, in training, and scales the rest by 1 / (1 - rate)."""

    rate: float

    def __call__(self, x: Float[Array, "..."], train: bool) -> Float[Array, "..."]:
        if self.rate == 0 or not train:
            return x
        if self.rate == 1:
            return jnp.zeros_like(x)
        keep = keep_mask(self.make_rng("dropout"), self.rate, x.shape)
        return jnp.where(
            keep, x * jnp.asarray(1 / (1 - self.rate), x.dtype), jnp.zeros((), x.dtype)
        )
