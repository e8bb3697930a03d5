"""Compiling for TPUs that are not here: will it fit, how fast will it be.

The real step, with the real mesh and shardings, goes through the real TPU compiler. What comes out
is that compiler's estimate, never a measurement, and each number says so.
"""

import dataclasses
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree
from ml_collections import ConfigDict

from sr3_jax import config as config_lib
from sr3_jax.errors import ConfigError
from sr3_jax.method import Method, image_key, sampling_steps
from sr3_jax.models import perceptual
from sr3_jax.objectives.distillation import feature_shapes, needs_features
from sr3_jax.profiling import chips
from sr3_jax.profiling.flops import matrix_flops
from sr3_jax.profiling.hlo import Program
from sr3_jax.runtime import parallel
from sr3_jax.tasks.task import Given
from sr3_jax.training.step import training_program

# Images in a batch of `inference.Upscaler`, before it is rounded up to a multiple of the devices
SAMPLED = 16

_SHAPES, _MESSAGE = "shapes and shardings", "compiler's out-of-memory message"
# Where each number comes from: if the program fits, and if it does not. None: then there is no such
# number.
SOURCES: dict[str, tuple[str | None, str | None]] = {
    "parameters": ("shapes", "shapes"),
    "parameter_bytes": (_SHAPES, _SHAPES),
    "ema_bytes": (_SHAPES, _SHAPES),
    "optimizer_bytes": (_SHAPES, _SHAPES),
    "hbm_bytes": ("published for the chip", "published for the chip"),
    "limit_bytes": (None, _MESSAGE),
    "argument_bytes": ("compiler, memory analysis", None),
    "temporary_bytes": (
        "compiler, memory analysis",
        f"{_MESSAGE}, less parameters, EMA and optimizer",
    ),
    "code_bytes": ("compiler, memory analysis", None),
    "peak_bytes": ("compiler: arguments, temporaries, outputs, program", _MESSAGE),
    "model_flops": ("counted in the network's convolutions and matrix products", None),
    "compiled_flops": ("compiler, cost analysis; bodies of loops once", None),
    "hbm_traffic": ("compiled program: operands and results in HBM", None),
    "collective_bytes": ("compiled program: operands or results of collectives, the larger", None),
    "matrix_seconds": ("arithmetic of the network / bf16 peak of the chip", None),
    "memory_seconds": ("HBM traffic / bandwidth of the chip", None),
    "bound": ("the longer of the two", None),
    "chip_seconds": ("compiler's estimated cycles / clock", None),
    "collective_seconds": ("bytes sent / bandwidth of the links, nothing hidden", None),
    "step_seconds": ("computation + communication", None),
    "mfu": ("matrix units / step", None),
    "compile_seconds": ("measured here", "measured here"),
}
NOT_ESTIMATED = ("hbm_bytes", "compile_seconds")


@dataclass
class Estimate:
    """All for one chip and one step of training, or one batch of images sampled.

    Bytes, seconds, FLOPs.
    """

    what: str
    topology: str
    chips: int
    hosts: int
    mesh: dict[str, int]  # of the program: sampling runs on each host by itself
    images_per_chip: float
    network_evaluations: int  # per image
    parameters: int  # in the network, over all chips
    parameter_bytes: int
    ema_bytes: int
    optimizer_bytes: int
    hbm_bytes: int  # of the chip
    limit_bytes: int = 0  # what the compiler lets a program use of them
    compile_seconds: float = 0.0
    fits: bool = True
    peak_bytes: int = 0
    argument_bytes: int = 0
    temporary_bytes: int = 0
    code_bytes: int = 0
    model_flops: int = 0
    compiled_flops: float = 0.0
    hbm_traffic: int = 0
    collective_bytes: dict[str, int] = field(default_factory=dict)
    matrix_seconds: float = 0.0
    memory_seconds: float = 0.0
    chip_seconds: float = 0.0
    collective_seconds: float = 0.0
    mfu: float = 0.0
    advice: list[str] = field(default_factory=list)

    @property
    def state_bytes(self) -> int:
        """Parameters, EMA and optimizer."""
        return self.parameter_bytes + self.ema_bytes + self.optimizer_bytes

    @property
    def step_seconds(self) -> float:
        """As if nothing of the communication were hidden behind the computation: an upper bound."""
        return self.chip_seconds + self.collective_seconds

    @property
    def bound(self) -> str:
        """What limits the chip's speed: its matrix units or its memory."""
        return "matrix units" if self.matrix_seconds >= self.memory_seconds else "memory"

    def source(self, name: str) -> str | None:
        """Where the number of this name comes from; None if it was not computed."""
        return SOURCES[name][0 if self.fits else 1]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: each number as {"value", "estimated", "source"}.

        The value is None if it was not computed.
        """
        asked = {
            name: value for name, value in dataclasses.asdict(self).items() if name not in SOURCES
        }
        return asked | {
            name: {
                "value": getattr(self, name) if self.source(name) else None,
                "estimated": name not in NOT_ESTIMATED,
                "source": self.source(name),
            }
            for name in SOURCES
        }


def estimate(
    config: ConfigDict, topology: str, what: str = "train"
) -> tuple[Estimate, Program | None]:
    """Compiles for the topology; the program is None if it does not fit.

    Raises UserError on a bad config or topology.
    """
    config_lib.validate(config)
    chip, count = chips.parse(topology)
    devices = chips.devices(topology)
    hosts = len({device.process_index for device in devices})
    if what == "sample":
        devices = chips.devices(chips.one_host(topology))
        config = _as_sampled(config, len(devices))
    mesh = parallel.make_mesh(config, devices)
    method = Method(config)
    lowered, trips, evaluations = _lower(config, method, mesh, what)
    params = jax.eval_shape(method.init, jax.random.key(0))
    sharded = jax.tree.map(
        lambda leaf, s: 4 * prod(s.shard_shape(leaf.shape)),
        params,
        parallel.shardings(params, mesh),
    )
    per_chip, training = sum(jax.tree.leaves(sharded)), what == "train"
    result = Estimate(
        what=what,
        topology=topology,
        chips=count,
        hosts=hosts,
        mesh=dict(mesh.shape),
        images_per_chip=config.train.batch_size / mesh.size,
        network_evaluations=evaluations,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        parameter_bytes=per_chip,
        ema_bytes=per_chip if training else 0,
        optimizer_bytes=2 * per_chip if training else 0,
        hbm_bytes=chip.hbm_bytes,
    )
    started = time.perf_counter()
    try:
        compiled = lowered.compile()
    except Exception as error:  # XLA's own, not exported under a stable name
        needed = out_of_memory(str(error))
        if needed is None:
            raise
        peak, limit = needed
        refused = dataclasses.replace(
            result,
            compile_seconds=time.perf_counter() - started,
            fits=False,
            peak_bytes=peak,
            limit_bytes=limit,
            temporary_bytes=peak - result.state_bytes,
        )
        return dataclasses.replace(refused, advice=list(advice(config, refused))), None
    compile_seconds = time.perf_counter() - started

    text, memory, cost = compiled.as_text(), compiled.memory_analysis(), compiled.cost_analysis()
    assert text, "the TPU compiler gives all three"
    assert memory
    assert cost
    program = Program.parse(text, trips)
    flops = model_flops(config, what, evaluations) // mesh.size
    # On a ring an all-reduce sends every byte twice, the others once.
    sent = sum(
        size * (2 if kind == "all-reduce" else 1) for kind, size in program.collective_bytes.items()
    )
    found = dataclasses.replace(
        result,
        compile_seconds=compile_seconds,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        peak_bytes=memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes  # the outputs that take the place of arguments
        + memory.generated_code_size_in_bytes,
        model_flops=flops,
        compiled_flops=cost["flops"],
        hbm_traffic=program.hbm_bytes,
        collective_bytes=program.collective_bytes,
        matrix_seconds=flops / chip.flops,
        memory_seconds=program.hbm_bytes / chip.hbm_bandwidth,
        chip_seconds=program.cycles / chip.clock,
        collective_seconds=sent / chip.link_bandwidth if mesh.size > 1 else 0.0,
    )
    return dataclasses.replace(found, mfu=found.matrix_seconds / found.step_seconds), program


def _lower(
    config: ConfigDict, method: Method, mesh: jax.sharding.Mesh, what: str
) -> tuple[jax.stages.Lowered, int, int]:
    """The program that `sr3 train` or `inference.Upscaler` runs.

    Also how often its loop runs, and the network evaluations per image.
    """
    if what == "train":
        return training_program(config, mesh).lower(), config.train.accumulate, 1
    whole, split = parallel.replicated(mesh), parallel.batch_sharding(mesh)
    batch, size = config.train.batch_size, config.data.lr_size
    steps = sampling_steps(config)

    def run(
        params: PyTree,
        lr: jax.Array,
        ids: jax.Array,
        seed: jax.Array,
        sample: jax.Array,
        steps: PyTree,
    ) -> jax.Array:
        keys = jax.vmap(lambda i: image_key(seed, i, sample))(ids)
        return method.super_resolve(params, Given(lr), keys, steps)

    params = jax.eval_shape(method.init, jax.random.key(0))
    lr = jax.ShapeDtypeStruct((batch, size, size, method.task.input_channels), jnp.float32)
    number, ids = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((batch,), jnp.int32)
    program = jax.jit(
        run, in_shardings=(whole, split, split, whole, whole, whole), out_shardings=split
    )
    lowered = program.lower(params, lr, ids, number, number, steps)
    return lowered, steps.evaluations, steps.evaluations


def _as_sampled(config: ConfigDict, devices: int) -> ConfigDict:
    """The config with the mesh and the batch of `inference.Upscaler` on a host of so many devices.

    Each device holds the whole parameters.
    """
    config = config.copy_and_resolve_references()
    config.mesh.data, config.mesh.fsdp, config.train.accumulate = -1, 1, 1
    config.train.batch_size = -(-SAMPLED // devices) * devices
    return config


def model_flops(config: ConfigDict, what: str, evaluations: int) -> int:
    """FLOPs of the network's mathematics for the whole batch: nothing recomputed, no padding."""
    plain = config.copy_and_resolve_references()
    plain.model.remat = ()
    method = Method(plain)
    params = jax.eval_shape(method.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *method.shape), jnp.float32)
    condition = jax.ShapeDtypeStruct((1, *method.shape[:2], method.condition_channels), jnp.float32)
    level = jax.ShapeDtypeStruct((1,), jnp.float32)
    inputs = (condition, image, level) if method.objective.takes_noise else (image,)

    def forward(params: PyTree, *inputs: jax.Array) -> jax.Array:
        return method.model.apply({"params": params}, *inputs).sum()

    def predict(params: PyTree, upsampled: jax.Array) -> jax.Array:
        return method.condition(params, upsampled).sum()

    def look(image: jax.Array, weights: PyTree) -> jax.Array:
        rgb = jnp.broadcast_to(image, (*image.shape[:3], 3))
        return sum((each.sum() for each in perceptual.features(weights, rgb)), jnp.zeros(()))

    learns, taught = what == "train", method.objective.needs_teacher
    looks = learns and needs_features(plain)
    predictor = jax.grad(predict) if learns and (looks or not taught) else predict
    once = matrix_flops(predictor, params, image) if method.refines else 0
    if looks:
        # The teacher's predictor, and VGG16 on the student's image and on the HR image; the
        # discriminator's heads are a hundredth of that
        once += matrix_flops(predict, params, image) if method.refines else 0
        once += sum(matrix_flops(f, image, feature_shapes()) for f in (jax.grad(look), look))
    one = matrix_flops(jax.grad(forward) if learns else forward, params, *inputs)
    if learns and taught:
        one += plain.train.teacher_steps * matrix_flops(forward, params, *inputs)
    return (one * evaluations + once) * plain.train.batch_size


def residual_bytes(config: ConfigDict, images: int) -> int:
    """The bytes that the backward pass of `images` images keeps, before any compiler's savings.

    They are good for ratios only.
    """
    plain = config.copy_and_resolve_references()
    # what a loss of features keeps does not depend on the network
    plain.train.perceptual_weight = plain.train.adversarial_weight = 0.0
    method = Method(plain)
    params = jax.eval_shape(method.init, jax.random.key(0))
    batch = jax.ShapeDtypeStruct((images, *method.shape), jnp.uint8)

    def kept(params: PyTree, batch: jax.Array, teacher: PyTree) -> PyTree:
        return jax.vjp(
            lambda params: method.loss(params, batch, jax.random.key(0), True, teacher).mean(),
            params,
        )[1]

    held = sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(jax.eval_shape(kept, params, batch, params))
    )
    return held - sum(4 * leaf.size for leaf in jax.tree.leaves(params))


def advice(config: ConfigDict, result: Estimate) -> Iterator[str]:
    """What would make it fit, cheapest first, and only what may be set.

    From how the state and the kept activations scale.
    """
    count = prod(result.mesh.values())
    per_chip = config.train.batch_size // config.train.accumulate // count
    if result.what == "sample":
        if less := per_chip // 2:
            peak = result.state_bytes + result.temporary_bytes * less / per_chip
            yield f"Upscaler(…, batch_size={less * count}): {_verdict(peak, result)}"
        return
    for changes, peak in _options(config, result, count, per_chip):
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict(changes)
        flags = [
            f"--config.{name}={str(value).replace(' ', '')}" for name, value in changes.items()
        ]
        try:
            config_lib.validate(changed)
            parallel.mesh_shape(changed, count)
        except ConfigError:
            continue
        yield f"{' '.join(flags)}: {_verdict(peak, result)}"


def _options(
    config: ConfigDict, result: Estimate, count: int, per_chip: int
) -> Iterator[tuple[dict[str, Any], float | int]]:
    """Changes of the config, and about how many bytes a chip would then need."""
    state, temporary = result.state_bytes, result.temporary_bytes
    spread_state = state * result.mesh["fsdp"] / count
    spread = {"mesh.fsdp": count} | ({} if config.mesh.data in (1, -1) else {"mesh.data": 1})
    if result.mesh["fsdp"] < count:
        yield spread, spread_state + temporary
    levels = tuple(range(len(config.model.multipliers)))
    if set(config.model.remat) != set(levels):
        more = config.copy_and_resolve_references()
        more.model.remat = levels
        kept = temporary * residual_bytes(more, per_chip) / residual_bytes(config, per_chip)
        yield {"model.remat": levels}, state + kept
        if result.mesh["fsdp"] < count:
            yield {"model.remat": levels, **spread}, spread_state + kept
    accumulate = config.train.accumulate
    for parts in [parts for parts in range(2, per_chip + 1) if per_chip % parts == 0]:
        yield {"train.accumulate": accumulate * parts}, state + temporary / parts
        if _enough(state + temporary / parts, result):
            break
    if less := per_chip // 2:
        yield {"train.batch_size": less * count * accumulate}, state + temporary * less / per_chip


def _enough(peak: float | int, result: Estimate) -> bool:
    return peak < 0.95 * result.limit_bytes  # scaling is rough


def _verdict(peak: float | int, result: Estimate) -> str:
    outcome = "would fit" if _enough(peak, result) else "not enough alone"
    return f"about {peak / chips.GIB:.1f} GiB, {outcome} (estimated by scaling)"


def out_of_memory(message: str) -> tuple[int, int] | None:
    """The bytes of HBM that a program needs and those that it may use, from the compiler's message.

    None if the message says something else.
    """
    size = r"([\d.]+)([KMGT]?)"
    for pattern in (
        rf"memory space hbm\b.*?Used {size} of {size}",
        rf"memory on HBM\b.*?\({size}\) exceeds.*?\({size}\)",
    ):
        if "RESOURCE_EXHAUSTED" in message and (found := re.search(pattern, message, re.DOTALL)):
            units = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
            needed, limit = (int(float(found[i]) * units[found[i + 1]]) for i in (1, 3))
            return needed, limit
    return None
