"""What an image suffers before it reaches us, and what the network is shown and told of it."""

from ml_collections import ConfigDict

from sr3_jax.tasks.super_resolution import SuperResolution
from sr3_jax.tasks.task import Task


def build_task(config: ConfigDict) -> Task:
    """The task of a config."""
    return SuperResolution(config)
