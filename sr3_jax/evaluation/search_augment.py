"""Which conditioning augmentation is best for a stage of a cascade.

More noise in a stage's input hides more of what the stages before it got wrong, and more of what
they got right. Which level is best depends on these stages, and so cannot be learned in training;
Cascaded Diffusion (arXiv 2106.15282) searches for it afterwards, as this does. The
images of the cascade are compared with training images, so that test images stay unseen.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sr3_jax.data.pipeline import load_evaluation
from sr3_jax.data.sources import open_source
from sr3_jax.errors import UserError
from sr3_jax.inference.classes import labels_of
from sr3_jax.inference.generator import Drawing, Generator
from sr3_jax.inference.sampling import Number
from sr3_jax.metrics import distributions
from sr3_jax.metrics.distributions import Reference
from sr3_jax.metrics.networks.inception import FeatureNetwork
from sr3_jax.runtime.atomic import write_text
from sr3_jax.runtime.paths import AnyPath

FEWEST = 100  # images of which a distance says anything


class Tried(NamedTuple):
    """A level of augmentation of the last stage, and how far the images are from real ones."""

    level: float  # in 8-bit levels
    distance: float  # Fréchet distance of features


def search(
    generator: Generator,
    levels: Sequence[Number],
    network: FeatureNetwork,
    drawing: Drawing = Drawing(),  # noqa: B008 (frozen)
    *,
    count: int = 2000,
    folder: AnyPath | None = None,
    on_tried: Callable[[Tried], object] = lambda tried: None,
) -> list[Tried]:
    """Tries levels of augmentation of a cascade's last stage.

    Args:
      generator: The cascade.
      levels: In 8-bit levels.
      network: What computes the features.
      drawing: How else images are drawn.
      count: How many images are made for each level, of all classes in turn.
      folder: Where augment.json is written; None: nowhere.
      on_tried: Called after each level.

    Returns:
      All of them, the best first.

    Raises:
      UserError: The last stage was not trained with augmentation, or there are too few images.
    """
    config = generator.checkpoints[-1].config
    if not config.task.augment:
        raise UserError(
            f"{generator.checkpoints[-1].name} was not trained with task.augment: there is no "
            "level to choose"
        )
    if count < FEWEST:
        raise UserError(f"count = {count} must be at least {FEWEST}: fewer images say nothing")
    real = load_evaluation(open_source(config, "train"), config, count).images
    reference = Reference.of("training images", distributions.statistics_of(network, real))
    numbers = np.arange(count)
    classes = "balanced" if generator.classes else "all"
    labels = labels_of(generator.checkpoints[0], classes, numbers, drawing.seed)
    before = len(generator.checkpoints) - 2
    about = {"network": network.name, "count": count}
    found: list[Tried] = []
    for level in levels:
        stages = generator.stages(dataclasses.replace(drawing, augment=(*[0] * before, level)))
        made = [images[-1] for _, images in generator.batches(stages, numbers, labels)]
        statistics = distributions.statistics_of(network, np.concatenate(made))
        found.append(Tried(float(level), distributions.fid(statistics, reference)))
        on_tried(found[-1])
        if folder is not None:
            tried = about | {"tried": [one._asdict() for one in found]}
            write_text(folder / "augment.json", json.dumps(tried, indent=1) + "\n")
    return sorted(found, key=lambda tried: tried.distance)
