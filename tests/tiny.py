"""The smallest experiment, faces 8×8 to 16×16.

It is for tests, and for `sr3 train --config=tests/tiny.py`.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh
from jaxtyping import PyTree
from ml_collections import ConfigDict

import sr3_jax.config
from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.checkpoints.workdir import Checkpoints, read_config
from sr3_jax.method import Method
from sr3_jax.runtime import parallel
from sr3_jax.training.state import TrainState, init_state, make_optimizer


def get_config() -> ConfigDict:
    config = sr3_jax.config.base()
    data, model, train = config.data, config.model, config.train
    data.source, data.hr_size, data.lr_size, data.crop_jitter, data.threads = "orl", 16, 8, 0.15, 1
    model.image_channels, model.space_to_depth = 1, 2
    model.channels, model.multipliers, model.blocks, model.attention = 8, (1,), 1, ()
    config.sample.steps = 2
    train.batch_size, train.steps, train.learning_rate, train.warmup_steps = 8, 6, 1e-3, 4
    train.log_every, train.checkpoint_every, train.keep_checkpoints = 1, 3, 1000
    train.evaluate_every, train.evaluate_images, train.sample_images = 1_000_000, 2, 1
    return config


def tiny_config(
    channels: int = 1, objective: str = "sr3", noise: float = 0.0, blur: float = 0.0
) -> ConfigDict:
    """8×8 to 16×16, in two steps."""
    config = sr3_jax.config.base()
    config.objective, config.train.teacher = objective, "another" if objective == "distill" else ""
    config.data.hr_size, config.data.lr_size = 16, 8
    config.task.noise, config.task.blur, config.task.tell_blur = noise, blur, blur > 0
    model = config.model
    model.channels, model.multipliers, model.blocks, model.attention, model.dropout = (
        8,
        (1,),
        1,
        (),
        0.0,
    )
    model.image_channels, model.space_to_depth = channels, 2
    model.predict, model.predict_residual, model.residual_scale = "v", True, 0.1
    config.sample.steps, config.sample.schedule = 2, "log_snr"
    return config


def tiny_checkpoint(
    channels: int = 1, objective: str = "sr3", noise: float = 0.0, blur: float = 0.0
) -> Checkpoint:
    """8×8 to 16×16; random weights everywhere: a new network's output layer is zero."""
    return random_checkpoint(tiny_config(channels, objective, noise, blur))


def refining_checkpoint(objective: str = "sr3") -> Checkpoint:
    """8×8 to 16×16, grey, model.kind = "refine": a predictor and a denoiser, random weights."""
    config = tiny_config(objective=objective, noise=4.0)
    model = config.model
    model.kind, model.predictor_channels, model.predictor_blocks = "refine", 8, 1
    model.fine_channels, model.fine_blocks, model.feature_channels = 4, 0, 2
    model.attention, model.middle_attention = (), False
    return random_checkpoint(config, "refining", 0.2)


def random_checkpoint(config: ConfigDict, name: str = "tiny", size: float = 0.1) -> Checkpoint:
    """Random weights of about that size."""
    sr3_jax.config.validate(config)
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(Method(config).init, jax.random.key(0))
    params = jax.tree.map(
        lambda leaf: jnp.asarray(size * rng.normal(size=leaf.shape), jnp.float32), shapes
    )
    return Checkpoint(config, params, 7, name)


def mesh_of(devices: Sequence[jax.Device], fsdp: int = 1) -> Mesh:
    shape = (len(devices) // fsdp, fsdp)
    return jax.make_mesh(shape, ("data", "fsdp"), devices=devices, axis_types=(AxisType.Auto,) * 2)


def abstract_state(config: ConfigDict, mesh: Mesh) -> TrainState:
    """Shapes and shardings of a train state."""
    shapes = jax.eval_shape(lambda: init_state(Method(config), make_optimizer(config)))
    shardings = parallel.shardings(shapes, mesh)
    return jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), shapes, shardings
    )


def random_state(config: ConfigDict, mesh: Mesh, step: int) -> TrainState:
    """A train state in which every number is random, but for its step; nothing is compiled."""
    rng = np.random.default_rng(step)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.device_put((9 * rng.normal(size=leaf.shape)).astype(leaf.dtype), leaf.sharding)

    abstract = abstract_state(config, mesh)
    return jax.tree.map(draw, abstract)._replace(
        step=jax.device_put(np.int32(step), abstract.step.sharding)
    )


def save(workdir: Path, config: ConfigDict, *states: TrainState) -> None:
    """Checkpoints of a workdir, without training."""
    checkpoints = Checkpoints(workdir, config)
    for state in states:
        checkpoints.save(state, position=int(state.step))
    checkpoints.close()


def read_state(workdir: Path, step: int | None = None) -> TrainState:
    """The whole train state of a workdir, on one device."""
    config = read_config(workdir / "config.json")
    checkpoints = Checkpoints(workdir, config)
    state, position = checkpoints.restore(abstract_state(config, mesh_of(jax.devices()[:1])), step)
    checkpoints.close()
    assert position == int(state.step)
    return state


def assert_same_bits(found: PyTree, expected: PyTree) -> None:
    """Two trees of arrays are one another's copies, to the bit."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        leaf, other = np.asarray(leaf), np.asarray(other)
        assert (leaf.dtype, leaf.shape) == (other.dtype, other.shape), jax.tree_util.keystr(path)
        assert leaf.tobytes() == other.tobytes(), jax.tree_util.keystr(path)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder, with its bytes and the time of its last change."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in files
    }
