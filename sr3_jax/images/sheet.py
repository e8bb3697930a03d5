"""Contact sheets: images side by side, to look at."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from sr3_jax.images.arrays import to_pillow

Captions = Mapping[str, Sequence[str]]
TITLE, CAPTION = 24, 18  # heights of these lines, in pixels


def grid(
    columns: Mapping[str, np.ndarray | Sequence[np.ndarray]],
    cell: int = 128,
    names: Sequence[str] = (),
    captions: Captions | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """A contact sheet: columns of images under their titles, enlarged without smoothing.

    Args:
      columns: {title: images}, uint8 (h, w, 1 or 3); all columns have as many.
      cell: height and width, in pixels, that an image is enlarged to; larger if an image is.
      names: of the rows, shown at the left.
      captions: {title: lines}, one line under each image of a column.
    """
    sizes = [max(pixels.shape[:2]) for batch in columns.values() for pixels in batch]
    cell = max(cell, *sizes)
    left, below = 64 if names else 0, CAPTION if captions else 0
    count = len(next(iter(columns.values())))
    sheet = Image.new("RGB", (left + cell * len(columns), TITLE + (cell + below) * count), "white")
    draw, font, small = (
        ImageDraw.Draw(sheet),
        ImageFont.load_default(13),
        ImageFont.load_default(11),
    )
    for x, (title, batch) in enumerate(columns.items()):
        middle = left + (x + 0.5) * cell
        draw.text((middle, TITLE / 2), _cut(title, cell, font), "black", font, anchor="mm")
        for y, pixels in enumerate(batch):
            tile = to_pillow(pixels).convert("RGB")
            scale = cell / max(tile.size)
            tile = tile.resize(
                (round(tile.width * scale), round(tile.height * scale)), Image.Resampling.NEAREST
            )
            top = TITLE + y * (cell + below)
            sheet.paste(tile, (left + x * cell, top))
            if captions:
                draw.text(
                    (middle, top + cell + below / 2),
                    captions[title][y],
                    "black",
                    small,
                    anchor="mm",
                )
    for y, name in enumerate(names):
        draw.multiline_text(
            (4, TITLE + y * (cell + below) + cell / 2),
            "\n".join(part[-9:] for part in name.split("/")[-2:]),
            "black",
            font,
            anchor="lm",
        )
    return np.asarray(sheet)


def _cut(title: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The title, or as much of it as fits."""
    shown = title
    while shown and font.getlength(shown) > width - 6:
        title = title[:-1]
        shown = f"{title}…"
    return shown
