"""Images prepared once: square, of one size, in a few large files with random access.

    DIR/manifest.json                        size, shards with the ids of their images, their
                                             labels and the classes' names if there are any, what
                                             was dropped and why
    DIR/images-00000-of-00016.array_record   a record an image: its pixels as PNG or as .npy

`sr3 prepare` writes them (prepare.py). Held out for evaluation: the images of data.eval_folder,
another such folder, or else those that the manifest names (by their ids, or by the folder that
their ids begin with, "test/"), or else 5 % by a hash of the id.
"""

import io
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grain.python as grain
import numpy as np
from ml_collections import ConfigDict

from sr3_jax.data.labels import renumbered
from sr3_jax.data.source import (
    NO_LABEL,
    DataError,
    Dropped,
    Image,
    check_budget,
    image_id,
    is_held_out,
)
from sr3_jax.errors import UserError, first_line
from sr3_jax.images import arrays
from sr3_jax.runtime import fetch, paths
from sr3_jax.runtime.paths import AnyPath

MANIFEST = "manifest.json"


class Records:
    """The images of a prepared folder, or of one of its splits.

    Files are opened when they are first read. Raises DataError if the manifest is missing or
    damaged.

    Args:
      root: the folder.
      channels: of the images, 1 or 3; converted if the stored ones have another number.
      part: "all", "train" or "eval".
      class_names: numbers the classes in this order; empty: as the manifest does. Raises DataError
        if one of the manifest's is missing in it.
    """

    def __init__(
        self,
        root: AnyPath,
        channels: int,
        part: str = "all",
        class_names: Sequence[str] = (),
    ):
        self.root, self.channels, self.part = root, channels, part
        manifest = read_manifest(root)
        self.size: int = manifest["size"]
        self.dropped: Sequence[Dropped] = tuple(Dropped(*entry) for entry in manifest["dropped"])
        self._shards = list(manifest["shards"])
        ids = [id for members in manifest["shards"].values() for id in members]
        self.total = len(ids) + len(self.dropped)
        held_out = _held_out(ids, manifest["held_out"]) if part != "all" else set()
        places = [
            (id, shard, record)
            for shard, members in enumerate(manifest["shards"].values())
            for record, id in enumerate(members)
            if part == "all" or (id in held_out) == (part == "eval")
        ]
        self.ids: list[str] = [id for id, _, _ in places]
        labels, known = _labels(manifest)
        # Images without any class stay so, whatever classes others have
        self.class_names: Sequence[str] = tuple(class_names or known) if known else ()
        labels = renumbered(labels, known, self.class_names, str(root))
        numbers = [(shard, record) for _, shard, record in places]
        self._places = np.array(numbers, np.int64).reshape(-1, 2)
        starts = np.cumsum([0, *map(len, manifest["shards"].values())])
        self.labels = labels[starts[self._places[:, 0]] + self._places[:, 1]]
        self._open: dict[int, grain.ArrayRecordDataSource] = {}
        self._lock = threading.Lock()
        self._locks: dict[int, threading.Lock] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Image:
        (shard, record), id = self._places[index].tolist(), self.ids[index]
        try:
            data = self._shard(shard)[record]
        except UserError:
            raise
        # A damaged or missing shard: ArrayRecord raises errors of many kinds
        except Exception as error:
            raise arrays.ImageError(
                f"{id} cannot be read from {self._shards[shard]}: {first_line(error)}"
            ) from error
        label = int(self.labels[index])
        return Image(id=id, label=label, **_decode(data, self.channels, id)._asdict())

    def __reduce__(self) -> tuple[Any, ...]:
        # Files are opened anew
        return Records, (self.root, self.channels, self.part, self.class_names)

    def _shard(self, number: int) -> grain.ArrayRecordDataSource:
        with self._lock:
            own = self._locks.setdefault(number, threading.Lock())
        with own:  # readers of other shards do not wait for a download
            if number not in self._open:
                self._open[number] = grain.ArrayRecordDataSource(
                    [str(self._local(self.root / self._shards[number]))]
                )
            return self._open[number]

    def _local(self, path: AnyPath) -> Path:
        """The path of a shard on this machine: a remote one is copied, as ArrayRecord needs.

        The copy stays for the next run of this user on this machine, until the shard changes.
        """
        if isinstance(path, Path):
            return path
        stat = path.stat()
        version = f"{stat.length} {getattr(stat, 'mtime', 0)}"
        return fetch.kept(
            "records", str(path), version, lambda copy: copy.write_bytes(path.read_bytes())
        )


def _held_out(ids: Sequence[str], named: Sequence[str]) -> set[str]:
    """Those of `ids` that are held out; all tiles of a photograph are in the same split.

    A name that ends in a slash is that of a folder, with all that is in it.
    """
    if named:
        folders, names = tuple(name for name in named if name.endswith("/")), {*named}
        return {id for id in ids if id.startswith(folders) or id.partition("#")[0] in names}
    found = {id for id in ids if is_held_out(id)}
    if not found:
        # Of none of a few photographs is the hash like that: then one of them, whole
        first = min((id.partition("#")[0] for id in ids), key=image_id)
        found = {id for id in ids if id.partition("#")[0] == first}
    return found


def _labels(manifest: dict[str, Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels of all images of a manifest, and the names of the classes.

    Classes without names are called by their numbers; without a label there are no classes.
    """
    listed = manifest["labels"]
    labels = np.array(
        [
            label
            for name, ids in manifest["shards"].items()
            for label in listed.get(name, [NO_LABEL] * len(ids))
        ],
        np.int64,
    )
    count = int(labels.max()) + 1
    return labels, tuple(manifest["classes"] or map(str, range(count)))


def open_records(config: ConfigDict, split: str) -> Records:
    """The config's split, "train" or "eval", of the prepared folder or folders.

    Classes are numbered alike in both folders: as data.class_names has them, or else as in
    data.folder, followed by those that are in data.eval_folder alone.

    Raises:
      DataError: a folder is missing or damaged, its images are too small, too few are usable, or a
        class is not among data.class_names.
    """
    data, channels = config.data, config.model.image_channels
    field = "data.eval_folder" if data.eval_folder and split == "eval" else "data.folder"
    place = data.eval_folder if field == "data.eval_folder" else data.folder
    if not place:
        raise DataError(
            f'data.source = "records" needs {field}: --config.{field}=FOLDER, '
            "as `sr3 prepare` wrote it"
        )
    both = [paths.parse(one) for one in (data.folder, data.eval_folder) if one]
    known = [name for one in both if (one / MANIFEST).exists() for name in class_names_in(one)]
    records = Records(
        paths.parse(place),
        channels,
        "all" if data.eval_folder else split,
        tuple(data.class_names) or tuple(dict.fromkeys(known)),
    )
    check_budget(records.dropped, records, data.max_bad_fraction, place)
    if records.size < data.hr_size:
        raise DataError(
            f"{field} = {place!r} holds images of {records.size}², "
            f"smaller than data.hr_size = {data.hr_size}"
        )
    if not records.ids:
        raise DataError(f"{field} = {place!r} has too few images to train on and to hold one out")
    return records


def class_names_in(root: AnyPath) -> tuple[str, ...]:
    """The names of the classes of a prepared folder; raises DataError if it is damaged."""
    return _labels(read_manifest(root))[1]


def read_manifest(root: AnyPath) -> dict[str, Any]:
    """The manifest of a prepared folder; raises DataError if it is missing or damaged.

    It has size, shards, dropped, held_out, labels (by shard; empty: none) and classes (names;
    empty: none).
    """
    if not (root / MANIFEST).exists():
        raise DataError(
            f"{root} has no {MANIFEST}: it was not written by `sr3 prepare`, or not to the end "
            "(run that again)"
        )
    try:
        manifest = json.loads((root / MANIFEST).read_text())
        if not any(manifest["shards"].values()):
            raise ValueError("it lists no images")
        labels, classes = manifest.get("labels", {}), manifest.get("classes", [])
        _check_labels(manifest["shards"], labels, classes)
        return {name: manifest[name] for name in ("size", "shards", "dropped")} | {
            "held_out": manifest.get("held_out", []),
            "labels": labels,
            "classes": classes,
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{root / MANIFEST} is damaged: {error}") from error


def _check_labels(
    shards: dict[str, list[str]], labels: dict[str, list[int]], classes: list[str]
) -> None:
    """Raises ValueError unless there is a label for each image, or none for all of a shard."""
    for name, numbers in labels.items():
        if len(numbers) != len(shards[name]):
            raise ValueError(f"it has {len(numbers)} labels for {len(shards[name])} images")
        low, high = min(numbers, default=NO_LABEL), max(numbers, default=NO_LABEL)
        if low < NO_LABEL or high >= (len(classes) or high + 1):
            raise ValueError(f"a label of {name} lies outside of its {len(classes)} classes")


def encode(pixels: np.ndarray, encoding: str) -> bytes:
    """An image, uint8 (h, w, 1 or 3), as the bytes of a record.

    `encoding` is "png", or "raw" (.npy), which is larger and needs no decoding.
    """
    buffer = io.BytesIO()
    if encoding == "raw":
        np.save(buffer, pixels)
    else:
        # a tenth larger than at level 6, the default, and four times as fast
        arrays.to_pillow(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _decode(data: bytes, channels: int, id: str) -> arrays.Decoded:
    if data.startswith(b"\x93NUMPY"):
        try:
            pixels = np.load(io.BytesIO(data), allow_pickle=False)
        except ValueError as error:
            raise arrays.ImageError(f"{id} cannot be decoded: {error}") from error
        return arrays.Decoded(arrays.as_channels(pixels, channels), ())
    return arrays.decode(data, channels, id)
