"""A network as StableHLO: programs that run with JAX alone, without this package.

Two of them, with the weights inside, for CPU, GPU and TPU:

    denoiser(condition, y_t, gamma, told) -> y_0      one evaluation, as the samplers see it
    sampler(lr, seed, told) -> hr                     all steps, from the LR image

Images are (b, h, w, c) float32 in [-1, 1], gamma is (b,), seed a whole number below 2³², told a
dictionary of (b,) float32, one for each signal that the network knows (NaN: not known). The number
of images may be any, and, unless the network has attention, height and width too.
"""

import io
import json
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from sr3_jax import config as config_lib
from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.errors import UserError
from sr3_jax.method import image_key, sampling_steps
from sr3_jax.tasks.task import Given

PLATFORMS = ("cpu", "cuda", "tpu")


def bundle(checkpoint: Checkpoint, steps: int | None = None) -> bytes:
    """A zip archive of denoiser.stablehlo, sampler.stablehlo and about.json.

    Args:
      checkpoint: The network.
      steps: Evaluations of the sampler; None: the network's own.

    Raises:
      UserError: The network cannot be used with so many steps.
    """
    method, config = checkpoint.method, checkpoint.config
    if method.generates:
        raise UserError(
            f"{checkpoint.name} makes images from noise; StableHLO is of networks that enlarge"
        )
    params = jax.tree.map(jnp.asarray, checkpoint.params)
    count = config.sample.steps if steps is None else steps
    table = sampling_steps(config, steps, checkpoint.schedules.get(str(count)))

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
        "versions": {name: version(name) for name in ("sr3_jax", "jax", "jaxlib")},
        "calling_convention": made["sampler"].calling_convention_version,
        "inputs": {
            name: [str(shape) for shape in program.in_avals] for name, program in made.items()
        },
        "told": {signal.name: signal.title for signal in method.task.signals},
        "evaluations": table.evaluations,
        "config": json.loads(config_lib.to_json(config)),
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, program in made.items():
            archive.writestr(f"{name}.stablehlo", bytes(program.serialize()))
        archive.writestr("about.json", json.dumps(about, indent=1) + "\n")
    return file.getvalue()


def _array(*shape: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _shapes(checkpoint: Checkpoint) -> tuple[tuple, tuple]:
    """The shapes of LR and HR images, with names where they may be of any size."""
    config, model = checkpoint.config, checkpoint.config.model
    scale, c = config.data.hr_size // config.data.lr_size, model.image_channels
    if model.attention or model.middle_attention:
        (b,) = export.symbolic_shape("b")
        lr, hr = config.data.lr_size, config.data.hr_size
        return (b, lr, lr, c), (b, hr, hr, c)
    factor = model.space_to_depth * 2 ** (len(model.multipliers) - 1)
    step = int(np.lcm(scale, factor)) // scale  # of the LR image's sides
    b, h, w = export.symbolic_shape(f"b, {step}*h, {step}*w" if step > 1 else "b, h, w")
    return (b, h, w, c), (b, scale * h, scale * w, c)
