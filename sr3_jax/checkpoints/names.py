"""What `--checkpoint` can name: a workdir, a step of one, an exported file, or shipped weights.

All but the last may also lie in an object store, and exported files at any address that fsspec can
read, like hf://USER/MODEL/FILE or https://…
"""

import dataclasses
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any

from sr3_jax.checkpoints.checkpoint import Checkpoint, CheckpointError
from sr3_jax.checkpoints.exported import checked_schedules, load_export
from sr3_jax.checkpoints.workdir import load_workdir
from sr3_jax.errors import UserError
from sr3_jax.runtime import fetch, paths
from sr3_jax.runtime.paths import AnyPath
from sr3_jax.weights import shipped

SCHEDULES = "schedules.json"
EXPORT = "model.safetensors"  # in a folder


def load_checkpoint(place: str | AnyPath) -> Checkpoint:
    """The checkpoint that `place` names, with the schedules that were found for it.

    Args:
      place: a workdir (its latest step), a step of one (WORKDIR/checkpoints/STEP), an exported file
        or a folder with one, the address of such, or the name of weights in the package.

    Raises:
      CheckpointError: there is none, or it is damaged.
    """
    found = _load(place)
    return dataclasses.replace(found, schedules={**found.schedules, **read_schedules(place)})


def _load(place: str | AnyPath) -> Checkpoint:
    missing = CheckpointError(
        f"no checkpoint at {str(place)!r}; it can be a workdir, an exported file, or one of "
        f"{', '.join(shipped())}"
    )
    if "://" in str(place):
        try:
            file = fetch.fetched(str(place), EXPORT)
        except UserError:
            if _only_readable(place):
                raise
            file = None  # TensorFlow has drivers of its own for stores
        if file:
            return load_export(file, str(place))
        if _only_readable(place):
            raise missing
    if _is_shipped(place):
        with resources.as_file(
            resources.files("sr3_jax") / "weights" / f"{place}.safetensors"
        ) as file:
            return load_export(file, str(place))
    path = paths.parse(place)
    if path.is_file():
        return load_export(path, str(place))
    if (path / EXPORT).is_file():
        return load_export(path / EXPORT, str(place))
    if path.is_dir():
        return load_workdir(path)
    raise missing


def schedules_file(place: str | AnyPath) -> AnyPath:
    """The file with the schedules found for a checkpoint: in its workdir, or beside its file.

    Of shipped weights, and of an address that can only be read, it is one in the user's folder.
    """
    if _only_readable(place) or _is_shipped(place):
        root = os.environ.get("XDG_DATA_HOME")
        folder = Path(root) if root else Path.home() / ".local" / "share"
        name = re.sub(r"[^\w.-]+", "_", str(place))
        return folder / "sr3_jax" / f"{name}.{SCHEDULES}"
    path = paths.parse(place)
    if path.is_dir():
        return (path.parent.parent if path.parent.name == "checkpoints" else path) / SCHEDULES
    return path.with_name(f"{path.stem}.{SCHEDULES}")


def read_schedules(place: str | AnyPath) -> dict[str, dict[str, Any]]:
    """What `schedules_file` contains: by number of evaluations, fields of config.sample.

    With those that are shipped. Empty without such a file; raises CheckpointError if it is damaged.
    """
    files = [schedules_file(place)]
    if _is_shipped(place):
        files = [resources.files("sr3_jax") / "weights" / f"{place}.{SCHEDULES}", *files]
    found: dict[str, dict[str, Any]] = {}
    for path in files:
        if path.is_file():
            found |= checked_schedules(path.read_text(), path)
    return found


def _is_shipped(place: str | AnyPath) -> bool:
    return str(place) in shipped() and not Path(place).exists()


def _only_readable(place: str | AnyPath) -> bool:
    """Whether it is an address where no workdir can lie."""
    return "://" in str(place) and not str(place).startswith(paths.STORES)
