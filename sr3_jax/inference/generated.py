"""`sr3 generate`: a run that writes images, on any number of machines, whatever stops it.

    OUTPUT/manifest.json                  what the images depend on, and the class of each
    OUTPUT/images/[CLASS/]0000123.png     image 123: a folder for each class, as data sets have them
    OUTPUT/stage-1/[CLASS/]0000123.png    with --keep-stages, the same of the first stage, and so on
    OUTPUT/sheet.png                      some of them at a glance

A file appears whole, by rename, and image n depends on the seed and on n alone. So a run that was
stopped goes on with the images that are missing, and several machines can share the work.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sr3_jax.checkpoints.checkpoint import fingerprint
from sr3_jax.errors import UserError
from sr3_jax.images import arrays, sheet
from sr3_jax.inference.classes import folder_of, labels_of
from sr3_jax.inference.generator import Drawing, Generator, Stage
from sr3_jax.runtime.atomic import disk_errors, write_new_text, write_text
from sr3_jax.runtime.parallel import Shard
from sr3_jax.runtime.paths import AnyPath
from sr3_jax.tasks.augmentation import SIGNAL as AUGMENT

MANIFEST, IMAGES = "manifest.json", "images"
DIGITS = 7  # of an image's number in its file's name
COLUMNS, ROWS = 10, 6  # of the contact sheet, at most


class Run(NamedTuple):
    """What is made, and where it goes."""

    output: AnyPath
    count: int  # type: ignore[assignment]  # tuple's method is of no use here
    classes: str = "all"  # see `labels_of`
    drawing: Drawing = Drawing()
    keep_stages: bool = False


def generate(
    generator: Generator,
    run: Run,
    shard: Shard = Shard(),  # noqa: B008 (immutable)
    on_start: Callable[[int, int], object] = lambda total, done: None,
    on_images: Callable[[int], object] = lambda count: None,
) -> int:
    """Makes the images of a shard that are not there yet; memory does not grow with their number.

    Args:
      generator: The networks.
      run: What is made.
      shard: Which part of the images.
      on_start: Called once with the number of images of the shard, and of those that are there.
      on_images: Called after every batch with the number of its images.

    Returns:
      How many images are made now.

    Raises:
      UserError: The networks cannot be used like that, or the output is of another run.
    """
    stages = generator.stages(run.drawing)
    numbers = np.arange(run.count)
    labels = labels_of(generator.checkpoints[0], run.classes, numbers, run.drawing.seed)
    _claim(run, _about(generator, run, stages, labels))
    kept = range(len(stages)) if run.keep_stages else [len(stages) - 1]
    folders = [IMAGES if i == len(stages) - 1 else f"stage-{i + 1}" for i in kept]
    names = _names(generator, labels, run.count)
    mine = shard.share(run.count)

    def there(number: int) -> bool:
        return all((run.output / folder / names[number]).exists() for folder in folders)

    missing = np.array([number for number in mine.tolist() if not there(number)], np.int64)
    on_start(len(mine), len(mine) - len(missing))
    theirs = None if labels is None else labels[missing]
    for some, made in generator.batches(stages, missing, theirs):
        with disk_errors(run.output):
            for folder, images in zip(folders, made[-len(folders) :], strict=True):
                for number, image in zip(some.tolist(), images, strict=True):
                    arrays.write(run.output / folder / names[number], image)
        on_images(len(some))
    _write_sheet(generator, run, names, labels)
    return len(missing)


def is_run(output: AnyPath) -> bool:
    """Whether a folder is the output of `sr3 generate`."""
    return (output / MANIFEST).is_file()


def settings(output: AnyPath) -> dict[str, Any]:
    """The manifest without the class of each image: what a table of results says of a run."""
    return {name: value for name, value in read_manifest(output).items() if name != "labels"}


def files_of(output: AnyPath) -> Path:
    """The folder of the images of a run, if `output` is one, else `output` itself.

    Raises:
      UserError: It is a run that is not complete.
    """
    if not is_run(output):
        return output
    manifest = read_manifest(output)
    count = sum(1 for file in (output / IMAGES).rglob("*") if arrays.is_image_name(file))
    if count < manifest["count"]:
        raise UserError(
            f"{output} has {count:,} of {manifest['count']:,} images: the same `sr3 generate` "
            "makes the others"
        )
    return output / IMAGES


def read_manifest(output: AnyPath) -> dict[str, Any]:
    """What a run's images depend on; raises UserError if its file is damaged."""
    try:
        found = json.loads((output / MANIFEST).read_text())
        if not isinstance(found["count"], int) or not isinstance(found["stages"], list):
            raise TypeError("its fields are of other types")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{output / MANIFEST} is not of `sr3 generate`: {error}") from error
    return found


def _about(
    generator: Generator, run: Run, stages: Sequence[Stage], labels: np.ndarray | None
) -> dict[str, Any]:
    """What the images depend on, and the class of each."""
    described = [
        {
            "checkpoint": Path(checkpoint.name).name,
            "parameters": fingerprint(checkpoint),
            "step": checkpoint.step,
            "size": checkpoint.config.data.hr_size,
            "evaluations": stage.engine.table(stage.sampling, stage.link.end).evaluations,
            "guidance": stage.sampling.guidance,
            "augment": stage.sampling.told.get(AUGMENT.name, 0),
            "ends_at_gamma": stage.link.end,
        }
        for checkpoint, stage in zip(generator.checkpoints, stages, strict=True)
    ]
    return {
        "seed": run.drawing.seed,
        "classes": run.classes,
        "sampler": run.drawing.sampler,
        "guidance_interval": run.drawing.guidance_interval and [*run.drawing.guidance_interval],
        "stages": described,
        "count": run.count,
        "class_names": generator.class_names,
        "labels": [] if labels is None else labels.tolist(),
    }


def _claim(run: Run, about: dict[str, Any]) -> None:
    """Writes the manifest, or checks that the output is of the same run; raises UserError if not.

    A run may only grow: its images are the same whatever their number.
    """
    path, text = run.output / MANIFEST, json.dumps(about, indent=1) + "\n"
    if not path.exists():
        _check_empty(run.output)
        with disk_errors(run.output):
            write_new_text(path, text)  # of several machines that begin together, one is first
    theirs = read_manifest(run.output)
    differing = [
        f"{name}: {value!r} here, {theirs.get(name)!r} there"
        for name, value in about.items()
        if theirs.get(name) != value and name not in ("count", "labels")
    ]
    if differing:
        raise UserError(
            f"{run.output} holds images of another run ({'; '.join(differing)[:500]}): choose "
            "another --output"
        )
    if run.count < theirs["count"]:
        raise UserError(
            f"{run.output} is of {theirs['count']:,} images, and --count={run.count} is fewer: "
            "choose another --output"
        )
    if run.count > theirs["count"]:
        with disk_errors(run.output):
            write_text(path, text)


def _check_empty(output: AnyPath) -> None:
    """Raises UserError if the output is a file, or holds what `sr3 generate` did not write."""
    # another machine may be writing its manifest, under such a name, at this moment
    others = output.is_dir() and any(not one.name.startswith(".sr3-") for one in output.iterdir())
    if others or (output.exists() and not output.is_dir()):
        raise UserError(f"{output} is not empty and not of `sr3 generate`: choose another --output")


def _names(generator: Generator, labels: np.ndarray | None, count: int) -> list[Path]:
    """The file of each image, relative to the folder of its stage."""
    plain = [Path(f"{number:0{DIGITS}}.png") for number in range(count)]
    if labels is None:
        return plain
    folders = [folder_of(name) for name in generator.class_names]
    return [folders[label] / name for label, name in zip(labels.tolist(), plain, strict=True)]


def _write_sheet(
    generator: Generator, run: Run, names: Sequence[Path], labels: np.ndarray | None
) -> None:
    """The contact sheet: the first images of some classes, or the first ones of all.

    It is not written as long as images are missing that it shows, which may be of other shards.
    """
    if labels is None:
        numbers = range(min(run.count, COLUMNS * ROWS))
        columns = {str(i + 1): [*numbers[i::COLUMNS]] for i in range(min(COLUMNS, run.count))}
    else:
        classes, titles = np.unique(labels), generator.class_names
        shown = classes[
            np.linspace(0, len(classes), min(COLUMNS, len(classes)), endpoint=False).astype(int)
        ]
        columns = {
            titles[label]: np.flatnonzero(labels == label)[:ROWS].tolist() for label in shown
        }
    rows = min(len(numbers) for numbers in columns.values())
    files = {
        title: [run.output / IMAGES / names[number] for number in numbers[:rows]]
        for title, numbers in columns.items()
    }
    if all(file.exists() for column in files.values() for file in column):
        cells = {
            title: [arrays.read(file, None).pixels for file in column]
            for title, column in files.items()
        }
        cell = max(96, generator.shape[0])
        arrays.write(run.output / "sheet.png", sheet.grid(cells, cell=cell))
