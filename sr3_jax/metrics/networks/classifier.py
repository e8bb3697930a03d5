"""A classifier of our own, trained by `sr3 train-classifier`, as a network of features.

The numbers that its features give are not FID, precision or recall as they are published: they
compare runs on the same data, by the same file.
"""

import functools
import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.flax import load_file, save_file

from sr3_jax.checkpoints.checkpoint import flatten, nest
from sr3_jax.errors import UserError
from sr3_jax.metrics.classification import normalized
from sr3_jax.metrics.networks import layers
from sr3_jax.metrics.networks.inception import Outputs
from sr3_jax.models import classifier
from sr3_jax.runtime.atomic import disk_errors, replacing

KEY = "classifier"  # of the file's metadata: About, as JSON
FILES = "a .safetensors file of sr3 train-classifier"


class About(NamedTuple):
    """What is known of a classifier."""

    size: int  # height and width of its images
    channels: int  # of its images, 1 or 3
    classes: list[str]  # their names, in order
    data: str  # what it was trained on
    images: int  # how many
    held_out: int  # how many images it was tested on
    accuracy: float  # on these
    epochs: int
    seed: int


class ClassifierNetwork:
    """A classifier with its weights, to be called with a batch of images at a time.

    Args:
      params: As `metrics.classification.fit` returns them.
      about: What is known of it.
      file: The name of its file.
      data_card: Of the images that it was trained on, as Markdown.
    """

    def __init__(self, params: PyTree, about: About, file: str, data_card: str = ""):
        self.params, self.about, self.data_card = params, about, data_card
        self.name = (
            f"classifier of {about.data}, accuracy {about.accuracy:.4f} on {about.held_out} "
            f"held-out images ({file})"
        )
        self.resize = f"antialiased-bilinear to {about.size}×{about.size}"

    def __call__(self, images: UInt8[np.ndarray, "n h w c"]) -> Outputs:
        """The outputs for images of any size, in 1 (grey) or 3 channels."""
        return _outputs(self.params, images, self.about.size, self.about.channels)


def save(path: Path, params: PyTree, about: About, data_card: str = "") -> None:
    """Write a classifier to one .safetensors file, which appears whole; raises UserError."""
    metadata = {KEY: json.dumps(about._asdict()), "data_card": data_card}
    flat = {name: jnp.asarray(leaf) for name, leaf in flatten(params).items()}
    with disk_errors(path), replacing(path) as temporary:
        save_file(flat, temporary, metadata=metadata)


def load(path: str | Path | None) -> ClassifierNetwork:
    """The classifier in a file that `sr3 train-classifier` wrote.

    Raises:
      UserError: There is no path or no file, or the file is damaged or of something else.
    """
    file = layers.find(path, "--classifier", FILES, "these metrics need a classifier's weights")
    try:
        with safe_open(file, framework="numpy") as opened:
            metadata = opened.metadata() or {}
        if KEY not in metadata:
            raise UserError(f"{file} is no classifier; it must be {FILES}")
        about = About(**json.loads(metadata[KEY]))
        params = nest(load_file(file))
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{file} is damaged, or not {FILES}: {error}") from error
    if not classifier.fits(params, about.size, about.channels, len(about.classes)):
        raise UserError(f"{file} is damaged: its parameters are not those of its classifier")
    return ClassifierNetwork(params, about, file.name, metadata.get("data_card", ""))


@functools.partial(jax.jit, static_argnames=("size", "channels"))
def _outputs(params: PyTree, images: UInt8[Array, "n h w c"], size: int, channels: int) -> Outputs:
    x = normalized(images)
    if channels < x.shape[-1]:  # to grey: luma, as Pillow has it
        x = (x * jnp.asarray([0.299, 0.587, 0.114])[None, None, None]).sum(-1, keepdims=True)
    x = jnp.broadcast_to(x, (*x.shape[:3], channels))
    if x.shape[1:3] != (size, size):
        shape = (len(x), size, size, channels)
        x = jax.image.resize(x, shape, "bilinear", antialias=True)
    return Outputs(*classifier.outputs(params, x))
