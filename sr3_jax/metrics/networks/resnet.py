"""ResNet-50 (He et al. 2016), the classifier of the paper's table 3.

The user supplies torchvision's weights (`--classifier=PATH`). The paper does not say whose
ResNet-50 it took; for a table of one's own, any classifier will do.
"""

import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from sr3_jax.checkpoints import torch_files
from sr3_jax.errors import UserError

SIDE, CLASSES = 224, 1000
BLOCKS = (3, 4, 6, 3)  # of each stage
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB, in [0, 1]
FILES = (
    "resnet50-0676ba61.pth (torchvision, IMAGENET1K_V1) or resnet50-11ad3fa6.pth (IMAGENET1K_V2)"
)

Weights = Mapping[str, np.ndarray | Array]


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
    if not path:
        raise UserError(
            "classification accuracy needs the classifier's weights: give --classifier=PATH of "
            f"{FILES}"
        )
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; --classifier wants {FILES}")
    return ResNet50(
        torch_files.require(torch_files.load(path), shapes(), path, "ResNet-50"),
        f"ResNet-50 ({path.name})",
    )


@jax.jit
def _logits(weights: Weights, images: Array) -> Float[Array, "n 1000"]:
    x = images.astype(jnp.float32) / 255
    return network(
        weights,
        (x - jnp.asarray(MEAN)[None, None, None]) / jnp.asarray(DEVIATION)[None, None, None],
    )


def network(weights: Weights, x: Float[Array, "n h w 3"]) -> Float[Array, "n 1000"]:
    """The forward pass, from images less MEAN, divided by DEVIATION."""
    exact = jax.lax.Precision.HIGHEST

    def conv(name: str, norm: str, x: Array, stride: int = 1) -> Array:
        kernel = jnp.transpose(weights[f"{name}.weight"], (2, 3, 1, 0))
        pads = [(kernel.shape[0] // 2,) * 2] * 2
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride,) * 2,
            pads,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=exact,
        )
        scale = weights[f"{norm}.weight"] / jnp.sqrt(weights[f"{norm}.running_var"] + 1e-5)
        shift = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
        return y * scale[None, None, None] + shift[None, None, None]

    def block(name: str, x: Array, stride: int, first: bool) -> Array:
        y = jax.nn.relu(conv(f"{name}.conv1", f"{name}.bn1", x))
        y = jax.nn.relu(conv(f"{name}.conv2", f"{name}.bn2", y, stride))
        y = conv(f"{name}.conv3", f"{name}.bn3", y)
        shortcut = conv(f"{name}.downsample.0", f"{name}.downsample.1", x, stride) if first else x
        return jax.nn.relu(y + shortcut)

    x = jax.nn.relu(conv("conv1", "bn1", x, 2))
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)
    for stage, count in enumerate(BLOCKS, 1):
        for i in range(count):
            x = block(f"layer{stage}.{i}", x, 2 if stage > 1 and i == 0 else 1, i == 0)
    return (
        jnp.matmul(x.mean((1, 2)), weights["fc.weight"].T, precision=exact)
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

    def conv(name: str, norm: str, inputs: int, outputs: int, kernel: int) -> None:
        found[f"{name}.weight"] = (outputs, inputs, kernel, kernel)
        found.update(
            {
                f"{norm}.{part}": (outputs,)
                for part in ("weight", "bias", "running_mean", "running_var")
            }
        )

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
