"""Files from elsewhere, kept for the next run of the same user.

A copy is named by what its source says of the content (a digest, a version, a time), so it is used
for as long as the content stays the same. The folder is the user's own: nobody else on the machine
can put a file there.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import fsspec

from sr3_jax.errors import UserError, first_line
from sr3_jax.runtime import startup
from sr3_jax.runtime.atomic import replacing

# By which hf, gs, s3, az, https, sftp and local files tell one content from another
VERSIONS = frozenset(
    "blob_id oid sha256 lfs md5Hash md5 crc32c generation etag ETag VersionId Content-MD5 Digest "
    "Last-Modified LastModified last_modified updated mtime".split()
)


def kept(kind: str, source: str, version: str, write: Callable[[Path], object]) -> Path:
    """The copy of a file in the user's cache, made if it is not there.

    Args:
      kind: what kind of file, the name of a folder in the cache.
      source: the file's address. Copies of older versions of it are removed.
      version: of its content; empty if it is unknown, which lets the copy be made anew.
      write: writes the file to the path that it is given.

    Raises:
      UserError: it cannot be written there.
    """
    folder, name = startup.user_cache() / kind / _digest(source), source.rpartition("/")[2]
    copy = folder / f"{_digest(version)}-{name}"
    if version and copy.exists():
        return copy
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not what another process is writing just now: that has no such name
        for older in [path for path in folder.iterdir() if path.name[17:] == name]:
            older.unlink(missing_ok=True)
        with replacing(copy) as partial:
            write(partial)
    except OSError as error:
        raise UserError(
            f"{source} cannot be copied to {folder}: {error.strerror or error}; "
            "let XDG_CACHE_HOME name a folder with room"
        ) from error
    return copy


def fetched(address: str, inside: str) -> Path | None:
    """The copy of the file at an address that fsspec can read (gs://, hf://, https:// and more).

    Args:
      address: of the file, or of a folder that has it.
      inside: the file's name in such a folder.

    Returns:
      Its path, or None if there is no such file.

    Raises:
      UserError: the address is of no kind that is known here, its package is not installed, or the
        server does not answer.
    """
    try:
        system, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise UserError(f"{address} cannot be reached: {first_line(error)}") from error
    for place in (path, f"{path.rstrip('/')}/{inside}"):
        # Each file system has errors of its own for what is missing, forbidden or out of reach
        try:
            about = system.info(place)
        except FileNotFoundError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
                raise UserError(f"{address} cannot be read: {first_line(cause)}") from error
            continue
        except Exception as error:
            raise UserError(f"{address} cannot be read: {first_line(error)}") from error
        if about["type"] != "file":
            continue
        version = {key: about[key] for key in sorted(VERSIONS & about.keys()) if about[key]}
        said = json.dumps([version, about["size"]], default=str) if version else ""

        def write(partial: Path, place: str = place) -> None:
            try:
                system.get_file(place, str(partial))
            except OSError:
                raise
            except Exception as error:
                raise UserError(f"{address} cannot be read: {first_line(error)}") from error

        return kept("files", system.unstrip_protocol(place), said, write)
    return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
