"""What tasks have in common whose result is of the input's own size."""

from typing import Any

from ml_collections import ConfigDict

from sr3_jax.tasks.labels import label_signals
from sr3_jax.tasks.task import Images, Signal, Weights


class SameSize:
    """The network is told of the class at the most, and every pixel counts alike."""

    def __init__(self, config: ConfigDict):
        self._labels = label_signals(config)

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The class, if the network is told of classes."""
        return self._labels

    def weights(self, image: Images) -> Weights | None:
        """None: all of the image is to be learned."""
        return None

    def known(self, condition: Any) -> Any:
        """None: nothing of the result is known."""
        return None

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """The input's own size."""
        return height, width
