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

    def has(self, job: Job) -> bool:
        """Whether all files of a job are there, whole, from this image and by these settings."""
        if not all(name.exists() for name in job.outputs):
            return False
        known = self._read()
        lines = [self._line(job, name) for name in job.outputs]
        return all(known.get(line["file"]) == line for line in lines)

    def add(self, job: Job) -> None:
        """Notes down what a job has made."""
        lines = "".join(
            json.dumps(self._line(job, name)) + "\n" for name in job.outputs if name != STDIO
        )
        if not lines:
            return
        # One call of the system, so that lines of several runs do not mix
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, lines.encode())
        finally:
            os.close(descriptor)

    def _line(self, job: Job, name: Path) -> dict[str, Any]:
        return {
            "file": os.path.relpath(name, self._file.parent),
            "bytes": name.stat().st_size,
            "image": pairs.fingerprint({job.source.name: job.source}),
            "settings": self._settings,
        }

    def _read(self) -> dict[str, dict[str, Any]]:
        """{file: its last line}."""
        found = {}
        with suppress(FileNotFoundError):
            for line in self._file.read_text("utf-8", "replace").splitlines():
                with suppress(ValueError, KeyError, TypeError):  # one that was cut off
                    entry = json.loads(line)
                    found[entry["file"]] = entry
        return found


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
