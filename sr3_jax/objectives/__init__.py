"""Objectives: the loss, the network's inputs, and what users may choose when they make images."""

from ml_collections import ConfigDict

from sr3_jax.objectives.distillation import Distillation
from sr3_jax.objectives.objective import Choices, Objective
from sr3_jax.objectives.regression import Regression
from sr3_jax.objectives.sr3 import SR3

__all__ = ["Choices", "Objective", "build_objective"]

OBJECTIVES: dict[str, type[Objective]] = {
    "sr3": SR3,
    "regression": Regression,
    "distill": Distillation,
}


def build_objective(config: ConfigDict) -> Objective:
    """The objective of a config."""
    return OBJECTIVES[config.objective](config)
