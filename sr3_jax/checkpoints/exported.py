"""Exported checkpoints: EMA, config, schedules and data card in one .safetensors file.

They are for inference, and to start a training from (`train.init_from`).
"""

import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.flax import load_file, save_file

from sr3_jax import config as config_lib
from sr3_jax.checkpoints.checkpoint import (
    Checkpoint,
    CheckpointError,
    check_params,
    flatten,
    nest,
    valid_config,
)
from sr3_jax.runtime import paths
from sr3_jax.runtime.atomic import disk_errors, replacing
from sr3_jax.runtime.paths import AnyPath

# Added to the name of an int8 kernel: the factors, one per output channel, of its whole numbers
SCALE = ":scale"


def export(
    checkpoint: Checkpoint,
    path: AnyPath,
    metadata: Mapping[str, str] | None = None,
    dtype: str = "float32",
) -> None:
    """Writes a checkpoint to one .safetensors file, which appears whole, by rename.

    Args:
      checkpoint: EMA, config, schedules and data card.
      path: of the file.
      metadata: further texts to note in it, such as "psnr".
      dtype: "float32", "bfloat16" or "int8". With int8, kernels are whole numbers of 1/127 of the
        largest weight of each output channel, and all else is bfloat16.

    Raises:
      UserError: the file cannot be written.
    """
    flat: dict[str, np.ndarray] = {}
    for name, leaf in flatten(checkpoint.params).items():
        weights = np.asarray(leaf, np.float32)
        if dtype == "int8" and weights.ndim > 1:
            scale = (
                np.maximum(np.abs(weights).max(axis=tuple(range(weights.ndim - 1))), 1e-30) / 127
            )
            flat[name], flat[name + SCALE] = np.rint(weights / scale).astype(np.int8), scale
        else:
            flat[name] = weights.astype(np.dtype("bfloat16" if dtype == "int8" else dtype))
    about = {"config": config_lib.to_json(checkpoint.config), "step": str(checkpoint.step)} | dict(
        metadata or {}
    )
    if checkpoint.schedules:
        about["schedules"] = json.dumps(
            {count: dict(fields) for count, fields in checkpoint.schedules.items()}
        )
    if checkpoint.data_card:
        about["data_card"] = checkpoint.data_card
    with disk_errors(path), replacing(path) as temporary:
        save_file(
            {name: jax.numpy.asarray(leaf) for name, leaf in flat.items()},
            temporary,
            metadata=about,
        )


def best_psnr(path: AnyPath) -> float:
    """The held-out PSNR noted in an export, in dB; -inf without one."""
    try:
        with paths.local_copy(path) as local, safe_open(local, framework="numpy") as file:
            return float((file.metadata() or {}).get("psnr", "-inf"))
    except (OSError, SafetensorError):
        return -float("inf")


def load_export(path: AnyPath, name: str) -> Checkpoint:
    """The checkpoint in an exported file, in float32, under the name `name`.

    Raises:
      CheckpointError: the file is damaged, or no export.
    """
    try:
        with paths.local_copy(path) as local:
            with safe_open(local, framework="numpy") as file:
                metadata = file.metadata() or {}
            flat = load_file(local)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a complete .safetensors file: {error}") from error
    if "config" not in metadata:
        raise CheckpointError(f"{path} carries no config, so it is not an export of sr3_jax")
    config = valid_config(metadata["config"], path)
    scales = {key.removesuffix(SCALE): flat.pop(key) for key in sorted(flat) if key.endswith(SCALE)}
    wide = {key: leaf.astype("float32") for key, leaf in flat.items()}
    wide |= {
        key: wide[key] * scale.reshape((1,) * (wide[key].ndim - 1) + (-1,))
        for key, scale in scales.items()
        if key in wide
    }
    params = nest(wide)
    check_params(params, config, str(path))
    schedules = checked_schedules(metadata.get("schedules", "{}"), path)
    return Checkpoint(
        config, params, int(metadata.get("step", 0)), name, schedules, metadata.get("data_card", "")
    )


def checked_schedules(text: str, path: AnyPath) -> dict[str, dict[str, Any]]:
    """The schedules in a JSON text: by number of evaluations, fields of config.sample.

    Raises:
      CheckpointError: the text is not such; names `path`, where it comes from.
    """
    try:
        found = json.loads(text)
        known = set(config_lib.base().sample)
        if not all(count.isdecimal() and fields.keys() <= known for count, fields in found.items()):
            raise ValueError("unknown fields")
        return found
    except (ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is not what `sr3 search` writes: {error}; remove it to go without"
        ) from error
