"""Folders whose images belong together by their stems (paths without suffix): a.png and a.jpg."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from sr3_jax.errors import UserError
from sr3_jax.images import arrays
from sr3_jax.runtime.paths import AnyPath

LISTED = 8  # how many names an error lists


def by_stem(folder: Path) -> dict[str, Path]:
    """{stem: file} of a folder's images; a stem is the path in the folder, without suffix.

    Raises:
      UserError: there is no such folder, it holds no images, or two of the same stem.
    """
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
    """Matches the images of several folders to those of a reference folder.

    Args:
      reference: the folder of reference images.
      others: further folders, by name.

    Returns:
      The stems, sorted; and by folder ("reference", and the names of the others), {stem: file}.

    Raises:
      UserError: a folder does not hold the same stems; the message lists those missing or extra.
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
    """A hash, 8 hexadecimal digits, of the names, sizes and times of files, to notice changes."""
    code = 0
    for stem in sorted(files):
        stat = files[stem].stat()
        code = zlib.crc32(
            (
                f"{stem}\n{getattr(stat, 'st_size', getattr(stat, 'length', 0))}\n"
                f"{getattr(stat, 'st_mtime_ns', 0)}"
            ).encode("utf-8", "surrogateescape"),
            code,
        )
    return f"{code:08x}"


def named_folders(given: Sequence[str]) -> dict[str, Path]:
    """{name: folder} of arguments NAME=DIR or DIR, which is called by the folder's own name.

    Raises:
      UserError: a name is given twice, or is empty.
    """
    found: dict[str, Path] = {}
    for text in given:
        name, separator, folder = text.partition("=")
        name, path = (name, Path(folder)) if separator else (Path(text).name, Path(text))
        path = path.expanduser()
        if name in found:
            raise UserError(f"two methods are called {name!r}: give NAME=DIR")
        if not name:
            raise UserError(f"{text!r} has no name: give NAME=DIR")
        found[name] = path
    return found
