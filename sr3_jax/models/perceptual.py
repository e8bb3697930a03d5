"""LPIPS (Zhang et al. 2018, version 0.1), as a function of its weights: a metric, and a loss.

Other metrics use the features of the same VGG16.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sr3_jax.models.exact import Images, convolution, max_pool

Features = Float[Array, "n _h _w _c"]
# ImageNet's mean and deviation, of images in [-1, 1]
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# The widths of VGG16's convolutions, "M" where the size is halved; the features after those marked
# "*" are compared
VGG = "64 64* M 128 128* M 256 256 256* M 512 512 512* M 512 512 512*".split()
# (kernel, stride, padding, max-pooling before) of AlexNet's convolutions; all are compared
ALEXNET = ((11, 4, 2, False), (5, 1, 2, True), (3, 1, 1, True), (3, 1, 1, False), (3, 1, 1, False))


def lpips(weights: Any, a: Images, b: Images, network: str = "vgg") -> Float[Array, " n"]:
    """The distance between the two images of each pair.

    Args:
      weights: {"trunk": [(kernel, bias), ...], "heads": [(channels,), ...]}.
      a: RGB images (n, h, w, 3) in [-1, 1].
      b: Likewise.
      network: "vgg" or "alexnet".
    """
    return distance(weights, *(features(weights, x, network) for x in (a, b)))


def features(weights: Any, images: Images, network: str = "vgg") -> list[Features]:
    """What is compared: feature maps, at each of whose pixels is a vector of length 1.

    Args:
      weights: see `lpips`.
      images: RGB images (n, h, w, 3) in [-1, 1].
      network: "vgg" or "alexnet".
    """
    trunk = vgg if network == "vgg" else _alexnet
    return [_unit(x) for x in trunk(weights["trunk"], normalized(images))]


def distance(weights: Any, a: list[Features], b: list[Features]) -> Float[Array, " n"]:
    """LPIPS between images with given features; see `lpips`."""
    total = jnp.zeros(len(a[0]))
    for head, x, y in zip(weights["heads"], a, b, strict=True):
        total += (jnp.square(x - y) * head[None, None, None]).sum(-1).mean((1, 2))
    return total


def normalized(x: Images) -> Images:
    """Images in [-1, 1] as the classifiers take them."""
    shift, scale = (jnp.asarray(values)[None, None, None] for values in (SHIFT, SCALE))
    return (jnp.asarray(x) - shift) / scale


def _unit(x: Array) -> Array:
    """Each pixel's features as a vector of length 1."""
    square = jnp.square(x).sum(-1, keepdims=True)
    # The root has no derivative at 0, where a loss would get NaN
    length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    return x / (length + 1e-10)


_half = functools.partial(max_pool, size=2)


def vgg(
    layers: list[tuple[Array, Array]],
    x: Array,
    pool: Callable[[Array], Array] = _half,
) -> Iterator[Array]:
    """The features of VGG16 after relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3.

    Args:
      layers: The (kernel, bias) of its convolutions.
      x: Normalized images (n, h, w, 3).
      pool: What halves the size; VGG16 itself takes the largest value of four.
    """
    left = iter(layers)
    for entry in VGG:
        x = pool(x) if entry == "M" else _convolution(x, *next(left), padding=1)
        if entry.endswith("*"):
            yield x


def _alexnet(layers: list[tuple[Array, Array]], x: Array) -> Iterator[Array]:
    for (kernel, bias), (_, stride, padding, pool) in zip(layers, ALEXNET, strict=True):
        x = _convolution(max_pool(x) if pool else x, kernel, bias, stride, padding)
        yield x


def _convolution(x: Array, kernel: Array, bias: Array, stride: int = 1, padding: int = 0) -> Array:
    return jax.nn.relu(convolution(x, kernel, stride, padding) + bias[None, None, None])


def shapes() -> dict[str, Any]:
    """The shapes of the weights of VGG16 and its heads."""
    widths = [int(entry.strip("*")) for entry in VGG if entry != "M"]
    compared = [int(entry.strip("*")) for entry in VGG if entry.endswith("*")]
    of = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
    inputs = zip([3, *widths[:-1]], widths, strict=True)
    return {
        "trunk": [(of(3, 3, before, after), of(after)) for before, after in inputs],
        "heads": [of(width) for width in compared],
    }
