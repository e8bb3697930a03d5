"""The pictures of docs/schedules.md.

They show noise schedules, the levels that sampling visits, and what each sampler makes of one face.

    pip install '.[faces,notebooks]'
    python benchmarks/schedules.py [--output=docs/schedules]     # 2 minutes on two cores
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from sr3_jax import config as config_lib
from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.diffusion.schedules import NoiseSchedule
from sr3_jax.errors import ConfigError
from sr3_jax.evaluation import held_out
from sr3_jax.images import arrays, sheet
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.method import sampling_steps
from sr3_jax.objectives.levels import sampling_schedule, training_schedule
from sr3_jax.runtime import parallel
from sr3_jax.tasks.operations import to_uint8

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TRAINING = {"linear, the base": "linear", "cosine": "cosine", "log_snr": "log_snr"}
VISITED: dict[str, dict[str, Any]] = {
    "linear, 100": {"schedule": "linear", "steps": 100},
    "linear": {"schedule": "linear"},
    "respaced": {"schedule": "respaced"},
    "log_snr": {"schedule": "log_snr"},
    "log_snr, rho = 7": {"schedule": "log_snr", "rho": 7.0},
    "log_snr, rho = 2": {"schedule": "log_snr", "rho": 2.0},
}
SAMPLERS: dict[str, dict[str, Any]] = {  # the slash breaks the line
    "ancestral/posterior": {"sampler": "ancestral", "variance": "posterior"},
    "ancestral/beta": {"sampler": "ancestral", "variance": "beta"},
    "ddim": {"sampler": "ddim"},
    "ddim/eta = 1": {"sampler": "ddim", "eta": 1.0},
    "dpm_/solver": {"sampler": "dpm_solver"},
    "heun": {"sampler": "heun"},
    "found": {},
}
COUNTS = (1, 2, 4, 8, 16, 32)


def log_snr(schedule: NoiseSchedule) -> np.ndarray:
    return np.log(
        np.asarray(schedule.gamma[1:], np.float64)
        / np.asarray(schedule.one_minus_gamma[1:], np.float64)
    )


def training(path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for title, name in TRAINING.items():
        config = config_lib.base()
        config.schedule.name = name
        schedule = training_schedule(config)
        t = np.arange(1, schedule.steps + 1) / schedule.steps
        left.plot(t, np.asarray(schedule.gamma[1:]), label=title)
        right.plot(t, log_snr(schedule), label=title)
    left.set(xlabel="t / T", ylabel="γ", title="share of the image in the variance of y_t")
    right.set(
        xlabel="t / T", ylabel="log-SNR, log γ / (1 − γ)", title="the same, as the network is told"
    )
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend()
    figure.savefig(path, dpi=100)


def visited(path: Path) -> None:
    figure, axes = plt.subplots(figsize=(9, 2.8), layout="constrained")
    for row, fields in enumerate(VISITED.values()):
        config = config_lib.base()
        config.sample.steps = 8
        config.sample.update(fields)
        levels = log_snr(sampling_schedule(config, config.sample.steps))
        axes.plot(
            levels,
            np.full(len(levels), -row),
            "o",
            markersize=3 if len(levels) > 8 else 6,
            color=f"C{row}",
        )
    axes.set(xlabel="log-SNR of the levels visited: noise on the left, the image on the right")
    axes.set_yticks(-np.arange(len(VISITED)), list(VISITED))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def samples(path: Path, face: int) -> None:
    checkpoint = load_checkpoint("faces-16-64")
    upscaler, data = Upscaler(checkpoint), held_out.load(checkpoint.config, 0)
    columns: dict[str, list[np.ndarray]] = {}
    for count in COUNTS:
        columns[f"{count}"] = []
        for name, fields in SAMPLERS.items():
            changes = checkpoint.schedules.get(str(count)) if name == "found" else fields
            try:
                table = sampling_steps(checkpoint.config, count, changes)
            except ConfigError:
                table = None
            if changes is None or table is None or table.evaluations > count:
                columns[f"{count}"].append(np.full((64, 64, 1), 255, np.uint8))
                continue
            made = upscaler.trial(data.lr[face : face + 1], data.ids[face : face + 1], table)
            columns[f"{count}"].append(np.asarray(to_uint8(made))[0])
    columns["HR"] = [np.asarray(data.hr[face])] * len(SAMPLERS)
    arrays.write(path, sheet.grid(columns, cell=96, names=list(SAMPLERS)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("docs/schedules"))
    parser.add_argument("--face", type=int, default=0, help="which of the held-out images")
    options = parser.parse_args()
    parallel.start()
    options.output.mkdir(parents=True, exist_ok=True)
    training(options.output / "training.png")
    visited(options.output / "visited.png")
    samples(options.output / "samples.png", options.face)


if __name__ == "__main__":
    main()
