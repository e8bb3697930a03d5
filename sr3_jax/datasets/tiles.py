"""Large photographs cut into many squares: forty photographs are enough to train on.

Each photograph is reduced first, by averaging whole blocks of pixels, because a camera's sensor and
JPEG compression spoil the finest detail, which would then be learned. Squares without detail, such
as sky and defocused background, teach nothing and can be left out.
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
    """Squares of `size` pixels that cover each image of a folder, at each reduction factor.

    They lie side by side. If more than a quarter of a square would be left over along a side, there
    is one square more along it, and they overlap evenly.

    A square's id is "name#factor,row,column", with the name of its photograph. Photographs without
    room for a single square are in `dropped`.
    """

    folder: Folder
    size: int
    factors: Sequence[int] = (1,)
    # (image, factor, row, column)
    places: list[tuple[int, int, int, int]] = field(default_factory=list)
    dropped: Sequence[Dropped] = ()

    @property
    def class_names(self) -> Sequence[str]:
        """The classes of the folder; a square has its photograph's."""
        return self.folder.class_names

    def __post_init__(self):
        dropped = list(self.folder.dropped)
        # The photograph read last is kept: consecutive squares are mostly of the same one
        self._last: tuple[tuple[int, int], Image] | None = None
        for index, name in enumerate(self.folder.names):
            try:
                width, height = arrays.read_size(self.folder.root / name)
            except arrays.ImageError as error:
                # An error of the disk, perhaps only for a moment, is none of the photograph
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
        """The ids of all squares, in order."""
        return [
            f"{self.folder.names[index]}#{factor},{row},{column}"
            for index, factor, row, column in self.places
        ]

    def __getitem__(self, index: int) -> Image:
        image, factor, row, column = self.places[index]
        if self._last is None or self._last[0] != (image, factor):
            self._last = (image, factor), self._reduced(image, factor)
        photograph = self._last[1]
        pixels = photograph.pixels
        height, width, _ = pixels.shape
        top, left = starts(height, self.size)[row], starts(width, self.size)[column]
        return Image(
            pixels[top : top + self.size, left : left + self.size],
            f"{self.folder.names[image]}#{factor},{row},{column}",
            notes=photograph.notes,
            label=photograph.label,
        )

    def _reduced(self, index: int, factor: int) -> Image:
        image = self.folder[index]
        height, width = (side // factor for side in image.pixels.shape[:2])
        blocks = image.pixels[: height * factor, : width * factor].reshape(
            height, factor, width, factor, -1
        )
        return image._replace(
            pixels=np.rint(blocks.mean((1, 3), dtype=np.float32)).astype(np.uint8)
        )


def starts(length: int, size: int) -> list[int]:
    """Where squares of `size` begin that cover `length` pixels; empty without room for one."""
    count, rest = divmod(length, size)
    if not count:
        return []
    if rest > size // 4:
        return [round(i * (length - size) / count) for i in range(count + 1)]
    return [rest // 2 + i * size for i in range(count)]


def detail(pixels: UInt8[np.ndarray, "h w c"]) -> float:
    """How much detail an image has: what is lost when it is reduced 4× and enlarged by bicubic.

    The root mean square of the difference, in levels of 255.
    """
    image = arrays.to_pillow(pixels)
    small = image.resize((image.width // 4, image.height // 4), PIL.Image.Resampling.BICUBIC)
    again = np.asarray(small.resize(image.size, PIL.Image.Resampling.BICUBIC), np.float32)
    return float(np.sqrt(np.square(again.reshape(pixels.shape) - pixels).mean()))
