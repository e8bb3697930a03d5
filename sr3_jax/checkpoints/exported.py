"""Exported checkpoints: EMA, config, schedules and data card in one .safetensors file.

They are for inference, and to start a training from (`train.init_from`).
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict
from safetensors import SafetensorError, safe_open

from sr3_jax import config as config_lib
from sr3_jax.checkpoints.checkpoint import (
    Checkpoint,
    CheckpointError,
    check_params,
    flatten,
    nest,
    valid_config,
)
from sr3_jax.errors import ConfigError
from sr3_jax.runtime import paths
from sr3_jax.runtime.atomic import disk_errors, replacing
from sr3_jax.runtime.paths import AnyPath

_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
_NAMES = {"float32": "F32", "bfloat16": "BF16", "int8": "I8"}
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
        _save(temporary, checkpoint.params, dtype, about)


def _save(path: Path, params: PyTree, dtype: str, about: Mapping[str, str]) -> None:
    """Writes a .safetensors file one tensor at a time: weights may fill half of the memory.

    The format: the length of a header in 8 bytes, the header (JSON: of each tensor its type, shape
    and place), and the tensors.
    """
    stored = "bfloat16" if dtype == "int8" else dtype
    header: dict[str, Any] = {"__metadata__": dict(about)}
    parts: list[tuple[str, str]] = []  # of each tensor the name of its leaf, and its type
    place = 0
    leaves = dict(sorted(flatten(params).items()))
    for name, leaf in leaves.items():
        whole = dtype == "int8" and leaf.ndim > 1
        kinds = [(name, "int8"), (name + SCALE, "float32")] if whole else [(name, stored)]
        for key, kind in kinds:
            shape = leaf.shape[-1:] if key.endswith(SCALE) else leaf.shape
            size = math.prod(shape) * _BYTES[kind]
            header[key] = {
                "dtype": _NAMES[kind],
                "shape": list(shape),
                "data_offsets": [place, place + size],
            }
            place += size
        parts.append((name, "int8" if whole else stored))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, kind in parts:
            for values in _stored(np.asarray(leaves[name], np.float32), kind):
                # as bytes, since NumPy lends no view of bfloat16
                file.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


def _stored(weights: np.ndarray, kind: str) -> tuple[np.ndarray, ...]:
    """Weights as they are written: as whole numbers and their scale, or of a type."""
    if kind != "int8":
        return (weights.astype(np.dtype(kind)),)
    axes = tuple(range(weights.ndim - 1))
    scale = np.maximum(np.abs(weights).max(axis=axes), 1e-30) / 127
    return np.rint(weights / scale).astype(np.int8), scale.astype(np.float32)


def best_psnr(path: AnyPath) -> float:
    """The held-out PSNR noted in an export, in dB; -inf without one."""
    try:
        with paths.local_copy(path) as local, safe_open(local, framework="numpy") as file:
            return float((file.metadata() or {}).get("psnr", "-inf"))
    except (OSError, SafetensorError):
        return -float("inf")


def read_config(path: AnyPath) -> ConfigDict:
    """The config in an exported file; no weights are read.

    Raises:
      CheckpointError: the file is damaged, or no export.
    """
    try:
        with paths.local_copy(path) as local, safe_open(local, framework="numpy") as file:
            return _config(file.metadata() or {}, path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _config(metadata: Mapping[str, str], path: AnyPath) -> ConfigDict:
    if "config" not in metadata:
        raise CheckpointError(f"{path} carries no config, so it is not an export of sr3_jax")
    return valid_config(metadata["config"], path)


def _damaged(path: AnyPath, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} is not a complete .safetensors file: {error}")


def load_export(path: AnyPath, name: str) -> Checkpoint:
    """The checkpoint in an exported file, in float32, under the name `name`.

    Raises:
      CheckpointError: the file is damaged, or no export.
    """
    try:
        with paths.local_copy(path) as local, safe_open(local, framework="numpy") as file:
            metadata = file.metadata() or {}
            flat = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    config = _config(metadata, path)
    params = nest(_widened(flat, path))
    check_params(params, config, str(path))
    schedules = checked_schedules(metadata.get("schedules", "{}"), path)
    step = metadata.get("step", "0")
    if not step.isdecimal():
        raise CheckpointError(f"{path}: its step is {step!r}, which is no whole number")
    return Checkpoint(config, params, int(step), name, schedules, metadata.get("data_card", ""))


def _widened(flat: dict[str, np.ndarray], path: AnyPath) -> dict[str, np.ndarray]:
    """The stored tensors in float32; raises CheckpointError for those that can be no weights."""
    scales = {key.removesuffix(SCALE): flat.pop(key) for key in sorted(flat) if key.endswith(SCALE)}
    wide = {}
    for key, leaf in flat.items():
        wide[key] = leaf.astype(np.float32)
        if (scale := scales.pop(key, None)) is not None:
            if scale.shape != leaf.shape[-1:]:
                raise CheckpointError(
                    f"{path} is damaged: {key}{SCALE} has shape {scale.shape}, "
                    f"and {key} has {leaf.shape}"
                )
            wide[key] *= scale.astype(np.float32)
        elif leaf.dtype.kind in "iu":
            raise CheckpointError(f"{path} is damaged: {key} is of whole numbers without a scale")
        if not np.isfinite(wide[key]).all():
            raise CheckpointError(f"{path} is damaged: {key} has values that are not finite")
    if scales:
        raise CheckpointError(f"{path} is damaged: {min(scales)}{SCALE} is a scale of nothing")
    return wide


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
        for count, fields in found.items():  # of the right types, and in their ranges
            config = config_lib.base()
            config.sample.update({**fields, "steps": int(count)})
            config_lib.validate(config)
        return found
    except (ValueError, AttributeError, TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{path} is not what `sr3 search` writes: {error}; remove it to go without"
        ) from error
