"""A checkpoint in memory: a config, and parameters that fit its network."""

import dataclasses
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from sr3_jax import config as config_lib
from sr3_jax.errors import ConfigError, UserError
from sr3_jax.method import Method
from sr3_jax.runtime.paths import AnyPath

SEPARATOR = "."  # between the names of nested parameters in an exported file


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or of another network."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights that are ready for use, and where they came from."""

    config: ConfigDict  # that the network was trained with
    params: PyTree  # the EMA of the parameters
    step: int  # of the training
    name: str  # what the user called it: a path, or a name in the package
    # number of network evaluations → fields of config.sample, as `sr3 search` found them
    schedules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data_card: str = ""  # what it was trained on, Markdown

    @property
    def method(self) -> Method:
        """The functions that the config defines."""
        return Method(self.config)

    @property
    def predictor(self) -> "Checkpoint":
        """The predictor of a network that predicts and refines, as a regression network.

        Raises CheckpointError for a network of another kind.
        """
        if not self.method.refines:
            raise CheckpointError(
                f"{self.name} has no predictor: its model.kind is {self.config.model.kind!r}"
            )
        config = self.config.copy_and_resolve_references()
        config.objective = "regression"
        return dataclasses.replace(
            self, config=config, params={"predictor": self.params["predictor"]}, schedules={}
        )


def check_params(params: PyTree, config: ConfigDict, where: str, partly: bool = False) -> list[str]:
    """Checks that parameters fit the network of a config.

    Args:
      params: the parameters.
      config: whose network they are for.
      where: names the checkpoint in the error.
      partly: whether some may be missing.

    Returns:
      The names of those that are missing.

    Raises:
      CheckpointError: they do not fit; names the first wrong parameter and both shapes.
    """
    expected = jax.eval_shape(Method(config).init, jax.random.key(0))
    wanted = {name: leaf.shape for name, leaf in flatten(expected).items()}
    found = {name: leaf.shape for name, leaf in flatten(params).items()}
    missing = (
        sorted(wanted.keys() - found.keys()) if partly and found.keys() < wanted.keys() else []
    )
    for name in sorted((wanted.keys() | found.keys()) - set(missing)):
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"{where} is of another network: parameter {name} has shape "
                f"{found.get(name, 'none (missing)')}, "
                f"the config's network needs {wanted.get(name, 'none (unknown name)')}"
            )
    return missing


def valid_config(text: str, where: AnyPath) -> ConfigDict:
    """A checkpoint's config from its JSON text, checked, since it may have been edited by hand.

    Raises CheckpointError, which begins with `where`, if it is not valid.
    """
    try:
        config = config_lib.from_json(text)
        config_lib.validate(config)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error
    return config


def fingerprint(checkpoint: Checkpoint) -> str:
    """Eight hexadecimal digits (CRC-32) by which to tell one network's parameters from others."""
    code = 0
    for leaf in jax.tree.leaves(checkpoint.params):
        code = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), code)
    return f"{code:08x}"


def flatten(tree: PyTree) -> dict[str, Any]:
    """Flat parameters from nested ones: their names are the keys with SEPARATOR between them."""
    return {
        jax.tree_util.keystr(path, simple=True, separator=SEPARATOR): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *parents, last = name.split(SEPARATOR)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree
