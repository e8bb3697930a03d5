"""Which class each generated image is of."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.errors import UserError

LISTED = 12  # how many names an error lists


def class_names(checkpoint: Checkpoint) -> list[str]:
    """The names of a network's classes, or their numbers, of equal length, where there are none."""
    config = checkpoint.config
    named, count = list(config.data.class_names), config.model.classes
    return named or [f"{number:0{len(str(count - 1))}}" for number in range(count)]


def labels_of(
    checkpoint: Checkpoint,
    classes: str | Sequence[int | str],
    numbers: Int[np.ndarray, " n"],
    seed: int = 0,
) -> Int[np.ndarray, " n"] | None:
    """The class of each image, a function of its number and the seed alone.

    Args:
      checkpoint: The network.
      classes: "all": each image's class is drawn at random; "balanced": all classes in turn; else
        some classes, by number or name, in turn: [3, 7] or "3,7".
      numbers: Of the images.
      seed: With "all", of the draw.

    Returns:
      Class numbers; None for a network that knows no classes.

    Raises:
      UserError: There is no such class, or the network knows none.
    """
    count = checkpoint.config.model.classes
    if not count:
        if classes != "all":
            raise UserError(
                f"{checkpoint.name} knows no classes (model.classes = 0), so none can be chosen"
            )
        return None
    if classes == "all":
        draws = [np.random.default_rng([seed, number]).integers(count) for number in numbers]
        return np.array(draws, np.int64)
    if classes == "balanced":
        return numbers % count
    names = classes.split(",") if isinstance(classes, str) else list(classes)
    chosen = np.array([_number(checkpoint, name) for name in names], np.int64)
    if not len(chosen):
        raise UserError("no class is chosen: give some, or all, or balanced")
    return chosen[numbers % len(chosen)]


def _number(checkpoint: Checkpoint, name: int | str) -> int:
    names, text = class_names(checkpoint), str(name).strip()
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    known = ", ".join(names[:LISTED]) + (", …" if len(names) > LISTED else "")
    raise UserError(
        f"{checkpoint.name} has no class {text!r}; it has {len(names)}, by number from 0 or by "
        f"name: {known}"
    )


def folder_of(name: str) -> str:
    """A class's name as that of one folder: "T-shirt/top" must not become two."""
    return "".join(c if c.isalnum() or c in " -_." else "-" for c in name).strip(". ") or "-"
