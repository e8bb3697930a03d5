"""Tasks: how LR images are made in training, and what the network sees and is told of them."""

from ml_collections import ConfigDict

from sr3_jax.tasks.super_resolution import SuperResolution
from sr3_jax.tasks.task import Task


def build_task(config: ConfigDict) -> Task:
    """The task of a config."""
    return SuperResolution(config)
