"""A first guess of what is in a hole: as smooth as can be.

It is nearly the membrane that is spanned over the hole from its edge (each pixel the mean of its
neighbours), found from coarse to fine. An inpainting network that diffuses the difference to it
begins where that ends, and knows without learning which colours are around. The same code runs on
batches in JAX and on the host in NumPy.
"""

from types import ModuleType
from typing import Any

SWEEPS = 8  # of smoothing, at each size


def filled(image: Any, known: Any, numpy: ModuleType) -> Any:
    """Images whose unknown pixels are a smooth continuation of the known ones.

    Args:
      image: (b, h, w, c); what it has where it is not known does not matter.
      known: (b, h, w, 1), 1 where it is known and 0 elsewhere.
      numpy: `numpy` or `jax.numpy`, of which the arrays are.

    Returns:
      (b, h, w, c). Where nothing at all is known, 0.
    """
    height, width = image.shape[1:3]
    guess = numpy.zeros_like(image)
    if height > 1 or width > 1:
        weight = _pooled(known, numpy)
        coarse = _pooled(image * known, numpy) / numpy.maximum(weight, 1e-6)
        larger = _enlarged(filled(coarse, (weight > 0).astype(image.dtype), numpy), numpy)
        guess = larger[:, :height, :width]
    result = known * image + (1 - known) * guess
    for _ in range(SWEEPS if height > 1 or width > 1 else 0):
        around = numpy.pad(result, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        mean = (
            around[:, :-2, 1:-1] + around[:, 2:, 1:-1] + around[:, 1:-1, :-2] + around[:, 1:-1, 2:]
        ) / 4
        result = known * image + (1 - known) * mean
    return result


def _pooled(x: Any, numpy: ModuleType) -> Any:
    """The sums of squares of 2 × 2 pixels; at odd sides as if there were zeros beyond the edge."""
    b, h, w, c = x.shape
    x = numpy.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
    return x.reshape(b, (h + 1) // 2, 2, (w + 1) // 2, 2, c).sum((2, 4))


def _enlarged(x: Any, numpy: ModuleType) -> Any:
    """Twice as large, bilinear."""
    for axis in (1, 2):
        size = x.shape[axis]
        around = numpy.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(4)], mode="edge")
        before, after = (
            numpy.take(around, numpy.arange(start, start + size), axis) for start in (0, 2)
        )
        pair = numpy.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = pair.reshape(*(2 * s if i == axis else s for i, s in enumerate(x.shape)))
    return x
