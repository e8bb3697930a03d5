"""Checkpoints: Orbax lives here alone.

    WORKDIR/config.json              the experiment
    WORKDIR/checkpoints/STEP/        state (all but EMA), ema, meta (config, data position): one complete restart point
    anything.safetensors             an export: EMA, config and data card in one file, for inference and for `train.init_from`

A checkpoint directory appears by rename when it is complete, so a kill at any moment leaves the last complete one. Whoever has
a checkpoint can resume, evaluate or upscale: the config is inside.
"""

import dataclasses
import json
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from ml_collections import ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.flax import load_file, save_file

from sr3_jax import config as config_lib
from sr3_jax import paths
from sr3_jax.atomic import disk_errors, replacing
from sr3_jax.data.sources import card_in
from sr3_jax.errors import UserError
from sr3_jax.method import Method
from sr3_jax.paths import AnyPath

SCHEDULES = "schedules.json"
SEPARATOR = "."  # between the names of nested parameters in an exported file
SCALE = ":scale"  # after the name of an int8 kernel: what its whole numbers stand for, an output channel each
TEACHER = "teacher.safetensors"  # in a student's workdir, what it learns from
WRITTEN = ("stats.jsonl", "parameters.txt", "best.safetensors", TEACHER)  # files of a workdir that training writes anew


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or of another network."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights ready for use: the EMA parameters, the config they were trained with, where they came from."""

    config: ConfigDict
    params: PyTree
    step: int
    name: str
    # number of network evaluations → fields of config.sample, as `sr3 search` found them
    schedules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data_card: str = ""  # of an export: what it was trained on, Markdown

    @property
    def method(self) -> Method:
        return Method(self.config)

    @property
    def predictor(self) -> "Checkpoint":
        """The predictor of a network that predicts and refines, as a regression; raises CheckpointError for another."""
        if not self.method.refines:
            raise CheckpointError(f"{self.name} has no predictor: its model.kind is {self.config.model.kind!r}")
        config = self.config.copy_and_resolve_references()
        config.objective = "regression"
        return dataclasses.replace(self, config=config, params={"predictor": self.params["predictor"]}, schedules={})


class Checkpoints:
    """The checkpoints of one workdir, for training: asynchronous saves, the latest few kept."""

    def __init__(self, workdir: AnyPath, config: ConfigDict):
        _quieten_orbax()
        self.workdir, self.config = paths.absolute(workdir), config
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(config.train.keep_checkpoints),
            # We decide when to save; orbax must not skip one.
            save_decision_policy=ocp.checkpoint_managers.FixedIntervalPolicy(1),
            cleanup_tmp_directories=True,  # what a kill in mid-save left behind
        )
        with disk_errors(self.workdir):
            self._manager = ocp.CheckpointManager(self.workdir / "checkpoints", options=options)

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, state: PyTree, position: int) -> None:
        """Starts saving a TrainState at its step, with the data position; returns before the files are written.

        Arrays are copied first, so the state may be donated. Raises UserError when the disk is full.
        """
        step = int(state.step)
        if step == self.latest():
            return
        meta = {"config": self.config.to_dict(), "position": position}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state._replace(ema=None)),
            ema=ocp.args.StandardSave(state.ema),
            meta=ocp.args.JsonSave(meta),
        )
        with disk_errors(self.workdir):
            self._manager.save(step, args=items)

    def restore(self, abstract: PyTree, step: int | None = None) -> tuple[PyTree, int]:
        """The state at `step` (default: the latest) with the shardings of the shapes `abstract`; and the data position."""
        step = self.latest() if step is None else step
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract._replace(ema=None)),
            ema=ocp.args.StandardRestore(abstract.ema),
            meta=ocp.args.JsonRestore(),
        )
        with _damage(self.workdir / "checkpoints" / str(step)):
            restored = self._manager.restore(step, args=items)
        return restored.state._replace(ema=restored.ema), restored.meta["position"]

    def reached_preemption(self, step: int) -> bool:
        """Whether the cluster told some process to stop: all processes agree on the answer for a step."""
        return jax.distributed.is_initialized() and self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Blocks until the saves begun so far are on disk; raises UserError if one failed."""
        with disk_errors(self.workdir):
            self._manager.wait_until_finished()

    def close(self) -> None:
        with disk_errors(self.workdir):
            self._manager.close()


def open_workdir(workdir: AnyPath, config: ConfigDict) -> None:
    """Makes the workdir this experiment's by its config.json, or checks that it is; raises CheckpointError if not."""
    path = workdir / "config.json"
    if not path.exists():
        for name in WRITTEN:
            if (workdir / name).exists():
                raise CheckpointError(
                    f"{workdir} holds {name} but no config.json: it is no workdir of ours, and that file would be lost; "
                    "use another --workdir"
                )
        write_config(workdir, config)
        return
    differing = config_lib.differences(config, read_config(path))
    if differing:
        raise CheckpointError(
            f"{workdir} belongs to another experiment; differing fields (this config here, the workdir's there): "
            + "; ".join(differing)
            + "; use another --workdir"
        )


def write_config(workdir: AnyPath, config: ConfigDict) -> None:
    """Notes the config as it is now: some of its fields may change."""
    with disk_errors(workdir):
        write_text(workdir / "config.json", config_lib.to_json(config))


def read_config(path: AnyPath) -> ConfigDict:
    """The config in a JSON file."""
    try:
        return config_lib.from_json(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable config: {error}") from error


def write_text(path: AnyPath, text: str) -> None:
    """Writes a text file that appears whole, by rename."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def complete_steps(workdir: AnyPath) -> list[int]:
    """The steps of which a workdir holds a complete checkpoint, in order."""
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        return []
    # In an object store, which cannot rename, an incomplete one has its name already.
    names = [path.name for path in folder.iterdir() if path.name.isdigit() and ocp.utils.is_checkpoint_finalized(path)]
    return sorted(map(int, names))


def shipped() -> list[str]:
    """The names of the weights in the package."""
    folder = resources.files("sr3_jax") / "weights"
    return sorted(entry.name.removesuffix(".safetensors") for entry in folder.iterdir() if entry.name.endswith(".safetensors"))


def load_checkpoint(place: str | AnyPath) -> Checkpoint:
    """The weights at a workdir (its latest), a step of it, an exported file or a folder of one, or a shipped name.

    Raises CheckpointError when there are none, or they are damaged, naming what was looked for.
    """
    found = _load(place)
    return dataclasses.replace(found, schedules={**found.schedules, **read_schedules(place)})


def _load(place: str | AnyPath) -> Checkpoint:
    path = paths.parse(place)
    if str(place) in shipped() and not path.exists():
        with resources.as_file(resources.files("sr3_jax") / "weights" / f"{place}.safetensors") as file:
            return _load_export(file, str(place))
    if path.is_file():
        return _load_export(path, str(place))
    if (path / "model.safetensors").is_file():
        return _load_export(path / "model.safetensors", str(place))
    if path.is_dir():
        return _load_workdir(path)
    raise CheckpointError(
        f"no checkpoint at {str(place)!r}; it can be a workdir, an exported file, or one of {', '.join(shipped())}"
    )


def schedules_file(place: str | AnyPath) -> AnyPath:
    """Where the schedules found for the checkpoint at `place` are kept: in its workdir, or beside its file."""
    path = paths.parse(place)
    if str(place) in shipped() and not path.exists():
        path = Path(str(resources.files("sr3_jax") / "weights" / f"{place}.safetensors"))
    if path.is_dir():
        return (path.parent.parent if path.parent.name == "checkpoints" else path) / SCHEDULES
    return path.with_name(f"{path.stem}.{SCHEDULES}")


def read_schedules(place: str | AnyPath) -> dict[str, dict[str, Any]]:
    """What is in that file: by number of evaluations, fields of config.sample; raises CheckpointError if it is damaged."""
    path = schedules_file(place)
    return _checked_schedules(path.read_text(), path) if path.exists() else {}


def _checked_schedules(text: str, path: AnyPath) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(text)
        known = set(config_lib.base().sample)
        if not all(count.isdecimal() and fields.keys() <= known for count, fields in found.items()):
            raise ValueError("unknown fields")
        return found
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is not what `sr3 search` writes: {error}; remove it to go without") from error


def export(checkpoint: Checkpoint, path: AnyPath, metadata: Mapping[str, str] | None = None, dtype: str = "float32") -> None:
    """Writes EMA, config and data card to one .safetensors file, which appears by rename.

    `dtype` is float32, bfloat16 or int8: kernels as whole numbers of 1/127 of the largest weight of each output channel, all
    else in bfloat16.
    """
    flat: dict[str, np.ndarray] = {}
    for keys, leaf in _leaves(checkpoint.params):
        name, weights = SEPARATOR.join(keys), np.asarray(leaf, np.float32)
        if dtype == "int8" and weights.ndim > 1:
            scale = np.maximum(np.abs(weights).max(axis=tuple(range(weights.ndim - 1))), 1e-30) / 127
            flat[name], flat[name + SCALE] = np.rint(weights / scale).astype(np.int8), scale
        else:
            flat[name] = weights.astype(np.dtype("bfloat16" if dtype == "int8" else dtype))
    about = {"config": config_lib.to_json(checkpoint.config), "step": str(checkpoint.step)} | dict(metadata or {})
    if checkpoint.schedules:
        about["schedules"] = json.dumps({count: dict(fields) for count, fields in checkpoint.schedules.items()})
    if checkpoint.data_card:
        about["data_card"] = checkpoint.data_card
    with disk_errors(path), replacing(path) as temporary:
        save_file({name: jax.numpy.asarray(leaf) for name, leaf in flat.items()}, temporary, metadata=about)


def best_psnr(path: AnyPath) -> float:
    """The held-out PSNR noted in an export, in dB; -inf without one."""
    try:
        with paths.local_copy(path) as local, safe_open(local, framework="numpy") as file:
            return float((file.metadata() or {}).get("psnr", "-inf"))
    except (OSError, SafetensorError):
        return -float("inf")


def _leaves(tree: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key in sorted(tree):
        if isinstance(tree[key], Mapping):
            yield from _leaves(tree[key], (*prefix, key))
        else:
            yield (*prefix, key), tree[key]


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *parents, last = name.split(SEPARATOR)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def check_params(params: PyTree, config: ConfigDict, where: str, partly: bool = False) -> list[str]:
    """Raises CheckpointError, naming the first parameter and both shapes, unless `params` fit the config's network.

    With `partly` some may be missing; returns their names.
    """
    expected = jax.eval_shape(Method(config).init, jax.random.key(0))
    wanted = {SEPARATOR.join(keys): leaf.shape for keys, leaf in _leaves(expected)}
    found = {SEPARATOR.join(keys): leaf.shape for keys, leaf in _leaves(params)}
    missing = sorted(wanted.keys() - found.keys()) if partly and found.keys() < wanted.keys() else []
    for name in sorted((wanted.keys() | found.keys()) - set(missing)):
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"{where} is of another network: parameter {name} has shape {found.get(name, 'none (missing)')}, "
                f"the config's network needs {wanted.get(name, 'none (unknown name)')}"
            )
    return missing


def _load_export(path: AnyPath, name: str) -> Checkpoint:
    try:
        with paths.local_copy(path) as local:
            with safe_open(local, framework="numpy") as file:
                metadata = file.metadata() or {}
            flat = load_file(local)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a complete .safetensors file: {error}") from error
    if "config" not in metadata:
        raise CheckpointError(f"{path} carries no config, so it is not an export of sr3_jax")
    config = _valid_config(metadata["config"], path)
    scales = {key.removesuffix(SCALE): flat.pop(key) for key in sorted(flat) if key.endswith(SCALE)}
    wide = {key: leaf.astype("float32") for key, leaf in flat.items()}
    wide |= {
        key: wide[key] * scale.reshape((1,) * (wide[key].ndim - 1) + (-1,)) for key, scale in scales.items() if key in wide
    }
    params = _nest(wide)
    check_params(params, config, str(path))
    schedules = _checked_schedules(metadata.get("schedules", "{}"), path)
    return Checkpoint(config, params, int(metadata.get("step", 0)), name, schedules, metadata.get("data_card", ""))


def _load_workdir(path: AnyPath) -> Checkpoint:
    """From a workdir, its latest step; or from WORKDIR/checkpoints/STEP itself. Reads the EMA only: a quarter of the bytes."""
    step_dir = paths.absolute(path)
    if not (step_dir.name.isdigit() and step_dir.parent.name == "checkpoints"):
        steps = complete_steps(path)
        if not steps:
            raise CheckpointError(
                f"{path} holds no checkpoint (looked for {path}/checkpoints/STEP and {path}/model.safetensors)"
            )
        step_dir = step_dir / "checkpoints" / str(steps[-1])
    _quieten_orbax()
    with _damage(step_dir):
        meta = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(step_dir / "meta")
    config = _valid_config(json.dumps(meta["config"]), step_dir)
    abstract = jax.eval_shape(Method(config).init, jax.random.key(0))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), abstract)
    with _damage(step_dir):
        params = ocp.Checkpointer(ocp.StandardCheckpointHandler()).restore(
            step_dir / "ema", args=ocp.args.StandardRestore(abstract)
        )
    return Checkpoint(config, params, int(step_dir.name), str(path), data_card=card_in(step_dir.parent.parent))


def _valid_config(text: str, where: AnyPath) -> ConfigDict:
    """A checkpoint's config, which may have been changed by hand."""
    try:
        config = config_lib.from_json(text)
        config_lib.validate(config)
    except config_lib.ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error
    return config


@contextmanager
def _damage(where: AnyPath) -> Iterator[None]:
    """Turns whatever reading a damaged or foreign checkpoint raises into one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # tensorstore, orbax, zstd, JSON: each has errors of its own
        detail = " ".join(str(error).split())
        raise CheckpointError(
            f"{where} is damaged or of another network: {detail[:300]}{'…' if len(detail) > 300 else ''}; "
            "remove that folder to use the checkpoint before it"
        ) from error


def _quieten_orbax() -> None:
    """Orbax logs every file it touches, and each failure, with a traceback, that it then raises as well."""
    for logger in ("absl", "asyncio"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unraisable


def _unraisable(hint: Any) -> None:
    """Drops the tracebacks, hundreds, of the other reads and writes under way when one failed: that one is raised."""
    files = [frame.filename for frame in traceback.extract_tb(hint.exc_traceback)]
    if not any(name in file for file in files for name in ("orbax", "asyncio")):
        sys.__unraisablehook__(hint)
