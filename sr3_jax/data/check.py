"""`sr3 check-data`: what is in a data set, what would be dropped and why, and a look at it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sr3_jax.data import crops, pipeline
from sr3_jax.data.folder import scan_folder
from sr3_jax.data.labels import class_names
from sr3_jax.data.source import Dropped, Source, check_budget
from sr3_jax.data.sources import open_source
from sr3_jax.errors import UserError
from sr3_jax.images import arrays, sheet
from sr3_jax.images.arrays import ImageError
from sr3_jax.tasks import build_task
from sr3_jax.tasks.augmentation import augmented
from sr3_jax.tasks.operations import to_float, to_uint8

SHOWN = 8  # images on the contact sheet; names listed before "…"
SHOWN_NAMES = 20  # classes that are listed


def check(config: ConfigDict, output: Path, overwrite: bool = False) -> Iterator[str]:
    """Reads every image of both splits, and writes a contact sheet to `output`.

    Yields:
      The report, line by line.

    Raises:
      UserError: `output` has a suffix that cannot be written, or exists and may not be replaced.
      DataError: training would refuse the data; after the report.
    """
    if not arrays.format_of(output):
        raise UserError(
            f"--output={output}: no image format has the suffix {output.suffix!r}; "
            "use .png, .jpg, .webp or .tiff"
        )
    if output.exists() and not overwrite:
        raise UserError(f"--output={output} exists; give --overwrite to replace it")
    folder = config.data.source == "folder"
    train = scan_folder(config, "train", decode=True) if folder else open_source(config, "train")
    train_bad = list(train.dropped)
    yield from _describe("training", train, config, train_bad)
    held_out = scan_folder(config, "eval", decode=True) if folder else open_source(config, "eval")
    held_out_bad = list(held_out.dropped)
    yield from _describe("held-out", held_out, config, held_out_bad)
    if len(train_bad) < len(train) + len(train.dropped):
        arrays.write(output, contact_sheet(train, config))
    for source, bad in ((train, train_bad), (held_out, held_out_bad)):
        check_budget(bad, source, config.data.max_bad_fraction, "data")


def _describe(name: str, source: Source, config: ConfigDict, bad: list[Dropped]) -> Iterator[str]:
    """The report on one split; adds the images that turn out to be unusable to `bad`."""
    sizes, notes, labels = [], Counter[str](), Counter[int]()
    for index in range(len(source)):
        try:
            image = source[index]
            crops.check_size(image, config.data.hr_size)
            sizes.append(image.pixels.shape[:2])
            notes.update(image.notes)
            labels[image.label] += 1
        except ImageError as error:
            bad.append(Dropped("", str(error)))
    yield f"{name}: {len(sizes)} images usable, {len(bad)} dropped"
    if sizes:
        heights, widths = np.array(sizes).T
        yield (
            f"  width {widths.min()} to {widths.max()} (median {int(np.median(widths))}), "
            f"height {heights.min()} to {heights.max()} (median {int(np.median(heights))})"
        )
    if names := class_names(source):
        counts = ", ".join(
            f"{one} {labels[number]}" for number, one in enumerate(names[:SHOWN_NAMES])
        )
        more = ", …" if len(names) > SHOWN_NAMES else ""
        yield f"  {len(names)} classes: {counts}{more}"
    for note, count in notes.most_common():
        yield f"  {count} × {note}"
    for dropped in bad[:20]:
        yield f"  dropped: {f'{dropped.id} {dropped.reason}'.strip()}"
    if len(bad) > 20:
        yield f"  … and {len(bad) - 20} more"


def contact_sheet(source: Source, config: ConfigDict) -> np.ndarray:
    """LR image, condition and HR image of a few training examples, side by side.

    For generation there is only the image.

    Crops, mirrors, blur and noise are drawn as in training, so this is what the network sees;
    noise-conditioning augmentation is in the condition alone.
    """
    rng = np.random.default_rng(config.seed)
    rows = np.linspace(0, len(source), min(SHOWN, len(source)), endpoint=False).astype(int)
    survivors = pipeline.Survivors(source, 1.0, config.data.hr_size)
    hr = np.stack([crops.fit(survivors[int(i)][1], config, rng) for i in rows])
    task, whole = build_task(config), to_float(jnp.asarray(hr))
    key = jax.random.key(config.seed)
    given = task.corrupt(whole, key, train=True)
    seen = augmented(given, config.task.augment, jax.random.fold_in(key, 1))
    shown = task.condition(seen.image)[..., : whole.shape[-1]]  # of an image with a mask, the image
    columns = {"LR": given.image, "conditioning": shown, "HR": whole}
    if shown.shape[1:3] == given.image.shape[1:3]:
        columns = {"input": shown, "HR": whole}
    if config.task.kind == "generation":
        columns = {"image": whole}
    return sheet.grid({title: np.asarray(to_uint8(batch)) for title, batch in columns.items()})
