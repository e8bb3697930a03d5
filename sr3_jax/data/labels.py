"""Classes of images: their names and numbers.

A data set with classes has `class_names`, in the order of their numbers; `Image.label` is a number
below their count, or NO_LABEL for a single image of no class. A data set without classes has none.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from sr3_jax.data.source import NO_LABEL, DataError, Source

Labels = Int[np.ndarray, " n"]


def class_names(source: Source) -> tuple[str, ...]:
    """The names of a data set's classes, in the order of their numbers; empty without classes."""
    return tuple(getattr(source, "class_names", ()))


def check_classes(source: Source, classes: int) -> None:
    """Checks that a data set has as many classes as a network.

    Args:
      source: the data set, or a split of it: its classes are those of the whole set.
      classes: of the network; 0: it is not told any, and may be trained on anything.

    Raises:
      DataError: the data set has no classes, or another number of them.
    """
    names = class_names(source)
    if not classes or len(names) == classes:
        return
    if not names:
        raise DataError(
            f"a network of {classes} classes needs images with classes, and these have none, as of "
            "a folder without classes: put the images of each class into a sub-folder"
        )
    listed = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    raise DataError(
        f"a network of {classes} classes cannot be trained on images of {len(names)} ({listed})"
    )


def folder_classes(
    names: Sequence[str], wanted: Sequence[str] = (), where: str = "the folder"
) -> tuple[str, ...]:
    """The classes of image files: the sub-folders that they lie in, sorted, as everybody has them.

    Args:
      names: paths of the files below the root; those directly in it have no class.
      wanted: names and order of the classes, data.class_names; empty: the sub-folders.
      where: names the folder in the error.

    Raises:
      DataError: a sub-folder is not among those `wanted`.
    """
    found = sorted({name.partition("/")[0] for name in names if "/" in name})
    if wanted and (others := [name for name in found if name not in wanted]):
        raise DataError(
            f"{where} has a sub-folder {others[0]!r} that is not in data.class_names = "
            f"{tuple(wanted)}; add it there or move it away"
        )
    return tuple(wanted or found)


def folder_label(name: str, classes: Sequence[str]) -> int:
    """The class of an image file: the place of its sub-folder among `classes`, or NO_LABEL."""
    folder, inside, _ = name.partition("/")
    return classes.index(folder) if inside and classes else NO_LABEL


def renumbered(labels: Labels, names: Sequence[str], wanted: Sequence[str], where: str) -> Labels:
    """Labels by other numbers for the same classes.

    Args:
      labels: places in `names`, or NO_LABEL.
      names: of the classes as they are numbered.
      wanted: of the classes as they are to be numbered.
      where: names the data set in the error.

    Raises:
      DataError: a class is not in `wanted`.
    """
    if tuple(names) == tuple(wanted):
        return labels
    if others := [name for name in names if name not in wanted]:
        raise DataError(
            f"{where} has a class {others[0]!r} that is not in data.class_names = {tuple(wanted)}"
        )
    # The last place is that of NO_LABEL, -1
    numbers = np.array([*(wanted.index(name) for name in names), NO_LABEL])
    return numbers[labels]
