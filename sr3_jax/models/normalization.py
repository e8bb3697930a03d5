"""GroupNorm and SiLU in one function, with a gradient of its own.

Differentiated operation by operation, the two keep or recompute half a dozen feature maps and pass
over memory as often. The gradient really needs only their input and two sums per image and channel:
one pass for the sums, and one for the result.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sr3_jax.models.platform import DType, Features, dependent

EPSILON = 1e-5


class GroupNorm(nn.Module):
    """GroupNorm with statistics in float32 and output in `dtype`.

    Unless their number is given, it has at most 32 groups (as DDPM), of at least 4 channels each.
    """

    dtype: DType
    silu: bool = False  # whether SiLU follows, x · sigmoid(x)
    groups: int = 0  # 0: as above

    @nn.compact
    def __call__(self, x: Features) -> Features:
        """Normalises a feature map."""
        channels = x.shape[-1]
        groups = self.groups or next(
            g for g in range(min(32, max(1, channels // 4)), 0, -1) if channels % g == 0
        )
        scale = self.param("scale", nn.initializers.ones_init(), (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,), jnp.float32)
        return group_norm(x.astype(self.dtype), scale, bias, groups, self.silu)


def group_norm(
    x: Features, scale: Float[Array, " c"], bias: Float[Array, " c"], groups: int, silu: bool
) -> Features:
    """(x - mean) / √(variance + 1e-5) · scale + bias, and SiLU if `silu`.

    Mean and variance are those over all pixels of an image and all channels of a group.
    """
    # On a TPU, the compiler finds the same passes by itself, and keeps less between them.
    on_cpu, default = (
        functools.partial(form, groups=groups, silu=silu) for form in (_with_gradient, _value)
    )
    return dependent(x, scale, bias, cpu=on_cpu, default=default)


def _value(x: Array, scale: Array, bias: Array, groups: int, silu: bool) -> Array:
    return _forward(x, scale, bias, groups, silu)[0]


def _forward(
    x: Array, scale: Array, bias: Array, groups: int, silu: bool
) -> tuple[Array, tuple[Array, ...]]:
    pixels, wide = x.shape[1] * x.shape[2], x.astype(jnp.float32)
    # Sums per channel first: the feature map is read once, in its own shape.
    sums = functools.partial(jnp.sum, axis=(1, 2))
    if x.dtype == jnp.float32:
        # Of what is left without the first pixel, a constant to the gradient, which it cancels out
        # of: where the mean is large, its square would swallow the variance. In bfloat16, such a
        # mean has swallowed the pixels' differences before, and on a TPU the sums without it are
        # part of the convolution that makes x.
        origin = jax.lax.stop_gradient(wide[:, 0, 0])
        around = wide - _map(origin)
    else:
        origin, around = jnp.zeros((), jnp.float32), wide
    shift, square = sums(around) / pixels, sums(around * around) / pixels
    channel_mean = origin + shift
    mean = _per_group(channel_mean, groups)
    spread = jnp.maximum(square - shift * shift, 0) + jnp.square(channel_mean - mean)
    rstd = jax.lax.rsqrt(_per_group(spread, groups) + EPSILON)
    factor = rstd * scale[None]
    offset = bias[None] - mean * factor
    z = (wide * _map(factor) + _map(offset)).astype(x.dtype)
    return jax.nn.silu(z) if silu else z, (x, mean, rstd, scale, bias)


def _backward(
    groups: int, silu: bool, kept: tuple[Array, ...], dy: Array
) -> tuple[Array, Array, Array]:
    x, mean, rstd, scale, bias = kept
    pixels, dz, scale = x.shape[1] * x.shape[2], dy.astype(jnp.float32), scale[None]
    x_hat = (x.astype(jnp.float32) - _map(mean)) * _map(rstd)
    if silu:
        z = x_hat * _map(scale) + _map(bias[None])
        s = jax.nn.sigmoid(z)
        dz = dz * s * (1 + z * (1 - s))
    d_bias, d_scale = dz.sum((1, 2)), (dz * x_hat).sum((1, 2))  # (b, c)
    mean_dz, mean_dz_x_hat = (
        _per_group(values * scale / pixels, groups) for values in (d_bias, d_scale)
    )
    dx = (dz * _map(scale) - _map(mean_dz) - x_hat * _map(mean_dz_x_hat)) * _map(rstd)
    return dx.astype(x.dtype), d_scale.sum(0), d_bias.sum(0)


def _map(values: Float[Array, "b c"]) -> Float[Array, "b 1 1 c"]:
    return values[:, None, None]


def _per_group(values: Float[Array, "b c"], groups: int) -> Float[Array, "b c"]:
    """The mean over the channels of each group, for every channel."""
    b, c = values.shape
    means = values.reshape(b, groups, c // groups).mean(-1, keepdims=True)
    return jnp.broadcast_to(means, (b, groups, c // groups)).reshape(b, c)


_with_gradient = jax.custom_vjp(_value, nondiff_argnums=(3, 4))
_with_gradient.defvjp(_forward, _backward)
