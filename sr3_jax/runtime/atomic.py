"""Atomic writing: files that appear whole, by rename or upload, or not at all."""

import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sr3_jax.errors import UserError
from sr3_jax.runtime.paths import AnyPath


@contextmanager
def replacing(path: AnyPath, replace: bool = True) -> Iterator[Path]:
    """Gives a temporary file to write to, which becomes `path` if the block ends without error.

    With replace=False, a file that is there by then stays, and FileExistsError is raised.
    """
    if not isinstance(path, Path):  # an object appears whole when its upload ends
        with tempfile.TemporaryDirectory(prefix="sr3-") as folder:
            local = Path(folder) / path.name
            yield local
            if not replace and path.exists():
                raise FileExistsError(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(local.read_bytes())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".sr3-{uuid.uuid4().hex}{path.suffix}")
    temporary.touch(exist_ok=False)  # not mkstemp's, whose files are their owner's alone
    mode = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        temporary.chmod(mode)  # some libraries put a new file in its place: safetensors' is private
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())  # without it, a power cut can leave an empty file of that name
        temporary.replace(path) if replace else _link(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes a rename last through a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _link(temporary: Path, path: Path) -> None:
    """Gives a file its name, unless another has it; raises FileExistsError."""
    try:
        os.link(temporary, path)  # unlike a rename, it never replaces a file
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(path) from None
        temporary.replace(path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives a folder to fill, which becomes `path` if the block ends without error.

    Raises UserError if `path` holds anything already.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists; give a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".sr3-", dir=path.parent) as parent:
        made = Path(parent) / path.name
        made.mkdir()
        yield made
        made.rename(path)


def write_text(path: AnyPath, text: str) -> None:
    """Writes a text file that appears whole, by rename."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_new_text(path: AnyPath, text: str) -> None:
    """Writes a text file that appears whole, unless there is one, which stays as it is.

    Of several machines that write at the same time one is first; in an object store, the last one's
    file may replace it.
    """
    if not isinstance(path, Path):
        if not path.exists():
            write_text(path, text)
        return
    with suppress(FileExistsError), replacing(path, replace=False) as temporary:
        temporary.write_text(text)


@contextmanager
def disk_errors(where: AnyPath) -> Iterator[None]:
    """Turns errors of a full or read-only disk into a UserError; `where` names what is written."""
    try:
        yield
    except Exception as error:  # each library has its own: tensorstore's are ValueErrors
        detail = str(error).lower()
        signs = (
            "No space left on device",
            "File too large",
            "Disk quota exceeded",
            "Read-only file system",
            "Permission denied",
            "Not a directory",
            "File exists",
            "RESOURCE_EXHAUSTED",
        )
        sign = next((sign for sign in signs if sign.lower() in detail), None)
        # a device's full memory is RESOURCE_EXHAUSTED too, as is a bucket's quota
        if sign is None or "allocat" in detail or isinstance(error, UserError):
            raise
        raise UserError(
            f"{where} cannot be written: {sign}; what was there before is untouched"
        ) from error
