"""Places of this machine and of object stores (gs://, s3://), which know neither rename nor append nor half a read."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from etils import epath

from sr3_jax.errors import UserError

AnyPath: TypeAlias = Path | epath.Path


def parse(place: str | AnyPath) -> AnyPath:
    """A path of the kind that the text names; raises UserError when no driver for it is installed."""
    if not isinstance(place, str):
        return place
    if "://" not in place:
        return Path(place)
    try:
        path = epath.Path(place)
        path.exists()
    except (ImportError, KeyError, ValueError) as error:  # no such scheme, or no driver for it
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{place} cannot be reached: {first}; for gs:// install 'sr3_jax[gcs]'"
        ) from error
    return path


def is_remote(path: AnyPath) -> bool:
    """Whether it lies in an object store."""
    return not isinstance(path, Path)


def absolute(path: AnyPath) -> AnyPath:
    """Independent of the current folder."""
    return path if is_remote(path) else Path(path).absolute()


def files_below(folder: AnyPath) -> Iterator[str]:
    """The files in a folder and in those within it, but for hidden ones, as names relative to it, in no order."""
    if isinstance(folder, Path):
        names = (
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        )
        yield from (name for name in names if "/." not in f"/{name}")
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
    """The file itself, or while the block lasts a copy of a remote one, for libraries that need a local file."""
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="sr3-") as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(path.read_bytes())
        yield copy
