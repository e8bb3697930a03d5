"""Debian packages, read without dpkg, and what their copyright files say of a file.

A package is an `ar` archive of two tar archives. Nothing is unpacked: members are read into memory,
so that no path in a package can make us write outside of a folder.
"""

import fnmatch
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sr3_jax.data.source import DataError

# A paragraph of a control file: values by field, in lower case; values may have several lines
Paragraph = dict[str, str]
_URL = re.compile(r"https?://[^\s<>)]+")
# A name, a colon, and a value, to which all lines belong that begin with a space
_FIELD = re.compile(r"^([^\s:][^:\n]*):(.*(?:\n[ \t].*)*)", re.MULTILINE)


class Deb(NamedTuple):
    """A Debian package, with some of its files."""

    name: str
    version: str
    # The regular files that were wanted, by their path from the root, "usr/share/…"
    files: dict[str, bytes]


class Credit(NamedTuple):
    """Whose a file is, and under which licence."""

    holders: str  # "2008, Jane Doe; 2009, John Doe", without e-mail addresses
    licence: str  # its short name, "CC-BY-4.0"
    source: str  # a URL, or empty


def read(path: Path, wanted: Callable[[PurePosixPath], bool]) -> Deb:
    """The package in a .deb file, with the files of whose path `wanted` is true.

    Raises:
      DataError: it is damaged, or compressed in a way that is not supported.
    """
    try:
        members = _members(path.read_bytes())
        zstd = [name for name in members if name.endswith(".zst")]
        if zstd and "zst" not in tarfile.TarFile.OPEN_METH:  # Python reads it from 3.14 on
            raise DataError(
                f"{path}: {zstd[0]} needs Python 3.14; or take the package from Debian, "
                "which compresses with xz"
            )
        [about] = paragraphs(
            _files(members, "control", lambda name: str(name) == "control")["control"].decode()
        ) or [{}]
        return Deb(about["package"], about["version"], _files(members, "data", wanted))
    except (
        tarfile.TarError,
        lzma.LZMAError,
        zlib.error,
        EOFError,
        OSError,
        KeyError,
        ValueError,
    ) as error:
        detail = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise DataError(
            f"{path} cannot be read as a Debian package ({detail}); fetch it again"
        ) from error


def paragraphs(text: str) -> list[Paragraph]:
    """The paragraphs of a Debian control file; copyright files have the same format."""
    blocks = [_FIELD.findall(block) for block in re.split(r"\n\s*\n", text)]
    return [
        {
            name.strip().lower(): "\n".join(map(str.strip, value.split("\n")))
            for name, value in fields
        }
        for fields in blocks
        if fields
    ]


def credit(copyright: str, path: str) -> Credit | None:
    """What a machine-readable copyright file (DEP-5) says of an installed file.

    Its patterns are paths in the source package. Installation may have moved a file, or written it
    in another format, as `.webp` instead of `.jpg`. So three kinds of match are tried, best first:
    a pattern with a folder that is the end of the path, suffixes aside; one with the file's own
    name; a wildcard that fits the end of the path. Of equally good matches the last counts.

    Args:
      copyright: the text of the copyright file.
      path: of the installed file.

    Returns:
      The credit; None if the file says nothing about `path`, or is not machine-readable.
    """
    first, *others = paragraphs(copyright) or [{}]
    ends = [path.split("/", depth)[-1] for depth in range(path.count("/") + 1)]
    stems = {_stem(end) for end in ends if "/" in end}

    def certainty(pattern: str) -> int:
        if "/" in pattern and _stem(pattern) in stems:
            return 3
        if pattern.rpartition("/")[2] == ends[-1]:
            return 2
        return int(any(fnmatch.fnmatchcase(end, pattern) for end in ends))

    def best(paragraph: Paragraph) -> int:
        return max(map(certainty, paragraph.get("files", "").split()), default=0)

    last = max(reversed(others), key=best, default={})
    if "format" not in first or not best(last):
        return None
    holders = [re.sub(r"\s*<\S*@\S*", "", line) for line in last.get("copyright", "").splitlines()]
    urls = _URL.findall(" ".join(value for field, value in last.items() if field != "license"))
    licence = (last.get("license") or "not stated").splitlines()[0]
    return Credit(
        "; ".join(filter(None, holders)) or "not stated", licence, urls[0] if urls else ""
    )


def _stem(path: str) -> str:
    """The path without its suffix."""
    return re.sub(r"\.[^./]*$", "", path)


def _members(data: bytes) -> dict[str, bytes]:
    """The members of an `ar` archive."""
    if not data.startswith(b"!<arch>\n"):
        raise ValueError("it is no ar archive")
    members, place = {}, 8
    while place < len(data):
        header = data[place : place + 60]
        name, size = header[:16].decode("ascii").strip().rstrip("/"), int(header[48:58])
        if size < 0 or place + 60 + size > len(data):
            raise ValueError("it ends too early")
        members[name] = data[place + 60 : place + 60 + size]
        place += 60 + size + size % 2
    return members


def _files(
    members: dict[str, bytes], archive: str, wanted: Callable[[PurePosixPath], bool]
) -> dict[str, bytes]:
    """The wanted regular files of control.tar.* or data.tar.*.

    Links are left out: what they point to is in the archive as well.
    """
    name = next((name for name in members if name.startswith(f"{archive}.tar")), None)
    if name is None:
        raise ValueError(f"it has no {archive}.tar")
    with tarfile.open(fileobj=io.BytesIO(members[name])) as files:
        found = {
            str(PurePosixPath(member.name)): files.extractfile(member).read()  # type: ignore[union-attr]
            for member in files
            if member.isreg() and wanted(PurePosixPath(member.name))
        }
        # Read to the end, so that a truncated or damaged stream is noticed
        while files.fileobj and files.fileobj.read(2**20):
            pass
    return found
