"""What a data set is to everything else: random access to images.

    len(source), source[i] -> Image

Sources are picklable and hold no open files. An image that cannot be read raises ImageError from
`source[i]`.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from sr3_jax.errors import UserError

Box = tuple[int, int, int, int]  # left, upper, right, lower


class DataError(UserError):
    """The data set is not what the config says."""


class Image(NamedTuple):
    pixels: UInt8[np.ndarray, "h w c"]
    id: str  # names the image within its data set
    # The square that the data set's protocol uses; None: the largest central one
    box: Box | None = None
    notes: tuple[str, ...] = ()  # what was converted when it was read


class Dropped(NamedTuple):
    id: str
    reason: str


@runtime_checkable
class Source(Protocol):
    dropped: Sequence[Dropped]  # what is in the data set but cannot be used

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Image: ...


def image_id(name: str) -> int:
    """The number, below 2³¹, that stands for an image in random keys."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF


def is_held_out(name: str) -> bool:
    """Whether an image without a split of its own belongs to the held-out 5 %; the tiles of a photograph go together."""
    return zlib.crc32(name.partition("#")[0].encode()) % 20 == 0


def whole(source: Source) -> int:
    """The number of images in the set that the source is a split of, usable or not: what a fraction of bad ones is one of."""
    return getattr(source, "total", 0) or len(source) + len(source.dropped)


def check_budget(bad: Sequence[Dropped], source: Source, max_fraction: float, where: str) -> None:
    """Raises DataError when those `bad` are more than `max_fraction` of the whole set, or all of the split; names a few.

    Of the whole set, since one broken file among a few held-out ones, or in a sample, must not stop
    a run.
    """
    split, total = len(source) + len(source.dropped), whole(source)
    if bad and (len(bad) > max_fraction * total or len(bad) >= split):
        named = "; ".join(f"{one.id} {one.reason}".strip() for one in bad[:5]) + (
            "; …" if len(bad) > 5 else ""
        )
        if len(bad) >= split:
            raise DataError(f"{where}: none of {split} images can be used ({named})")
        above = f"above data.max_bad_fraction = {max_fraction}"
        raise DataError(
            f"{where}: {len(bad)} of {total} images cannot be used, {above} ({named}); remove them or raise it"
        )


def converted(notes: Iterable[Iterable[str]]) -> str:
    """What was converted, in words, from the notes of some images; empty for none."""
    counts = Counter(note for of_one in notes for note in of_one)
    return ", ".join(f"{count} × {note}" for note, count in counts.most_common())
