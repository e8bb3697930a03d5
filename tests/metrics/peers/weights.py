"""Random weights and images, the same for us and for the peers.

They depend on NumPy's seeded generator alone.
"""

import numpy as np


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Weights that keep activations near one in size through a deep network.

    The network has ReLU and batch normalization.
    """
    rng, found = np.random.default_rng(seed), {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith("running_var"):
            values = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            values = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        elif name.endswith("weight"):
            values = 1 + 0.1 * rng.normal(size=shape)
        else:
            values = 0.1 * rng.normal(size=shape)
        found[name] = values.astype(np.float32)
    return found


def images(height: int, width: int, count: int = 2) -> np.ndarray:
    """Smooth and rough at once: what shows a wrong resize, padding or normalization."""
    rng = np.random.default_rng(height + width)
    rows, columns = np.mgrid[:height, :width] / 20
    smooth = np.stack(
        [np.sin(rows + i) * np.cos(columns * (1 + i)) for i in range(3 * count)], axis=-1
    )
    values = 127.5 + 90 * smooth + 20 * rng.normal(size=smooth.shape)
    return np.moveaxis(values.clip(0, 255).astype(np.uint8).reshape(height, width, count, 3), 2, 0)


def features(count: int, dimensions: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(dimensions, dimensions)) / np.sqrt(dimensions)
    return (shift + rng.normal(size=(count, dimensions)) @ mixing).astype(np.float32)
