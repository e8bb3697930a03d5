"""Estimates and profiles as tables for the terminal."""

from rich.console import Console
from rich.table import Table

from sr3_jax.profiling.aot import Estimate
from sr3_jax.profiling.trace import BACKWARD, FORWARD, ONCE, Profile


def show(estimate: Estimate) -> None:
    """Prints it: every number with its source."""
    console = Console(highlight=False)
    e, work = estimate, {"train": "training step", "sample": f"sampling, {estimate.network_evaluations} evaluations an image"}
    mesh = " ".join(f"{name}={size}" for name, size in e.mesh.items())
    console.print(
        f"{work[e.what]}, compiled for {e.topology}: {e.chips} chips, {e.hosts} hosts, mesh {mesh}, "
        f"{e.parameters / 1e6:.0f} M parameters, {e.images_per_chip:g} images per chip",
        soft_wrap=True,
    )
    table = Table("per chip", "estimated", "source")
    table.columns[1].justify = "right"
    for row in _rows(e):
        table.add_row(*row)
    console.print(table)
    hbm = _gib(e.hbm_bytes)
    if e.fits:
        console.print(f"fits: {_gib(e.peak_bytes)} of {hbm} estimated", soft_wrap=True)
        return
    over = e.peak_bytes - e.hbm_bytes
    console.print(f"DOES NOT FIT: {_gib(e.peak_bytes)} estimated, {_gib(over)} more than the {hbm}", soft_wrap=True)
    for line in e.advice:
        console.print(f"  --config.{line}", soft_wrap=True)


def _rows(e: Estimate) -> list[tuple[str, str, str]]:
    rows = [("parameters", _gib(e.parameter_bytes), "shapes and shardings")]
    if e.what == "train":
        rows.append(("EMA", _gib(e.ema_bytes), "shapes and shardings"))
        rows.append(("optimizer", _gib(e.optimizer_bytes), "shapes and shardings"))
    if not e.fits:
        return [*rows, ("temporaries", _gib(e.temporary_bytes), "compiler's out-of-memory message")]
    moved = ", ".join(f"{kind} {size / 1e9:.2f} GB" for kind, size in sorted(e.collective_bytes.items())) or "none"
    return [
        *rows,
        ("temporaries", _gib(e.temporary_bytes), "compiler, memory analysis"),
        ("peak memory", f"{_gib(e.peak_bytes)} of {_gib(e.hbm_bytes)}", "compiler: arguments, temporaries, outputs, program"),
        ("arithmetic of the network", f"{e.model_flops / 1e12:.2f} TFLOP", "counted in its convolutions and matrix products"),
        ("arithmetic compiled", f"{e.compiled_flops / 1e12:.2f} TFLOP", "compiler, cost analysis; bodies of loops once"),
        ("HBM traffic", f"{e.hbm_traffic / 1e9:.1f} GB", "compiled program: operands and results in HBM"),
        ("communication", moved, "compiled program: results of collectives"),
        ("matrix units", _ms(e.matrix_seconds), "arithmetic of the network / bf16 peak of the chip"),
        ("memory", _ms(e.memory_seconds), "HBM traffic / bandwidth of the chip"),
        ("roofline", e.bound, "the longer of the two"),
        ("computation", _ms(e.chip_seconds), "compiler's estimated cycles / clock"),
        ("communication", _ms(e.collective_seconds), "bytes sent / bandwidth of the links, nothing hidden"),
        ("step", _ms(e.step_seconds), "computation + communication"),
        ("MFU", f"{e.mfu:.1%}", "matrix units / step"),
        ("compilation", f"{e.compile_seconds:.0f} s", "measured here"),
    ]


def show_profile(profile: Profile, operations: int) -> None:
    """Prints it: where the time of a step goes, by part of the network and by kind of layer, and the longest operations."""
    console, p = Console(highlight=False), profile
    console.print(
        f"{p.step:.1f} ms a step of {p.batch} images, mean of {p.steps}; waiting for data {p.input / p.step:.1%}; "
        f"operations {p.total:.1f} ms per device ({p.devices}), summed over its threads",
        soft_wrap=True,
    )
    for title, rows in (("part", p.parts), ("layer", p.layers)):
        table = Table(title, "forward, ms", "backward, ms", "once, ms", "share")
        for column in table.columns[1:]:
            column.justify = "right"
        for name, phases in sorted(rows.items(), key=lambda row: -sum(row[1].values())):
            cells = [f"{phases[phase]:.1f}" if phases[phase] else "" for phase in (FORWARD, BACKWARD, ONCE)]
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
