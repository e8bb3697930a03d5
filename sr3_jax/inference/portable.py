"""A network as a program that runs without this package: of StableHLO or ONNX.

StableHLO needs JAX alone. There are two programs, with the weights inside, for CPU, GPU and TPU:

    denoiser(condition, y_t, gamma, told) -> y_0      one evaluation, as the samplers see it
    sampler(lr, seed, told) -> hr                     all steps, from the LR image

Images are (b, h, w, c) float32 in [-1, 1], gamma is (b,), seed a whole number below 2³², told a
dictionary of (b,) float32, one for each signal that the network knows (NaN: not known). The number
of images may be any, and, unless the network has attention, height and width too.

ONNX is for other runtimes. There is one program, for one size of images:

    (lr, random, a number (b,) for each signal) -> hr
"""

import contextlib
import io
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from sr3_jax import config as config_lib
from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.diffusion import samplers
from sr3_jax.errors import UserError
from sr3_jax.method import image_key, sampling_steps
from sr3_jax.models import platform
from sr3_jax.tasks.task import Given

PLATFORMS = ("cpu", "cuda", "tpu")
UNROLLED = 16  # evaluations in an ONNX file


def stablehlo(checkpoint: Checkpoint, steps: int | None = None) -> bytes:
    """A zip archive of denoiser.stablehlo, sampler.stablehlo and about.json.

    Args:
      checkpoint: The network.
      steps: Evaluations of the sampler; None: the network's own.

    Raises:
      UserError: The network cannot be used with so many steps.
    """
    method, table = checkpoint.method, _table(checkpoint, steps)
    params = jax.tree.map(jnp.asarray, checkpoint.params)

    def denoiser(condition: Any, y_t: Any, gamma: Any, told: dict) -> Any:
        return method.denoiser(params, told)(condition, y_t, gamma)

    def sampler(lr: Any, seed: Any, told: dict) -> Any:
        keys = jax.vmap(lambda i: image_key(seed, i))(jnp.arange(lr.shape[0]))
        return method.super_resolve(params, Given(lr, told), keys, table)

    lr, hr = _shapes(checkpoint)
    b = lr[0]
    told = {signal.name: _array(b) for signal in method.task.signals}
    seen = (*hr[:3], method.condition_channels)
    calls: dict[str, tuple[Callable, tuple]] = {
        "denoiser": (denoiser, (_array(*seen), _array(*hr), _array(b), told)),
        "sampler": (sampler, (_array(*lr), jax.ShapeDtypeStruct((), jnp.uint32), told)),
    }
    made = {
        name: export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
        for name, (function, arguments) in calls.items()
    }
    about = {
        "platforms": PLATFORMS,
        "calling_convention": made["sampler"].calling_convention_version,
        "inputs": {
            name: [str(shape) for shape in program.in_avals] for name, program in made.items()
        },
        **_about(checkpoint, table),
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, program in made.items():
            archive.writestr(f"{name}.stablehlo", bytes(program.serialize()))
        archive.writestr("about.json", json.dumps(about, indent=1) + "\n")
    return file.getvalue()


def onnx(checkpoint: Checkpoint, steps: int | None = None, size: int | None = None) -> bytes:
    """An ONNX model of the whole sampler, with the weights inside.

    Its inputs are `lr` (b, size, size, c), `random` (b, n, H, W, c), standard normal, of which n is
    as many as the sampler draws, and one of shape (b,) for each signal, by its name (NaN: not
    known). Its output is `hr` (b, H, W, c). The metadata says the rest.

    Args:
      checkpoint: The network.
      steps: Evaluations of the sampler; None: the network's own.
      size: Side of the LR images; None: as in training.

    Raises:
      UserError: jax2onnx is missing, or the network cannot be used like that.
    """
    # The converter's loops are not always valid, so that every evaluation stands in the file
    try:
        from jax2onnx import to_onnx
    except ImportError as error:
        raise UserError(
            f"--format=onnx needs the package {error.name}: pip install 'sr3_jax[onnx]'"
        ) from error
    method, table = checkpoint.method, _table(checkpoint, steps)
    if table.evaluations > UNROLLED:
        raise UserError(
            f"{checkpoint.name} takes {table.evaluations} evaluations; --format=onnx is for "
            f"{UNROLLED} at the most: give --steps"
        )
    data, c = checkpoint.config.data, checkpoint.config.model.image_channels
    side, step = data.lr_size if size is None else size, _step(checkpoint)
    if side < 1 or side % (step or data.lr_size) or (not step and side > data.lr_size):
        wanted = f"a multiple of {step}" if step else f"{data.lr_size}, because of its attention"
        raise UserError(f"--size={side}: for {checkpoint.name} it must be {wanted}")
    large = side * data.hr_size // data.lr_size
    params = jax.tree.map(jnp.asarray, checkpoint.params)
    # y_T, and one for each row but the last, which adds none
    drawn = table.evaluations if np.any(table.noise) else 1
    signals = [signal.name for signal in method.task.signals]

    def sampler(lr: Any, random: Any, *told: Any) -> Any:
        given = dict(zip(signals, told, strict=True))
        upsampled = method.task.condition(lr)
        condition = method.condition(params, upsampled, given)
        denoise = method.denoiser(params, given, variance=table.narrowing is not None)

        y, before = random[:, 0], jnp.zeros_like(random[:, 0])
        for index in range(table.evaluations):
            row = jax.tree.map(lambda column, i=index: column[i], table)
            seen = denoise(condition, y, jnp.broadcast_to(row.gamma, y.shape[:1]))
            more = random[:, index + 1] if row.noise > 0 else None
            y, before = samplers.advance(row, y, before, seen, more)
        return jnp.clip(method.decode(y, condition), -1, 1)

    shapes = [("b", side, side, c), ("b", drawn, large, large, c), *[("b",)] * len(signals)]
    with platform.only("cpu"), _quiet():
        model = to_onnx(
            sampler,
            inputs=shapes,
            model_name=checkpoint.name,
            input_names=["lr", "random", *signals],
            output_names=["hr"],
        )
    for key, value in _about(checkpoint, table).items():
        model.metadata_props.add(
            key=key, value=value if isinstance(value, str) else json.dumps(value)
        )
    return model.SerializeToString()


def _table(checkpoint: Checkpoint, steps: int | None) -> samplers.Steps:
    config = checkpoint.config
    if config.task.kind in config_lib.SAME_SIZE:
        raise UserError(
            f"{checkpoint.name} is for {config.task.kind}; programs are of networks that enlarge"
        )
    count = config.sample.steps if steps is None else steps
    return sampling_steps(config, steps, checkpoint.schedules.get(str(count)))


def _about(checkpoint: Checkpoint, table: samplers.Steps) -> dict[str, Any]:
    """What both kinds of programs say of themselves."""
    return {
        "versions": {name: version(name) for name in ("sr3_jax", "jax", "jaxlib")},
        "told": {signal.name: signal.title for signal in checkpoint.method.task.signals},
        "evaluations": table.evaluations,
        "config": json.loads(config_lib.to_json(checkpoint.config)),
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the converter says of shapes that it does not need."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def _array(*shape: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _step(checkpoint: Checkpoint) -> int:
    """Of what the sides of LR images must be multiples; 0: they can only be as in training."""
    data, model = checkpoint.config.data, checkpoint.config.model
    if model.attention or model.middle_attention:
        return 0
    scale, factor = data.hr_size // data.lr_size, 2 ** (len(model.multipliers) - 1)
    return int(np.lcm(scale, model.space_to_depth * factor)) // scale


def _shapes(checkpoint: Checkpoint) -> tuple[tuple, tuple]:
    """The shapes of LR and HR images, with names where they may be of any size."""
    data, c = checkpoint.config.data, checkpoint.config.model.image_channels
    step, scale = _step(checkpoint), data.hr_size // data.lr_size
    if not step:
        (b,) = export.symbolic_shape("b")
        return (b, data.lr_size, data.lr_size, c), (b, data.hr_size, data.hr_size, c)
    b, h, w = export.symbolic_shape(f"b, {step}*h, {step}*w" if step > 1 else "b, h, w")
    return (b, h, w, c), (b, scale * h, scale * w, c)
