"""Contenders and meters over a set of images, in chunks: a run that was killed goes on where it was.

Each chunk is a file below FOLDER/chunks, there as a whole or not at all: values by row, and the
vectors (features of networks) that metrics of whole sets need. Processes share the chunks; FOLDER
must be a place that all of them see. Memory is that of a chunk, and of the statistics, however many
images there are.
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
from sr3_jax.runtime import parallel, paths
from sr3_jax.runtime.atomic import replacing, write_text
from sr3_jax.runtime.paths import AnyPath

RUN = "run.json"
HR = "HR"  # the row of the references themselves


class Images(NamedTuple):
    """Some images of one size, as they come from the data; `hr` or `lr` may be missing."""

    ids: list[str]
    hr: np.ndarray | None  # (n, h, w, c) uint8
    lr: np.ndarray | None
    notes: Sequence[tuple[str, ...]] = ()  # what was converted when each was read
    dropped: Sequence[str] = ()  # why others of the chunk are not there

    @property
    def given(self) -> np.ndarray:
        """What contenders get: the LR images, or where there are none the images themselves."""
        found = self.lr if self.lr is not None else self.hr
        assert found is not None
        return found

    def size(self, scale: int) -> tuple[int, int]:
        """(height, width) of what they are to make."""
        return (
            self.hr.shape[1:3]
            if self.hr is not None
            else tuple(scale * side for side in self.given.shape[1:3])
        )


@runtime_checkable
class Data(Protocol):
    """The images of a protocol. `about` names them: in results.json, and to a run that goes on."""

    about: dict[str, Any]
    scale: int  # by which LR images that have no HR image are enlarged

    def chunks(self) -> list[list[int]]:
        """The places of all images; those of a chunk have one size."""
        ...

    def load(self, places: Sequence[int]) -> Images: ...


class Pictures(NamedTuple):
    """What a metric sees: the images of one row, and what they belong to."""

    images: np.ndarray  # (n, h, w, c) uint8
    hr: np.ndarray | None
    lr: np.ndarray | None
    ids: list[str]
    samples: np.ndarray | None  # (s, n, h, w, c)


class Meter(NamedTuple):
    """A family of metrics.

    `each` gives a value an image, (n,), or a vector, (n, d), which is kept until `end` looks at
    all.
    """

    name: str
    each: Callable[[Pictures], dict[str, np.ndarray]]
    end: Callable[["Collected"], None] | None = None
    of_reference: bool = False  # the references have it as well, in a row of their own
    about: Mapping[str, Any] = {}


class Collected:
    """All that was measured: values by row, metric and image; vectors chunk by chunk."""

    def __init__(self, folder: AnyPath, count: int):
        self._files = [_file(folder, number) for number in range(count)]
        self.ids: list[str] = []
        self.notes: list[tuple[str, ...]] = []
        self.dropped: list[str] = []
        self.rows: list[str] = []
        self.per_image: dict[str, dict[str, np.ndarray]] = {}
        self.whole: dict[str, dict[str, float]] = {}  # values of a whole set, by row
        found: dict[str, dict[str, list[list[float]]]] = {}
        for file in self._files:
            chunk = json.loads(_part(file, "values").tobytes())
            self.ids += chunk["ids"]
            self.notes += [tuple(notes) for notes in chunk["notes"]]
            self.dropped += chunk["dropped"]
            for row, values in chunk["values"].items():
                for metric, numbers in values.items():
                    found.setdefault(row, {}).setdefault(metric, []).append(numbers)
                found.setdefault(row, {})
        self.rows = list(found)
        for row, values in found.items():
            # a metric that could not be had of all images, such as LPIPS of the smallest, has no
            # mean
            complete = {metric: np.concatenate(parts) for metric, parts in values.items()}
            self.per_image[row] = {
                metric: all_ for metric, all_ in complete.items() if len(all_) == len(self.ids)
            }
            self.whole[row] = {}

    def vectors(self, row: str, name: str) -> Iterator[Float[np.ndarray, "n d"]]:
        """The vectors of a row, a chunk at a time."""
        for file in self._files:
            part = _part(file, f"{row}\n{name}")
            if len(part):
                yield part

    def methods(self) -> dict[str, dict[str, float]]:
        """The numbers of the table: means over the images, and what is of the whole set."""
        return {
            row: {metric: float(values.mean()) for metric, values in self.per_image[row].items()}
            | self.whole[row]
            for row in self.rows
        }

    def intervals(self) -> dict[str, dict[str, tuple[float, float]]]:
        """95 % intervals of the means."""
        return {
            row: {metric: interval(values) for metric, values in self.per_image[row].items()}
            for row in self.rows
        }


def interval(
    values: Float[np.ndarray, " n"], draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of a mean, by the bootstrap over images."""
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def measure(
    data: Data,
    contenders: Sequence[Contender],
    meters: Sequence[Meter],
    folder: AnyPath,
    on_images: Callable[[int], object] = lambda count: None,
) -> Collected | None:
    """Measures what is not measured yet; returns everything, on the main process, and None on the others.

    `on_images(count)` is called after every chunk, those of an earlier run included. Raises
    UserError when the folder holds the beginning of another run.
    """
    chunks = data.chunks()
    _check_same_run(folder, _about(data, contenders, meters))
    for number in parallel.share(len(chunks)).tolist():
        file = _file(folder, number)
        if not file.exists():
            _save(file, _measure_chunk(data, contenders, meters, data.load(chunks[number])))
        on_images(len(chunks[number]))
    _meet()
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


def forget(folder: AnyPath) -> bool:
    """Removes a run's chunks, when its results are written, and nothing else; whether there were any."""
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


def _about(data: Data, contenders: Sequence[Contender], meters: Sequence[Meter]) -> dict[str, Any]:
    return {
        "data": data.about,
        "contenders": [contender.about for contender in contenders],
        "meters": {meter.name: meter.about for meter in meters},
    }


def _measure_chunk(
    data: Data, contenders: Sequence[Contender], meters: Sequence[Meter], images: Images
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
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

    if images.ids:
        for contender in contenders:
            made = contender.make(images.given, images.ids, images.size(data.scale))
            for row, pictures in made.images.items():
                look(
                    row,
                    Pictures(pictures, images.hr, images.lr, images.ids, made.samples.get(row)),
                    meters,
                )
        of_reference = [meter for meter in meters if meter.of_reference]
        if images.hr is not None and of_reference:
            look(HR, Pictures(images.hr, images.hr, images.lr, images.ids, None), of_reference)
    notes = [list(notes) for notes in images.notes]
    return {
        "ids": images.ids,
        "notes": notes,
        "dropped": list(images.dropped),
        "values": values,
    }, vectors


def _file(folder: AnyPath, number: int) -> AnyPath:
    return folder / "chunks" / f"{number:06d}.npz"


def _save(file: AnyPath, chunk: tuple[dict[str, Any], dict[str, np.ndarray]]) -> None:
    values, vectors = chunk
    text = np.frombuffer(json.dumps(values).encode(), np.uint8)
    with replacing(file) as temporary, temporary.open("wb") as opened:
        np.savez(opened, **{"values": text} | vectors)  # type: ignore[arg-type]


def _part(file: AnyPath, name: str) -> np.ndarray:
    with paths.local_copy(file) as local, np.load(local, allow_pickle=False) as parts:
        return parts[name] if name in parts else np.zeros((0, 0), np.float32)


def _check_same_run(folder: AnyPath, about: dict[str, Any]) -> None:
    """Notes what is measured, or compares it with what a run before this one noted."""
    file = folder / "chunks" / RUN
    text = json.dumps(about, indent=2, sort_keys=True)
    if not file.exists() and file.parent.is_dir() and any(file.parent.iterdir()):
        raise UserError(
            f"{file.parent} is there, but not of an evaluation: choose another --output"
        )
    if file.exists() and json.loads(file.read_text()) != json.loads(text):
        raise UserError(
            f"{folder} holds the beginning of another evaluation, of other data, checkpoints or settings (see {file}): choose "
            f"another --output, or remove {folder / 'chunks'}"
        )
    _meet()
    if parallel.is_main() and not file.exists():
        write_text(file, text)


def _meet() -> None:
    """Returns when all processes are here."""
    parallel.combine(np.ones(1), np.array([jax.process_index()]), jax.process_count())
