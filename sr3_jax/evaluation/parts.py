"""A protocol of several tables, such as photos-real: each in a folder of its own, and a summary.

    FOLDER/results.json, table.md      all tables
    FOLDER/PART/results.json, …        one table, with the values of every image
    FOLDER/small.png                   small files, to look at, where the protocol has them

Methods' images lie in folders of the same names: DIR/PART/…, and DIR/small/…. Of a protocol of
edits there are the tables for which there is a network.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.errors import UserError
from sr3_jax.evaluation import contenders, edits, report, rows, runs, small_files
from sr3_jax.evaluation.measure import Unfinished
from sr3_jax.evaluation.protocols import Options, Protocol
from sr3_jax.images import arrays, pairs
from sr3_jax.runtime import parallel
from sr3_jax.runtime.atomic import write_text
from sr3_jax.runtime.parallel import Shard
from sr3_jax.runtime.paths import AnyPath

SMALL = "small"
EACH = ("per_image", "recipes")  # what only a table's own results.json holds


def run(
    protocol: Protocol,
    checkpoints: Sequence[Checkpoint],
    folder: AnyPath,
    options: Options,
    on_start: Callable[[int], object] = lambda total: None,
    on_images: Callable[[int], object] = lambda count: None,
) -> report.Results | None:
    """Measures all tables, writes all files, and returns what the summary's results.json holds.

    Where the protocol has small files, options.data is a folder of further ones. None on all
    processes but the main one. Goes on where it was stopped. Raises UserError, and Unfinished if
    other shards have not measured their part yet.
    """
    runs.check_needs(protocol, options)
    tables = _chosen(protocol, checkpoints)
    names = [_name(part) for part in tables]
    small, missing = small_files.gather(options.data) if protocol.small else ({}, [])
    for method, place in options.images.items():
        _check_images(protocol, method, place, names, list(small))
    measured = _tables(protocol, tables, checkpoints, folder, options, on_start, on_images)
    if not parallel.is_main():
        return None
    for name, found in measured.items():
        report.save(folder / name, *found)
    results = {
        "protocol": protocol.name,
        "title": protocol.title,
        "about": protocol.about,
        "parts": {
            name: {key: value for key, value in table.items() if key not in EACH}
            for name, (table, _) in measured.items()
        },
    }
    if protocol.small:
        results["small"] = {"files": list(small), "missing": missing}
        arrays.write(folder / f"{SMALL}.png", _picture_of(protocol, small, checkpoints, options))
    write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
    write_text(folder / "table.md", markdown(results))
    for name in names if options.shard.count == 1 else ():  # a shard may come again
        runs.finish(folder / name)
    return results


def _chosen(protocol: Protocol, checkpoints: Sequence[Checkpoint]) -> list[Protocol]:
    """The tables that are measured.

    Of edits those for which there is a network, or all if there are only methods' images.

    Raises:
      UserError: A network is for none of the tables, or several cannot share one.
    """
    if any(part.edit for part in protocol.parts):
        return [
            part
            for part in protocol.parts
            if not checkpoints or edits.those_for(part.edit, checkpoints)
        ]
    rows.check_alike(checkpoints)
    for checkpoint in checkpoints:
        if checkpoint.config.model.image_channels != 3:
            raise UserError(
                f"--protocol={protocol.name} is of colour images, and {checkpoint.name} is not"
            )
    return list(protocol.parts)


def _picture_of(
    protocol: Protocol,
    small: Mapping[str, np.ndarray],
    checkpoints: Sequence[Checkpoint],
    options: Options,
) -> np.ndarray:
    """The small files, by all contenders."""
    field_ = rows.own(protocol, checkpoints, options)
    for method, place in options.images.items():
        if (place / SMALL).is_dir():
            field_.append(contenders.Folder(method, pairs.by_stem(place / SMALL)))
    return small_files.picture(small, field_, protocol.hr_size // protocol.lr_size)


def _tables(
    protocol: Protocol,
    tables: Sequence[Protocol],
    checkpoints: Sequence[Checkpoint],
    folder: AnyPath,
    options: Options,
    on_start: Callable[[int], object],
    on_images: Callable[[int], object],
) -> dict[str, tuple[report.Results, np.ndarray | None]]:
    """Each table's results and picture by its name; raises as `run` does."""
    measured: dict[str, tuple[report.Results, np.ndarray | None]] = {}
    unfinished: list[Shard] = []
    for number, part in enumerate(tables):
        name = _name(part)
        images = {method: place / name for method, place in options.images.items()}
        # Tables of one chunk each go to different shards
        shard = options.shard.shifted(number)
        data = "" if protocol.small else options.data
        inside = replace(options, data=data, images=images, shard=shard)
        try:
            found = runs.run(part, checkpoints, folder / name, inside, on_start, on_images)
        except Unfinished as waiting:
            unfinished += [shard.shifted(-number) for shard in waiting.missing]
            continue
        if found:
            measured[name] = found
    if unfinished:
        raise Unfinished(unfinished)
    return measured


def export(
    protocol: Protocol, folder: Path, options: Options, checkpoints: Sequence[Checkpoint] = ()
) -> int:
    """As `runs.export`, of all tables and of the small files; returns the number of images."""
    small, _ = small_files.gather(options.data) if protocol.small else ({}, [])
    inside = replace(options, data="") if protocol.small else options
    count = 0
    for part in _chosen(protocol, checkpoints):
        count += runs.export(part, folder, inside, checkpoints, _name(part))
    return count + small_files.export(folder / "lr" / SMALL, small)


def _check_images(
    protocol: Protocol, method: str, place: Path, names: Sequence[str], small: Sequence[str]
) -> None:
    """Raises UserError if a method lacks a table's images, or has not all of the small files."""
    lacking = [name for name in names if not (place / name).is_dir()]
    if not lacking and (place / SMALL).is_dir():
        theirs = pairs.by_stem(place / SMALL)
        lacking = [f"{SMALL}/{stem}" for stem in small if stem not in theirs]
    if lacking:
        raise UserError(
            f"--images={method}={place} has no {pairs.listed(lacking)}; what to make them from is "
            f"written by sr3 evaluate --protocol={protocol.name} --export=DIR"
        )


def markdown(results: report.Results) -> str:
    """The summary: all tables, one below the other."""
    lines = [f"# {results['protocol']}", "", f"{results['title']}.", "", results["about"], ""]
    for table in results["parts"].values():
        lines += [f"## {table['title']}", "", report.markdown(table["methods"], table["columns"])]
        lines += [report.footnote(table), ""]
        lines += [f"Left out: {'; '.join(table['left_out'])}.", ""] if table["left_out"] else []
        lines += [report.against_the_best(table), ""] if table["differences"] else []
        lines += [f"{line}\n" for line in report.left_out(table)]
    if "small" not in results:
        return "\n".join(lines)
    files = ", ".join([*results["small"]["files"], *results["small"]["missing"]])
    lines += ["## Small and compressed files", "", "Of these nobody has a better version: they are"]
    lines += [f"to look at, and nothing was done to them ({files}).", ""]
    lines += [f"![Small and compressed files, enlarged]({SMALL}.png)", ""]
    return "\n".join(lines)


def _name(part: Protocol) -> str:
    return part.name.rpartition("/")[2]
