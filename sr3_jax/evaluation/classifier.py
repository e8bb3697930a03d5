"""`sr3 train-classifier`: from labelled images to a classifier in one file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sr3_jax import config as config_lib
from sr3_jax.data import cards, labels, pipeline
from sr3_jax.data.records import MANIFEST
from sr3_jax.data.source import NO_LABEL, DataError
from sr3_jax.data.sources import open_source
from sr3_jax.metrics import classification
from sr3_jax.metrics.networks import classifier
from sr3_jax.runtime import paths

Arrays = tuple[np.ndarray, np.ndarray]  # images, labels


def train(
    place: str,
    output: Path,
    *,
    size: int,
    epochs: int = classification.EPOCHS,
    seed: int = 0,
    flip: bool = True,
    on_step: Callable[[int, int], object] = lambda done, steps: None,
) -> classifier.About:
    """Train a classifier on a data set's training images, test it on those held out, and save it.

    Args:
      place: The data set: a folder whose sub-folders are classes, or records with labels.
      output: The .safetensors file.
      size: Height and width that its images are reduced to.
      epochs: How many times each image is seen.
      seed: Of all that is random.
      flip: Mirror half of the training images.
      on_step: Called after each step with the number of steps done, and of all.

    Raises:
      UserError: The data have no classes or too few images, or the file cannot be written.
    """
    training, names = read(place, size, 3, "train")
    if grey := bool((training[0] == training[0][..., :1]).all()):
        training = training[0][..., :1], training[1]
    channels = 1 if grey else 3
    held_out, _ = read(place, size, channels, "eval")
    params = classification.fit(
        *training, len(names), epochs=epochs, seed=seed, flip=flip, on_step=on_step
    )
    about = classifier.About(
        size=size,
        channels=channels,
        classes=list(names),
        data=Path(place).name,
        images=len(training[0]),
        held_out=len(held_out[0]),
        accuracy=classification.accuracy(params, *held_out),
        epochs=epochs,
        seed=seed,
    )
    classifier.save(output, params, about, cards.card_in(paths.parse(place)))
    return about


def read(
    place: str, size: int, channels: int, split: str, limit: int = 0
) -> tuple[Arrays, tuple[str, ...]]:
    """The labelled images of a data set.

    Args:
      place: A folder whose sub-folders are classes, or records with labels.
      size: Height and width that images are reduced to.
      channels: 1 or 3.
      split: "train" or "eval", which is held out.
      limit: How many images, spread evenly; 0: all.

    Returns:
      The images and their labels, and the names of the classes.

    Raises:
      UserError: There are none, or fewer than 2 classes.
    """
    config = config_lib.base()
    prepared = (paths.parse(place) / MANIFEST).exists()
    config.data.source, config.data.folder = "records" if prepared else "folder", place
    config.data.hr_size, config.model.image_channels = size, channels
    source = open_source(config, split)
    names = labels.class_names(source)
    if len(names) < 2:
        raise DataError(
            f"{place} has {len(names)} classes, and a classifier needs 2 or more: put the images "
            "of each class into a sub-folder, or prepare such a folder again"
        )
    loaded = pipeline.load_evaluation(source, config, limit)
    usable = loaded.labels != NO_LABEL
    if not usable.any():
        raise DataError(f"{place} has no labelled images in its split {split!r}")
    return (loaded.images[usable], loaded.labels[usable]), names
