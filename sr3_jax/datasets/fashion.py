"""`sr3 prepare fashion`: Fashion-MNIST, from a Debian package.

70,000 grey images of 28×28 pixels in ten classes (Xiao, Rasul and Vollgraf, arXiv 1708.07747),
small enough to train a generative model on a CPU. The 10,000 test images are held out by name:
their ids begin with "test/".
"""

import gzip
import hashlib
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from sr3_jax.data.cards import DATA_CARD
from sr3_jax.data.source import DataError, Dropped, Image
from sr3_jax.datasets import deb, debian_archive, prepare
from sr3_jax.runtime.atomic import disk_errors, write_text
from sr3_jax.runtime.paths import AnyPath

NAME = "fashion"
PACKAGE, VERSION = "dataset-fashion-mnist", "0.0~git20200523.55506a9-1"
DIGEST = "2cbc59191665e1ba"  # of the pixels and labels in that version
CLASSES = tuple("t-shirt trouser pullover dress coat sandal shirt sneaker bag ankle-boot".split())
SIZE = 28
OPTIONS = prepare.Options(SIZE, encoding="raw")
HELD_OUT = "test/"
PARTS = {"train": "train", "test": "t10k"}  # the part of an id: what its files are called
FOLDER = "usr/share/datasets/fashion-mnist"


@dataclass
class FashionImages:
    """All images: pixels, labels and the parts "train" and "test", whose ids count from 0."""

    pixels: UInt8[np.ndarray, "n h w"]
    labels: UInt8[np.ndarray, " n"]
    ids: list[str]
    class_names: Sequence[str] = CLASSES
    dropped: Sequence[Dropped] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Image:
        return Image(self.pixels[index, ..., None], self.ids[index], label=int(self.labels[index]))

    @property
    def digest(self) -> str:
        """Of the pixels and labels."""
        return hashlib.sha256(self.pixels.tobytes() + self.labels.tobytes()).hexdigest()[:16]


class Package(NamedTuple):
    """What the package holds."""

    version: str
    images: FashionImages

    @property
    def differs(self) -> str:
        """A sentence if these are not the images that we know; else empty."""
        if self.images.digest == DIGEST:
            return ""
        return (
            f"the images in {PACKAGE} {self.version} ({len(self.images)}) are not those in version "
            f"{VERSION} (70000), which is Fashion-MNIST as published"
        )


def prepare_fashion(
    output: AnyPath,
    packages: Path | None = None,
    options: prepare.Options = OPTIONS,
    **others: Any,
) -> prepare.Prepared:
    """Write or complete the records of Fashion-MNIST in the folder `output`.

    If it is complete already, nothing is fetched or read.

    Args:
      output: The folder to write.
      packages: A folder with the .deb file; None: apt-get downloads it.
      options: How images become records.
      **others: Further arguments of prepare.prepare.

    Raises:
      UserError: As prepare.prepare does, or the package is missing or damaged.
    """
    done = prepare.finished(output, options.settings(NAME))
    if done and (output / DATA_CARD).exists():
        return done
    with tempfile.TemporaryDirectory(prefix="sr3-") as temporary:
        folder = Path(temporary)
        with disk_errors(folder):
            files = debian_archive.packages([PACKAGE], packages, folder, "Fashion-MNIST")
            package = read(files[PACKAGE])
    images = prepare.Images(package.images, package.images.ids)
    done = prepare.prepare(images, output, options, name=NAME, held_out=[HELD_OUT], **others)
    with disk_errors(output):
        write_text(output / DATA_CARD, card(package, options))
    return done._replace(notes=[package.differs] if package.differs else [])


def read(file: Path) -> Package:
    """The images in a .deb file; raises DataError if it is damaged or another package."""
    package = deb.read(file, lambda path: str(path.parent) == FOLDER)
    if package.name != PACKAGE:
        raise DataError(f"{file} is the package {package.name}, not {PACKAGE}")

    def array(name: str, rank: int) -> np.ndarray:
        path = f"{FOLDER}/{name}-idx{rank}-ubyte.gz"
        try:
            return idx(gzip.decompress(package.files[path]), rank)
        except KeyError as error:
            raise DataError(f"{file} holds no {path}") from error
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise DataError(f"{path} in {file} is damaged: {error}") from error

    pixels = [array(f"{name}-images", 3) for name in PARTS.values()]
    labels = [array(f"{name}-labels", 1) for name in PARTS.values()]
    for part, images, numbers in zip(PARTS, pixels, labels, strict=True):
        if len(images) != len(numbers) or max(numbers, default=0) >= len(CLASSES):
            raise DataError(
                f"{file} is damaged: the labels of its {part} images ({len(numbers)} for "
                f"{len(images)}) are not one for each, below {len(CLASSES)}"
            )
    ids = [
        f"{part}/{index:05d}"
        for part, images in zip(PARTS, pixels, strict=True)
        for index in range(len(images))
    ]
    everything = FashionImages(np.concatenate(pixels), np.concatenate(labels), ids)
    return Package(package.version, everything)


def idx(data: bytes, rank: int) -> np.ndarray:
    """An array in the format of MNIST: two zeros, the type, the rank, the sides, the numbers.

    Args:
      data: of the file, decompressed.
      rank: that is expected.

    Raises:
      ValueError: the data are not such an array of bytes.
    """
    if data[:4] != bytes([0, 0, 8, rank]):
        raise ValueError(f"it does not begin like an idx file of bytes of rank {rank}")
    start = 4 + 4 * rank
    shape = np.frombuffer(data[4:start], ">u4").tolist()
    if len(data) - start != int(np.prod(shape)):
        raise ValueError(f"it holds {len(data) - start} bytes, not {' × '.join(map(str, shape))}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def card(package: Package, options: prepare.Options) -> str:
    """The data card of the records, as Markdown."""
    images = package.images
    test = sum(id.startswith(HELD_OUT) for id in images.ids)
    counts = np.bincount(images.labels, minlength=len(CLASSES))
    size = "" if options.size == SIZE else f" --size={options.size}"
    note = [f"Note: {package.differs}.", ""] if package.differs else []
    return "\n".join(
        [
            "# Data",
            "",
            f"Fashion-MNIST: {len(images) - test:,} training and {test:,} test images of clothes "
            "and shoes,",
            f"grey, {SIZE}×{SIZE} pixels, in {len(CLASSES)} classes. Written by",
            "",
            f"    sr3 prepare {NAME}{size} --output=DIR",
            "",
            f"from Debian's package {PACKAGE} {package.version}. Held out: the test images.",
            "",
            *note,
            "Source: Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747, "
            "https://github.com/zalandoresearch/fashion-mnist.",
            "Copyright 2017, Zalando SE. Licence: MIT (Expat).",
            "",
            "Photographs of articles of one shop, one article an image, centred, reduced and "
            "inverted: bright on black.",
            "Shirts, t-shirts, pullovers and coats are hard to tell apart at this size.",
            "",
            "| class | name | images |",
            "|---:|---|---:|",
            *(
                f"| {number} | {name} | {count:,} |"
                for number, (name, count) in enumerate(zip(CLASSES, counts.tolist(), strict=True))
            ),
            "",
        ]
    )
