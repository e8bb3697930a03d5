"""A small classifier of small images: convolutions without normalisation, two dense layers.

Its penultimate layer gives features by which sets of images can be compared.
"""

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from sr3_jax.models.blocks import conv
from sr3_jax.models.dropout import Dropout

Images = Float[Array, "b h w c"]  # in [-1, 1]
Outputs = tuple[Float[Array, "b f"], Float[Array, "b k"]]  # features, logits

SMALLEST = 8  # pixels; the grid is halved until it is no larger
WIDEST = 4  # times `channels`
DROPOUT = 0.3


class Classifier(nn.Module):
    """Two convolutions on each grid, of which the first halves it, then two dense layers."""

    classes: int
    channels: int = 32  # of the first grid; twice as many on the next, up to WIDEST times
    features: int = 128

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> Outputs:
        """The features and logits of a batch; with dropout if `train`."""
        x, level = images, 0
        while level == 0 or max(x.shape[1:3]) > SMALLEST:
            width = self.channels * min(2**level, WIDEST)
            size = 3 if level else 5
            init = nn.initializers.he_normal()
            x = nn.relu(conv(x, width, jnp.float32, f"level_{level}_in", size, init, stride=2))
            x = nn.relu(conv(x, width, jnp.float32, f"level_{level}_out", init=init))
            level += 1
        x = Dropout(DROPOUT)(x.reshape(len(x), -1), train)
        features = nn.relu(nn.Dense(self.features, name="features")(x))
        return features, nn.Dense(self.classes, name="logits")(Dropout(DROPOUT)(features, train))


def init(key: Key[Array, ""], size: int, image_channels: int, classes: int) -> PyTree:
    """The parameters of an untrained classifier of images of `size`²."""
    images = jnp.zeros((1, size, size, image_channels))
    return Classifier(classes).init(key, images)["params"]


def outputs(params: PyTree, images: Images, key: Key[Array, ""] | None = None) -> Outputs:
    """Features and logits.

    Args:
      params: of `init`, or what became of them.
      images: of the size and channels that they are for.
      key: of dropout, in training; None: without dropout.
    """
    classes = params["logits"]["kernel"].shape[-1]
    channels = params["level_0_in"]["kernel"].shape[-1]
    features = params["features"]["kernel"].shape[-1]
    rngs = None if key is None else {"dropout": key}
    network = Classifier(classes, channels, features)
    return cast(
        Outputs, network.apply({"params": params}, images, train=key is not None, rngs=rngs)
    )


def fits(params: PyTree, size: int, image_channels: int, classes: int) -> bool:
    """Whether parameters are those of a classifier of images of `size`² in so many classes."""
    wanted = jax.eval_shape(lambda: init(jax.random.key(0), size, image_channels, classes))
    ours, theirs = (jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (params, wanted))
    return bool(ours == theirs)
