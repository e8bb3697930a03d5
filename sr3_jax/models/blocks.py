"""The parts of the U-Net: residual blocks, attention, resampling, the noise level's embedding.

Feature maps are (b, h, w, c). Parameters are float32; `dtype` is that of the computation.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sr3_jax.models.dropout import Dropout
from sr3_jax.models.normalization import GroupNorm
from sr3_jax.models.platform import DType, Features, downsample, upsample

Embedding = Float[Array, "b e"]

ZERO = nn.initializers.zeros_init()


class Told(NamedTuple):
    """A number about the image that a network is told."""

    name: str
    scale: float = 1.0  # factor before the embedding
    optional: bool = False  # whether the network can do without
    classes: int = 0  # 0: a quantity; else a class number, one of so many


Signals = tuple[Told, ...]
Values = Mapping[str, Float[Array, " b"]]  # by name; NaN: unknown


def conv(
    x: Features,
    channels: int,
    dtype: DType,
    name: str,
    size: int = 3,
    init: Callable[..., Array] | None = None,
    stride: int = 1,
) -> Features:
    """Convolves a feature map inside a module; keeps its size, or divides it by `stride`.

    Args:
      x: the feature map.
      channels: of the result.
      dtype: of the computation.
      name: of the layer, in the parameters.
      size: height and width of the kernel, an odd number.
      init: initialises the kernel; None: uniform, of variance 1 / mean of fan-in and fan-out.
      stride: step from one output pixel to the next.
    """
    return nn.Conv(
        channels,
        (size, size),
        strides=stride,
        padding=size // 2,
        kernel_init=init or nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
        dtype=dtype,
        name=name,
    )(x)


def space_to_depth(x: Features, factor: int) -> Features:
    """(b, h, w, c) to (b, h/f, w/f, f·f·c): every f×f patch becomes one pixel."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // factor, factor, w // factor, factor, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // factor, w // factor, factor * factor * c)


def depth_to_space(x: Features, factor: int) -> Features:
    """The inverse of `space_to_depth`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, factor, factor, c // factor**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * factor, w * factor, c // factor**2)


class GammaEmbedding(nn.Module):
    """The noise level as a vector of `width` numbers: sinusoids, then two dense layers.

    This is DDPM's embedding of the step t, fed a continuous level instead.

    The level matters from gamma = 4e-5 up to 1 - 1e-6. Near both ends √gamma hardly changes: in [0,
    1] and unscaled, it turns the fastest sinusoid by less than one radian in all. The log-SNR,
    log(gamma / (1 - gamma)), changes evenly over the whole range, from -10 to 14. The periods of
    the sinusoids go from 1.5 (neighbouring levels of few-step schedules differ by more) to 600 (so
    that the whole range is unambiguous). kind = "sqrt_gamma" uses 1000 · √gamma instead, DDPM's
    scale.

    Networks of other projects have √gamma as it is ("sqrt_gamma_unscaled"), or the number t of the
    level in their training schedule, counted from 0 ("timestep"), both with DDPM's frequencies.
    """

    spec: "EmbeddingSpec"
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, gamma: Float[Array, " b"]) -> Embedding:
        """Embeds the levels of a batch."""
        gamma, spec = gamma.astype(jnp.float32), self.spec
        half = spec.channels // 2
        if spec.kind == "log_snr":
            level = jnp.log(jnp.maximum(gamma, 1e-9)) - jnp.log(jnp.maximum(1 - gamma, 1e-9))
            frequency = np.geomspace(4.0, 0.01, half)
        elif spec.kind == "sqrt_gamma":
            level = 1000 * jnp.sqrt(gamma)
            frequency = np.geomspace(1.0, 1e-4, half)
        else:
            timestep = spec.kind == "timestep"
            level = timestep_of(gamma, spec.levels) if timestep else jnp.sqrt(gamma)
            frequency = np.exp(-math.log(1e4) * np.arange(half) / half)
        angles = level[:, None] * frequency.astype(np.float32)[None]
        embedding = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        # in float32, as bfloat16 cannot tell the slow sinusoids of neighbouring levels apart
        embedding = nn.silu(nn.Dense(4 * spec.channels, name="dense_0")(embedding))
        return nn.Dense(spec.width, name="dense_1")(embedding).astype(self.dtype)


def timestep_of(gamma: Float[Array, " b"], levels: tuple[float, ...]) -> Float[Array, " b"]:
    """The number of a noise level in a schedule, from 0, interpolated in the log-SNR.

    Args:
      gamma: the level.
      levels: the schedule's log-SNRs, falling.
    """
    log_snr = jnp.log(jnp.maximum(gamma, 1e-30)) - jnp.log(jnp.maximum(1 - gamma, 1e-9))
    t = jnp.interp(
        -log_snr, -jnp.asarray(levels, jnp.float32), jnp.arange(len(levels), dtype=float)
    )
    # float32 does not tell gamma exactly: a level of the schedule itself has a whole number
    whole = jnp.round(t)
    return jnp.where(jnp.abs(t - whole) < 0.02, whole, t)


class EmbeddingSpec(NamedTuple):
    """How a network is told of the noise level and of signals."""

    kind: str  # of GammaEmbedding, or "none": no noise level
    channels: int  # number of sinusoids, sines and cosines together
    width: int  # of the vector
    levels: tuple[float, ...] = ()  # kind "timestep": the log-SNRs of the training schedule


class SignalEmbedding(nn.Module):
    """A number about the input, from 0 to some tens, as a vector of `width` numbers.

    Before training the vector is zero, so that the number has no effect. A number that is not
    known, NaN, has a vector of its own.
    """

    width: int
    optional: bool = False
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, value: Float[Array, " b"]) -> Embedding:
        """Embeds the numbers of a batch."""
        unknown = jnp.isnan(value)[:, None] & self.optional
        value = jnp.where(unknown, 0, value.astype(jnp.float32)[:, None])
        # a difference of 1 matters much near 0 and little near 50
        features = jnp.concatenate([value / 16, jnp.sqrt(value) / 4, jnp.log1p(value) / 3], axis=-1)
        embedding = nn.silu(nn.Dense(self.width, name="dense_0")(features))
        known = nn.Dense(self.width, kernel_init=ZERO, name="dense_1")(embedding)
        if self.optional:
            known = jnp.where(unknown, self.param("unknown", ZERO, (1, self.width)), known)
        return known.astype(self.dtype)


class LabelEmbedding(nn.Module):
    """A class number, 0 to classes - 1, as a vector of `width` numbers; an unknown one, NaN, as 0.

    What is the same for all classes is the noise level's embedding's to learn. So the zero vector
    can stand for the unknown class, which needs no vector of its own.
    """

    classes: int
    width: int
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, label: Float[Array, " b"]) -> Embedding:
        """Embeds the labels of a batch."""
        shape = (self.classes, self.width)
        table = self.param("embedding", nn.initializers.normal(1.0), shape)
        # one row a label, as a product: split over devices, a table is easier to multiply than to
        # look things up in. No class is equal to NaN.
        chosen = label[:, None] == jnp.arange(self.classes, dtype=jnp.float32)[None]
        return chosen.astype(self.dtype) @ table.astype(self.dtype)


def embed_levels(
    spec: EmbeddingSpec,
    signals: Signals,
    gamma: Float[Array, " b"] | None,
    told: Values | None,
    b: int,
    dtype: DType,
) -> Embedding | None:
    """All that a network is told, as one vector per image: the noise level, and signals.

    To be called inside a module, which gets the embeddings' parameters.

    Args:
      spec: of which kind the embedding of the noise level is, and how long the vector.
      signals: what it is told beside the noise level.
      gamma: the noise levels.
      told: the signals' values, by name; None: all are 0.
      b: the batch size.
      dtype: of the computation.

    Returns:
      The sum of the embeddings; None if the network is told nothing.
    """
    embedding = None
    if spec.kind != "none":
        assert gamma is not None, "this network needs a noise level"
        embedding = GammaEmbedding(spec, dtype, name="gamma_embedding")(gamma)
    for name, scale, optional, classes in signals:
        value = jnp.zeros(b) if told is None else told[name] * scale
        more = (
            LabelEmbedding(classes, spec.width, dtype, name=f"{name}_embedding")(value)
            if classes
            else SignalEmbedding(spec.width, optional, dtype, name=f"input_{name}_embedding")(value)
        )
        embedding = more if embedding is None else embedding + more
    return embedding


class ResBlock(nn.Module):
    """A residual block: two 3×3 convolutions, the result of which is added to the input.

    In order: norm, SiLU, 3×3, + embedding, norm, SiLU, dropout, 3×3, + input.

    With `resample` = "down" or "up" it is BigGAN's resampling block: both branches change their
    size, before the first convolution. The sum is scaled by 1/√2 (Song et al. 2021), which keeps
    its variance, unless `rescale_skip` is off.
    """

    channels: int
    resample: str = "none"
    dropout: float = 0.0
    rescale_skip: bool = True
    # The embedding scales and shifts the second norm instead of being added before it
    scale_shift: bool = False
    groups: int = 0  # of the norms; see GroupNorm
    embedding_silu: bool = True  # whether the embedding goes through SiLU before it is used
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Features, embedding: Embedding | None, train: bool) -> Features:
        """Applies the block; `train` turns dropout on."""
        norm = functools.partial(GroupNorm, self.dtype, groups=self.groups)
        change = {"none": lambda features: features, "down": downsample, "up": upsample}[
            self.resample
        ]
        h = conv(
            change(norm(silu=True, name="norm_0")(x)),
            self.channels,
            self.dtype,
            "conv_0",
        )
        shift = None
        if embedding is not None:
            width = self.channels * (2 if self.scale_shift else 1)
            shown = nn.silu(embedding) if self.embedding_silu else embedding
            shift = nn.Dense(width, dtype=self.dtype, name="embedding")(shown)[:, None, None, :]
        if shift is not None and self.scale_shift:
            scale, shift = jnp.split(shift, 2, axis=-1)
            h = nn.silu(norm(name="norm_1")(h) * (1 + scale) + shift)
        else:
            h = norm(silu=True, name="norm_1")(h if shift is None else h + shift)
        h = Dropout(self.dropout)(h, train)
        h = conv(h, self.channels, self.dtype, "conv_1", init=ZERO)
        x = change(x)
        if x.shape[-1] != self.channels:
            x = conv(x, self.channels, self.dtype, "skip", size=1)
        return (x + h) * (1 / math.sqrt(2) if self.rescale_skip else 1.0)


class SelfAttention(nn.Module):
    """Self-attention over all pixels, softmax in float32, added to the input."""

    head_channels: int = 0  # channels of a head; 0: one head, as in DDPM, or `heads`
    heads: int = 0
    rescale_skip: bool = True
    groups: int = 0  # of the norm; see GroupNorm
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Features:
        """Applies the attention."""
        b, height, width, c = x.shape
        heads = self.heads or c // (self.head_channels or c)
        normed = GroupNorm(self.dtype, groups=self.groups, name="norm")(x)
        qkv = conv(normed, 3 * c, self.dtype, "qkv", size=1)
        q, k, v = jnp.split(qkv.reshape(b, height * width, heads, 3 * c // heads), 3, axis=-1)
        h = jax.nn.dot_product_attention(q, k, v).reshape(b, height, width, c)
        h = conv(h, c, self.dtype, "out", size=1, init=ZERO)
        return (x + h) * (1 / math.sqrt(2) if self.rescale_skip else 1.0)
