"""Estimates and profiles as tables for the terminal."""

from math import prod

from rich.console import Console
from rich.table import Column, Table

from sr3_jax.profiling.aot import Estimate
from sr3_jax.profiling.trace import PHASES, Profile

SUBLANES = 8  # rows of a TPU's vector registers; the compiler puts a batch's images on them


def show(estimate: Estimate) -> None:
    """Prints an estimate, every number with its source."""
    console, e = Console(highlight=False), estimate
    used, mesh = prod(e.mesh.values()), " ".join(f"{name}={size}" for name, size in e.mesh.items())
    sampling = f"sampling, {e.network_evaluations} evaluations an image, on each host alone"
    work = "training step" if e.what == "train" else sampling
    where = (
        f"{e.chips} chips, {e.hosts} hosts"
        if used == e.chips
        else f"{used} of {e.chips} chips, one of {e.hosts} hosts"
    )
    console.print(
        f"{work}, compiled for {e.topology}: {where}, mesh {mesh}, "
        f"{e.parameters / 1e6:.0f} M parameters, {e.images_per_chip:g} images per chip",
        soft_wrap=True,
    )
    if e.what == "train" and e.images_per_chip % SUBLANES:
        console.print(
            f"note: a TPU lays images out in groups of {SUBLANES}; fewer per chip cost as much "
            "(benchmarks/tpu.md)",
            soft_wrap=True,
        )
    table = Table("per chip", Column("estimated", justify="right"), "source")
    for label, name, value in _rows(e):
        if source := e.source(name):
            table.add_row(label, value, source)
    console.print(table)
    if e.fits:
        # The compiler packs tighter than the sum of its own statistics says
        verdict = "fits" if e.peak_bytes <= e.hbm_bytes else "fits barely, as the compiler packs it"
        console.print(
            f"{verdict}: {_gib(e.peak_bytes)} of {_gib(e.hbm_bytes)} estimated", soft_wrap=True
        )
        return
    over, limit = _gib(e.peak_bytes - e.limit_bytes), _gib(e.limit_bytes)
    console.print(
        f"DOES NOT FIT: {_gib(e.peak_bytes)} estimated, {over} more than the {limit} of "
        f"{_gib(e.hbm_bytes)} that it may use",
        soft_wrap=True,
    )
    for line in e.advice:
        console.print(f"  {line}", soft_wrap=True, markup=False)


def _rows(e: Estimate) -> list[tuple[str, str, str]]:
    """The rows of the table: a label, the number's name in `aot.SOURCES`, and its value."""
    trained = [
        ("EMA", "ema_bytes", _gib(e.ema_bytes)),
        ("optimizer", "optimizer_bytes", _gib(e.optimizer_bytes)),
    ]
    moved = [f"{kind} {size / 1e9:.2f} GB" for kind, size in sorted(e.collective_bytes.items())]
    return [
        ("parameters", "parameter_bytes", _gib(e.parameter_bytes)),
        *(trained if e.what == "train" else []),
        ("temporaries", "temporary_bytes", _gib(e.temporary_bytes)),
        ("peak memory", "peak_bytes", f"{_gib(e.peak_bytes)} of {_gib(e.hbm_bytes)}"),
        ("arithmetic of the network", "model_flops", f"{e.model_flops / 1e12:.2f} TFLOP"),
        ("arithmetic compiled", "compiled_flops", f"{e.compiled_flops / 1e12:.2f} TFLOP"),
        ("HBM traffic", "hbm_traffic", f"{e.hbm_traffic / 1e9:.1f} GB"),
        ("communication", "collective_bytes", ", ".join(moved) or "none"),
        ("matrix units", "matrix_seconds", _ms(e.matrix_seconds)),
        ("memory", "memory_seconds", _ms(e.memory_seconds)),
        ("roofline", "bound", e.bound),
        ("computation", "chip_seconds", _ms(e.chip_seconds)),
        ("communication", "collective_seconds", _ms(e.collective_seconds)),
        ("step" if e.what == "train" else "batch", "step_seconds", _ms(e.step_seconds)),
        ("MFU", "mfu", f"{e.mfu:.1%}"),
        ("compilation", "compile_seconds", f"{e.compile_seconds:.0f} s"),
    ]


def show_profile(profile: Profile, operations: int) -> None:
    """Prints where the time of a training step goes.

    The tables are by part of the network and by kind of layer. After them come the `operations`
    operations that take longest.
    """
    console, p = Console(highlight=False), profile
    console.print(
        f"{p.step:.1f} ms a step of {p.batch} images, mean of {p.steps}; "
        f"waiting for data {p.input / p.step:.1%}; "
        f"operations {p.total:.1f} ms per device ({p.devices}), summed over its threads",
        soft_wrap=True,
    )
    for title, rows in (("part", p.parts), ("layer", p.layers)):
        numbers = (*(f"{phase}, ms" for phase in PHASES), "share")
        table = Table(title, *(Column(name, justify="right") for name in numbers))
        for name, phases in sorted(rows.items(), key=lambda row: -sum(row[1].values())):
            cells = [f"{phases[phase]:.1f}" if phases[phase] else "" for phase in PHASES]
            table.add_row(name, *cells, f"{sum(phases.values()) / p.total:.1%}" if p.total else "")
        console.print(table)
    if operations:
        console.print("the longest operations:")
    for opcode, source, spent in p.operations[:operations]:
        console.print(f"{spent:9.2f} ms  {opcode}  {source[:100]}", soft_wrap=True, markup=False)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"
