"""Results as a table, as JSON and as a picture."""

import itertools
import json
import platform
import sys
import textwrap
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from jaxtyping import UInt8
from rich import box
from rich.console import Console
from rich.table import Table

from sr3_jax.errors import UserError
from sr3_jax.images import arrays
from sr3_jax.runtime.atomic import write_text
from sr3_jax.runtime.paths import AnyPath

Results = dict[str, Any]  # what results.json holds
FILES = ("results.json", "table.md", "grid.png")
# Of two results of one measurement these are alike
SAME = ("protocol", "data", "contenders", "seed")
FEW = 2048  # images; FID's covariance has as many dimensions
# Of each metric, the title of its column (with an arrow to the better side) and its format
COLUMNS = {
    "psnr": ("PSNR ↑", "{:.2f}"),
    "psnr_hole": ("PSNR of the hole ↑", "{:.2f}"),
    "ssim": ("SSIM ↑", "{:.3f}"),
    "psnr_y": ("PSNR (Y) ↑", "{:.2f}"),
    "ssim_y": ("SSIM (Y) ↑", "{:.3f}"),
    "consistency_mse_1e5": ("consistency ×1e-5 ↓", "{:.2f}"),
    "consistency_db": ("consistency dB ↑", "{:.1f}"),
    "lpips_vgg": ("LPIPS (VGG) ↓", "{:.3f}"),
    "lpips_alexnet": ("LPIPS (AlexNet) ↓", "{:.3f}"),
    "dists": ("DISTS ↓", "{:.3f}"),
    "ciede2000": ("CIEDE2000 ↓", "{:.2f}"),
    "colourfulness": ("colourfulness", "{:.1f}"),
    "niqe": ("NIQE ↓", "{:.2f}"),
    "crops_kd": ("KD of crops ↓", "{:.4f}"),
    "fid": ("FID ↓", "{:.2f}"),
    "kid": ("KID ↓", "{:.5f}"),
    "fd": ("FD ↓", "{:.2f}"),
    "kd": ("KD ↓", "{:.5f}"),
    "cas": ("CAS ↑", "{:.3f}"),
    "as_asked": ("as asked ↑", "{:.3f}"),
    "inception_score": ("IS ↑", "{:.1f}"),
    "precision": ("precision ↑", "{:.3f}"),
    "recall": ("recall ↑", "{:.3f}"),
    "top_1": ("top-1 ↑", "{:.3f}"),
    "top_5": ("top-5 ↑", "{:.3f}"),
    "rank_1": ("rank-1 ↑", "{:.2f}"),
    "cosine": ("cosine ↑", "{:.3f}"),
    "diversity_lpips": ("LPIPS among samples", "{:.3f}"),
    "diversity_deviation": ("deviation of samples", "{:.2f}"),
    "spread_to_error": ("spread / error → 1", "{:.2f}"),
    "coverage": ("coverage", "{:.2f}"),
    "seconds_per_megapixel": ("s / megapixel ↓", "{:.2f}"),
}
Methods = Mapping[str, Mapping[str, float]]  # values by row and metric


def versions() -> dict[str, str]:
    """The versions of the packages that the numbers were computed with."""
    return {name: version(name) for name in ("sr3_jax", "jax", "flax", "numpy", "pillow")} | {
        "python": platform.python_version()
    }


def rows(
    methods: Methods, columns: Sequence[str] = (), paper: Methods | None = None
) -> list[list[str]]:
    """The cells of the table, its header first.

    Args:
      methods: Our rows.
      columns: The metrics to show (none: all). Those that none of `methods` has are left out.
      paper: Published rows, which come last.
    """
    wanted = [
        key for key in columns or COLUMNS if any(key in values for values in methods.values())
    ]
    header = ["method"] + [COLUMNS[key][0] for key in wanted]
    return [header] + [
        [name] + [COLUMNS[key][1].format(values[key]) if key in values else "–" for key in wanted]
        for name, values in [*methods.items(), *(paper or {}).items()]
    ]


def markdown(methods: Methods, columns: Sequence[str] = (), paper: Methods | None = None) -> str:
    """The table in Markdown; see `rows`."""
    header, *body = rows(methods, columns, paper)
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *body))


def show(results: Results) -> None:
    """Prints the table to the terminal.

    If it is too wide, it is printed in several parts, one below the other.
    """
    console = Console()
    names, *left = zip(*rows(results["methods"], results["columns"], results["paper"]), strict=True)
    room = console.width - max(map(len, names)) - 4
    while left:
        part: list[tuple[str, ...]] = []
        while left and (not part or sum(map(_width, part)) + _width(left[0]) <= room):
            part.append(left.pop(0))
        table = Table(box=box.SIMPLE)
        table.add_column(names[0], no_wrap=True)
        for column in part:
            table.add_column(
                textwrap.fill(column[0], _width(column) - 3), justify="right", no_wrap=True
            )
        for row in list(zip(names, *part, strict=True))[1:]:
            table.add_row(*row)
        console.print(table)


def _width(column: Sequence[str]) -> int:
    """The width of a column with its margins when its title is broken between words."""
    return 3 + max(len(word) for text in column for word in text.split())


def left_out(results: Results) -> list[str]:
    """A line for each metric that was not measured: which, and why."""
    reasons = results.get("not_measured", {})
    return [f"{metric} is left out: {reason}" for metric, reason in reasons.items()]


def footnote(results: Results) -> str:
    """What belongs under the table: the images, and the networks behind the numbers."""
    parts = [f"{results['title']}: {results['n']} images"]
    for name, about in results["networks"].items():
        words = about.items() if isinstance(about, Mapping) else [("", about)]
        parts.append(
            f"{name}: "
            + ", ".join(f"{key} {value}".strip() for key, value in words if value is not None)
        )
    return " ".join(["; ".join(parts) + ".", *results.get("warnings", [])])


def against_the_best(results: Results) -> str:
    """How a table's network differs from its best rival, in each metric; or nothing.

    The same network is no rival, with other evaluations or told what was done to the images.
    """
    if not results.get("differences"):
        return ""
    row, minus = results["differences"]["of"], results["differences"]["minus"]
    network = results["contenders"][row]["parameters"]
    others = [
        name
        for name, about in results["contenders"].items()
        if name in minus and about.get("parameters") != network
    ]
    shown = []
    for metric in results["columns"] or COLUMNS:
        title, form = COLUMNS[metric]
        rivals = [name for name in others if metric in minus[name]]
        if not rivals or title[-1] not in "↑↓":
            continue
        best = max if title[-1] == "↑" else min
        rival = best(rivals, key=lambda name: results["methods"][name][metric])
        mean, low, high = (form.format(value).replace("-", "−") for value in minus[rival][metric])
        shown.append(f"{title[:-2]} {mean} ({low} … {high}) against {rival}")
    return (
        f"{row} minus its best rival, image by image, with 95 % intervals (bootstrap over "
        f"{results['intervals_over']}): {'; '.join(shown)}."
        if shown
        else ""
    )


def warnings(methods: Mapping[str, Mapping[str, float]], n: int) -> list[str]:
    """What must be known of numbers of so few images, as sentences."""
    sets = [name for name in ("fid", "kid") if any(name in row for row in methods.values())]
    if not sets or n >= FEW:
        return []
    return [
        f"{' and '.join(name.upper() for name in sets)} of {n:,} images are biased: with so few "
        "they are to be compared with those of as many images only, if at all."
    ]


def check_folder(folder: AnyPath) -> None:
    """Raises UserError if `save` would replace files that are none of ours."""
    if any((folder / name).exists() for name in ("results.json", "chunks")):  # a run of ours
        return
    for name in FILES[1:]:
        if (folder / name).exists():
            raise UserError(
                f"{folder / name} exists without a results.json beside it, so it is not ours to "
                "replace; choose another --output"
            )


def _keep_earlier(folder: AnyPath, results: Results) -> None:
    """Moves the results of another measurement in the folder aside, and says so."""
    try:
        earlier = json.loads((folder / "results.json").read_text())
        alike = all(earlier.get(key) == results.get(key) for key in SAME)
    except FileNotFoundError:
        return
    except ValueError:  # it was edited, or is not ours
        alike = False
    if alike:
        return
    aside = next(
        folder / f"earlier-{number}"
        for number in itertools.count(1)
        if not (folder / f"earlier-{number}").exists()
    )
    aside.mkdir(parents=True)
    for name in FILES:
        if (folder / name).exists():
            (aside / name).write_bytes((folder / name).read_bytes())
    print(f"the earlier results, of another measurement, are kept in {aside}", file=sys.stderr)


def save(
    folder: AnyPath, results: Results, picture: UInt8[np.ndarray, "h w c"] | None = None
) -> None:
    """Writes results.json, table.md and, if there is a picture, grid.png into `folder`.

    Results of another measurement that are there are kept in a sub-folder.
    """
    _keep_earlier(folder, json.loads(json.dumps(results)))
    write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
    table = markdown(results["methods"], results["columns"], results["paper"])
    text = f"{table}\n{footnote(results)}\n"
    if against := against_the_best(results):
        text += f"\n{against}\n"
    write_text(folder / "table.md", text)
    if picture is not None:
        arrays.write(folder / "grid.png", picture)
