"""What a run over many images has made, for the next run; and who is making what just now.

A line of a hidden file of the output folder tells of each file: from which image (its content), by
which settings and how large it is. A run that goes on (--skip-existing) leaves out what is there,
whole and made alike. Runs into one folder claim each file by a lock, which ends with its owner.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from sr3_jax.errors import UserError
from sr3_jax.images import files
from sr3_jax.images.files import STDIO

NAME = ".sr3-made.jsonl"


class Image(NamedTuple):
    """An image file as it was when it was read."""

    data: bytes
    name: str
    content: str  # a hash of the data, and of the mask's if there is one
    stat: str  # size, times and number of the files, which change with them; empty: none


def read(path: Path, mask: Path | None = None) -> Image:
    """Reads an image file, or standard input for "-", and its mask; raises ImageError."""
    stat = _stat(path, mask)  # before: a file that is replaced meanwhile has another
    data = files.load(path)
    digest = hashlib.sha256(data)
    if mask:
        digest.update(files.load(mask))
    return Image(data, path.name, digest.hexdigest()[:16], stat)


def _stat(path: Path, mask: Path | None) -> str:
    if path == STDIO:
        return ""
    with suppress(OSError):
        found = [each.stat() for each in (path, mask) if each]
        return " ".join(
            f"{one.st_size} {one.st_mtime_ns} {one.st_ctime_ns} {one.st_ino}" for one in found
        )
    return ""


def names(folder: Path) -> set[Path]:
    """The files in a folder that earlier runs have made, as far as its journal knows."""
    found = set()
    with suppress(OSError):
        for line in (folder / NAME).read_bytes().splitlines():
            with suppress(ValueError, KeyError, TypeError):
                found.add(folder / json.loads(line)["file"])
    return found


class Journal:
    """The journal of an output folder, for one choice of settings.

    Args:
      folder: The output folder; it need not exist yet.
      settings: All that a result depends on beside its image, as JSON.

    Raises:
      UserError: The journal cannot be written.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self._file = folder / NAME
        text = json.dumps(settings, sort_keys=True)
        self._settings = f"{zlib.crc32(text.encode()):08x}"
        self._known: dict[str, dict[str, Any]] = {}
        self._read_to = 0  # bytes of the file
        there = self._file.exists()
        if there and not (self._file.is_file() and os.access(self._file, os.W_OK)):
            raise UserError(
                f"{self._file}, which says what was made here, cannot be written to; "
                "give another --output"
            )

    def made(self, source: Path, name: Path, mask: Path | None = None) -> bool:
        """Whether a file that is there is whole, from the image `source` and by these settings.

        And, if it has one, with the mask.
        """
        self._read_on()
        known = self._known.get(os.path.relpath(name, self._file.parent), {})
        size = name.stat().st_size
        wanted = {"bytes": size, "name": source.name, "settings": self._settings}
        if any(known.get(key) != value for key, value in wanted.items()):
            return False
        if known.get("stat") and known["stat"] == _stat(source, mask):
            return True
        return source != STDIO and known.get("content") == read(source, mask).content

    def add(self, image: Image, name: Path, size: int) -> None:
        """Notes down a file of so many bytes that is about to appear.

        Before it does: a run that is killed in between must know it again.
        """
        # Begun by an end of line, in case the last one was cut off; written by one call of the
        # system, so that lines of several runs do not mix
        line = {
            "file": os.path.relpath(name, self._file.parent),
            "bytes": size,
            "name": image.name,
            "content": image.content,
            "stat": image.stat,
            "settings": self._settings,
        }
        text = f"\n{json.dumps(line)}\n"
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def _read_on(self) -> None:
        """Reads the lines that have come since the last time, of whatever run."""
        with suppress(FileNotFoundError), self._file.open("rb") as file:
            file.seek(self._read_to)
            text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read_to += len(whole)
            for line in whole.splitlines():
                with suppress(ValueError, KeyError, TypeError):  # one that was cut off
                    entry = json.loads(line)
                    self._known[entry["file"]] = entry


@contextmanager
def claimed(target: Path, wait: bool = False) -> Iterator[bool]:
    """Holds a file against other runs; gives whether it could be had.

    Args:
      target: The first file that is made of an image.
      wait: Whether to wait for another run that is making it.
    """
    if target == STDIO:
        yield True
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".sr3-{target.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError):  # a file system without locks
        yield True
        return
    try:
        yield True
    finally:
        # While it is held: whoever had opened it before finds the results when it is their turn
        path.unlink(missing_ok=True)
        lock.release()
