"""What training measures and shows of a network that makes images from noise alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.data.labels import class_names
from sr3_jax.data.pipeline import load_evaluation
from sr3_jax.data.sources import open_source
from sr3_jax.evaluation.contenders import to_uint8
from sr3_jax.images import sheet
from sr3_jax.inference.engine import Engine
from sr3_jax.inference.sampling import Sampling
from sr3_jax.method import Method, image_key
from sr3_jax.runtime import parallel
from sr3_jax.tasks.labels import LABEL

DRAWS = 4  # of noise level and noise, for the loss of each held-out image
AT_A_TIME = 16  # held-out images whose loss is computed at a time
MOST_COLUMNS = 10  # of the picture: classes that it shows


def during_training(config: ConfigDict) -> Callable[[PyTree], tuple[dict[str, float], np.ndarray]]:
    """The function by which training evaluates its EMA parameters.

    It returns the mean loss over the held-out images, and a grid of samples. Noise levels and noise
    are the same every time, so that losses compare.
    """
    source = open_source(config, "eval")
    held_out = load_evaluation(source, config, config.train.evaluate_images)
    names = config.data.class_names or class_names(source)
    engine = Engine(Checkpoint(config, {}, 0, "training"), config.train.sample_images)
    method, classes = Method(config), config.model.classes
    columns = min(classes, MOST_COLUMNS) or config.train.sample_images
    rows = max(1, config.train.sample_images // columns)
    shown = np.linspace(0, classes, columns, endpoint=False).astype(int)

    @jax.jit
    def losses(params: PyTree, images: jax.Array, labels: jax.Array, ids: jax.Array) -> jax.Array:
        keys = jax.vmap(lambda id: image_key(0, id))(ids)

        def one(image: jax.Array, label: jax.Array, key: jax.Array) -> jax.Array:
            known = label[None] if classes else None
            draws = jax.random.split(key, DRAWS)
            loss = jax.vmap(
                lambda draw: method.loss(params, image[None], draw, False, labels=known)[0]
            )
            return loss(draws).mean()

        rows = (images, labels, keys)
        return jax.lax.map(lambda row: one(*row), rows, batch_size=AT_A_TIME)

    def evaluate(params: PyTree) -> tuple[dict[str, float], np.ndarray]:
        engine.set_params(params)
        ids = jnp.asarray(held_out.ids, jnp.int32)
        mine = losses(
            engine.params, jnp.asarray(held_out.images), jnp.asarray(held_out.labels), ids
        )
        loss = parallel.combine(np.asarray(mine), held_out.rows, held_out.total).mean()
        count = rows * columns
        nothing = np.zeros((count, *method.shape[:2], 0), np.float32)
        told = {LABEL.name: np.tile(shown, rows).astype(np.float32)} if classes else None
        made = to_uint8(engine.batch(nothing, range(count), Sampling(), signals=told))
        titles = [names[number] if classes else str(i + 1) for i, number in enumerate(shown)]
        grid = {title: made[i::columns] for i, title in enumerate(titles)}
        return {"loss": float(loss)}, sheet.grid(grid, cell=max(64, config.data.hr_size))

    return evaluate
