"""A line for the diary of the long run, docs/models.md: how far it is, and how good.

How good is measured on the validation set. It takes five minutes beside the run itself.

    python benchmarks/diary.py [runs/photos-4x] [--data=runs/photos-256]
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
PAGE, END = ROOT / "docs" / "models.md", "<!-- end of the diary -->"
RECENT = 1000  # steps over which the loss is averaged


def sr3(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "sr3_jax", *arguments], cwd=ROOT, check=True)


def progress(workdir: Path) -> tuple[int, float, float]:
    """(step, hours, recent mean loss) by a run's log.

    The hours are those spent in steps, without the times when the run was held up.
    """
    lines = [json.loads(line) for line in (workdir / "stats.jsonl").read_text().splitlines()]
    # a step that was done again counts once
    logged = {line["step"]: line for line in lines if "loss" in line}
    seconds, before = 0.0, 0
    usual = float(
        np.median(
            [line["seconds_per_step"] for line in logged.values() if "seconds_per_step" in line]
        )
    )
    for step, line in sorted(logged.items()):
        seconds += min(line.get("seconds_per_step", 0.0), 3 * usual) * (step - before)
        before = step
    loss = np.mean([line["loss"] for step, line in logged.items() if step > before - RECENT])
    return before, seconds / 3600, float(loss)


def row(workdir: Path, data: str, steps: int) -> str:
    """The line, as Markdown."""
    step, hours, loss = progress(workdir)
    folder = ROOT / "runs" / "diary" / str(step)
    refiner, predictor = folder / "photos.safetensors", folder / "photos-predictor.safetensors"
    for flag, file in ((), refiner), (("--predictor",), predictor):
        sr3("export", f"--checkpoint={workdir}", *flag, f"--output={file}", "--overwrite")
    given = [f"--checkpoint={file}" for file in (predictor, refiner)]
    sr3(
        "evaluate",
        "--protocol=validation",
        f"--data={data}",
        *given,
        f"--steps={steps}",
        f"--output={folder}",
    )
    methods = json.loads((folder / "results.json").read_text())["methods"]
    guess = next(values for name, values in methods.items() if name.startswith("regression"))
    sample = next(values for name, values in methods.items() if name.startswith("SR3"))
    cells = [
        f"{values['psnr']:.2f}, {values['lpips_vgg']:.3f}, {values['lpips_alexnet']:.3f}"
        for values in (guess, sample)
    ]
    return (
        f"| {time.strftime('%Y-%m-%d')} | {step:,} | {hours:.1f} | {loss:.3f} | {cells[0]} "
        f"| {cells[1]} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdir", nargs="?", type=Path, default=ROOT / "runs" / "photos-4x")
    parser.add_argument("--data", default=str(ROOT / "runs" / "photos-256"))
    parser.add_argument("--steps", type=int, default=4, help="network evaluations of the sample")
    options = parser.parse_args()
    line = row(options.workdir, options.data, options.steps)
    print(line)
    text = PAGE.read_text()
    if text.count(END) != 1:
        raise SystemExit(f"{PAGE} has no place for the line: {END!r} must stand in it once")
    PAGE.write_text(text.replace(END, f"{line}\n{END}"))


if __name__ == "__main__":
    main()
