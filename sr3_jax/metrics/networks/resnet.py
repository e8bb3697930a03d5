"""ResNet-50 (He et al. 2016), the classifier of the paper's table 3.

The user supplies torchvision's weights (`--classifier=PATH`). The paper does not say whose
ResNet-50 it took; for a table of one's own, any classifier will do.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from sr3_jax.checkpoints import torch_files
from sr3_jax.metrics.networks import layers
from sr3_jax.metrics.networks.layers import Weights
from sr3_jax.models import exact

SIDE, CLASSES = 224, 1000
BLOCKS = (3, 4, 6, 3)  # of each stage
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB, in [0, 1]
FILES = (
    "resnet50-0676ba61.pth (torchvision, IMAGENET1K_V1) or resnet50-11ad3fa6.pth (IMAGENET1K_V2)"
)


class ResNet50:
    """The classifier with its weights, to be called with images of 224×224.

    Args:
      weights: By name, as in `shapes`.
      name: What it is called in the results.
    """

    def __init__(self, weights: Weights, name: str = "ResNet-50"):
        self.weights, self.name = {key: jnp.asarray(value) for key, value in weights.items()}, name

    def __call__(self, images: UInt8[np.ndarray, "n 224 224 3"]) -> Float[Array, "n 1000"]:
        """The logits of the 1000 classes."""
        return _logits(self.weights, jnp.asarray(images))


def load(path: str | Path | None) -> ResNet50:
    """The classifier with the weights of torchvision's file.

    Raises:
      UserError: There is no path or no file (the message says which is needed), or the file is
        damaged or of another network.
    """
    needs = "classification accuracy needs the classifier's weights"
    file = layers.find(path, "--classifier", FILES, needs)
    weights = torch_files.require(torch_files.load(file), shapes(), file, "ResNet-50")
    return ResNet50(weights, f"ResNet-50 ({file.name})")


@jax.jit
def _logits(weights: Weights, images: Array) -> Float[Array, "n 1000"]:
    x = images.astype(jnp.float32) / 255
    return network(
        weights,
        (x - jnp.asarray(MEAN)[None, None, None]) / jnp.asarray(DEVIATION)[None, None, None],
    )


def network(weights: Weights, x: Float[Array, "n h w 3"]) -> Float[Array, "n 1000"]:
    """The forward pass, from images less MEAN, divided by DEVIATION."""

    def conv(name: str, norm: str, x: Array, stride: int = 1) -> Array:
        padding = weights[f"{name}.weight"].shape[2] // 2
        return layers.normalized(weights, name, norm, x, stride, padding, epsilon=1e-5)

    def block(name: str, x: Array, stride: int, first: bool) -> Array:
        y = jax.nn.relu(conv(f"{name}.conv1", f"{name}.bn1", x))
        y = jax.nn.relu(conv(f"{name}.conv2", f"{name}.bn2", y, stride))
        y = conv(f"{name}.conv3", f"{name}.bn3", y)
        shortcut = conv(f"{name}.downsample.0", f"{name}.downsample.1", x, stride) if first else x
        return jax.nn.relu(y + shortcut)

    x = exact.max_pool(jax.nn.relu(conv("conv1", "bn1", x, 2)), padding=1)
    for stage, count in enumerate(BLOCKS, 1):
        for i in range(count):
            x = block(f"layer{stage}.{i}", x, 2 if stage > 1 and i == 0 else 1, i == 0)
    return (
        jnp.matmul(x.mean((1, 2)), weights["fc.weight"].T, precision=exact.EXACT)
        + weights["fc.bias"][None]
    )


def accuracy(
    logits: Float[np.ndarray, "n k"], labels: np.ndarray, top: int = 1
) -> Float[np.ndarray, " n"]:
    """1 where an image's class is among the `top` most likely, else 0."""
    best = np.argsort(-np.asarray(logits), axis=1, kind="stable")[:, :top]
    return (best == np.asarray(labels)[:, None]).any(axis=1).astype(np.float64)


@functools.cache
def shapes() -> dict[str, tuple[int, ...]]:
    """The name and shape of every weight that is used."""
    found: dict[str, tuple[int, ...]] = {"fc.weight": (CLASSES, 2048), "fc.bias": (CLASSES,)}

    def conv(name: str, norm: str, inputs: int, outputs: int, side: int) -> None:
        found.update(layers.normalized_shapes(name, norm, inputs, outputs, side, side))

    conv("conv1", "bn1", 3, 64, 7)
    inputs = 64
    for stage, count in enumerate(BLOCKS, 1):
        width = 32 * 2**stage
        for i in range(count):
            name = f"layer{stage}.{i}"
            conv(f"{name}.conv1", f"{name}.bn1", inputs, width, 1)
            conv(f"{name}.conv2", f"{name}.bn2", width, width, 3)
            conv(f"{name}.conv3", f"{name}.bn3", width, 4 * width, 1)
            if i == 0:
                conv(f"{name}.downsample.0", f"{name}.downsample.1", inputs, 4 * width, 1)
            inputs = 4 * width
    return found
