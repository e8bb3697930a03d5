"""The class of an image, as a signal that a network is told.

With train.label_dropout above 0 it is not told of some images in training. Then the network can
also do without, and classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598) can make it
heed the class more than it has learned to.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from sr3_jax.tasks.task import UNKNOWN, Given, Signal

LABEL = Signal("label", "class number, for networks that know classes", math.inf, removed=False)


def label_signals(config: ConfigDict) -> tuple[Signal, ...]:
    """The signal of the class, if the config's network is told of classes; else nothing."""
    classes = config.model.classes
    if not classes:
        return ()
    optional = config.train.label_dropout > 0
    return (LABEL._replace(high=classes - 1, optional=optional, classes=classes),)


def labelled(
    given: Given, labels: Array | None, dropout: float = 0.0, key: Key[Array, ""] | None = None
) -> Given:
    """A batch with its labels among the signals.

    Args:
      given: the batch.
      labels: class numbers (b,); below 0: unknown. None: as the batch is.
      dropout: the fraction of images of which the network is not told.
      key: of which images these are; None: none.
    """
    if labels is None:
        return given
    value = jnp.where(labels < 0, UNKNOWN, labels.astype(jnp.float32))
    if key is not None and dropout:
        value = jnp.where(jax.random.bernoulli(key, dropout, value.shape), UNKNOWN, value)
    return given._replace(signals={**given.signals, LABEL.name: value})
