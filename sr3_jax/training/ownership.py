"""One workdir, one run; and whether the data are still those that the run began with."""

import contextlib
import json
import os
import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from sr3_jax.data.source import Source
from sr3_jax.errors import UserError
from sr3_jax.runtime.atomic import disk_errors, write_text
from sr3_jax.runtime.paths import AnyPath

LOCK, OWNER = ".lock", ".owner"
DATA = "data.json"


@contextlib.contextmanager
def claimed(workdir: AnyPath) -> Iterator[None]:
    """Holds a workdir against other runs; the system lets it go when its owner dies.

    An object store has no locks.

    Raises:
      UserError: another run holds it; says which.
    """
    if not isinstance(workdir, Path):
        yield
        return
    lock = FileLock(workdir / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        owner = ""
        with contextlib.suppress(OSError):
            owner = (workdir / OWNER).read_text().strip()
        raise UserError(
            f"{workdir} is being trained by {owner or 'another process'}; "
            "wait for it, stop it, or use another --workdir"
        ) from None
    except (OSError, NotImplementedError):  # a file system without locks
        yield
        return
    try:
        with disk_errors(workdir):
            write_text(workdir / OWNER, f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
        (workdir / OWNER).unlink(missing_ok=True)
    finally:
        lock.release()


def compare_data(workdir: AnyPath, source: Source, say: Callable[[str], object]) -> None:
    """Says so if the images are others than when the run began; notes them when it begins."""
    now = _known_by(source)
    file = workdir / DATA
    if not file.exists():
        with disk_errors(workdir):
            write_text(file, json.dumps(now) + "\n")
        return
    then = json.loads(file.read_text())
    if then != now:
        say(
            f"the training data have changed since this run began: {then['images']:,} images "
            f"({then['names']}) then, {now['images']:,} ({now['names']}) now; it goes on with these"
        )


def _known_by(source: Source) -> dict[str, int | str]:
    """The number of images and a checksum of their names, where they have any."""
    names = getattr(source, "ids", None) or getattr(source, "names", None) or ()
    return {
        "images": len(source),
        "names": f"{zlib.crc32(chr(10).join(names).encode('utf-8', 'surrogateescape')):08x}",
    }
