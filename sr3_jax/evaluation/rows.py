"""The rows of a table: who makes images for it, in which order, under which names."""

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sr3_jax import config as config_lib
from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.data.folder import Folder
from sr3_jax.errors import UserError
from sr3_jax.evaluation import contenders, edits, simple
from sr3_jax.evaluation.contenders import Contender, Network
from sr3_jax.evaluation.damage import told
from sr3_jax.evaluation.edit_damage import CORRUPTIONS
from sr3_jax.evaluation.image_sets import Alone, Split
from sr3_jax.evaluation.protocols import Options, Protocol
from sr3_jax.images import arrays, pairs
from sr3_jax.inference.editor import Editor


def own(protocol: Protocol, checkpoints: Sequence[Checkpoint], options: Options) -> list[Contender]:
    """Plain interpolation or the simple answers to an edit, and the networks, in their order.

    Raises:
      UserError: A network cannot be used like that.
    """
    field_ = _plain(protocol)
    taken: set[str] = set()
    if protocol.edit:
        checkpoints = edits.those_for(protocol.edit, checkpoints)
    for checkpoint in checkpoints:
        objective = checkpoint.method.objective
        # The only number of evaluations that it has, if there is one
        name, fixed = objective.title, objective.choices.steps
        if fixed and objective.takes_noise:
            name = _with_steps(name, fixed)
        if protocol.name == "table5":
            blur, loss = checkpoint.config.task.blur, checkpoint.config.train.loss
            name = f"{f'blur {blur:g}' if blur else 'without blur'}, {loss.upper()}"
        name = f"{name} ({Path(checkpoint.name).name})" if name in taken else name
        taken.add(name)
        tells: list[Any] = [None]
        if protocol.told and any(each.removed for each in checkpoint.method.task.signals):
            tells += [functools.partial(told, protocol.damage)]
        editor = Editor(checkpoint) if protocol.edit else None
        each = [0] if fixed or not options.steps else options.steps
        for steps, tell in itertools.product(each, tells):
            row = (
                _with_steps(name, steps or checkpoint.config.sample.steps)
                if len(options.steps) > 1 and not fixed
                else name
            )
            shared: dict[str, Any] = {
                "samples": options.samples,
                "steps": steps or None,
                "seed": options.seed,
                "told": tell,
            }
            row = f"{row}, told" if tell else row
            field_.append(
                edits.EditNetwork(editor, row, edit=protocol.edit, **shared)
                if editor
                else Network(
                    checkpoint,
                    row,
                    match_input=options.match_input,
                    within=protocol.within,
                    **shared,
                )
            )
    return field_


def _plain(protocol: Protocol) -> list[Contender]:
    """Those that have learned nothing."""
    if protocol.edit:
        return list(simple.contenders(protocol.edit, CORRUPTIONS[protocol.damage].told))
    few = protocol.name in ("held_out", "table5") or protocol.told or protocol.parts
    kinds = ["bicubic"] if few else ["bicubic", "nearest"]
    return [contenders.Resampled(kind) for kind in kinds]


def every(
    protocol: Protocol, checkpoints: Sequence[Checkpoint], data: Split | Alone, options: Options
) -> list[Contender]:
    """`own`, and the methods whose images are given.

    Raises:
      UserError: Images are missing, or two rows would have one name.
    """
    field_ = own(protocol, checkpoints, options)
    for name, folder in options.images.items():
        if isinstance(data, Alone):
            raise UserError("--images and --lr cannot be given together to a protocol")
        wanted = by_stem(data)
        found = pairs.by_stem(folder)
        missing = sorted(wanted.keys() - found.keys())
        if missing:
            raise UserError(
                f"{folder} has no {pairs.listed(missing)}; what to make them from is written by "
                f"sr3 evaluate --protocol={protocol.name.partition('/')[0]} --export=DIR"
            )
        files = {id: found[stem] for stem, id in wanted.items()}
        seconds = contenders.seconds(folder, files) if timed(protocol) else None
        # What is edited has another number of channels than the result
        channels = 3 if protocol.edit else 0
        field_.append(contenders.Folder(name, files, seconds, channels))
    names = [row for one in field_ for row in one.rows]
    if len(set(names)) < len(names):
        raise UserError(f"two rows would have one name: {', '.join(names)}")
    return field_


def timed(protocol: Protocol) -> bool:
    """Whether a table says how long methods take."""
    return "seconds_per_megapixel" in protocol.columns


def _with_steps(name: str, steps: int) -> str:
    return f"{name}, {steps} evaluation{'s' if steps > 1 else ''}"


def by_stem(data: Split) -> dict[str, str]:
    """{id without a suffix: id}; raises UserError for two of one stem."""
    found: dict[str, str] = {}
    for place in data.places:
        # Without reading the image where that is possible
        id = data.source.names[place] if isinstance(data.source, Folder) else data.source[place].id
        if stem(id) in found:
            raise UserError(
                f"{found[stem(id)]} and {id} have the same stem: which of them is meant?"
            )
        found[stem(id)] = id
    return found


def stem(id: str) -> str:
    """An image's id without the suffix of its file."""
    path = Path(id)
    return str(path.with_suffix("")) if path.suffix.lower() in arrays.SUFFIXES else id


def check_alike(checkpoints: Sequence[Checkpoint]) -> None:
    """Raises UserError for networks of different images, which cannot share a table."""
    fields = ("data.hr_size", "data.lr_size", "model.image_channels")
    for other, name in itertools.product(checkpoints[1:], fields):
        first = checkpoints[0]
        ours, theirs = config_lib.get(first.config, name), config_lib.get(other.config, name)
        if ours != theirs and not _any_size(name, checkpoints):
            raise UserError(
                f"{first.name} and {other.name} cannot share a table: {name} is {ours} and {theirs}"
            )


def _any_size(name: str, checkpoints: Sequence[Checkpoint]) -> bool:
    """Whether networks of other sizes can share a table: those of convolutions alone take any."""
    return name != "model.image_channels" and not any(
        checkpoint.config.model.attention or checkpoint.config.model.middle_attention
        for checkpoint in checkpoints
    )
