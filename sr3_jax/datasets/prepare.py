"""`sr3 prepare`: turns images of any size and place into records, once.

The records are square images of one size, in the format of records.py.

Worker processes decode, crop (the largest central square), resize and encode; this process writes.
A shard appears by rename when it is whole, with the list of its images beside it; the manifest
comes last. So a stopped run goes on with the next shard.
"""

import contextlib
import hashlib
import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from array_record.python.array_record_module import ArrayRecordWriter

from sr3_jax.data import records
from sr3_jax.data.crops import resample, square
from sr3_jax.data.faces import OrlFaces
from sr3_jax.data.folder import Folder
from sr3_jax.data.labels import class_names, folder_classes, folder_label
from sr3_jax.data.source import NO_LABEL, DataError, Dropped, Image, Source, converted
from sr3_jax.data.sources import tfds_place
from sr3_jax.datasets.tiles import Tiles, detail
from sr3_jax.errors import UserError
from sr3_jax.images import arrays
from sr3_jax.runtime import limits, paths
from sr3_jax.runtime.atomic import disk_errors, replacing, write_text
from sr3_jax.runtime.paths import AnyPath

SHARD_BYTES = 256 * 2**20
ENDS = 4096  # bytes of a file's beginning and end by which it is known again
STATE = "prepare.json"  # what an unfinished folder is being made of


class Prepared(NamedTuple):
    """What a folder of records holds, and what was left out of it."""

    images: int
    shards: int
    dropped: Sequence[Dropped]
    converted: str  # what was done to how many images when they were read
    notes: Sequence[str] = ()  # what else to tell


class Settings(NamedTuple):
    """What the records depend on; a folder is gone on with only if all of it is the same."""

    source: str
    images: str  # number and digest of the ids
    size: int
    resample: str
    encoding: str
    # none: one square an image; else many, of the image reduced by each of these factors
    tiles: Sequence[int]
    detail: float  # tiles with less are left out


class Options(NamedTuple):
    """How images become records."""

    size: int  # height and width, in pixels
    method: str = "area"  # how they are reduced: area or bicubic
    encoding: str = "png"  # or raw
    tiles: Sequence[int] = ()  # cut into squares, reduced by each of these factors first
    detail: float = 0.0  # leave out squares that 4x bicubic restores to within so many levels

    def settings(self, source: str, images: str = "") -> Settings:
        """These, and what they are for."""
        return Settings(
            source,
            images,
            size=self.size,
            resample=self.method,
            encoding=self.encoding,
            tiles=[*self.tiles],  # a list, as it comes back from JSON
            detail=self.detail,
        )


class Files(Folder):
    """A folder of which a file that cannot be read stops the work: it may be there the next time.

    Only decoding may fail.
    """

    def __getitem__(self, index: int) -> Image:
        path = self.root / self.names[index]
        try:
            data = path.read_bytes()
        except Exception as error:  # the drivers of object stores have errors of their own
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"{path} cannot be read: {reason}; the same command goes on where it stopped"
            ) from error
        decoded = arrays.decode(data, self.channels, str(path))
        name = self.names[index]
        return Image(id=name, label=folder_label(name, self.class_names), **decoded._asdict())


class Images(NamedTuple):
    """Images to be made records of."""

    source: Source  # can be pickled
    ids: list[str]


class Record(NamedTuple):
    """What became of an image."""

    id: str
    data: bytes | str  # why there is no record, if a text; empty for a tile without detail
    label: int = NO_LABEL
    notes: Sequence[str] = ()  # what was converted


def open_images(place: str) -> Images:
    """The images at `place`, and their ids.

    A place is a folder, "orl", or `tfds:NAME[:VERSION][:SPLIT]` (ArrayRecord). Raises DataError.
    """
    if place == "orl":
        faces = OrlFaces(range(1, 41))
        return Images(
            faces, [f"s{person}/{number}" for person in faces.people for number in range(1, 11)]
        )
    if named := tfds_place(place):
        from sr3_jax.data.tfds_source import TfdsSource

        name, split = named
        prepared = TfdsSource(name, split or "train", "", 3)
        ids = [f"{name}/{split or 'train'}/{index}" for index in range(len(prepared))]
        return Images(prepared, ids)
    root = paths.parse(place)
    if not root.is_dir():
        raise DataError(f"{place} is not a folder (nor orl, nor tfds:NAME)")
    names = sorted(name for name in paths.files_below(root) if arrays.is_image_name(root / name))
    if not names:
        raise DataError(
            f"{place} holds no images; known suffixes are {' '.join(sorted(arrays.SUFFIXES))}"
        )
    return Images(Files(root, names, None, class_names=folder_classes(names)), names)


def open_tiles(place: str, size: int, factors: Sequence[int]) -> Images:
    """The squares in the images of a folder, and their ids; raises DataError."""
    source, _ = open_images(place)
    if not isinstance(source, Folder):
        raise DataError(f"--tiles is for a folder of large images, not for {place}")
    tiles = Tiles(source, size, factors)
    if not len(tiles):
        raise DataError(
            f"{place}: no image has room for a square of --size={size}, "
            f"reduced by {min(factors)} (--tiles)"
        )
    return Images(tiles, tiles.ids)


def prepare(
    place: str | Images,
    output: AnyPath,
    options: Options,
    *,
    name: str = "",
    held_out: Collection[str] = (),
    workers: int | None = None,
    on_start: Callable[[int, int], object] = lambda total, done: None,
    on_image: Callable[[int], object] = lambda done: None,
) -> Prepared:
    """Write a folder of records, or complete one.

    Args:
      place: Where the images are: a folder, tfds:NAME, or orl; or they themselves, with a `name`.
      output: The folder for the records.
      options: How images become records.
      name: Stands for `place` in what is written.
      held_out: Images (or photographs that tiles are of) to be held out from training, or folders
        of ids, "test/"; without any it is 5 %, by a hash of the name.
      workers: Processes; by default one a core.
      on_start: Called once with the number of images, and of those that are there already.
      on_image: Called with a number of images after every few.

    Raises:
      UserError: The output holds something else, or no image can be used.
    """
    size, tiles = options.size, options.tiles
    if isinstance(place, str):
        name = name or place
        place = open_tiles(place, size, tiles) if tiles else open_images(place)
    source, ids = place
    settings = options.settings(name, f"{len(ids)} images, {_digest(source, ids)}")
    _claim(output, settings)
    per_shard = max(64, SHARD_BYTES // (3 * size * size))
    shards = [
        range(start, min(start + per_shard, len(ids))) for start in range(0, len(ids), per_shard)
    ]
    names = [f"images-{k:05d}-of-{len(shards):05d}.array_record" for k in range(len(shards))]
    classes = class_names(source)
    left = [k for k, name in enumerate(names) if not _is_whole(output, name, bool(classes))]
    on_start(len(ids), len(ids) - sum(len(shards[k]) for k in left))
    if left:
        workers = workers or limits.cores()
        with ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(source, ids, settings),
        ) as pool:
            try:
                results = (pool.map(_one, shards[k], chunksize=4) for k in left)
                # In pairs, so that the next shard is under way while one is written
                pairs = itertools.pairwise(itertools.chain(results, [iter(())]))
                for k, (result, _) in zip(left, pairs, strict=True):
                    _write_shard(output, names[k], result, on_image)
            except BrokenProcessPool as error:
                raise UserError(
                    "a worker process was killed, probably for memory; "
                    f"give --workers={max(1, workers // 2)}; "
                    "the same command goes on where it stopped"
                ) from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return _finish(output, names, settings, source, held_out)


def _digest(source: Source, ids: Sequence[str]) -> str:
    """A hash of the images by which to notice that there are others, or that files were replaced.

    Of a file its size and its first and last bytes are looked at: its time would change when a
    folder is copied.
    """
    found = hashlib.sha256("\n".join(ids).encode("utf-8", "surrogateescape"))
    folder = source.folder if isinstance(source, Tiles) else source
    if isinstance(folder, Folder) and isinstance(folder.root, Path):
        for name in folder.names:
            with (folder.root / name).open("rb") as file:
                found.update(file.read(ENDS))
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - ENDS))
                found.update(file.read() + size.to_bytes(8, "big"))
    return found.hexdigest()[:16]


def finished(output: AnyPath, settings: Settings) -> Prepared | None:
    """What `output` holds, if it is complete, whatever its images.

    Raises UserError if it is of other settings, or not ours.
    """
    if not _is_of(output, settings, ("images",)) or not (output / records.MANIFEST).exists():
        return None
    manifest = records.read_manifest(output)
    dropped = [Dropped(*entry) for entry in manifest["dropped"]]
    return Prepared(
        sum(map(len, manifest["shards"].values())), len(manifest["shards"]), dropped, ""
    )


def _is_of(output: AnyPath, settings: Settings, ignored: Sequence[str] = ()) -> bool:
    """Whether the folder was begun, with these settings; False if it is empty.

    Raises UserError if it holds something else.
    """
    state = output / STATE
    if state.exists():
        theirs = json.loads(state.read_text())
        differing = [
            f"{name}: {value!r} here, {theirs.get(name)!r} there"
            for name, value in settings._asdict().items()
            if theirs.get(name) != value and name not in ignored
        ]
        if differing:
            raise UserError(
                f"{output} was begun with other settings ({'; '.join(differing)}); "
                "use another --output"
            )
        return True
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} is not empty and not of `sr3 prepare`; use another --output")
    return False


def _claim(output: AnyPath, settings: Settings) -> None:
    """Notes what the folder is for, or checks that it is for the same; raises UserError if not."""
    if _is_of(output, settings):
        for left_behind in output.glob(".sr3-*"):  # by a kill
            left_behind.unlink()
        return
    with disk_errors(output):
        write_text(output / STATE, json.dumps(settings._asdict(), indent=2) + "\n")


def _note(output: AnyPath, shard: str) -> AnyPath:
    return output / shard.replace(".array_record", ".json")


def _is_whole(output: AnyPath, shard: str, labelled: bool) -> bool:
    """Whether a shard is there, with its labels if there are any.

    Older versions wrote no labels: their shards are written again.
    """
    note = _note(output, shard)
    return note.exists() and (not labelled or "labels" in json.loads(note.read_text()))


def _write_shard(
    output: AnyPath,
    name: str,
    results: Iterator[Record],
    on_image: Callable[[int], object],
) -> None:
    ids, labels, dropped, counts = [], [], [], Counter[str]()
    with (
        disk_errors(output),
        replacing(output / name) as temporary,
        contextlib.closing(ArrayRecordWriter(str(temporary), "group_size:1")) as writer,
    ):
        for record in results:
            on_image(1)
            if isinstance(record.data, str):
                dropped.append((record.id, record.data))
            elif record.data:
                writer.write(record.data)
                ids.append(record.id)
                labels.append(record.label)
                counts.update(record.notes)
    with disk_errors(output):
        write_text(
            _note(output, name),
            json.dumps({"ids": ids, "labels": labels, "dropped": dropped, "converted": counts}),
        )


def _finish(
    output: AnyPath,
    names: Sequence[str],
    settings: Settings,
    source: Source,
    held_out: Collection[str],
) -> Prepared:
    notes = {name: json.loads(_note(output, name).read_text()) for name in names}
    dropped = [*source.dropped] + [
        Dropped(*entry) for note in notes.values() for entry in note["dropped"]
    ]
    shards = {name: note["ids"] for name, note in notes.items()}
    count = sum(map(len, shards.values()))
    if not count:
        raise DataError(
            f"{settings.source}: none of its {len(dropped)} images can be used "
            f"({dropped[0].id} {dropped[0].reason})"
        )
    manifest = {
        "source": settings.source,
        "size": settings.size,
        "shards": shards,
        "dropped": dropped,
        **({"held_out": sorted(held_out)} if held_out else {}),
    }
    if classes := class_names(source):
        manifest["labels"] = {name: note["labels"] for name, note in notes.items()}
        manifest["classes"] = classes
    with disk_errors(output):
        write_text(output / records.MANIFEST, json.dumps(manifest))
    said = converted(Counter(note["converted"]).elements() for note in notes.values())
    return Prepared(count, len(names), dropped, said)


# -- in a worker

_job: tuple[Source, Sequence[str], Settings]


def _begin(*job: object) -> None:
    global _job
    _job = job  # type: ignore[assignment]
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _one(index: int) -> Record:
    """What becomes of an image."""
    source, ids, settings = _job
    size = settings.size
    try:
        image = source[index]
        height, width, _ = image.pixels.shape
        if min(height, width) < size:
            return Record(ids[index], f"is {width}×{height}, smaller than {size}")
        if settings.detail and detail(image.pixels) < settings.detail:
            return Record(ids[index], b"")
        pixels = (
            image.pixels
            if settings.tiles
            else resample(image.pixels, square(image), size, settings.resample)
        )
        data = records.encode(pixels, settings.encoding)
        return Record(ids[index], data, image.label, image.notes)
    except arrays.ImageError as error:
        return Record(ids[index], str(error))
