"""What a run over many images has made, for the next run; and who is making what just now.

A line of a hidden file of the output folder tells of each file: from which image, by which settings
and how large it is. A run that goes on (--skip-existing) leaves out what is there, whole and made
alike. Runs into one folder claim each file by a lock, which ends with its owner.
"""

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sr3_jax.images import pairs
from sr3_jax.images.files import STDIO
from sr3_jax.inference.plan import Job

NAME = ".sr3-made.jsonl"


class Journal:
    """The journal of an output folder, for one choice of settings.

    Args:
      folder: The output folder; it need not exist yet.
      settings: All that a result depends on beside its image, as JSON.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self._file = folder / NAME
        text = json.dumps(settings, sort_keys=True)
        self._settings = f"{zlib.crc32(text.encode()):08x}"
        self._known: dict[str, dict[str, Any]] = {}
        self._read_to = 0  # bytes of the file

    def made(self, job: Job, name: Path) -> bool:
        """Whether a file that is there is whole, from the job's image and by these settings."""
        self._read_on()
        line = self._line(job, name, name.stat().st_size)
        return self._known.get(line["file"]) == line

    def add(self, job: Job, name: Path, size: int) -> None:
        """Notes down a file of so many bytes that is about to appear.

        Before it does: a run that is killed in between must know it again.
        """
        # Begun by an end of line, in case the last one was cut off; written by one call of the
        # system, so that lines of several runs do not mix
        text = f"\n{json.dumps(self._line(job, name, size))}\n"
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def _line(self, job: Job, name: Path, size: int) -> dict[str, Any]:
        return {
            "file": os.path.relpath(name, self._file.parent),
            "bytes": size,
            "image": pairs.fingerprint({job.source.name: job.source}),
            "settings": self._settings,
        }

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
def claimed(job: Job, wait: bool = False) -> Iterator[bool]:
    """Holds a job's files against other runs; gives whether they could be had.

    Args:
      job: The job.
      wait: Whether to wait for another run that is making them.
    """
    target = job.outputs[0]
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
