"""Recipes for photographs, 4×, trained for the same time and judged on the validation set.

They are the second part of docs/ablations.md.

    sr3 prepare photos --output=runs/photos-256 --encoding=raw
    pip install '.[metrics]'
    python benchmarks/trials.py "predict and refine" …    # these trials; without names, all
    python benchmarks/trials.py --list
    python benchmarks/trials.py --write                   # the page again, from docs/trials.json

A trial trains for MINUTES: it measures its own seconds a step, takes as many steps as fit, and the
rate falls to zero at the last. So trials of unlike networks end alike. What else runs on the
machine must be the same for those that are compared. On a busy machine, --training-steps makes
trials whose steps cost the same comparable.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from sr3_jax.evaluation.measure import interval

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "docs" / "trials.json"
RUNS = ROOT / "runs" / "trials"
PHOTOS = ROOT / "runs" / "photos-256"
MINUTES, PROBE = 20, 40  # of training; steps to measure the pace by
METRICS = {
    "psnr": ("PSNR, dB", "{:.2f}"),
    "lpips_vgg": ("LPIPS (VGG)", "{:.3f}"),
    "lpips_alexnet": ("LPIPS (AlexNet)", "{:.3f}"),
}


class Trial(NamedTuple):
    config: str
    fields: Mapping[str, Any] = MappingProxyType({})
    steps: int = 4  # evaluations by which it is judged


REFINE, UNET = "configs/photos_4x.py", "configs/photos_4x_restore.py"
CLEAN = {  # as photos-4x-restore began
    **{"data.hr_size": 64, "data.lr_size": 16, "train.batch_size": 16, "train.learning_rate": 4e-4},
    **{"task.noise": 0.0, "task.blur": 0.0, "task.tell_blur": False},
}
TRIALS = {
    "U-Net on the LR grid": Trial(UNET, CLEAN, 8),
    "predict and refine": Trial(REFINE),
    "another seed": Trial(REFINE, {"seed": 1}),
    "a third seed": Trial(REFINE, {"seed": 2}),
    "L1 loss of the denoiser": Trial(REFINE, {"train.loss": "l1"}),
    "no quarter turns": Trial(REFINE, {"data.turn": False}),
    "no features handed on": Trial(REFINE, {"model.feature_channels": 0}),
    "convolutions of 64 channels": Trial(
        REFINE,
        {
            "model.channels": 64,
            "model.blocks": 12,
            "model.predictor_channels": 64,
            "model.predictor_blocks": 16,
        },
    ),
    "convolutions of 256 channels": Trial(
        REFINE,
        {
            "model.channels": 256,
            "model.blocks": 2,
            "model.predictor_channels": 256,
            "model.predictor_blocks": 3,
        },
    ),
    "squares of 128": Trial(
        REFINE, {"data.hr_size": 128, "data.lr_size": 32, "train.batch_size": 4}
    ),
    "squares of 64": Trial(
        REFINE, {"data.hr_size": 64, "data.lr_size": 16, "train.batch_size": 16}
    ),
    "half the learning rate": Trial(REFINE, {"train.learning_rate": 2e-4}),
}


CHOSEN = (
    "Chosen: predict and refine, which is better than the U-Net in half of its evaluations. The "
    "denoiser keeps the L2 loss: L1",
    "gives 0.1 dB, and loses more of the texture than that is worth (LPIPS by AlexNet).",
)


def sr3(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "sr3_jax", *arguments], cwd=ROOT, check=True)


def train(name: str, trial: Trial, steps: int = 0) -> tuple[Path, int]:
    """Trains, or finds, a trial's network; its workdir and steps."""
    workdir = RUNS / "".join(letter if letter.isalnum() else "-" for letter in name)
    fields = {
        "train.ema_decay": 0.995,
        "train.evaluate_every": 10**9,
        "train.evaluate_images": 2,
        **trial.fields,
    }

    def run(place: Path, steps: int) -> None:
        ending = fields | {
            "train.steps": steps,
            "train.learning_rate_schedule": "cosine",
            "train.log_every": 10,
        }
        flags = [f"--config.{field}={value}" for field, value in ending.items()]
        sr3("train", f"--config={trial.config}", f"--workdir={place}", *flags)

    if steps:
        run(workdir, steps)
        return workdir, steps
    paced = workdir.with_name(f"{workdir.name}-pace")
    run(paced, PROBE)
    lines = [json.loads(line) for line in (paced / "stats.jsonl").read_text().splitlines()]
    pace = float(
        np.median([line["seconds_per_step"] for line in lines if "seconds_per_step" in line][1:])
    )
    steps = round(60 * MINUTES / pace)
    run(workdir, steps)
    return workdir, steps


def measure(name: str, trial: Trial, steps: int) -> None:
    """Keeps the values of every image in docs/trials.json."""
    minutes = None if steps else MINUTES
    workdir, steps = train(name, trial, steps)
    output = workdir / "validation"
    flags = [
        "--protocol=validation",
        f"--data={PHOTOS}",
        f"--checkpoint={workdir}",
        f"--steps={trial.steps}",
    ]
    sr3("evaluate", *flags, f"--output={output}")
    results = json.loads((output / "results.json").read_text())
    row = next(
        row for row, about in results["contenders"].items() if about.get("objective") == "sr3"
    )
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    values = results["per_image"][row]
    kept[name] = {
        "minutes": minutes,
        "steps": steps,
        "evaluations": trial.steps,
        "per_image": {
            id: {metric: float(f"{scores[metric]:.5g}") for metric in METRICS}
            for id, scores in values.items()
        },
    }
    KEPT.write_text(json.dumps(kept, separators=(",", ":")) + "\n")


def section() -> str:
    """The part of docs/ablations.md on photographs."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    lines = [
        "## Photographs, 4×",
        "",
        "Trained from nothing on two cores, the rate falling to zero, and judged on the "
        "validation set (100",
        "squares of 18 photographs, 32 → 128, one sample each). Lines with minutes were trained "
        "for the same time; those without,",
        "on a busy machine, for the same number of steps. Differences are to the first line of "
        "either kind,",
        "photograph by photograph, with 95 % intervals. Made by `python benchmarks/trials.py`.",
        "",
        "| trial | minutes | steps | evaluations | "
        + " | ".join(f"{title} | difference" for title, _ in METRICS.values())
        + " |",
        "|---|---:|---:|---:|" + "---:|---:|" * len(METRICS),
    ]
    bases: dict[bool, dict[str, np.ndarray]] = {}
    for name, trial in kept.items():
        base = bases.get(bool(trial["minutes"]))
        photographs: dict[str, list[dict[str, float]]] = {}
        for id, scores in trial["per_image"].items():
            photographs.setdefault(id.partition("#")[0], []).append(scores)
        means = {
            metric: np.array([np.mean([one[metric] for one in of]) for of in photographs.values()])
            for metric in METRICS
        }
        cells = []
        for metric, (_, form) in METRICS.items():
            said = ""
            if base is not None:
                difference = means[metric] - base[metric]
                low, high = interval(difference)
                said = (
                    f"{form.format(difference.mean())} ({form.format(low)} … {form.format(high)})"
                ).replace("-", "−")
            cells += [form.format(means[metric].mean()), said]
        lines.append(
            f"| {name} | {trial['minutes'] or '–'} | {trial['steps']} | {trial['evaluations']} "
            f"| {' | '.join(cells)} |"
        )
        bases.setdefault(bool(trial["minutes"]), means)
    return "\n".join([*lines, "", *CHOSEN, ""])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="TRIAL")
    parser.add_argument("--list", action="store_true", help="the trials' names")
    parser.add_argument(
        "--training-steps",
        type=int,
        default=0,
        help="so many for each, instead of measuring the pace: on a busy machine, "
        "for trials whose steps cost the same",
    )
    parser.add_argument("--write", action="store_true", help="the page alone")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in TRIALS]:
        parser.error(f"{unknown[0]!r} is no trial; --list names them")
    if options.list:
        print("\n".join(TRIALS))
        return
    for name in [] if options.write else options.names or TRIALS:
        measure(name, TRIALS[name], options.training_steps)
    page = ROOT / "docs" / "ablations.md"
    before = page.read_text().partition("## Photographs, 4×")[0]
    page.write_text(f"{before.rstrip()}\n\n{section()}")


if __name__ == "__main__":
    main()
