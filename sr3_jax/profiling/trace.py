"""Where the time of a training step goes: a trace of a few real steps, and a summary of it."""

import dataclasses
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sr3_jax import config as config_lib
from sr3_jax.data.pipeline import Batches
from sr3_jax.data.sources import open_source
from sr3_jax.profiling.hlo import COLLECTIVES, Program
from sr3_jax.runtime import parallel
from sr3_jax.training.step import Rows, training_program

# Steps before the trace: the first ones also allocate memory and read files for the first time
WARM_UP = 2

# The phases of a step; "once" is what belongs neither to the forward nor to the backward pass
PHASES = FORWARD, BACKWARD, ONCE = "forward", "backward", "once"
# Where an operation's name in our source says in which part of the network it is
_PART = re.compile(
    r"/(?:(down|up)_(\d+)_(\w+?)|(middle)_(\w+)|(stem|out_norm|out|gamma_embedding))(?:/|$)"
)
# Patterns in that name, and the kind of layer that they tell; the first that is found counts
_LAYERS = (
    (r"_attention(/|$)", "attention"),
    (r"/(gamma_)?embedding(/|$)", "embedding"),
    (r"/(out_)?norm(_\d)?(/|$)", "normalization"),
    (r"/Dropout_\d", "dropout"),
    (r"/(conv_\d|skip|stem|out)(/|$)", "convolution"),
    (r"_resample/", "resampling"),
)


class Place(NamedTuple):
    """Where in the training step an operation belongs."""

    part: str  # of the network, such as "down 0", or of the rest of the step
    layer: str  # its kind
    phase: str  # FORWARD, BACKWARD or ONCE


@dataclass
class Profile:
    """The milliseconds of a training step, means over the traced steps.

    Those of operations are per device, and summed over its threads.
    """

    steps: int
    devices: int
    batch: int
    step: float  # wall time, from the start of a step to the start of the next
    input: float  # how much of it is waiting for data
    parts: dict[str, dict[str, float]] = field(default_factory=dict)  # part → phase → ms
    layers: dict[str, dict[str, float]] = field(default_factory=dict)
    # (opcode, name in our source, ms), longest first
    operations: list[tuple[str, str, float]] = field(default_factory=list)
    trace: str = ""  # the file for Perfetto

    @property
    def total(self) -> float:
        """The time of all operations."""
        return sum(sum(phases.values()) for phases in self.parts.values())

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return dataclasses.asdict(self)


def profile(config: ConfigDict, output: Path, steps: int) -> Profile:
    """Trains a few steps on the real data under JAX's profiler.

    Nothing is kept of the training but the trace.

    Args:
      config: What is trained.
      output: Where the trace is written to; see `own_folder`.
      steps: How many steps are traced.

    Raises:
      UserError: The config or the data set cannot be used.
    """
    config_lib.validate(config)
    mesh = parallel.make_mesh(config)
    source = open_source(config, "train")
    output = own_folder(output)
    output.mkdir(parents=True, exist_ok=True)
    program = training_program(config, mesh)
    compiled = program.lower().compile()
    state = program.init()
    teacher = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), program.teacher)
    own = parallel.rows(mesh, config.train.batch_size).tolist()
    batches = Batches(source, config, rows=own)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Python's own calls would fill the trace
    waited = 0.0

    def train(first: int, count: int) -> None:
        nonlocal state, waited
        for number in range(first, first + count):
            with jax.profiler.StepTraceAnnotation("train", step_num=number):
                start = time.perf_counter()
                with jax.profiler.TraceAnnotation("input"):
                    rows = parallel.to_devices(Rows.of(next(batches), config), mesh)
                waited += time.perf_counter() - start
                state, _ = jax.block_until_ready(compiled(state, rows, *teacher))

    train(0, WARM_UP)
    before = set(output.rglob("*.xplane.pb"))
    waited = 0.0
    with jax.profiler.trace(str(output), create_perfetto_trace=True, profiler_options=options):
        start = time.perf_counter()
        train(WARM_UP, steps)
        wall = time.perf_counter() - start
    (file,) = set(output.rglob("*.xplane.pb")) - before
    result = Profile(
        steps=steps,
        devices=jax.local_device_count(),
        batch=config.train.batch_size,
        step=1000 * wall / steps,
        input=1000 * waited / steps,
        trace=str(file.parent / "perfetto_trace.json.gz"),
    )
    _fill(result, _read(file), compiled.as_text() or "")
    return result


def own_folder(output: Path) -> Path:
    """Where this process writes its trace.

    Several processes have a folder each below `output`: the profiler names files by machine and
    second, so they might write over each other's.
    """
    return output / f"process_{jax.process_index()}" if jax.process_count() > 1 else output


def _fill(result: Profile, seconds: dict[str, float], text: str) -> None:
    """Adds the time of each instruction to its part, its layer and its operation.

    Args:
      result: The profile that is filled.
      seconds: The time of each instruction, over all steps and devices.
      text: The compiled program, which tells the instructions' names in our source.
    """
    operations: defaultdict[tuple[str, str], float] = defaultdict(float)
    program = Program.parse(text)
    known = {
        instruction.name: instruction
        for computation in program.computations.values()
        for instruction in computation
    }
    for name, spent in seconds.items():
        instruction = known.get(name)
        opcode = (
            program.heaviest(instruction).opcode if instruction else re.sub(r"[.\d]+$", "", name)
        )
        source = program.source(instruction) if instruction else ""
        milliseconds = 1000 * spent / result.steps / result.devices
        place = locate(source, opcode)
        for table, row in ((result.parts, place.part), (result.layers, place.layer)):
            table.setdefault(row, dict.fromkeys(PHASES, 0.0))[place.phase] += milliseconds
        operations[opcode, source] += milliseconds
    result.operations = sorted(
        ((*names, spent) for names, spent in operations.items()), key=lambda row: -row[2]
    )


def locate(source: str, opcode: str = "") -> Place:
    """The place of an operation.

    Args:
      source: Its name in our source, such as "jit(step)/jvp(UNet)/up_0_1/conv_0/add".
      opcode: Of its HLO instruction.
    """
    if opcode.removesuffix("-start").removesuffix("-done") in COLLECTIVES:
        return Place("communication", "communication", ONCE)
    if opcode == "convolution" and not source:  # on a CPU, the gradients of their weights
        return Place("convolutions without a name", "convolution, without a name", BACKWARD)
    if "UNet" not in source:
        if "jvp" in source:
            return Place(
                "loss", "loss: noise, degradation", BACKWARD if "transpose(" in source else FORWARD
            )
        name = "optimizer, EMA" if source.startswith("jit(") else "copies of the compiler"
        return Place(name, name, ONCE)
    phase = BACKWARD if "transpose(" in source or "rematted" in source else FORWARD
    part = "network, elsewhere"
    if found := _PART.search(source):
        side, level, _, middle, _, single = found.groups()
        part = f"{side} {level}" if side else middle or single.replace("out_norm", "out")
    layer = next(
        (name for pattern, name in _LAYERS if re.search(pattern, source)), "sums, concatenations"
    )
    return Place(part, layer, phase)


def _read(file: Path) -> dict[str, float]:
    """The seconds of each HLO instruction in a trace.

    The time of instructions that it contains, such as a loop's body, is not among them.
    """
    totals: defaultdict[str, float] = defaultdict(float)
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for name, seconds in _self_times(_instructions(line)).items():
                totals[name] += seconds
    return totals


def _instructions(line: Any) -> Iterator[tuple[float, float, str]]:
    """(start, end, name) of the HLO instructions on a line of the trace, in ns.

    CPU and GPU name the instruction in a statistic of each event, TPU by events of a line of its
    own.
    """
    for event in line.events:
        name = next((value for key, value in event.stats if key == "hlo_op"), None)
        if name is None and line.name == "XLA Ops":
            name = event.name.partition(" = ")[0].lstrip("%")
        if name is not None:
            yield event.start_ns, event.start_ns + event.duration_ns, str(name)


def _self_times(events: Iterable[tuple[float, float, str]]) -> dict[str, float]:
    """Seconds by name; the time of an event inside another, on the same thread, is taken off it."""
    totals: defaultdict[str, float] = defaultdict(float)
    open_: list[tuple[float, str]] = []  # (end, name) of the events that contain the current one
    for start, end, name in sorted(events, key=lambda event: (event[0], -event[1])):
        while open_ and open_[-1][0] <= start:
            open_.pop()
        if open_:
            totals[open_[-1][1]] -= end - start
        totals[name] += end - start
        open_.append((end, name))
    return {name: nanoseconds / 1e9 for name, nanoseconds in totals.items()}
