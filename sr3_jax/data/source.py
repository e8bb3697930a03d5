"""What every data set offers: random access to images.

    len(source), source[i] -> Image

Sources are picklable and hold no open files. If an image cannot be read, `source[i]` raises
ImageError.
"""

import importlib.util
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from sr3_jax.errors import UserError

Box = tuple[int, int, int, int]  # left, upper, right, lower


class DataError(UserError):
    """The data set is not what the config says."""


NO_LABEL = -1  # of an image whose class is not known


class Image(NamedTuple):
    """An image of a data set."""

    pixels: UInt8[np.ndarray, "h w c"]
    id: str  # names the image within its data set
    # The square that the data set's protocol prescribes; None: the largest central one
    box: Box | None = None
    notes: tuple[str, ...] = ()  # what was converted when it was read
    label: int = NO_LABEL  # its class


class Dropped(NamedTuple):
    """An image that cannot be used, and why."""

    id: str
    reason: str


@runtime_checkable
class Source(Protocol):
    """A data set, or a split of one: random access to its usable images."""

    dropped: Sequence[Dropped]  # what is in the data set but cannot be used

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Image: ...


def package_folder(package: str, missing: str) -> Path:
    """Where an installed Python package is, whose files are wanted: it is not imported.

    Raises:
      DataError: it is not installed; the message is `missing`.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise DataError(missing)
    return Path(found.origin).parent


def image_id(name: str) -> int:
    """The number, below 2³¹, from which an image's random keys are made: a hash of its name."""
    return zlib.crc32(name.encode("utf-8", "surrogateescape")) & 0x7FFFFFFF


def is_held_out(name: str) -> bool:
    """Whether an image belongs to the held-out 5 %, by a hash of its name.

    For data sets that come without a split. All tiles of a photograph get the same answer.
    """
    return zlib.crc32(name.partition("#")[0].encode("utf-8", "surrogateescape")) % 20 == 0


def whole(source: Source) -> int:
    """The number of images, usable or not, in the whole set that `source` is a split of.

    Fractions of bad images are relative to this number.
    """
    return getattr(source, "total", 0) or len(source) + len(source.dropped)


def check_budget(bad: Sequence[Dropped], source: Source, max_fraction: float, where: str) -> None:
    """Checks that few enough images failed to load.

    The fraction is of the whole set, not of the split, since one broken file among a few held-out
    ones, or in a sample, must not stop a run.

    Args:
      bad: the images that cannot be used.
      source: the split that they are of.
      max_fraction: of the whole set, that may be bad.
      where: names the data in the error.

    Raises:
      DataError: more are bad, or all of the split; the message names a few.
    """
    split, total = len(source) + len(source.dropped), whole(source)
    if bad and (len(bad) > max_fraction * total or len(bad) >= split):
        named = "; ".join(f"{one.id} {one.reason}".strip() for one in bad[:5]) + (
            "; …" if len(bad) > 5 else ""
        )
        if len(bad) >= split:
            raise DataError(f"{where}: none of {split} images can be used ({named})")
        raise DataError(
            f"{where}: {len(bad)} of {total} images cannot be used, "
            f"above data.max_bad_fraction = {max_fraction} ({named}); remove them or raise it"
        )


def converted(notes: Iterable[Iterable[str]]) -> str:
    """The notes of some images in one line, "3 × palette converted to RGB, …"; empty for none."""
    counts = Counter(note for of_one in notes for note in of_one)
    return ", ".join(f"{count} × {note}" for note, count in counts.most_common())
