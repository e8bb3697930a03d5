"""Large photographs as many squares: a folder of forty holds enough to train on.

Each photograph is reduced first, by averaging whole blocks of pixels: what a camera's sensor and
its JPEG leave of the finest detail is not worth learning. Sky and defocus teach nothing either, so
squares without detail can be left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from sr3_jax.data.folder import Folder
from sr3_jax.data.source import Dropped, Image
from sr3_jax.errors import UserError
from sr3_jax.images import arrays


@dataclass
class Tiles:
    """Squares of `size` pixels that cover each image of a folder, at each reduction.

    They lie side by side, or overlap evenly where a further one brings in more than a quarter of a
    square that is new.

    A square's id is its photograph's and its place, "name#factor,row,column". Photographs without
    room for one are `dropped`.
    """

    folder: Folder
    size: int
    factors: Sequence[int] = (1,)
    # (image, factor, row, column)
    places: list[tuple[int, int, int, int]] = field(default_factory=list)
    dropped: Sequence[Dropped] = ()

    def __post_init__(self):
        dropped = list(self.folder.dropped)
        # Consecutive squares share a photograph
        self._last: tuple[tuple[int, int], Image] | None = None
        for index, name in enumerate(self.folder.names):
            try:
                width, height = arrays.read_size(self.folder.root / name)
            except arrays.ImageError as error:
                # The disk's fault, perhaps for a moment
                if isinstance(error.__cause__, OSError) and error.__cause__.errno:
                    raise UserError(str(error)) from error
                dropped.append(Dropped(name, str(error)))
                continue
            if min(height, width) < self.size * min(self.factors):
                dropped.append(
                    Dropped(
                        name, f"is {width}×{height}, smaller than {self.size * min(self.factors)}"
                    )
                )
            for factor in self.factors:
                rows, columns = (len(starts(side // factor, self.size)) for side in (height, width))
                self.places += [
                    (index, factor, row, column) for row in range(rows) for column in range(columns)
                ]
        self.dropped = tuple(dropped)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def ids(self) -> list[str]:
        return [
            f"{self.folder.names[index]}#{factor},{row},{column}"
            for index, factor, row, column in self.places
        ]

    def __getitem__(self, index: int) -> Image:
        image, factor, row, column = self.places[index]
        if self._last is None or self._last[0] != (image, factor):
            self._last = (image, factor), self._reduced(image, factor)
        pixels, notes = self._last[1].pixels, self._last[1].notes
        top, left = (
            starts(pixels.shape[0], self.size)[row],
            starts(pixels.shape[1], self.size)[column],
        )
        id = f"{self.folder.names[image]}#{factor},{row},{column}"
        return Image(pixels[top : top + self.size, left : left + self.size], id, notes=notes)

    def _reduced(self, index: int, factor: int) -> Image:
        image = self.folder[index]
        pixels = image.pixels
        height, width = (side // factor for side in pixels.shape[:2])
        blocks = pixels[: height * factor, : width * factor].reshape(
            height, factor, width, factor, -1
        )
        return image._replace(
            pixels=np.rint(blocks.mean((1, 3), dtype=np.float32)).astype(np.uint8)
        )


def starts(length: int, size: int) -> list[int]:
    """Where squares of `size` begin that cover `length` pixels: none if it has no room for one."""
    count, rest = divmod(length, size)
    if not count:
        return []
    if rest > size // 4:
        return [round(i * (length - size) / count) for i in range(count + 1)]
    return [rest // 2 + i * size for i in range(count)]


def detail(pixels: UInt8[np.ndarray, "h w c"]) -> float:
    """What is lost when an image is reduced to a quarter and enlarged again by bicubic: root mean square, in levels of 255."""
    image = arrays.to_pillow(pixels)
    small = image.resize((image.width // 4, image.height // 4), PIL.Image.Resampling.BICUBIC)
    again = np.asarray(small.resize(image.size, PIL.Image.Resampling.BICUBIC), np.float32)
    return float(np.sqrt(np.square(again.reshape(pixels.shape) - pixels).mean()))
