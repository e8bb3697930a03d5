"""Quality against network evaluations, for every sampler: docs/samplers.md and docs/samplers.png.

    pip install '.[faces,metrics]'
    python benchmarks/samplers.py [--checkpoint=faces-16-64] [--limit=0] [--output=docs]

It takes 40 minutes on two cores, and gives means of PSNR, LPIPS (VGG) and consistency over one
sample of each held-out image. Every sampler visits the levels of the checkpoint's own schedule,
spaced in the log-SNR; "found" is the schedule that `sr3 search` has stored for that number of
evaluations. Results are kept in OUTPUT/samplers.json as they come; what is there is not computed
again.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.errors import ConfigError
from sr3_jax.evaluation import held_out
from sr3_jax.evaluation.search import Judge
from sr3_jax.images import arrays
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.runtime import parallel

COUNTS = (1, 2, 4, 8, 16, 32, 100)
SAMPLERS = {
    "ancestral": {"sampler": "ancestral", "variance": "posterior"},
    "ancestral, variance of the paper": {"sampler": "ancestral", "variance": "beta"},
    "ddim": {"sampler": "ddim"},
    "dpm_solver": {"sampler": "dpm_solver"},
    "dpm_solver, eta = 1": {"sampler": "dpm_solver", "eta": 1.0},
    "heun": {"sampler": "heun"},
    "found": {},
}
COLOURS = ("#888888", "#bbbbbb", "#1f77b4", "#d62728", "#ff9896", "#2ca02c", "#000000")
NOTES = (
    "One evaluation is the network's guess from noise alone, the same for all: "
    "nearly the regression. Along a row PSNR falls, and\n"
    "LPIPS has a minimum at about 8 evaluations. Solvers of higher order gain nothing on "
    "this network. `--steps=N` takes the\n"
    "found schedule where there is one: with 8 evaluations it is better than 100 ancestral "
    "ones in all three metrics."
)
METRICS = {
    "lpips": ("LPIPS (VGG) ↓", "{:.3f}"),
    "psnr": ("PSNR, dB ↑", "{:.2f}"),
    "consistency_db": ("consistency, dB ↑", "{:.1f}"),
}


def measure(checkpoint, limit: int, file: Path) -> dict[str, dict[str, dict[str, float]]]:
    upscaler = Upscaler(checkpoint)
    data = held_out.load(checkpoint.config, limit)
    judge = Judge(upscaler, data, np.arange(len(data.ids)))
    found = (
        json.loads(file.read_text())
        if file.exists()
        else {"checkpoint": checkpoint.name, "n": data.total, "scores": {}}
    )
    for name, fields in SAMPLERS.items():
        row = found["scores"].setdefault(name, {})
        for count in COUNTS:
            if name == "found":
                fields = checkpoint.schedules.get(str(count))
            if str(count) in row or fields is None:
                continue
            try:
                row[str(count)] = judge(count, fields)
            except ConfigError:
                continue
            file.write_text(json.dumps(found, indent=1) + "\n")
            print(
                name,
                count,
                {metric: round(row[str(count)][metric], 3) for metric in METRICS},
                flush=True,
            )
    return found


def table(found: dict, metric: str) -> str:
    title, form = METRICS[metric]
    lines = [f"| {title} | {' | '.join(map(str, COUNTS))} |", f"|---{'|---:' * len(COUNTS)}|"]
    for name, row in found["scores"].items():
        cells = [
            form.format(row[str(count)][metric]) if str(count) in row else "" for count in COUNTS
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(found: dict) -> np.ndarray:
    width, height, left, top = 430, 300, 54, 34
    sheet = Image.new("RGB", (2 * width, height + 40), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for panel, metric in enumerate(("lpips", "psnr")):
        values = [row[count][metric] for row in found["scores"].values() for count in row]
        # the few that failed are drawn at the edge, so that the others can be told apart
        low, high = np.quantile(values, [0.0, 0.85] if metric == "lpips" else [0.12, 1.0])
        x0 = panel * width + left

        def place(
            count: str, value: float, x0: int = x0, low: float = low, high: float = high
        ) -> tuple[float, float]:
            across = np.log(int(count)) / np.log(COUNTS[-1])
            up = np.clip((value - low) / (high - low), 0, 1)
            return x0 + across * (width - left - 20), top + (1 - up) * (height - top - 30)

        title = {"lpips": "LPIPS (VGG), lower is better", "psnr": "PSNR in dB, higher is better"}[
            metric
        ]
        draw.text((x0, 8), title, "black", font)
        for value in np.linspace(low, high, 4):
            x, y = place("1", value)
            draw.line([(x - 4, y), (panel * width + width - 20, y)], fill="#eeeeee")
            draw.text((x - 8, y), METRICS[metric][1].format(value), "#555555", font, anchor="rm")
        for count in COUNTS:
            draw.text(
                (place(str(count), low)[0], height - 20), str(count), "#555555", font, anchor="mm"
            )
        for row, colour in zip(found["scores"].values(), COLOURS, strict=True):
            points = [place(count, row[count][metric]) for count in row]
            if len(points) > 1:
                draw.line(points, fill=colour, width=2)
            for x, y in points:
                draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)
    for i, (name, colour) in enumerate(zip(found["scores"], COLOURS, strict=True)):
        x, y = 20 + 210 * (i % 4), height + 16 * (i // 4)
        draw.ellipse([x, y + 4, x + 6, y + 10], fill=colour)
        draw.text((x + 12, y), name, colour, font)
    return np.asarray(sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="faces-16-64")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("docs"))
    args = parser.parse_args()
    parallel.start()
    checkpoint = load_checkpoint(args.checkpoint)
    found = measure(checkpoint, args.limit, args.output / "samplers.json")
    text = [
        "# Samplers",
        f"`{found['checkpoint']}`, {found['n']} held-out images, one sample each; "
        "columns: network evaluations. Made by",
        "`python benchmarks/samplers.py`; `found` are the schedules of `sr3 search --checkpoint="
        + f"{found['checkpoint']}`.",
        "![Quality against network evaluations](samplers.png)",
        *(table(found, metric) for metric in METRICS),
        NOTES,
    ]
    (args.output / "samplers.md").write_text(
        "\n\n".join(text).replace("Made by\n\n", "Made by\n") + "\n"
    )
    arrays.write(args.output / "samplers.png", plot(found))


if __name__ == "__main__":
    main()
