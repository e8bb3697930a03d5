"""The network of `sr3_jax.models.unet` in PyTorch, as a PyTorch user would write it.

It is there to compare speed, with equal outputs. Run, it checks in a minute that outputs and
gradients agree for every option of the network:

    PYTHONPATH=. python benchmarks/torch_twin.py

Modules carry the names of our Flax parameters, so that copying them is a renaming of leaves. Images
are (b, c, h, w) here.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr3_jax.models.unet import UNet


def group_norm(channels: int) -> nn.GroupNorm:
    groups = next(g for g in range(min(32, max(1, channels // 4)), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=1e-5)


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2)


def space_to_depth(x: Tensor, factor: int) -> Tensor:
    """Pixels become channels, in our order.

    It is (row, column, channel); `F.pixel_unshuffle` has (channel, row, column).
    """
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // factor, factor, w // factor, factor).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(b, factor * factor * c, h // factor, w // factor)


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    b, c, h, w = x.shape
    x = x.reshape(b, factor, factor, c // factor**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(b, c // factor**2, h * factor, w * factor)


class GammaEmbedding(nn.Module):
    def __init__(self, channels: int, width: int, kind: str):
        super().__init__()
        self.half, self.kind = channels // 2, kind
        self.dense_0, self.dense_1 = nn.Linear(2 * self.half, width), nn.Linear(width, width)

    def forward(self, gamma: Tensor) -> Tensor:
        steps = torch.arange(self.half, device=gamma.device) / max(self.half - 1, 1)
        if self.kind == "log_snr":
            level = torch.log(gamma.clamp(min=1e-9)) - torch.log((1 - gamma).clamp(min=1e-9))
            frequency = 4.0 * torch.exp(-math.log(400.0) * steps)
        else:
            level = 1000 * torch.sqrt(gamma)
            frequency = torch.exp(-math.log(10_000.0) * steps)
        angles = level[:, None] * frequency
        return self.dense_1(F.silu(self.dense_0(torch.cat([angles.sin(), angles.cos()], dim=1))))


class ResBlock(nn.Module):
    def __init__(self, unet: UNet, inputs: int, outputs: int, resample: str = "none"):
        super().__init__()
        self.resample, self.dropout = resample, unet.dropout
        self.scale_shift = unet.gamma_injection == "scale_shift"
        self.scale = 1 / math.sqrt(2) if unet.rescale_skip else 1.0
        self.norm_0, self.conv_0 = group_norm(inputs), conv(inputs, outputs)
        if unet.gamma_embedding != "none":
            self.embedding = nn.Linear(4 * unet.channels, outputs * (2 if self.scale_shift else 1))
        self.norm_1, self.conv_1 = group_norm(outputs), conv(outputs, outputs)
        if inputs != outputs:
            self.skip = conv(inputs, outputs, size=1)

    def change(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0, mode="nearest") if self.resample == "up" else x

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        h = self.conv_0(self.change(F.silu(self.norm_0(x))))
        shift = None if embedding is None else self.embedding(F.silu(embedding))[:, :, None, None]
        if shift is not None and self.scale_shift:
            scale, shift = shift.chunk(2, dim=1)
            h = self.norm_1(h) * (1 + scale) + shift
        else:
            h = self.norm_1(h if shift is None else h + shift)
        h = self.conv_1(F.dropout(F.silu(h), self.dropout, self.training))
        x = self.change(x)
        return ((self.skip(x) if hasattr(self, "skip") else x) + h) * self.scale


class SelfAttention(nn.Module):
    def __init__(self, unet: UNet, channels: int):
        super().__init__()
        self.heads = channels // (unet.head_channels or channels)
        self.scale = 1 / math.sqrt(2) if unet.rescale_skip else 1.0
        self.norm, self.qkv, self.out = (
            group_norm(channels),
            conv(channels, 3 * channels, 1),
            conv(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        qkv = (
            self.qkv(self.norm(x))
            .permute(0, 2, 3, 1)
            .reshape(b, height * width, self.heads, -1)
            .transpose(1, 2)
        )
        h = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1)).transpose(1, 2)
        return (x + self.out(h.reshape(b, height, width, c).permute(0, 3, 1, 2))) * self.scale


class PlainResample(nn.Conv2d):
    """A strided convolution, or nearest-neighbour upsampling and a convolution."""

    def __init__(self, inputs: int, outputs: int, resample: str):
        super().__init__(inputs, outputs, 3, 2 if resample == "down" else 1, padding=1)
        self.resample = resample

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        return super().forward(
            F.interpolate(x, scale_factor=2.0, mode="nearest") if self.resample == "up" else x
        )


class Twin(nn.ModuleDict):
    """The twin of `unet`, with parameters of its own.

    `load_state_dict(torch_parameters(params))` gives it ours.
    """

    def __init__(self, unet: UNet, condition_channels: int):
        super().__init__()
        self.factor, self.blocks, self.last = (
            unet.space_to_depth,
            unet.blocks,
            len(unet.multipliers) - 1,
        )
        levels = [unet.channels * multiplier for multiplier in unet.multipliers]
        sizes = [unet.size // unet.space_to_depth // 2**level for level in range(len(levels))]
        embedded = unet.gamma_embedding != "none"
        inputs = condition_channels + (unet.out_channels if embedded else 0)

        def add_block(name: str, inputs: int, level: int) -> None:
            self[name] = ResBlock(unet, inputs, levels[level])
            if sizes[level] in unet.attention:
                self[f"{name}_attention"] = SelfAttention(unet, levels[level])

        def add_resample(name: str, inputs: int, level: int, resample: str) -> None:
            biggan = unet.resample == "biggan"
            make = (
                ResBlock(unet, inputs, levels[level], resample)
                if biggan
                else PlainResample(inputs, levels[level], resample)
            )
            self[name] = make

        if embedded:
            self["gamma_embedding"] = GammaEmbedding(
                unet.channels, 4 * unet.channels, unet.gamma_embedding
            )
        self["stem"] = conv(inputs * self.factor**2, unet.channels)
        skips = [unet.channels]
        for level, channels in enumerate(levels):
            for i in range(self.blocks):
                add_block(f"down_{level}_{i}", skips[-1], level)
                skips.append(channels)
            if level < self.last:
                add_resample(f"down_{level}_resample", channels, level, "down")
                skips.append(channels)

        x = levels[-1]
        self["middle_0"], self["middle_1"] = ResBlock(unet, x, x), ResBlock(unet, x, x)
        if unet.middle_attention:
            self["middle_attention"] = SelfAttention(unet, x)

        for level, channels in reversed(list(enumerate(levels))):
            for i in range(self.blocks + 1):
                add_block(f"up_{level}_{i}", x + skips.pop(), level)
                x = channels
            if level > 0:
                add_resample(f"up_{level}_resample", x, level, "up")
        self["out_norm"], self["out"] = group_norm(x), conv(x, unet.out_channels * self.factor**2)

    def forward(
        self, condition: Tensor, y_t: Tensor | None = None, gamma: Tensor | None = None
    ) -> Tensor:
        def block(name: str, x: Tensor) -> Tensor:
            x = self[name](x, embedding)
            return self[f"{name}_attention"](x) if f"{name}_attention" in self else x

        x = condition if y_t is None else torch.cat([condition, y_t], dim=1)
        embedding = self["gamma_embedding"](gamma) if "gamma_embedding" in self else None
        x = self["stem"](
            space_to_depth(x, self.factor).contiguous(memory_format=torch.channels_last)
        )
        skips = [x]
        for level in range(self.last + 1):
            for i in range(self.blocks):
                x = block(f"down_{level}_{i}", x)
                skips.append(x)
            if level < self.last:
                x = block(f"down_{level}_resample", x)
                skips.append(x)
        x = self["middle_0"](x, embedding)
        x = self["middle_attention"](x) if "middle_attention" in self else x
        x = self["middle_1"](x, embedding)
        for level in reversed(range(self.last + 1)):
            for i in range(self.blocks + 1):
                x = block(f"up_{level}_{i}", torch.cat([x, skips.pop()], dim=1))
            if level > 0:
                x = block(f"up_{level}_resample", x)
        x = F.silu(self["out_norm"](x))
        # The last convolution in float32, as ours
        with torch.autocast(x.device.type, enabled=False):
            x = self["out"](x.float())
        return depth_to_space(x, self.factor)


def nchw(images: Any) -> Tensor:
    """Our (b, h, w, c) array as a (b, c, h, w) tensor.

    The layout in memory stays the same; PyTorch calls it channels_last.
    """
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)


def torch_parameters(params: Any) -> dict[str, Tensor]:
    """Our parameters, or their gradient, under the twin's names and in PyTorch's layout."""
    result = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        *module, kind = (str(entry.key) for entry in path)
        value = np.asarray(leaf)
        # (in, out) to (out, in); (height, width, in, out) to (out, in, height, width)
        if kind == "kernel":
            value = value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)
        result[".".join([*module, "bias" if kind == "bias" else "weight"])] = torch.from_numpy(
            value.copy()
        )
    return result


def perturbed(params: Any, seed: int = 0) -> Any:
    """Parameters plus noise, the same on every machine.

    Without it, convolutions that start at zero would hide everything before them.
    """
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: p + 0.05 * generator.standard_normal(p.shape).astype(np.float32), params
    )


def compare(unet: UNet, params: Any, twin: Twin, inputs: list[np.ndarray]) -> tuple[float, float]:
    """How far the two networks differ for `inputs` (condition, y_t, gamma), without dropout.

    Returns:
        The largest absolute difference of the outputs, and that of the gradients of their mean
        square, each relative to that parameter's largest gradient.
    """

    def mean_square(params: Any) -> tuple[jax.Array, jax.Array]:
        output = unet.apply({"params": params}, *map(jnp.asarray, inputs))
        return jnp.square(output).mean(), output

    gradient, ours = jax.jit(jax.grad(mean_square, has_aux=True))(params)
    device = next(twin.parameters()).device
    twin.load_state_dict(torch_parameters(params))
    twin.zero_grad()
    twin.eval()
    theirs = twin(*((nchw(x) if x.ndim == 4 else torch.from_numpy(x)).to(device) for x in inputs))
    theirs.square().mean().backward()
    twin.train()
    found = {name: parameter.grad.cpu() for name, parameter in twin.named_parameters()}
    wanted = torch_parameters(gradient)
    scale = max(float(value.abs().max()) for value in wanted.values())
    gradients = max(
        float((found[name] - value).abs().max() / value.abs().max().clamp(min=1e-4 * scale))
        for name, value in wanted.items()
    )
    return float((theirs.detach().cpu() - nchw(ours)).abs().max()), gradients


VARIANTS: list[dict] = [
    {},
    {"gamma_embedding": "sqrt_gamma", "rescale_skip": False},
    {"gamma_embedding": "none"},
    {"gamma_injection": "scale_shift", "head_channels": 8},
    {"resample": "plain", "space_to_depth": 2, "middle_attention": False},
]


def main() -> None:
    """Every option of the network once, small."""
    generator = np.random.default_rng(1)
    condition, y_t = generator.standard_normal((2, 2, 16, 16, 1)).astype(np.float32)
    gamma = np.array([0.02, 0.97], np.float32)
    for options in VARIANTS:
        unet = UNet(
            channels=16,
            multipliers=(1, 2),
            blocks=1,
            attention=(8,),
            out_channels=1,
            size=16,
            **options,
        )
        inputs = [condition] if unet.gamma_embedding == "none" else [condition, y_t, gamma]
        params = perturbed(unet.init(jax.random.key(0), *map(jnp.asarray, inputs))["params"])
        output, gradient = compare(unet, params, Twin(unet, 1), inputs)
        print(f"outputs differ by {output:.0e}, gradients by {gradient:.0e}: {options}", flush=True)
        assert output < 1e-4, options
        assert gradient < 1e-3, options


if __name__ == "__main__":
    main()
