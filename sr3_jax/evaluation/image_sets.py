"""The images that are measured: a split of a data set, pairs of files, or files alone."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sr3_jax import config as config_lib
from sr3_jax.data import crops
from sr3_jax.data.folder import Folder
from sr3_jax.data.records import MANIFEST, Records, read_manifest
from sr3_jax.data.source import Source
from sr3_jax.data.sources import open_source, tfds_place
from sr3_jax.errors import UserError
from sr3_jax.evaluation import contenders
from sr3_jax.evaluation.contenders import to_uint8
from sr3_jax.evaluation.edit_damage import CORRUPTIONS
from sr3_jax.evaluation.held_out import check_size
from sr3_jax.evaluation.measure import Images
from sr3_jax.evaluation.protocols import Options, Protocol
from sr3_jax.images import arrays, pairs
from sr3_jax.inference import generated
from sr3_jax.runtime import paths
from sr3_jax.tasks import build_task
from sr3_jax.tasks.operations import to_float

CHUNK = 16  # images measured at a time; a run that is killed loses the work on so many
CHUNK_PIXELS = CHUNK * 512**2  # at most, so that memory is bounded whatever the images' size


@dataclass
class Split:
    """Images of a data source, cut and degraded as a config says.

    `places` are the numbers of the images in the source. The other fields are those of `Data`.
    """

    config: ConfigDict
    source: Source
    places: list[int]
    damage: str = ""  # one of edit_damage.CORRUPTIONS
    about: dict[str, Any] = field(init=False)
    scale: int = field(init=False)

    def __post_init__(self):
        data = self.config.data
        shown = ("source", "hr_size", "lr_size", "fit") + (
            ("resample",) if data.fit == "resize" else ()
        )
        self.about = {name: data[name] for name in shown} | {
            "channels": self.config.model.image_channels,
            "n": len(self.places),
        }
        if self.damage:
            self.about |= CORRUPTIONS[self.damage].about
        if data.source == "tfds":
            self.about["data"] = f"{data.name}:{data.eval_split}"
        elif data.source in ("folder", "records"):
            self.about["data"] = data.eval_folder or data.folder
        if isinstance(self.source, Folder):
            self.about["files"] = pairs.fingerprint(
                {name: self.source.root / name for name in self.source.names}
            )
        self.scale = data.hr_size // data.lr_size

    @property
    def drawn(self) -> str:
        """What intervals are over: "people", "photographs", or "images"."""
        kinds = {"orl": "people", "photos": "photographs", "records": "photographs"}
        return kinds.get(self.config.data.source, "images")

    def group(self, id: str) -> str:
        """The person or the photograph that an image is of, or else its own id."""
        if self.config.data.source in ("orl", "photos"):
            return id.rpartition("/")[0]
        return _photograph(id) if self.config.data.source == "records" else id

    def chunks(self) -> list[list[int]]:
        """The places of all images, in chunks."""
        return _chunks(self.places, self.config.data.hr_size**2)

    def load(self, places: Sequence[int]) -> Images:
        """Reads images and makes their LR versions; those that cannot be read are `dropped`."""
        hr, ids, notes, dropped = [], list[str](), list[tuple[str, ...]](), list[str]()
        for place in places:
            try:
                image = self.source[place]
                hr.append(crops.fit(image, self.config))
            except arrays.ImageError as error:
                dropped.append(str(error))
            else:
                ids.append(image.id)
                notes.append(image.notes)
        if not hr:
            return Images([], None, None, [], dropped)
        images = np.stack(hr)
        return Images(ids, images, self._reduced(images, ids), notes, dropped)

    def _reduced(self, images: np.ndarray, ids: Sequence[str]) -> np.ndarray:
        """The LR images, uint8."""
        if self.damage:
            corruption, pairs_ = CORRUPTIONS[self.damage], zip(images, ids, strict=True)
            return np.stack([corruption.make(image, self.scale, id) for image, id in pairs_])
        return to_uint8(build_task(self.config).corrupt(to_float(jnp.asarray(images))).image)


class Pairs:
    """Folders of files that belong together by their stems: references, methods' and LR images.

    The references may be of different sizes.

    Args:
      reference: The folder of the references.
      lr: The folder of the LR images, if there are any.
      methods: The folder of each method's images by the method's name.

    Raises:
      UserError: A folder lacks an image or has one too many, or the sizes do not go together.
    """

    scale = 1

    def __init__(self, reference: Path, lr: Path | None, methods: Mapping[str, Path]):
        others = {f"images {name}": folder for name, folder in methods.items()} | (
            {"lr": lr} if lr else {}
        )
        self.stems, self._files = pairs.match(reference, others)
        self.methods = {name: self._files[f"images {name}"] for name in methods}
        self._sizes = [self._size(stem) for stem in self.stems]
        self.about = {
            "reference": str(reference),
            "lr": str(lr) if lr else None,
            "n": len(self.stems),
        } | {name: pairs.fingerprint(files) for name, files in self._files.items()}

    def _size(self, stem: str) -> tuple[int, ...]:
        """(width, height) of a reference, followed by those of its LR image if there is one.

        Raises UserError if a method's image is of another size, the reference smaller than the
        window of SSIM, or the LR image larger than the reference.
        """
        reference = self._files["reference"][stem]
        width, height = arrays.read_size(reference)
        for files in self.methods.values():
            ours = arrays.read_size(files[stem])
            if ours != (width, height):
                raise UserError(
                    f"{files[stem]} is {ours[0]}×{ours[1]} and {reference} is {width}×{height}"
                )
        if min(width, height) < 11:
            raise UserError(f"{reference} is {width}×{height}; the window of SSIM is 11×11")
        small = arrays.read_size(self._files["lr"][stem]) if "lr" in self._files else ()
        if small and (small[0] > width or small[1] > height):
            raise UserError(f"{self._files['lr'][stem]} is larger than {reference}")
        return (width, height, *small)

    def chunks(self) -> list[list[int]]:
        """The places of all images, in chunks of one size."""
        size_of = self._sizes.__getitem__
        groups = itertools.groupby(sorted(range(len(self.stems)), key=size_of), size_of)
        return [
            chunk for size, places in groups for chunk in _chunks(list(places), size[0] * size[1])
        ]

    def load(self, places: Sequence[int]) -> Images:
        """Reads references and LR images, in RGB."""
        stems = [self.stems[i] for i in places]
        hr, notes = self._read("reference", stems)
        lr = None
        if "lr" in self._files:
            lr, more = self._read("lr", stems)
            notes = [(*one, *other) for one, other in zip(notes, more, strict=True)]
        return Images(stems, hr, lr, notes)

    def _read(self, name: str, stems: Sequence[str]) -> tuple[np.ndarray, list[tuple[str, ...]]]:
        found = [arrays.read(self._files[name][stem], channels=3) for stem in stems]
        return np.stack([one.pixels for one in found]), [one.notes for one in found]


class Alone:
    """Images without references, all of one size: those of a method, or LR images.

    Args:
      folder: Where the images are, or what `sr3 generate` wrote.
      scale: How many times larger contenders are to make them.
      limit: How many of them are taken, spread evenly over all; 0: all.

    Raises:
      UserError: The images are of several sizes, or some are still to be generated.
    """

    def __init__(self, folder: Path, scale: int = 1, limit: int = 0):
        made = generated.is_run(folder)
        self.files = pairs.by_stem(generated.files_of(folder))
        self._stems = spread(sorted(self.files), limit)
        self._sizes = {arrays.read_size(self.files[stem]) for stem in self._stems}
        if len(self._sizes) > 1:
            shown = ", ".join(f"{width}×{height}" for width, height in sorted(self._sizes)[:4])
            raise UserError(f"{folder} holds images of several sizes: {shown}")
        self.scale, self.about = (
            scale,
            {"images": str(folder), "n": len(self._stems), "files": pairs.fingerprint(self.files)},
        )
        if made:
            self.about["generated"] = generated.settings(folder)

    def chunks(self) -> list[list[int]]:
        """The places of all images, in chunks."""
        (width, height), *_ = self._sizes
        return _chunks(list(range(len(self._stems))), width * height * self.scale**2)

    def load(self, places: Sequence[int]) -> Images:
        """Reads images, in RGB, as LR images."""
        stems = [self._stems[i] for i in places]
        found = [arrays.read(self.files[stem], channels=3) for stem in stems]
        return Images(
            stems, None, np.stack([one.pixels for one in found]), [one.notes for one in found]
        )


class Themselves:
    """A contender that returns the images it is given, as the row `name`."""

    def __init__(self, name: str):
        self.about, self.rows = {"images": name}, [name]

    def make(self, lr: np.ndarray, ids: Sequence[str], size: tuple[int, int]) -> contenders.Made:
        """The images themselves."""
        return contenders.Made({self.rows[0]: lr})


def _chunks(places: list[int], pixels: int) -> list[list[int]]:
    """The places of images of so many pixels, in chunks."""
    size = max(1, min(CHUNK, CHUNK_PIXELS // pixels))
    return [places[start : start + size] for start in range(0, len(places), size)]


def spread(items: list[Any], limit: int) -> list[Any]:
    """`limit` of the items, spread evenly over all of them; 0: all."""
    count = min(limit, len(items)) if limit else len(items)
    return [items[i] for i in np.linspace(0, len(items), count, endpoint=False).astype(int)]


def split(protocol: Protocol, config: ConfigDict | None, options: Options) -> Split:
    """The images of a protocol.

    Args:
      protocol: The protocol.
      config: The config of the first checkpoint, if there is one; what the protocol does not say is
        taken from it.
      options: Where the images are, and how many are taken.

    Raises:
      UserError: The images cannot be read, or do not go together with the network or the protocol.
    """
    task = config.copy_and_resolve_references() if config else config_lib.base()
    data = task.data
    if protocol.hr_size:
        data.hr_size, data.lr_size = protocol.hr_size, protocol.lr_size
        data.fit, data.resample = "resize", "area"
        data.update(protocol.data)
        if config is None and protocol.data.get("source") == "orl":
            task.model.image_channels = 1
        data.max_bad_fraction = 1.0  # the paper leaves out what is too small, however much that is
    if (protocol.paper or protocol.damage) and task.model.image_channels != 3:
        raise UserError(
            f"--protocol={protocol.name} is of colour images, and the network is for grey ones"
        )
    if options.data:
        _point_at(data, options.data)
    check_size(data)
    source = open_source(task, "eval")
    places = _first(source, protocol.first) if protocol.first else list(range(len(source)))
    if protocol.each and isinstance(source, Records):
        places = _of_each(source.ids, protocol.each)
    return Split(task, source, spread(places, options.limit), protocol.damage)


def _first(source: Source, count: int) -> list[int]:
    """The places of the first images in the order of their file names.

    Images that were left out because they are too small are among the `count`.
    """
    if not isinstance(source, Folder):
        return list(range(min(count, len(source))))
    place = {name: i for i, name in enumerate(source.names)}
    names = sorted(
        [*place, *(one.id for one in source.dropped)], key=lambda name: name.rpartition("/")[2]
    )
    return [place[name] for name in names[:count] if name in place]


def _of_each(ids: Sequence[str], count: int) -> list[int]:
    """The places of at most `count` squares of each photograph, spread evenly over it."""
    photographs: dict[str, list[int]] = {}
    for place, id in enumerate(ids):
        photographs.setdefault(_photograph(id), []).append(place)
    return [place for places in photographs.values() for place in spread(places, count)]


def _photograph(id: str) -> str:
    """The photograph that a square of prepared records was cut from."""
    return id.partition("#")[0]


def _point_at(data: ConfigDict, place: str) -> None:
    """Makes `place` the held-out data: a folder, images that `sr3 prepare` wrote, or a TFDS set.

    Of prepared images it takes those that they hold out by name, or all if they hold out none.
    """
    if named := tfds_place(place):
        data.source, data.name = "tfds", named[0]
        data.eval_split = named[1] or data.eval_split
        return
    root = paths.parse(place)
    prepared = (root / MANIFEST).exists()
    data.source, data.folder, data.eval_folder = "records" if prepared else "folder", "", place
    if prepared and read_manifest(root)["held_out"]:
        data.folder, data.eval_folder = place, ""
