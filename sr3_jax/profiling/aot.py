"""Compiling for TPUs that are not here: will it fit, how fast will it be.

The real step, with the real mesh and shardings, goes through the real TPU compiler. What comes out is that compiler's
estimate, never a measurement, and each number says so.
"""

import dataclasses
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree
from ml_collections import ConfigDict

from sr3_jax import config as config_lib
from sr3_jax import parallel
from sr3_jax.method import Method
from sr3_jax.profiling import chips
from sr3_jax.profiling.flops import matrix_flops
from sr3_jax.profiling.hlo import Program
from sr3_jax.training.step import training_program

WHAT = ("train", "sample")


@dataclass
class Estimate:
    """All for one chip and one step of training, or one batch of images sampled. Bytes, seconds, FLOPs."""

    what: str
    topology: str
    chips: int
    hosts: int
    mesh: dict[str, int]
    images_per_chip: float
    network_evaluations: int  # per image
    parameters: int  # in the network, over all chips
    parameter_bytes: int
    ema_bytes: int
    optimizer_bytes: int
    hbm_bytes: int  # of the chip
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
    def step_seconds(self) -> float:
        """As if nothing of the communication were hidden behind the computation: an upper bound."""
        return self.chip_seconds + self.collective_seconds

    @property
    def bound(self) -> str:
        return "matrix units" if self.matrix_seconds >= self.memory_seconds else "memory"

    def to_dict(self) -> dict[str, Any]:
        out = {"estimated": True, **dataclasses.asdict(self)}
        return out | {"step_seconds": self.step_seconds, "bound": self.bound}


def estimate(config: ConfigDict, topology: str, what: str = "train") -> tuple[Estimate, Program | None]:
    """Compiles for the topology; the program is None if it does not fit. Raises UserError on a bad config or topology."""
    config_lib.validate(config)
    chip, count = chips.parse(topology)
    devices = chips.devices(topology)
    mesh = parallel.make_mesh(config, devices)
    method = Method(config)
    lowered, trips, evaluations = _lower(config, method, mesh, what)
    params = jax.eval_shape(method.init, jax.random.key(0))
    sharded = jax.tree.map(lambda leaf, s: 4 * _shard_size(leaf, s), params, parallel.shardings(params, mesh))
    per_chip, training = sum(jax.tree.leaves(sharded)), what == "train"
    result = Estimate(
        what=what,
        topology=topology,
        chips=count,
        hosts=len({device.process_index for device in devices}),
        mesh=dict(mesh.shape),
        images_per_chip=config.train.batch_size / count,
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
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        result.compile_seconds = time.perf_counter() - started
        result.fits, result.peak_bytes = False, _needed(str(error))
        state = result.parameter_bytes + result.ema_bytes + result.optimizer_bytes
        result.temporary_bytes = result.peak_bytes - state
        result.advice = list(_advice(config, result, state, count))
        return result, None
    result.compile_seconds = time.perf_counter() - started

    text, memory, cost = compiled.as_text(), compiled.memory_analysis(), compiled.cost_analysis()
    assert text, "the TPU compiler gives all three"
    assert memory
    assert cost
    program = Program.parse(text, trips)
    result.argument_bytes, result.code_bytes = memory.argument_size_in_bytes, memory.generated_code_size_in_bytes
    result.temporary_bytes = memory.temp_size_in_bytes
    new_outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    result.peak_bytes = result.argument_bytes + result.temporary_bytes + new_outputs + result.code_bytes
    result.model_flops = model_flops(config, what, evaluations) // count
    result.compiled_flops = cost["flops"]
    result.hbm_traffic, result.collective_bytes = program.hbm_bytes, program.collective_bytes
    result.matrix_seconds = result.model_flops / chip.flops
    result.memory_seconds = program.hbm_bytes / chip.hbm_bandwidth
    result.chip_seconds = program.cycles / chip.clock
    # On a ring an all-reduce sends every byte twice, the others once.
    sent = sum(size * (2 if kind == "all-reduce" else 1) for kind, size in program.collective_bytes.items())
    result.collective_seconds = sent / chip.link_bandwidth if count > 1 else 0.0
    result.mfu = result.matrix_seconds / result.step_seconds
    return result, program


def _lower(config: ConfigDict, method: Method, mesh: jax.sharding.Mesh, what: str) -> tuple[jax.stages.Lowered, int, int]:
    """The program; how often its loop runs; network evaluations per image."""
    if what == "train":
        return training_program(config, mesh).lower(), config.train.accumulate, 1
    steps = 1 if method.regression else config.sample.steps
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    params = jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), shapes, parallel.shardings(shapes, mesh)
    )
    batch, size = config.train.batch_size, config.data.lr_size
    split = parallel.batch_sharding(mesh)
    lr = jax.ShapeDtypeStruct((batch, size, size, config.model.image_channels), jnp.float32, sharding=split)
    key = jax.eval_shape(lambda: jax.random.key(0))
    keys = jax.ShapeDtypeStruct((batch,), key.dtype, sharding=split)
    run = jax.jit(lambda params, lr, keys: method.super_resolve(params, lr, keys, steps), out_shardings=split)
    return run.lower(params, lr, keys), steps, steps


def model_flops(config: ConfigDict, what: str, evaluations: int) -> int:
    """FLOPs of the network's mathematics for the whole batch: nothing recomputed, no padding."""
    plain = config.copy_and_resolve_references()
    plain.model.remat = ()
    method = Method(plain)
    params = jax.eval_shape(method.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *method.shape), jnp.float32)
    inputs = (image,) if method.regression else (image, image, jax.ShapeDtypeStruct((1,), jnp.float32))

    def forward(params: PyTree, *inputs: jax.Array) -> jax.Array:
        return method.model.apply({"params": params}, *inputs).sum()

    one = matrix_flops(jax.grad(forward), params, *inputs) if what == "train" else matrix_flops(forward, params, *inputs)
    return one * evaluations * plain.train.batch_size


def residual_bytes(config: ConfigDict, images: int) -> int:
    """What the backward pass of `images` images keeps, before any compiler's savings: good for ratios only."""
    method = Method(config)
    params = jax.eval_shape(method.init, jax.random.key(0))
    batch = jax.ShapeDtypeStruct((images, *method.shape), jnp.uint8)

    def kept(params: PyTree, batch: jax.Array) -> PyTree:
        return jax.vjp(lambda params: method.loss(params, batch, jax.random.key(0)).mean(), params)[1]

    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(kept, params, batch)))
    return held - sum(4 * leaf.size for leaf in jax.tree.leaves(params))


def _advice(config: ConfigDict, result: Estimate, state: int, count: int) -> Iterator[str]:
    """What would make it fit, from how the state and the kept activations scale; cheapest first."""
    limit, temporary = 0.95 * result.hbm_bytes, result.temporary_bytes

    def verdict(peak: float) -> str:
        return f"about {peak / chips.GIB:.1f} GiB, {'would fit' if peak < limit else 'not enough alone'} (estimated by scaling)"

    full_fsdp = state * result.mesh["fsdp"] / count
    if result.mesh["fsdp"] < count:
        yield f"mesh.fsdp={count}: {verdict(full_fsdp + temporary)}"
    if result.what == "sample":
        smaller = max(config.train.batch_size // 2, count)
        if smaller < config.train.batch_size:
            yield f"train.batch_size={smaller}: {verdict(state + temporary * smaller / config.train.batch_size)}"
        return
    per_chip = max(1, config.train.batch_size // config.train.accumulate // count)
    levels = tuple(range(len(config.model.multipliers)))
    if tuple(config.model.remat) != levels:
        more = config.copy_and_resolve_references()
        more.model.remat = levels
        ratio = residual_bytes(more, per_chip) / residual_bytes(config, per_chip)
        yield f"model.remat={levels}: {verdict(state + temporary * ratio)}"
        if result.mesh["fsdp"] < count:
            yield f"model.remat={levels} and mesh.fsdp={count}: {verdict(full_fsdp + temporary * ratio)}"
    parts = 2
    while parts <= per_chip:
        yield f"train.accumulate={config.train.accumulate * parts}: {verdict(state + temporary / parts)}"
        parts *= 2
    if per_chip > 1:
        half = config.train.batch_size // 2
        yield f"train.batch_size={half}, or twice the chips: {verdict(state + temporary / 2)}"


def _shard_size(leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.NamedSharding) -> int:
    size = 1
    for length in sharding.shard_shape(leaf.shape):
        size *= length
    return size


def _needed(message: str) -> int:
    """The bytes that the compiler's out-of-memory message asks for."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    for pattern in (r"Used ([\d.]+)([KMGT]) of", r"\(([\d.]+)([KMGT])\) exceeds"):
        if found := re.search(pattern, message):
            return int(float(found[1]) * units[found[2]])
    return 0
