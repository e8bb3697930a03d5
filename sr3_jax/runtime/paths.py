"""Paths on this machine and in object stores (gs://, s3://).

Object stores can neither rename, nor append to, nor read part of a file.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from etils import epath

from sr3_jax.errors import UserError, first_line

AnyPath: TypeAlias = Path | epath.Path
STORES = ("gs://", "s3://")  # where workdirs and data can lie


def parse(place: str | AnyPath) -> AnyPath:
    """The path that a text names, ~ being the home folder.

    Raises:
      UserError: no driver for its kind is installed.
    """
    if not isinstance(place, str):
        return place
    if "://" not in place:
        return Path(place).expanduser()
    try:
        path = epath.Path(place)
        path.exists()
    except Exception as error:  # no such scheme, no driver for it, no connection: each its own
        raise UserError(
            f"{place} cannot be reached: {first_line(error)}; for gs:// install 'sr3_jax[gcs]'"
        ) from error
    return path


def is_remote(path: AnyPath) -> bool:
    """Whether the path lies in an object store."""
    return not isinstance(path, Path)


def absolute(path: AnyPath) -> AnyPath:
    """The path, independent of the current folder."""
    return path if is_remote(path) else Path(path).absolute()


def files_below(
    folder: AnyPath,
    without: Path | None = None,
    on_closed: Callable[[str], object] = lambda name: None,
) -> Iterator[str]:
    """The files in a folder and its sub-folders, as names relative to it, in no order.

    Hidden files, and those in hidden folders, are left out. Links are followed, and a folder that
    is met again by them is visited once.

    Args:
      folder: the folder.
      without: a folder (resolved) whose files are left out.
      on_closed: called with each sub-folder that cannot be read, and each link that leads nowhere.
    """
    if isinstance(folder, Path):
        seen = set()

        def failed(error: OSError) -> None:
            on_closed(os.path.relpath(error.filename, folder))

        for place, folders, names in os.walk(folder, followlinks=True, onerror=failed):
            real = Path(place).resolve()
            if real in seen or real == without:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside = Path(place).relative_to(folder)
            for name in names:
                path = Path(place) / name
                if name.startswith("."):
                    continue
                if path.is_file():
                    yield (inside / name).as_posix()
                elif path.is_symlink() and not path.exists():
                    on_closed((inside / name).as_posix())
        return
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from (f"{entry.name}/{name}" for name in files_below(entry))
        else:
            yield entry.name


@contextmanager
def local_copy(path: AnyPath) -> Iterator[Path]:
    """A local file with the content of `path`, for libraries that need one.

    It is the file itself, or a copy of a remote one for as long as the block lasts.
    """
    if isinstance(path, Path):
        yield path
    else:
        with tempfile.TemporaryDirectory(prefix="sr3-") as folder:
            copy = Path(folder) / path.name
            copy.write_bytes(path.read_bytes())
            yield copy
