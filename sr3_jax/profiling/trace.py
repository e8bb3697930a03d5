"""Where the time of a training step goes: a trace of a few real steps, and a table of it."""

import dataclasses
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from sr3_jax import config as config_lib
from sr3_jax.data.pipeline import Batches
from sr3_jax.data.sources import open_source
from sr3_jax.profiling.hlo import COLLECTIVES, Program
from sr3_jax.runtime import parallel
from sr3_jax.training.step import training_program

# Steps before the trace: the first ones also allocate and read files for the first time
WARM_UP = 2

FORWARD, BACKWARD, ONCE = "forward", "backward", "once"
_PART = re.compile(
    r"/(?:(down|up)_(\d+)_(\w+?)|(middle)_(\w+)|(stem|out_norm|out|gamma_embedding))(?:/|$)"
)
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

    part: str  # of the step, or the level of the network
    layer: str
    phase: str


@dataclass
class Profile:
    """Milliseconds of one step, means over the traced ones; those of operations are summed over threads, per device."""

    steps: int
    devices: int
    batch: int
    step: float  # on the wall, start to start
    input: float  # of it, waiting for data
    parts: dict[str, dict[str, float]] = field(default_factory=dict)  # part → phase → ms
    layers: dict[str, dict[str, float]] = field(default_factory=dict)
    # (opcode, name in our source, ms), longest first
    operations: list[tuple[str, str, float]] = field(default_factory=list)
    trace: str = ""

    @property
    def total(self) -> float:
        return sum(sum(phases.values()) for phases in self.parts.values())

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def profile(config: ConfigDict, output: Path, steps: int) -> Profile:
    """Trains `steps` steps under JAX's profiler, with the real input; nothing of it is kept but the trace, below `output`.

    Raises UserError on a bad config or data set.
    """
    config_lib.validate(config)
    mesh = parallel.make_mesh(config)
    source = open_source(config, "train")
    output = own_folder(output)
    output.mkdir(parents=True, exist_ok=True)
    program = training_program(config, mesh)
    compiled = program.lower().compile()
    state = program.init()
    teacher = (program.init().params,) if program.teacher else ()
    batches = Batches(source, config, process=jax.process_index(), processes=jax.process_count())
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Python's own calls would fill the trace
    waited = 0.0

    def train(first: int, count: int) -> None:
        nonlocal state, waited
        for number in range(first, first + count):
            with jax.profiler.StepTraceAnnotation("train", step_num=number):
                start = time.perf_counter()
                with jax.profiler.TraceAnnotation("input"):
                    images = parallel.to_devices(next(batches)["image"], mesh)
                waited += time.perf_counter() - start
                state, metrics = compiled(state, images, *teacher)
                jax.block_until_ready(metrics)

    train(0, WARM_UP)
    jax.block_until_ready(state)
    before = set(output.rglob("*.xplane.pb"))
    waited = 0.0
    with jax.profiler.trace(str(output), create_perfetto_trace=True, profiler_options=options):
        start = time.perf_counter()
        train(WARM_UP, steps)
        jax.block_until_ready(state)
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
    """Where this process writes its trace: several may share `output`, and the profiler names files by machine and second."""
    return output / f"process_{jax.process_index()}" if jax.process_count() > 1 else output


def _fill(result: Profile, seconds: dict[str, float], text: str) -> None:
    """Sorts the time of each instruction into parts and layers by the name that it has in our source."""
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
            phases = table.setdefault(row, {FORWARD: 0.0, BACKWARD: 0.0, ONCE: 0.0})
            phases[place.phase] += milliseconds
        operations[opcode, source] += milliseconds
    result.operations = sorted(
        ((*names, spent) for names, spent in operations.items()), key=lambda row: -row[2]
    )


def locate(source: str, opcode: str = "") -> Place:
    """The place of an operation, from its name in our source, such as "jit(step)/jvp(UNet)/up_0_1/conv_0/add"."""
    if opcode.removesuffix("-start").removesuffix("-done") in COLLECTIVES:
        return Place("communication", "communication", ONCE)
    if opcode == "convolution" and not source:  # on a CPU, the gradients of their weights
        return Place("convolutions without a name", "convolution, without a name", BACKWARD)
    if "UNet" not in source:
        if "jvp" in source:
            return Place(
                "loss", "loss: noise, degradation", BACKWARD if "transpose(" in source else FORWARD
            )
        if not source.startswith("jit("):
            return Place("copies of the compiler", "copies of the compiler", ONCE)
        return Place("optimizer, EMA", "optimizer, EMA", ONCE)
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
    """Seconds of each HLO instruction in a trace, without those of the instructions that it contains."""
    totals: defaultdict[str, float] = defaultdict(float)
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for name, seconds in _self_times(_instructions(line)).items():
                totals[name] += seconds
    return totals


def _instructions(line: Any) -> Iterator[tuple[float, float, str]]:
    """(start, end, instruction) in ns.

    CPU and GPU name the instruction in a statistic, TPU in a line of its own.
    """
    for event in line.events:
        name = next((value for key, value in event.stats if key == "hlo_op"), None)
        if name is None and line.name == "XLA Ops":
            name = event.name.partition(" = ")[0].lstrip("%")
        if name is not None:
            yield event.start_ns, event.start_ns + event.duration_ns, str(name)


def _self_times(events: Iterable[tuple[float, float, str]]) -> dict[str, float]:
    """Seconds by name; an event inside another, on the same thread, is taken off it."""
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
