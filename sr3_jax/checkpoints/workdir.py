"""A training run's folder. Orbax lives here alone.

    WORKDIR/config.json              the experiment
    WORKDIR/checkpoints/STEP/        state (all but EMA), ema, meta (config, data position): one complete restart point

A checkpoint directory appears by rename when it is complete, so a kill at any moment leaves the
last complete one.
"""

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from ml_collections import ConfigDict

from sr3_jax import config as config_lib
from sr3_jax.checkpoints.checkpoint import Checkpoint, CheckpointError, valid_config
from sr3_jax.data.cards import card_in
from sr3_jax.errors import UserError
from sr3_jax.method import Method
from sr3_jax.runtime import paths
from sr3_jax.runtime.atomic import disk_errors, write_text
from sr3_jax.runtime.paths import AnyPath

TEACHER = "teacher.safetensors"  # in a student's workdir, what it learns from


# Files of a workdir that training writes anew
WRITTEN = ("stats.jsonl", "parameters.txt", "best.safetensors", TEACHER)


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

        Arrays are copied first, so the state may be donated. Raises UserError when the disk is
        full.
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


def complete_steps(workdir: AnyPath) -> list[int]:
    """The steps of which a workdir holds a complete checkpoint, in order."""
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        return []
    # In an object store, which cannot rename, an incomplete one has its name already.
    names = [
        path.name
        for path in folder.iterdir()
        if path.name.isdigit() and ocp.utils.is_checkpoint_finalized(path)
    ]
    return sorted(map(int, names))


def load_workdir(path: AnyPath) -> Checkpoint:
    """From a workdir, its latest step; or from WORKDIR/checkpoints/STEP itself.

    Reads the EMA only: a quarter of the bytes.
    """
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
    config = valid_config(json.dumps(meta["config"]), step_dir)
    abstract = jax.eval_shape(Method(config).init, jax.random.key(0))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), abstract
    )
    with _damage(step_dir):
        params = ocp.Checkpointer(ocp.StandardCheckpointHandler()).restore(
            step_dir / "ema", args=ocp.args.StandardRestore(abstract)
        )
    return Checkpoint(
        config, params, int(step_dir.name), str(path), data_card=card_in(step_dir.parent.parent)
    )


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
