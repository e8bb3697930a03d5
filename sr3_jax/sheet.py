"""Contact sheets: images side by side, to look at."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont


def grid(columns: Mapping[str, np.ndarray], cell: int = 128, names: Sequence[str] = ()) -> UInt8[np.ndarray, "H W 3"]:
    """Columns of images, uint8 (n, h, w, 1 or 3), under their titles, a row an image; enlarged to `cell` pixels, unsmoothed."""
    top, left = 24, 64 if names else 0
    count = len(next(iter(columns.values())))
    sheet = Image.new("RGB", (left + cell * len(columns), top + cell * count), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for x, (title, batch) in enumerate(columns.items()):
        draw.text((left + (x + 0.5) * cell, top / 2), title, "black", font, anchor="mm")
        for y, pixels in enumerate(batch):
            tile = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
            sheet.paste(tile.resize((cell, cell), Image.Resampling.NEAREST), (left + x * cell, top + y * cell))
    for y, name in enumerate(names):
        draw.text((4, top + (y + 0.5) * cell), name[-9:], "black", font, anchor="lm")
    return np.asarray(sheet)
