"""The picture of a run: the images that came out best, median and worst, with their numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sr3_jax.evaluation.contenders import Contender, Drawing, to_uint8
from sr3_jax.evaluation.measure import HR, Collected
from sr3_jax.images import sheet

CAPTION = {"psnr": "{:.1f} dB", "lpips_vgg": "LPIPS {:.3f}"}
PICKED = 2  # how many of the best images are shown, and of the median and of the worst


def best_and_worst(
    data: Any, field_: Sequence[Contender], collected: Collected, given: str = "LR"
) -> np.ndarray:
    """A grid of the images on which one contender is best, median and worst.

    That is the last network, or the last contender if there is no network. It is judged by LPIPS
    (VGG), or else by PSNR. Of a network that draws at random two more samples are shown.

    Args:
      data: The images, a `measure.Data`.
      field_: The contenders; each of their rows is a column of the grid, except nearest.
      collected: What was measured.
      given: The title of what contenders are given.
    """
    main = next((one for one in reversed(field_) if isinstance(one, Drawing)), field_[-1])
    judged = collected.per_image[main.rows[0]]
    values = (
        judged["lpips_vgg"]
        if "lpips_vgg" in judged
        else -judged.get("psnr", np.arange(len(collected.ids)) * -1.0)
    )
    order = np.argsort(values, kind="stable").tolist()
    middle = max(0, len(order) // 2 - PICKED // 2)
    chosen = list(dict.fromkeys(order[:PICKED] + order[middle : middle + PICKED] + order[-PICKED:]))
    places = [place for chunk in data.chunks() for place in chunk]
    if len(places) > len(collected.ids):  # some images failed
        places = [place for place in places if data.load([place]).ids]
    columns: dict[str, list[np.ndarray]] = {}
    captions: dict[str, list[str]] = {}
    for i in chosen:
        images = data.load([places[i]])
        size = images.size(data.scale)
        shown: dict[str, np.ndarray] = {given: images.lr[0]} if images.lr is not None else {}
        for one in field_:
            if one.rows == ["nearest"]:
                continue
            made = one.make(images.given, images.ids, size)
            shown |= {row: pictures[0] for row, pictures in made.images.items() if row in one.rows}
            if isinstance(one, Drawing) and one is main and one.random:
                for sample in (1, 2):
                    drawn = (
                        made.samples[one.name][sample][0]
                        if one.samples > sample
                        else to_uint8(one.draw(images.given, images.ids, size, sample))[0]
                    )
                    shown[f"sample {sample + 1}"] = drawn
        if images.hr is not None:
            shown[HR] = images.hr[0]
        for title, pixels in shown.items():
            columns.setdefault(title, []).append(pixels)
            captions.setdefault(title, []).append(_caption(collected.per_image.get(title, {}), i))
    return sheet.grid(columns, names=[collected.ids[i] for i in chosen], captions=captions)


def _caption(values: Mapping[str, np.ndarray], i: int) -> str:
    return ", ".join(
        text.format(values[name][i]) for name, text in CAPTION.items() if name in values
    )
