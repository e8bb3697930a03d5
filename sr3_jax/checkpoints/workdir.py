"""The workdir: the folder of a training run, with its checkpoints.

    WORKDIR/config.json              the experiment
    WORKDIR/checkpoints/STEP/        one complete restart point: state (all but EMA), ema, and
                                     meta (config, data position)

A checkpoint's folder appears by rename when it is complete, so whenever a run is killed, the last
complete one is there. This is the only module that imports Orbax.
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

# Fields of TrainState that are items of their own in a checkpoint
SEPARATE = ("ema", "discriminator")
# Files of a workdir that a new training overwrites
WRITTEN = ("stats.jsonl", "parameters.txt", "best.safetensors", TEACHER)


class Checkpoints:
    """The checkpoints of one workdir, for training: saved asynchronously, only the latest kept."""

    def __init__(self, workdir: AnyPath, config: ConfigDict):
        _quieten_orbax()
        self.workdir, self.config = paths.absolute(workdir), config
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(config.train.keep_checkpoints),
            # The training loop decides when to save; Orbax must not skip any.
            save_decision_policy=ocp.checkpoint_managers.FixedIntervalPolicy(1),
            cleanup_tmp_directories=True,  # left behind if the run was killed while saving
        )
        with disk_errors(self.workdir):
            self._manager = ocp.CheckpointManager(self.workdir / "checkpoints", options=options)

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(self, state: PyTree, position: int) -> None:
        """Starts saving a TrainState at its step; returns before the files are written.

        Arrays are copied first, so the state may be donated. Nothing is done if the step is saved
        already.

        Args:
          state: the TrainState.
          position: the number of the next training batch.

        Raises:
          UserError: the disk is full or cannot be written to.
        """
        step = int(state.step)
        if step == self.latest():
            return
        items = {name: ocp.args.StandardSave(part) for name, part in _parts(state).items()}
        items["meta"] = ocp.args.JsonSave({"config": self.config.to_dict(), "position": position})
        with disk_errors(self.workdir):
            self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, abstract: PyTree, step: int | None = None) -> tuple[PyTree, int]:
        """The state at a step, and the data position that was saved with it.

        Args:
          abstract: the state's shapes, with the shardings that it shall have.
          step: None: the latest.

        Raises:
          CheckpointError: the checkpoint is damaged, or of another network.
        """
        step = self.latest() if step is None else step
        items = {name: ocp.args.StandardRestore(part) for name, part in _parts(abstract).items()}
        items["meta"] = ocp.args.JsonRestore()
        with _damage(self.workdir / "checkpoints" / str(step)):
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        parts = {name: restored[name] for name in items if name in SEPARATE}
        return abstract._replace(**{**restored.state, **parts}), restored.meta["position"]

    def reached_preemption(self, step: int) -> bool:
        """Whether the cluster told any process to stop; all processes get the same answer."""
        return jax.distributed.is_initialized() and self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Blocks until the saves begun so far are on disk; raises UserError if one failed."""
        with disk_errors(self.workdir):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the saves, and ends Orbax's threads; raises UserError if a save failed."""
        with disk_errors(self.workdir):
            self._manager.close()


def _parts(state: Any) -> dict[str, Any]:
    """A TrainState as the items of a checkpoint: each of SEPARATE, if it is there, and the rest.

    So the average is read without the rest, and a field that is new to TrainState does not make
    older checkpoints unreadable.
    """
    fields = state._asdict()
    own = {name: fields.pop(name) for name in SEPARATE}
    # its place is kept in `state`, where it was when checkpoints were first written
    rest = {"state": fields | {"ema": None}}
    return rest | {name: part for name, part in own.items() if part is not None}


_RATE = (
    ". Another number of steps would make a learning rate that falls to zero jump: go on from the "
    "weights, with train.init_from, or give a new run a later train.decay_steps"
)


def open_workdir(workdir: AnyPath, config: ConfigDict) -> None:
    """Writes config.json into a new workdir, or checks that an old one is of the same experiment.

    Raises:
      CheckpointError: it is of another experiment, or it holds files of ours but no config.json.
    """
    path = workdir / "config.json"
    if not path.exists():
        for name in WRITTEN:
            if (workdir / name).exists():
                raise CheckpointError(
                    f"{workdir} holds {name} but no config.json: it is no workdir of ours, "
                    "and that file would be lost; use another --workdir"
                )
        write_config(workdir, config)
    elif differing := config_lib.differences(config, read_config(path)):
        raise CheckpointError(
            f"{workdir} belongs to another experiment; "
            "differing fields (this config here, the workdir's there): "
            + "; ".join(differing)
            + "; use another --workdir"
            + _RATE * any(line.startswith("train.decay_steps") for line in differing)
        )


def write_config(workdir: AnyPath, config: ConfigDict) -> None:
    """Writes config.json as the config is now, since some fields may change when a run resumes."""
    with disk_errors(workdir):
        write_text(workdir / "config.json", config_lib.to_json(config))


def read_config(path: AnyPath) -> ConfigDict:
    """The config in a JSON file; raises CheckpointError if it cannot be read."""
    try:
        return config_lib.from_json(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable config: {error}") from error


def complete_steps(workdir: AnyPath) -> list[int]:
    """The steps at which a workdir holds a complete checkpoint, in order."""
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        return []
    # In an object store, which cannot rename, an incomplete one may have such a name as well.
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if path.name.isdigit() and ocp.utils.is_checkpoint_finalized(path)
    )


def load_workdir(path: AnyPath) -> Checkpoint:
    """The checkpoint in a workdir, its latest, or in WORKDIR/checkpoints/STEP itself.

    Only the EMA is read, a quarter of the bytes. Raises CheckpointError if there is none, or it is
    damaged.
    """
    step_dir = paths.absolute(path)
    if not (step_dir.name.isdigit() and step_dir.parent.name == "checkpoints"):
        steps = complete_steps(path)
        if not steps:
            raise CheckpointError(
                f"{path} holds no checkpoint "
                f"(looked for {path}/checkpoints/STEP and {path}/model.safetensors)"
            )
        step_dir = step_dir / "checkpoints" / str(steps[-1])
    _quieten_orbax()
    with _damage(step_dir):
        meta = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(step_dir / "meta")
    config = valid_config(json.dumps(meta["config"]), step_dir)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        jax.eval_shape(Method(config).init, jax.random.key(0)),
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
    """Turns whatever reading a damaged or foreign checkpoint raises into a CheckpointError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # tensorstore, orbax, zstd, JSON: each has errors of its own
        detail = " ".join(str(error).split())
        raise CheckpointError(
            f"{where} is damaged or of another network: "
            f"{detail[:300]}{'…' if len(detail) > 300 else ''}; "
            "remove that folder to use the checkpoint before it"
        ) from error


def _quieten_orbax() -> None:
    """Turns off Orbax's logging of every file, and of failures that it raises as well."""
    for logger in ("absl", "asyncio"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unraisable


def _unraisable(hint: Any) -> None:
    """Drops what Orbax prints when one of many simultaneous reads or writes has failed.

    That one is raised; the others end in hundreds of tracebacks, which say nothing more.
    """
    frames = traceback.extract_tb(hint.exc_traceback)
    if not any(name in frame.filename for frame in frames for name in ("orbax", "asyncio")):
        sys.__unraisablehook__(hint)
