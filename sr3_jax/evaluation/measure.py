"""Measures contenders by meters on a set of images, chunk by chunk, so that a killed run can go on.

The results of a chunk are a file below FOLDER/chunks, which is there as a whole or not at all. It
holds the values of each image by row, and the vectors (features of networks) that metrics of whole
sets need. Several processes share the chunks, so all of them must see FOLDER; so do shards, which
do not wait for each other. However many images there are, the memory needed is that of one chunk
and of the statistics.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float

from sr3_jax.errors import UserError
from sr3_jax.evaluation.contenders import Contender
from sr3_jax.images import pairs
from sr3_jax.runtime import parallel, paths
from sr3_jax.runtime.atomic import replacing, write_new_text
from sr3_jax.runtime.parallel import Shard
from sr3_jax.runtime.paths import AnyPath

RUN = "run.json"
HR = "HR"  # the row of the references themselves


class Unfinished(Exception):
    """Chunks of other shards are not measured yet.

    Args:
      missing: The shard of each such chunk; known to the main process.
    """

    def __init__(self, missing: Sequence[Shard]):
        self.missing = list(missing)
        shards = pairs.listed([str(shard) for shard in sorted(set(missing))])
        chunks = "1 chunk is" if len(missing) == 1 else f"{len(missing)} chunks are"
        super().__init__(
            f"{chunks} not measured yet, of --shard={shards}; when all are, this command writes "
            "the results, called again with any --shard or without one"
        )


class Images(NamedTuple):
    """Some images of one size, as the data gives them; either `hr` or `lr` may be missing."""

    ids: list[str]
    hr: np.ndarray | None  # (n, h, w, c) uint8
    lr: np.ndarray | None
    notes: Sequence[tuple[str, ...]] = ()  # for each image, what was converted when it was read
    dropped: Sequence[str] = ()  # for each image of the chunk that failed to load, why

    @property
    def given(self) -> np.ndarray:
        """What contenders get: the LR images, or the HR images if there are none."""
        found = self.lr if self.lr is not None else self.hr
        assert found is not None
        return found

    def size(self, scale: int) -> tuple[int, int]:
        """(height, width) of what contenders are to make: of the HR images, or else by `scale`."""
        return (
            self.hr.shape[1:3]
            if self.hr is not None
            else tuple(scale * side for side in self.given.shape[1:3])
        )


@runtime_checkable
class Data(Protocol):
    """The images of a protocol.

    `about` describes them in results.json. A run that was stopped is continued only if it is the
    same as before.
    """

    about: dict[str, Any]
    scale: int  # how many times larger LR images without HR images are to become

    def chunks(self) -> list[list[int]]:
        """The places of all images, in chunks, each of images of one size."""
        ...

    def load(self, places: Sequence[int]) -> Images:
        """Reads the images at some places."""
        ...


class Pictures(NamedTuple):
    """What a metric sees: the images of one row, with their HR and LR images."""

    images: np.ndarray  # (n, h, w, c) uint8
    hr: np.ndarray | None
    lr: np.ndarray | None
    ids: list[str]
    samples: np.ndarray | None  # (s, n, h, w, c), if several were drawn


class Meter(NamedTuple):
    """A family of metrics that are computed together.

    Attributes:
      name: The family's name.
      each: By metric, one value for each image, (n,), or vectors, (any number, d), which are kept
        for `end`. An image of which a metric cannot be had has NaN, or no value.
      end: Called once, when all images are measured; it adds the metrics of whole sets.
      of_reference: Whether the references are measured too, in a row of their own.
      about: What the numbers depend on, such as the network, for results.json.
    """

    name: str
    each: Callable[[Pictures], dict[str, np.ndarray]]
    end: Callable[["Collected"], None] | None = None
    of_reference: bool = False
    about: Mapping[str, Any] = {}


class Collected:
    """All that was measured, read from the files of `count` chunks.

    `per_image` holds the values of all images by row and metric, `whole` the values of whole sets.
    Vectors are read chunk by chunk. `ids`, `notes` and `dropped` are those of `Images`.
    `not_measured` says why a metric has been left out, by its name. `about` adds to `Meter.about`
    what is only known at the end.
    """

    def __init__(self, folder: AnyPath, count: int):
        self._files = [_file(folder, number) for number in range(count)]
        chunks = [json.loads(_part(file, "values").tobytes()) for file in self._files]
        self.ids: list[str] = [id for chunk in chunks for id in chunk["ids"]]
        self.notes = [tuple(notes) for chunk in chunks for notes in chunk["notes"]]
        self.dropped: list[str] = [reason for chunk in chunks for reason in chunk["dropped"]]
        self.rows = list(dict.fromkeys(row for chunk in chunks for row in chunk["values"]))
        self.whole: dict[str, dict[str, float]] = {row: {} for row in self.rows}
        self.per_image: dict[str, dict[str, np.ndarray]] = {}
        self.about: dict[str, Any] = {}
        missing: dict[str, int] = {}
        for row in self.rows:
            self.per_image[row] = {}
            for metric, values in _of_all_images(row, chunks).items():
                # A mean over the others would be of other images than the rest of the table
                if without := int(np.isnan(values).sum()):
                    missing[metric] = max(without, missing.get(metric, 0))
                else:
                    self.per_image[row][metric] = values
        self.not_measured = {
            metric: f"{count} of {len(self.ids)} images have none"
            for metric, count in missing.items()
        }

    def vectors(self, row: str, name: str) -> Iterator[Float[np.ndarray, "n d"]]:
        """The vectors of a row by their name, a chunk at a time."""
        for file in self._files:
            part = _part(file, f"{row}\n{name}")
            if len(part):
                yield part

    def methods(self) -> dict[str, dict[str, float]]:
        """The numbers of the table by row: means over the images, and values of whole sets.

        The references have a row only if there is a number of them.
        """
        found = {
            row: {metric: float(values.mean()) for metric, values in self.per_image[row].items()}
            | self.whole[row]
            for row in self.rows
        }
        return {row: values for row, values in found.items() if values or row != HR}

    def intervals(
        self, groups: Sequence[str] | None = None
    ) -> dict[str, dict[str, tuple[float, float]]]:
        """The 95 % intervals of the means, by row and metric; none if there is but one group."""
        alone = len(set(self.ids if groups is None else groups)) < 2
        return {
            row: {
                metric: interval(values, groups=groups)
                for metric, values in self.per_image[row].items()
                if not alone
            }
            for row in self.rows
            if self.per_image[row]
        }

    def differences(
        self, row: str, groups: Sequence[str] | None = None
    ) -> dict[str, dict[str, tuple[float, float, float]]]:
        """What `row` has more than each other row, by metric: the mean, and its 95 % interval.

        Nothing if there is but one group, of which there is no interval.
        """
        if len(set(self.ids if groups is None else groups)) < 2:
            return {}
        ours = self.per_image[row]
        return {
            other: {
                metric: (
                    float((ours[metric] - values).mean()),
                    *interval(ours[metric] - values, groups=groups),
                )
                for metric, values in theirs.items()
                if metric in ours
            }
            for other, theirs in self.per_image.items()
            if other != row
        }


def _of_all_images(row: str, chunks: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The values of each metric of a row, NaN for the images that have none."""
    parts = [(len(chunk["ids"]), chunk["values"][row]) for chunk in chunks if chunk["ids"]]
    return {
        metric: np.concatenate([part.get(metric, [np.nan] * count) for count, part in parts])
        for metric in dict.fromkeys(metric for _, part in parts for metric in part)
    }


def interval(
    values: Float[np.ndarray, " n"],
    draws: int = 2000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> tuple[float, float]:
    """The 95 % interval of a mean, by a bootstrap of `draws` draws.

    Args:
      values: One value for each image.
      draws: How many sets are drawn.
      seed: Of the draws.
      groups: What each image belongs to: its photograph, its person. Whole groups are drawn,
        because images of one are not independent. None: images are drawn.
    """
    _, places = np.unique(np.arange(len(values)) if groups is None else groups, return_inverse=True)
    sums, counts = np.bincount(places, values), np.bincount(places)
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(sums), size=len(sums)) for _ in range(draws))
    means = [sums[some].sum() / counts[some].sum() for some in drawn]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def measure(
    data: Data,
    contenders: Sequence[Contender],
    meters: Sequence[Meter],
    folder: AnyPath,
    on_images: Callable[[int], object] = lambda count: None,
    shard: Shard = Shard(),  # noqa: B008 (immutable)
) -> Collected | None:
    """Measures what is not measured yet.

    Args:
      data: The images.
      contenders: What is measured.
      meters: By what it is measured.
      folder: Where the chunks are kept, below "chunks".
      on_images: Called with the number of images after every chunk, also for those of an earlier
        run.
      shard: The part of the chunks that is measured here.

    Returns:
      Everything that was measured, on the main process; None on the others.

    Raises:
      UserError: The folder holds chunks of another run, or no image could be measured.
      Unfinished: Chunks of other shards are missing; on all processes.
    """
    chunks = data.chunks()
    about = {
        "data": data.about,
        "contenders": [contender.about for contender in contenders],
        "meters": {meter.name: meter.about for meter in meters},
    }
    _check_same_run(folder, about)
    for number in shard.share(len(chunks)).tolist():
        file = _file(folder, number)
        if not file.exists():
            _save(file, *_measure_chunk(data, contenders, meters, data.load(chunks[number])))
        on_images(len(chunks[number]))
    _meet()
    if shard.count > 1:
        _check_all_there(folder, len(chunks), shard)
    if not parallel.is_main():
        return None
    collected = Collected(folder, len(chunks))
    if not collected.ids:
        raise UserError(
            "no image could be measured"
            + (f": {collected.dropped[0]}" if collected.dropped else "")
        )
    for meter in meters:
        if meter.end:
            meter.end(collected)
    return collected


def _check_all_there(folder: AnyPath, count: int, shard: Shard) -> None:
    """Raises Unfinished if one of `count` chunks is not there."""
    there = {file.name for file in (folder / "chunks").iterdir()}
    missing = [number for number in range(count) if _file(folder, number).name not in there]
    # Another shard may end at any moment: all processes go by what the main one has seen
    if parallel.worst(len(missing) if parallel.is_main() else 0):
        raise Unfinished([Shard(number % shard.count, shard.count) for number in missing])


def forget(folder: AnyPath) -> bool:
    """Removes a run's chunks, once its results are written; returns whether there were any.

    Nothing else is removed from the folder.
    """
    chunks = folder / "chunks"
    if not (chunks / RUN).exists():
        return False
    for file in chunks.iterdir():
        if file.name == RUN or file.suffix == ".npz":
            file.unlink()
    # An object store has no empty folders
    if isinstance(chunks, Path) and not any(chunks.iterdir()):
        chunks.rmdir()
    return True


def _measure_chunk(
    data: Data, contenders: Sequence[Contender], meters: Sequence[Meter], images: Images
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What is saved of a chunk: its values, for JSON, and its vectors by row and name."""
    values: dict[str, dict[str, list[float]]] = {}
    vectors: dict[str, np.ndarray] = {}

    def look(row: str, pictures: Pictures, with_: Sequence[Meter]) -> None:
        values[row] = {}
        for meter in with_:
            for name, found in meter.each(pictures).items():
                if found.ndim == 1:
                    values[row][name] = found.astype(np.float64).tolist()
                else:
                    vectors[f"{row}\n{name}"] = np.asarray(found)

    notes = list(images.notes)
    if images.ids:
        for contender in contenders:
            made = contender.make(images.given, images.ids, images.size(data.scale))
            if made.notes:
                before = notes or [()] * len(images.ids)
                notes = [(*one, *more) for one, more in zip(before, made.notes, strict=True)]
            for row, pictures in made.images.items():
                look(
                    row,
                    Pictures(pictures, images.hr, images.lr, images.ids, made.samples.get(row)),
                    meters,
                )
            for row, seconds in made.seconds.items():
                height, width = made.images[row].shape[1:3]
                speed = 1e6 * seconds / (height * width)
                values[row]["seconds_per_megapixel"] = speed.tolist()
        of_reference = [meter for meter in meters if meter.of_reference]
        if images.hr is not None and of_reference:
            look(HR, Pictures(images.hr, images.hr, images.lr, images.ids, None), of_reference)
    return {
        "ids": images.ids,
        "notes": notes,
        "dropped": images.dropped,
        "values": values,
    }, vectors


def _file(folder: AnyPath, number: int) -> AnyPath:
    return folder / "chunks" / f"{number:06d}.npz"


def _save(file: AnyPath, values: dict[str, Any], vectors: dict[str, np.ndarray]) -> None:
    text = np.frombuffer(json.dumps(values).encode(), np.uint8)
    with replacing(file) as temporary, temporary.open("wb") as opened:
        np.savez(opened, **{"values": text} | vectors)  # type: ignore[arg-type]


def _part(file: AnyPath, name: str) -> np.ndarray:
    with paths.local_copy(file) as local, np.load(local, allow_pickle=False) as parts:
        return parts[name] if name in parts else np.zeros((0, 0), np.float32)


def _check_same_run(folder: AnyPath, about: dict[str, Any]) -> None:
    """Writes down what is measured, or compares it with what an earlier run wrote down.

    Raises UserError where they differ, and for a folder that no evaluation made.
    """
    file = folder / "chunks" / RUN
    text = json.dumps(about, indent=2, sort_keys=True)
    # What begins with a dot is another shard's, about to become RUN
    there = file.parent.is_dir() and any(
        one.name != RUN and not one.name.startswith(".") for one in file.parent.iterdir()
    )
    if there and not file.exists():
        raise UserError(
            f"{file.parent} is there, but not of an evaluation: choose another --output"
        )
    _meet()
    if parallel.is_main():
        write_new_text(file, text)
    if file.exists() and json.loads(file.read_text()) != json.loads(text):
        raise UserError(
            f"{folder} holds chunks of another evaluation, of other data, checkpoints or settings "
            f"(see {file}): choose another --output, or remove {folder / 'chunks'}"
        )


def _meet() -> None:
    """Waits until all processes have come this far."""
    parallel.combine(np.ones(1), np.array([jax.process_index()]), jax.process_count())
