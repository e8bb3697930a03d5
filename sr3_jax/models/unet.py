"""The U-Net of SR3 (paper, section 2.4, appendix A and table A.1).

It is DDPM's, with BigGAN's residual blocks, and every residual sum is scaled by 1/√2. What the
paper leaves open is inferred from its parameter counts: an embedding of width 4 · channels that is
added, blocks + 1 residual blocks per decoder level, attention at one inner size and between the two
middle blocks, long skip connections concatenated without scaling.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sr3_jax.models.blocks import (
    ZERO,
    DType,
    EmbeddingSpec,
    Features,
    GroupNorm,
    ResBlock,
    SelfAttention,
    Signals,
    Values,
    conv,
    depth_to_space,
    embed_levels,
    space_to_depth,
    upsample,
)


class UNet(nn.Module):
    """Maps (condition, y_t, gamma), or in regression the condition alone, to an image.

    The fields are those of the config's `model` section, but for `size`. The network works on any
    height and width that its levels divide, not only on those of the training images.
    """

    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    # Grid sizes, for the training images, at which attention follows every block
    attention: tuple[int, ...]
    out_channels: int  # of the image
    # Height of the training images: it decides which levels have attention, also for other sizes
    size: int
    signals: Signals = ()  # numbers about the input that the network is told
    gamma_embedding: str = "log_snr"  # that of EmbeddingSpec, or "none" (regression)
    embedding_channels: int = 0  # 0: as many as `channels`
    embedding_width: int = 0  # 0: 4 · embedding_channels
    timesteps: tuple[float, ...] = ()  # gamma_embedding = "timestep": EmbeddingSpec.levels
    gamma_injection: str = "add"  # or "scale_shift"
    # or "plain": down by a strided convolution, up by repeated pixels and a convolution
    resample: str = "biggan"
    rescale_skip: bool = True
    dropout: float = 0.0
    head_channels: int = 0
    heads: int = 0  # 0: as many as have head_channels channels
    groups: int = 0  # of all norms; 0: as GroupNorm has it
    embedding_silu: bool = True
    space_to_depth: int = 1
    middle_attention: bool = True
    remat: tuple[int, ...] = ()  # levels whose activations are recomputed in the backward pass
    dtype: DType = jnp.float32

    def _block(self, level: int, index: str, channels: int, resample: str = "none") -> ResBlock:
        # `train` is argument 3, counting the module itself
        block = nn.remat(ResBlock, static_argnums=(3,)) if level in self.remat else ResBlock
        return block(
            channels,
            resample,
            self.dropout,
            self.rescale_skip,
            self.gamma_injection == "scale_shift",
            self.groups,
            self.embedding_silu,
            self.dtype,
            name=index,
        )

    def _attend(self, x: Features, name: str, here: bool) -> Features:
        if not here:
            return x
        return SelfAttention(
            self.head_channels, self.heads, self.rescale_skip, self.groups, self.dtype, name=name
        )(x)

    @nn.compact
    def __call__(
        self,
        condition: Features,
        y_t: Features | None = None,
        gamma: Float[Array, " b"] | None = None,
        train: bool = False,
        told: Values | None = None,
    ) -> Features:
        """The network's output, an image (b, h, w, out_channels).

        Args:
          condition: the image that it is conditioned on, such as the upsampled LR image.
          y_t: the noisy image; None in regression.
          gamma: its noise level; None in regression.
          train: turns dropout on.
          told: the signals' values, by name; None: all are 0.
        """
        x = condition if y_t is None else jnp.concatenate([condition, y_t], axis=-1)
        x = space_to_depth(x.astype(self.dtype), self.space_to_depth)
        sinusoids = self.embedding_channels or self.channels
        spec = EmbeddingSpec(
            self.gamma_embedding, sinusoids, self.embedding_width or 4 * sinusoids, self.timesteps
        )
        embedding = embed_levels(spec, self.signals, gamma, told, x.shape[0], self.dtype)
        levels = [self.channels * multiplier for multiplier in self.multipliers]
        last = len(levels) - 1
        size = self.size // self.space_to_depth

        x = conv(x, self.channels, self.dtype, "stem")
        skips = [x]
        for level, channels in enumerate(levels):
            for i in range(self.blocks):
                x = self._block(level, f"down_{level}_{i}", channels)(x, embedding, train)
                x = self._attend(x, f"down_{level}_{i}_attention", size in self.attention)
                skips.append(x)
            if level < last:
                if self.resample == "biggan":
                    x = self._block(level, f"down_{level}_resample", channels, "down")(
                        x, embedding, train
                    )
                else:
                    x = conv(x, channels, self.dtype, f"down_{level}_resample", stride=2)
                skips.append(x)
                size //= 2

        x = self._block(last, "middle_0", levels[-1])(x, embedding, train)
        x = self._attend(x, "middle_attention", self.middle_attention)
        x = self._block(last, "middle_1", levels[-1])(x, embedding, train)

        for level, channels in reversed(list(enumerate(levels))):
            for i in range(self.blocks + 1):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = self._block(level, f"up_{level}_{i}", channels)(x, embedding, train)
                x = self._attend(x, f"up_{level}_{i}_attention", size in self.attention)
            if level > 0:
                if self.resample == "biggan":
                    x = self._block(level, f"up_{level}_resample", channels, "up")(
                        x, embedding, train
                    )
                else:
                    x = conv(upsample(x), channels, self.dtype, f"up_{level}_resample")
                size *= 2

        x = GroupNorm(self.dtype, silu=True, groups=self.groups, name="out_norm")(x)
        # the last convolution in float32: its output is an image
        x = conv(
            x.astype(jnp.float32),
            self.out_channels * self.space_to_depth**2,
            jnp.float32,
            "out",
            init=ZERO,
        )
        return depth_to_space(x, self.space_to_depth)
