"""Folders whose images belong together by their stems: a.png, sub/a.jpg."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from sr3_jax.errors import UserError
from sr3_jax.images import arrays
from sr3_jax.runtime.paths import AnyPath

LISTED = 8  # names in an error


def by_stem(folder: Path) -> dict[str, Path]:
    """{path without its suffix, relative to the folder: file}; raises UserError for none, or two of one stem."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    found: dict[str, Path] = {}
    for path in sorted(
        path for path in folder.rglob("*") if arrays.is_image_name(path) and path.is_file()
    ):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise UserError(f"{found[stem]} and {path} have the same stem: which of them is meant?")
        found[stem] = path
    if not found:
        raise UserError(f"{folder} holds no images")
    return found


def match(
    reference: Path, others: Mapping[str, Path]
) -> tuple[list[str], dict[str, dict[str, Path]]]:
    """The stems, sorted, and the files of "reference" and of each other folder by stem.

    Every folder must hold the same stems; raises UserError that lists the missing and the extra
    ones.
    """
    found = {"reference": by_stem(reference)} | {
        name: by_stem(folder) for name, folder in others.items()
    }
    wanted = found["reference"].keys()
    wrong = []
    for name, folder in others.items():
        missing, extra = sorted(wanted - found[name].keys()), sorted(found[name].keys() - wanted)
        wrong += [f"{folder} has no {listed(missing)}"] if missing else []
        wrong += (
            [f"{folder} has {listed(extra)}, of which {reference} knows nothing"] if extra else []
        )
    if wrong:
        raise UserError("; ".join(wrong))
    return sorted(wanted), found


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def read_rgb(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """The image in RGB, 8 bits; raises ImageError."""
    return arrays.read(path, channels=3)[0]


def fingerprint(files: Mapping[str, AnyPath]) -> str:
    """A few digits of the names, sizes and times of files: others when any of them has changed."""
    code = 0
    for stem in sorted(files):
        stat = files[stem].stat()
        code = zlib.crc32(
            f"{stem}\n{getattr(stat, 'st_size', getattr(stat, 'length', 0))}\n{getattr(stat, 'st_mtime_ns', 0)}".encode(),
            code,
        )
    return f"{code:08x}"


def named_folders(given: Sequence[str]) -> dict[str, Path]:
    """{name: folder} of NAME=DIR or DIR, whose name is the folder's own; raises UserError for a name given twice."""
    found: dict[str, Path] = {}
    for text in given:
        name, separator, folder = text.partition("=")
        name, path = (name, Path(folder)) if separator else (Path(text).name, Path(text))
        if name in found:
            raise UserError(f"two methods are called {name!r}: give NAME=DIR")
        if not name:
            raise UserError(f"{text!r} has no name: give NAME=DIR")
        found[name] = path
    return found
