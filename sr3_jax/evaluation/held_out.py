"""The held-out split: PSNR, SSIM and consistency of checkpoints and of bicubic, during training and after it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree, UInt8
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import Progress, TaskID

from sr3_jax import config as config_lib
from sr3_jax import parallel, sheet
from sr3_jax.checkpoints import Checkpoint
from sr3_jax.data import degradations
from sr3_jax.data.pipeline import load_evaluation
from sr3_jax.data.sources import converted, open_source
from sr3_jax.errors import UserError
from sr3_jax.evaluation import metrics, report
from sr3_jax.inference.upscaler import Upscaler


class HeldOut(NamedTuple):
    """Images that no network was trained on, this process's share; their LR versions are as 8-bit files would hold them."""

    hr: UInt8[np.ndarray, "n h h c"]
    lr: UInt8[np.ndarray, "n l l c"]
    names: list[str]
    ids: list[int]
    rows: Int[np.ndarray, " n"]  # their places in the whole split
    total: int  # of the whole split
    notes: list[tuple[str, ...]]  # what was converted when each was read

    @property
    def bicubic(self) -> UInt8[np.ndarray, "n h h c"]:
        """The baseline: LR enlarged by bicubic, rounded."""
        return uint8(degradations.upsample(degradations.to_float(jnp.asarray(self.lr)), self.hr.shape[1]))

    def mean(self, values: np.ndarray) -> float:
        """The mean over the whole split of one value an image."""
        return float(parallel.combine(values, self.rows, self.total).mean())

    @property
    def converted(self) -> str:
        """What was converted in the whole split, in words."""
        notes = np.array(["\n".join(notes).encode() for notes in self.notes], "S256")
        return converted(both.decode().split("\n") if both else () for both in parallel.combine(notes, self.rows, self.total))

    def shown(self, count: int) -> Int[np.ndarray, " k"]:
        """Which of this process's images are among `count` spread over the whole split."""
        return np.flatnonzero(np.isin(self.rows, self._spread(count)))

    def collect(self, images: np.ndarray, count: int) -> np.ndarray:
        """The `count` images shown, in order, from this process's `images` of them."""
        spread = self._spread(count)
        return parallel.combine(images, np.searchsorted(spread, self.rows[self.shown(count)]), len(spread))

    def _spread(self, count: int) -> np.ndarray:
        return np.linspace(0, self.total, min(count, self.total), endpoint=False).astype(int)


def uint8(images: np.ndarray | Array) -> np.ndarray:
    """[-1, 1] to uint8, on the host."""
    return np.asarray(degradations.to_uint8(jnp.asarray(images)))


def load(config: ConfigDict, limit: int = 0) -> HeldOut:
    """The config's held-out images (0: all of them), degraded by its degradation; raises UserError."""
    if config.data.hr_size < 11:
        raise UserError(f"data.hr_size = {config.data.hr_size} must be at least 11 to be evaluated: that is the window of SSIM")
    data = load_evaluation(open_source(config, "eval"), config, limit)
    lr = degradations.degrade(degradations.to_float(jnp.asarray(data.images)), config.data.lr_size)
    return HeldOut(data.images, uint8(lr), data.names, data.ids.tolist(), data.rows, data.total, data.notes)


def mean_scores(images: np.ndarray, held_out: HeldOut) -> dict[str, float]:
    """The mean of each metric over the whole split, from this process's images."""
    return {name: held_out.mean(values) for name, values in metrics.scores(images, held_out.hr, held_out.lr).items()}


def during_training(config: ConfigDict) -> Callable[[PyTree], tuple[dict[str, float], np.ndarray]]:
    """The function that training calls with its EMA parameters: held-out metrics, and a grid of pictures."""
    held_out, count = load(config, config.train.evaluate_images), config.train.sample_images
    empty = Checkpoint(config, {}, 0, "training")
    upscaler = Upscaler(empty, batch_size=max(1, min(16, len(held_out.ids))))

    def evaluate(params: PyTree) -> tuple[dict[str, float], np.ndarray]:
        upscaler.set_params(params)  # same shapes: no compilation but the first
        sr, shown = uint8(upscaler.batch(held_out.lr, held_out.ids)), held_out.shown(count)
        columns = {"LR": held_out.lr, "bicubic": held_out.bicubic, "output": sr, "HR": held_out.hr}
        return mean_scores(sr, held_out), sheet.grid(
            {title: held_out.collect(batch[shown], count) for title, batch in columns.items()}
        )

    return evaluate


def evaluate(
    checkpoints: Sequence[Checkpoint],
    *,
    samples: int = 1,
    steps: int | None = None,
    seed: int = 0,
    limit: int = 0,
    shown: int = 8,
) -> tuple[report.Results, np.ndarray]:
    """Results, as results.json holds them, and a picture: of bicubic and each checkpoint on the held-out split of the first.

    The metrics of SR3 are those of one sample; with `samples` > 1 it also gets a row for the mean of them. The picture shows
    three samples. Raises UserError when the checkpoints do not share their data and sizes.
    """
    config = checkpoints[0].config
    for other in checkpoints[1:]:
        for field in ("data.source", "data.hr_size", "data.lr_size", "model.image_channels"):
            ours, theirs = config_lib.get(config, field), config_lib.get(other.config, field)
            if ours != theirs:
                raise UserError(f"{checkpoints[0].name} and {other.name} cannot share a table: {field} is {ours} and {theirs}")
    held_out = load(config, limit)
    rows = held_out.shown(shown)
    methods = {"bicubic": mean_scores(held_out.bicubic, held_out)}
    columns = {"LR": held_out.lr[rows], "bicubic": held_out.bicubic[rows]}
    steps_of = {}
    for checkpoint in checkpoints:
        upscaler = Upscaler(checkpoint)
        regression = upscaler.method.regression
        name = "regression" if regression else "SR3"
        if name in methods:
            name = f"{name} ({checkpoint.name})"
        draws = 1 if regression else samples
        batches = []
        with Progress(console=Console(stderr=True), transient=True, disable=not parallel.is_main()) as progress:
            task = progress.add_task(name, total=draws * len(held_out.ids))

            def advance(count: int, progress: Progress = progress, task: TaskID = task) -> None:
                progress.advance(task, count)

            for i in range(draws):
                batches.append(upscaler.batch(held_out.lr, held_out.ids, seed=seed, sample=i, steps=steps, on_batch=advance))
        methods[name] = mean_scores(uint8(batches[0]), held_out) | {"step": checkpoint.step}
        if draws > 1:
            methods[f"{name}, mean of {draws}"] = mean_scores(uint8(np.mean(batches, axis=0)), held_out)
        if regression:
            columns[name] = uint8(batches[0])[rows]
            continue
        steps_of[name] = steps or checkpoint.config.sample.steps
        ids = [held_out.ids[i] for i in rows]
        for i in range(3):
            shown_batch = (
                batches[i][rows] if i < draws else upscaler.batch(held_out.lr[rows], ids, seed=seed, sample=i, steps=steps)
            )
            columns[f"{name}, {i + 1}"] = uint8(shown_batch)
    columns["HR"] = held_out.hr[rows]
    results = {
        "protocol": "held_out",
        "source": config.data.source,
        "n": held_out.total,
        "converted": held_out.converted,
        "step": checkpoints[0].step,
        "seed": seed,
        "network_evaluations": steps_of,
        "versions": report.versions(),
        "methods": methods,
    }
    labels = np.array([held_out.names[i].encode() for i in rows], "S256")
    return results, sheet.grid(
        {title: held_out.collect(batch, shown) for title, batch in columns.items()},
        names=[label.decode(errors="replace") for label in held_out.collect(labels, shown)],
    )
