"""The held-out images, all in memory.

Training measures PSNR, SSIM and consistency on them, and a search of noise levels judges by them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PyTree, UInt8
from ml_collections import ConfigDict

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.config import SAME_SIZE
from sr3_jax.data.pipeline import load_evaluation
from sr3_jax.data.sources import open_source
from sr3_jax.errors import UserError
from sr3_jax.evaluation import samples
from sr3_jax.evaluation.contenders import to_uint8
from sr3_jax.images import sheet
from sr3_jax.inference.engine import Engine
from sr3_jax.inference.sampling import Sampling
from sr3_jax.method import image_key
from sr3_jax.metrics import distortion
from sr3_jax.runtime import parallel
from sr3_jax.tasks import build_task, operations
from sr3_jax.tasks.labels import labelled
from sr3_jax.tasks.task import Given, Task


class HeldOut(NamedTuple):
    """Images that no network was trained on: this process's share of them.

    The LR images are rounded to 8 bits, as files would hold them.
    """

    hr: UInt8[np.ndarray, "n h h c"]
    lr: UInt8[np.ndarray, "n l l c"]
    signals: dict[str, np.ndarray]  # what the network is told of each LR image, (n,) by name
    names: list[str]
    ids: list[int]
    rows: Int[np.ndarray, " n"]  # their places in the whole split
    total: int  # of the whole split

    @property
    def bicubic(self) -> UInt8[np.ndarray, "n h h c"]:
        """The baseline: LR images enlarged by bicubic, rounded to 8 bits.

        Inputs of the result's size are as they are; of a mask only the image is shown.
        """
        image = operations.to_float(jnp.asarray(self.lr))
        enlarged = operations.resize(image, *self.hr.shape[1:3])
        return to_uint8(jnp.broadcast_to(enlarged[..., : self.hr.shape[-1]], self.hr.shape))

    def mean(self, values: np.ndarray) -> float:
        """The mean over the whole split, from one value for each of this process's images."""
        return float(parallel.combine(values, self.rows, self.total).mean())

    def shown(self, count: int) -> Int[np.ndarray, " k"]:
        """Which of this process's images are among `count` spread evenly over the whole split."""
        return np.flatnonzero(np.isin(self.rows, self._spread(count)))

    def collect(self, images: np.ndarray, count: int) -> np.ndarray:
        """The `count` images that are shown, in order, gathered from all processes.

        `images` are this process's part of them, those that `shown` tells.
        """
        spread = self._spread(count)
        return parallel.combine(
            images, np.searchsorted(spread, self.rows[self.shown(count)]), len(spread)
        )

    def _spread(self, count: int) -> np.ndarray:
        return np.linspace(0, self.total, min(count, self.total), endpoint=False).astype(int)


def load(config: ConfigDict, limit: int = 0, split: str = "eval") -> HeldOut:
    """The config's held-out images, and what its task gives the network of them.

    Args:
      config: The config, whose data and task these are.
      limit: How many images; 0: all of them.
      split: "eval", or "validation" for images to make choices by (see data.sources.open_source).

    Raises:
      UserError: The images are smaller than the window of SSIM, or cannot be read.
    """
    check_size(config.data)
    data = load_evaluation(open_source(config, split), config, limit)
    given = _corrupted(build_task(config), data.images, data.ids)
    if config.model.classes:
        given = labelled(given, jnp.asarray(data.labels))
    return HeldOut(
        data.images,
        to_uint8(given.image),
        {name: np.asarray(values) for name, values in given.signals.items()},
        data.names,
        data.ids.tolist(),
        data.rows,
        data.total,
    )


def check_size(data: ConfigDict) -> None:
    """Raises UserError for images that are smaller than the window of SSIM."""
    if data.hr_size < 11:
        raise UserError(
            f"data.hr_size = {data.hr_size} must be at least 11 to be evaluated: that is the "
            "window of SSIM"
        )


def _corrupted(task: Task, images: np.ndarray, ids: np.ndarray) -> Given:
    """What the network is given of each image.

    What is drawn at random in it depends on the image's id alone.
    """
    hr = operations.to_float(jnp.asarray(images))
    if not task.signals or not len(images):
        return task.corrupt(hr)
    keys = jax.vmap(lambda id: image_key(0, id))(jnp.asarray(ids, jnp.int32))
    one = jax.vmap(
        lambda image, key: jax.tree.map(lambda leaf: leaf[0], task.corrupt(image[None], key))
    )
    return one(hr, keys)


def mean_scores(images: np.ndarray, held_out: HeldOut) -> dict[str, float]:
    """The mean of each metric over the whole split, from this process's images.

    Consistency is of inputs that are smaller than the images.
    """
    smaller = held_out.lr.shape[1:3] != held_out.hr.shape[1:3]
    measured = distortion.scores(images, held_out.hr, held_out.lr if smaller else None)
    return {name: held_out.mean(values) for name, values in measured.items()}


def during_training(config: ConfigDict) -> Callable[[PyTree], tuple[dict[str, float], np.ndarray]]:
    """The function by which training evaluates its EMA parameters.

    It returns the means of the metrics over the held-out images, and a grid of pictures; for
    generation see `samples.during_training`.
    """
    if config.task.kind == "generation":
        return samples.during_training(config)
    held_out, count = load(config, config.train.evaluate_images), config.train.sample_images
    empty = Checkpoint(config, {}, 0, "training")
    engine = Engine(empty, batch_size=max(1, min(16, len(held_out.ids))))
    edits, compose = config.task.kind in SAME_SIZE, engine.method.task.compose
    given = held_out.lr / np.float32(127.5) - 1

    def evaluate(params: PyTree) -> tuple[dict[str, float], np.ndarray]:
        engine.set_params(params)  # the shapes stay the same, so only the first call compiles
        made = engine.batch(given, held_out.ids, Sampling(), signals=held_out.signals)
        if edits:
            made = np.stack([compose(*pair) for pair in zip(given, made, strict=True)])
        sr, shown = to_uint8(made), held_out.shown(count)
        inputs = {"LR": held_out.lr, "bicubic": held_out.bicubic}
        if held_out.lr.shape[1:3] == held_out.hr.shape[1:3]:
            inputs = {"input": held_out.bicubic}
        columns = inputs | {"output": sr, "HR": held_out.hr}
        return mean_scores(sr, held_out), sheet.grid(
            {title: held_out.collect(batch[shown], count) for title, batch in columns.items()}
        )

    return evaluate
