"""What is common to networks of other projects: arrays of PyTorch to parameters of our U-Net."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sr3_jax import config as config_lib
from sr3_jax.checkpoints.checkpoint import Checkpoint, CheckpointError, check_params, nest
from sr3_jax.errors import ConfigError

Weights = Mapping[str, np.ndarray]


class Shape(NamedTuple):
    """How a U-Net is built, as far as its weights tell."""

    channels: int
    multipliers: tuple[int, ...]
    blocks: int  # residual blocks of a level
    attention: tuple[int, ...]  # numbers of the levels with attention


class Taken:
    """Weights by name, each taken once; what is left at the end is of another network.

    Args:
      weights: by name.
      where: names the file in errors.
    """

    def __init__(self, weights: Weights, where: str):
        self._left, self.where = dict(weights), where
        self.found: dict[str, np.ndarray] = {}  # parameters of ours by name

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def peek(self, name: str) -> np.ndarray:
        """An array, which stays; raises CheckpointError if there is none."""
        if name not in self._left:
            raise CheckpointError(f"{self.where} is of another network: it has no {name}")
        return self._left[name]

    def take(self, name: str) -> np.ndarray:
        """An array in float32; raises CheckpointError if there is none."""
        array = np.asarray(self.peek(name), np.float32)
        del self._left[name]
        return array

    def drop(self, pattern: str) -> None:
        """Forgets the arrays whose names match a regular expression."""
        self._left = {name: x for name, x in self._left.items() if not re.fullmatch(pattern, name)}

    def dense(self, theirs: str, ours: str, order: Sequence[int] | None = None) -> None:
        """A dense layer; `order` permutes its inputs."""
        kernel = self.take(f"{theirs}.weight").T
        self.found[f"{ours}.kernel"] = kernel if order is None else kernel[list(order)]
        self.found[f"{ours}.bias"] = self.take(f"{theirs}.bias")

    def conv(self, theirs: str, ours: str, order: Sequence[int] | None = None) -> None:
        """A convolution (PyTorch: out, in, h, w; ours: h, w, in, out); `order` as in `dense`."""
        kernel = self.take(f"{theirs}.weight")
        kernel = kernel.reshape(*kernel.shape[:2], *(kernel.shape[2:] or (1, 1)))
        if kernel.ndim == 3:  # of one dimension, and of one pixel: that of attention
            kernel = kernel[..., None]
        kernel = kernel.transpose(2, 3, 1, 0)
        self.found[f"{ours}.kernel"] = kernel if order is None else kernel[:, :, list(order)]
        self.found[f"{ours}.bias"] = self.take(f"{theirs}.bias")

    def norm(self, theirs: str, ours: str) -> None:
        """A GroupNorm."""
        self.found[f"{ours}.scale"] = self.take(f"{theirs}.weight")
        self.found[f"{ours}.bias"] = self.take(f"{theirs}.bias")

    def attention(self, qkv: str, ours: str, order: np.ndarray | None = None) -> None:
        """The three inputs of attention; `order` permutes the outputs to ours, bias may be none.

        Ours are heads first, and q, k, v within each head.
        """
        kernel = self.take(f"{qkv}.weight")
        kernel = kernel.reshape(kernel.shape[:2])
        bias = self.take(f"{qkv}.bias") if f"{qkv}.bias" in self else np.zeros(len(kernel))
        if order is not None:
            kernel, bias = kernel[order], bias[order]
        self.found[f"{ours}.kernel"] = np.ascontiguousarray(kernel.T[None, None])
        self.found[f"{ours}.bias"] = bias.astype(np.float32)

    def checkpoint(self, config: ConfigDict, name: str) -> Checkpoint:
        """What was taken, as a checkpoint of ours.

        Raises:
          CheckpointError: something is left over, or what was said does not fit the weights.
        """
        if self._left:
            raise CheckpointError(
                f"{self.where} is of another network than was said: nothing takes its "
                f"{min(self._left)}"
            )
        params = nest(self.found)
        try:
            config_lib.validate(config)
            check_params(params, config, self.where)
        except ConfigError as error:
            raise CheckpointError(f"{self.where}: {error}") from error
        for key, leaf in self.found.items():
            if not np.isfinite(leaf).all():
                raise CheckpointError(
                    f"{self.where} is damaged: {key} has values that are not finite"
                )
        return Checkpoint(config, params, 0, name)


def numbered(weights: Weights, prefix: str) -> Iterator[int]:
    """The numbers n of names that begin with `prefix`n., in order."""
    found = {re.match(rf"{re.escape(prefix)}(\d+)\.", name) for name in weights}
    yield from sorted({int(match[1]) for match in found if match})


def base_config(shape: Shape, hr_size: int, lr_size: int, image_channels: int) -> ConfigDict:
    """A config of a network with this shape, on images of this size; for inference.

    Raises:
      ConfigError: the size is not divided by the levels.
    """
    config = config_lib.base()
    data, model = config.data, config.model
    data.source, data.hr_size, data.lr_size, data.fit = "folder", hr_size, lr_size, "crop"
    model.channels, model.multipliers, model.blocks = shape[:3]
    model.attention = tuple(sorted({hr_size // 2**level for level in shape.attention}))
    model.image_channels, model.rescale_skip = image_channels, False
    model.predict, model.dropout = "epsilon", 0.0
    return config
