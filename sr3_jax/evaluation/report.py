"""Results as a table, as JSON and as a picture."""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
from jaxtyping import UInt8
from rich import box
from rich.console import Console
from rich.table import Table

from sr3_jax import images
from sr3_jax.checkpoints import write_text
from sr3_jax.paths import AnyPath

Results = dict[str, Any]
COLUMNS = {
    "psnr": ("PSNR ↑", "{:.2f}"),
    "ssim": ("SSIM ↑", "{:.3f}"),
    "consistency_mse_1e5": ("consistency ×1e-5 ↓", "{:.2f}"),
    "consistency_db": ("consistency dB ↑", "{:.1f}"),
    "lpips_vgg": ("LPIPS (VGG) ↓", "{:.3f}"),
    "lpips_alexnet": ("LPIPS (AlexNet) ↓", "{:.3f}"),
    "fid": ("FID ↓", "{:.2f}"),
    "kid": ("KID ↓", "{:.5f}"),
}


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    return {name: version(name) for name in ("sr3_jax", "jax", "flax", "numpy", "pillow")} | {
        "python": platform.python_version()
    }


def rows(methods: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """The table's cells, header first; of the metrics that every method has."""
    columns = {key: column for key, column in COLUMNS.items() if all(key in values for values in methods.values())}
    header = ["method"] + [title for title, _ in columns.values()]
    return [header] + [
        [name] + [form.format(values[key]) for key, (_, form) in columns.items()] for name, values in methods.items()
    ]


def markdown(methods: Mapping[str, Mapping[str, float]]) -> str:
    """The table in Markdown."""
    header, *body = rows(methods)
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *body))


def show(methods: Mapping[str, Mapping[str, float]]) -> None:
    """Prints the table to the terminal."""
    header, *body = rows(methods)
    table = Table(box=box.SIMPLE)
    for i, title in enumerate(header):
        table.add_column(title, justify="right" if i else "left")
    for row in body:
        table.add_row(*row)
    Console().print(table)


def save(folder: AnyPath, results: Results, picture: UInt8[np.ndarray, "h w c"] | None = None) -> None:
    """Writes results.json, table.md and, if there is a picture, grid.png into `folder`."""
    write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
    write_text(folder / "table.md", markdown(results["methods"]))
    if picture is not None:
        images.write(folder / "grid.png", picture)
