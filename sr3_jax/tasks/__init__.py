"""Tasks: how LR images are made in training, and what the network sees and is told of them."""

from ml_collections import ConfigDict

from sr3_jax.tasks.blind import Blind
from sr3_jax.tasks.editing import Colourise, Inpaint
from sr3_jax.tasks.generation import Generation
from sr3_jax.tasks.super_resolution import SuperResolution
from sr3_jax.tasks.task import Task

TASKS: dict[str, type[Task]] = {
    "super_resolution": SuperResolution,
    "blind": Blind,
    "generation": Generation,
    "colourise": Colourise,
    "inpaint": Inpaint,
}


def build_task(config: ConfigDict) -> Task:
    """The task of a config."""
    return TASKS[config.task.kind](config)
