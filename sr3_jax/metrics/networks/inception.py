"""The Inception network by which FID is defined.

It is that of TensorFlow's 2015 graph, with the weights of its port to PyTorch, which FID tools
share. It is not the Inception-v3 of model collections: it has other weights, average pooling that
leaves out the padding, and max pooling in the last block. The user supplies the weights
(`--inception=PATH`): the file that pytorch-fid and torch-fidelity load, usually named
pt_inception-2015-12-05-6726825d.pth or weights-inception-2015-12-05-6726825d.pth.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from sr3_jax.checkpoints import torch_files
from sr3_jax.errors import UserError
from sr3_jax.metrics.networks import layers
from sr3_jax.metrics.networks.layers import Weights
from sr3_jax.models import exact
from sr3_jax.models.exact import max_pool

SIDE, FEATURES, CLASSES = 299, 2048, 1008
FILES = (
    "pt_inception-2015-12-05-6726825d.pth (pytorch-fid) or "
    "weights-inception-2015-12-05-6726825d.pth (torch-fidelity)"
)
NAME = "Inception (TensorFlow, 2015-12-05)"
# How images are brought to 299×299: as TensorFlow 1 did it (no half-pixel centres, no
# anti-aliasing), by which most published numbers were made; or anti-aliased, which is fairer to
# images that must be made smaller.
RESIZES = ("tf1-bilinear", "antialiased-bilinear")


class Outputs(NamedTuple):
    """What a network computes of n images; Inception: 2048 features, 1008 logits."""

    features: Float[Array, "n _d"]  # for FID, KID, precision and recall
    logits: Float[Array, "n _k"]  # of Inception without their bias, for the Inception score


@runtime_checkable
class FeatureNetwork(Protocol):
    """A network by whose features sets of images are compared.

    It is FID's own, `Inception`, or another one that stands in for it where its weights are not at
    hand and only a ranking is wanted. The numbers of another network are not FID, and its name
    stands beside them in the results.
    """

    name: str
    resize: str  # how images are brought to its size

    def __call__(self, images: UInt8[np.ndarray, "n h w c"], /) -> Outputs:
        """The outputs for images of any size."""
        ...


class Inception:
    """FID's network with its weights, to be called with a batch of images at a time.

    Args:
      weights: By name, as in `shapes`.
      resize: How images are brought to 299×299, one of RESIZES.
    """

    name = NAME

    def __init__(self, weights: Weights, resize: str = RESIZES[0]):
        self.weights, self.resize = (
            {key: jnp.asarray(value) for key, value in weights.items()},
            resize,
        )

    def __call__(self, images: UInt8[np.ndarray, "n h w c"]) -> Outputs:
        """The outputs for images of any size, in 1 (grey) or 3 channels."""
        return _outputs(self.weights, jnp.asarray(images), self.resize)


def load(path: str | Path | None, resize: str = RESIZES[0]) -> Inception:
    """The network with the weights of the public file.

    Raises:
      UserError: There is no path or no file (the message says which is needed), the file is damaged
        or of another network, or `resize` is not one of RESIZES.
    """
    needs = "FID, KID and the Inception score need the network's weights"
    file = layers.find(path, "--inception", FILES, needs)
    if resize not in RESIZES:
        raise UserError(f"resize = {resize!r} can be {' or '.join(RESIZES)}")
    weights = torch_files.require(torch_files.load(file), shapes(), file, f"the {NAME}")
    return Inception(weights, resize)


@functools.partial(jax.jit, static_argnames="resize")
def _outputs(weights: Weights, images: Array, resize: str) -> Outputs:
    x = jnp.broadcast_to(images.astype(jnp.float32), (*images.shape[:3], 3))
    x = _resize(x, resize)
    return network(weights, (x - 128) / 128)


def _resize(x: Float[Array, "n h w 3"], how: str) -> Float[Array, "n 299 299 3"]:
    if how == "antialiased-bilinear":
        return jax.image.resize(x, (len(x), SIDE, SIDE, 3), "bilinear", antialias=True)
    places = jnp.arange(SIDE, dtype=jnp.float32)
    return layers.bilinear(x, *(places * np.float32(size / SIDE) for size in x.shape[1:3]))


def network(weights: Weights, x: Float[Array, "n 299 299 3"]) -> Outputs:
    """The forward pass, from images in about [-1, 1]."""

    def conv(name: str, x: Array, stride: int = 1, padding: Any = 0) -> Array:
        """Convolution, batch normalization with its stored statistics, ReLU."""
        return jax.nn.relu(
            layers.normalized(
                weights, f"{name}.conv", f"{name}.bn", x, stride, padding, epsilon=0.001
            )
        )

    def chain(name: str, x: Array, *steps: tuple[str, Any]) -> Array:
        for suffix, padding in steps:
            x = conv(f"{name}{suffix}", x, padding=padding)
        return x

    def block_a(name: str, x: Array) -> Array:
        return _join(
            conv(f"{name}.branch1x1", x),
            chain(f"{name}.branch5x5", x, ("_1", 0), ("_2", 2)),
            chain(f"{name}.branch3x3dbl", x, ("_1", 0), ("_2", 1), ("_3", 1)),
            conv(f"{name}.branch_pool", _mean_pool(x)),
        )

    def block_b(name: str, x: Array) -> Array:
        double = chain(f"{name}.branch3x3dbl", x, ("_1", 0), ("_2", 1))
        return _join(
            conv(f"{name}.branch3x3", x, 2),
            conv(f"{name}.branch3x3dbl_3", double, 2),
            max_pool(x),
        )

    def block_c(name: str, x: Array) -> Array:
        across, down = (0, 3), (3, 0)
        return _join(
            conv(f"{name}.branch1x1", x),
            chain(f"{name}.branch7x7", x, ("_1", 0), ("_2", across), ("_3", down)),
            chain(
                f"{name}.branch7x7dbl",
                x,
                ("_1", 0),
                ("_2", down),
                ("_3", across),
                ("_4", down),
                ("_5", across),
            ),
            conv(f"{name}.branch_pool", _mean_pool(x)),
        )

    def block_d(name: str, x: Array) -> Array:
        small = conv(f"{name}.branch3x3_2", conv(f"{name}.branch3x3_1", x), 2)
        large = chain(f"{name}.branch7x7x3", x, ("_1", 0), ("_2", (0, 3)), ("_3", (3, 0)))
        return _join(small, conv(f"{name}.branch7x7x3_4", large, 2), max_pool(x))

    def block_e(name: str, x: Array, pooled: Array) -> Array:
        small = conv(f"{name}.branch3x3_1", x)
        double = chain(f"{name}.branch3x3dbl", x, ("_1", 0), ("_2", 1))
        across, down = (0, 1), (1, 0)
        return _join(
            conv(f"{name}.branch1x1", x),
            conv(f"{name}.branch3x3_2a", small, padding=across),
            conv(f"{name}.branch3x3_2b", small, padding=down),
            conv(f"{name}.branch3x3dbl_3a", double, padding=across),
            conv(f"{name}.branch3x3dbl_3b", double, padding=down),
            conv(f"{name}.branch_pool", pooled),
        )

    x = conv("Conv2d_1a_3x3", x, 2)
    x = conv("Conv2d_2a_3x3", x)
    x = max_pool(conv("Conv2d_2b_3x3", x, padding=1))
    x = conv("Conv2d_3b_1x1", x)
    x = max_pool(conv("Conv2d_4a_3x3", x))
    for letter in "bcd":
        x = block_a(f"Mixed_5{letter}", x)
    x = block_b("Mixed_6a", x)
    for letter in "bcde":
        x = block_c(f"Mixed_6{letter}", x)
    x = block_d("Mixed_7a", x)
    x = block_e("Mixed_7b", x, _mean_pool(x))
    x = block_e("Mixed_7c", x, max_pool(x, stride=1, padding=1))
    features = x.mean((1, 2))
    return Outputs(features, jnp.matmul(features, weights["fc.weight"].T, precision=exact.EXACT))


def _join(*branches: Array) -> Array:
    return jnp.concatenate(branches, axis=-1)


def _mean_pool(x: Array) -> Array:
    """The mean over 3×3 pixels; at the edges, over those that are inside the image."""
    inside = jnp.ones((1, *x.shape[1:3], 1))
    total, count = (exact.window(each, 0.0, jax.lax.add, 3, 1, 1) for each in (x, inside))
    return total / count


@functools.cache
def shapes() -> dict[str, tuple[int, ...]]:
    """The name and shape of every weight that is used."""
    found: dict[str, tuple[int, ...]] = {"fc.weight": (CLASSES, FEATURES)}

    def add(prefix: str, convolutions: dict[str, tuple[int, ...]]) -> None:
        """Adds convolutions: of each (inputs, outputs, side of the kernel, its width if other)."""
        for suffix, (inputs, outputs, height, *width) in convolutions.items():
            name = f"{prefix}{suffix}"
            kernel = (height, *(width or [height]))
            found.update(
                layers.normalized_shapes(f"{name}.conv", f"{name}.bn", inputs, outputs, *kernel)
            )

    add(
        "Conv2d_",
        {
            "1a_3x3": (3, 32, 3),
            "2a_3x3": (32, 32, 3),
            "2b_3x3": (32, 64, 3),
            "3b_1x1": (64, 80, 1),
            "4a_3x3": (80, 192, 3),
        },
    )
    for letter, n, pool in (("b", 192, 32), ("c", 256, 64), ("d", 288, 64)):
        add(
            f"Mixed_5{letter}.branch",
            {
                "1x1": (n, 64, 1),
                "5x5_1": (n, 48, 1),
                "5x5_2": (48, 64, 5),
                "3x3dbl_1": (n, 64, 1),
                "3x3dbl_2": (64, 96, 3),
                "3x3dbl_3": (96, 96, 3),
                "_pool": (n, pool, 1),
            },
        )
    add(
        "Mixed_6a.branch",
        {
            "3x3": (288, 384, 3),
            "3x3dbl_1": (288, 64, 1),
            "3x3dbl_2": (64, 96, 3),
            "3x3dbl_3": (96, 96, 3),
        },
    )
    for letter, c in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
        add(
            f"Mixed_6{letter}.branch",
            {
                "1x1": (768, 192, 1),
                "7x7_1": (768, c, 1),
                "7x7_2": (c, c, 1, 7),
                "7x7_3": (c, 192, 7, 1),
                "7x7dbl_1": (768, c, 1),
                "7x7dbl_2": (c, c, 7, 1),
                "7x7dbl_3": (c, c, 1, 7),
                "7x7dbl_4": (c, c, 7, 1),
                "7x7dbl_5": (c, 192, 1, 7),
                "_pool": (768, 192, 1),
            },
        )
    add(
        "Mixed_7a.branch",
        {
            "3x3_1": (768, 192, 1),
            "3x3_2": (192, 320, 3),
            "7x7x3_1": (768, 192, 1),
            "7x7x3_2": (192, 192, 1, 7),
            "7x7x3_3": (192, 192, 7, 1),
            "7x7x3_4": (192, 192, 3),
        },
    )
    for letter, n in (("b", 1280), ("c", 2048)):
        add(
            f"Mixed_7{letter}.branch",
            {
                "1x1": (n, 320, 1),
                "3x3_1": (n, 384, 1),
                "3x3dbl_1": (n, 448, 1),
                "3x3dbl_2": (448, 384, 3),
                "3x3_2a": (384, 384, 1, 3),
                "3x3_2b": (384, 384, 3, 1),
                "3x3dbl_3a": (384, 384, 1, 3),
                "3x3dbl_3b": (384, 384, 3, 1),
                "_pool": (n, 192, 1),
            },
        )
    return found
