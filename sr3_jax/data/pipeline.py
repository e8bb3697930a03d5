"""From a data set to batches, by Grain: deterministic, and resumed by a single number.

Everything about an example (which image, which crop, mirrored or not) is a function of the seed and
of its position in the stream of examples. Batch number n, of size B, holds positions n·B to
(n+1)·B - 1, its rows. A process reads the rows that its devices hold, wherever the mesh has put
them. So a run resumes at batch n by starting there, on any number of processes and any mesh.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import grain.python as grain
import jax
import numpy as np
from jaxtyping import Int, UInt8
from ml_collections import ConfigDict

from sr3_jax.data.crops import check_size, fit
from sr3_jax.data.source import (
    DataError,
    Dropped,
    Image,
    Source,
    check_budget,
    converted,
    image_id,
    whole,
)
from sr3_jax.images.arrays import ImageError
from sr3_jax.runtime import parallel


class Survivors:
    """A source in which an unreadable or too small image is replaced by the next good one.

    The epoch keeps its length and order, so every process and every restart sees the same stream.
    The images that failed are in `bad`, with the reason; more of them than `max_bad_fraction` raise
    DataError. What was converted when an image was read is in `notes`.

    Of several processes one alone may find too many. To raise would leave the others waiting for
    it. So with `blank` it only says so in `problem`, for all to agree on, and gives that image in
    place of a good one if there is none.
    """

    def __init__(
        self,
        source: Source,
        max_bad_fraction: float,
        min_size: int = 1,
        *,
        blank: Image | None = None,
    ):
        self.source, self.max_bad_fraction, self.min_size = source, max_bad_fraction, min_size
        self.problem, self._blank = "", blank
        self.bad: dict[int, Dropped] = {}
        self.notes: dict[int, tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[int, Image]:
        for offset in range(len(self)):
            at = (index + offset) % len(self)
            if at in self.bad:
                continue
            try:
                image = self.source[at]
                check_size(image, self.min_size)
                if image.notes:
                    with self._lock:
                        self.notes[at] = image.notes
                return at, image
            except ImageError as error:
                with self._lock:
                    self.bad[at] = Dropped("", str(error))
                    self._check_budget()
        self._check_budget()  # raises if another thread has just found the last image bad
        if self._blank is None:
            raise DataError("there are no images to train on")
        return index, self._blank

    def _check_budget(self) -> None:
        try:
            check_budget(
                [*self.source.dropped, *self.bad.values()],
                self.source,
                self.max_bad_fraction,
                "training data",
            )
        except DataError as error:
            if self._blank is None:
                raise
            self.problem = self.problem or str(error)


class Batch(NamedTuple):
    """A part of a batch: that of one process. A pytree."""

    image: UInt8[np.ndarray, "b s s c"]
    label: Int[np.ndarray, " b"]  # int32; source.NO_LABEL where there is none
    number: Int[np.ndarray, " b"]  # int64: places of the images in their source


class _SomeRows(grain.MapDataset):
    """Some rows of each batch of so many elements, one after the other."""

    def __init__(self, parent: grain.MapDataset, size: int, rows: Sequence[int]):
        super().__init__(parent)
        self._size, self._rows = size, rows

    def __len__(self) -> int:
        return len(self._parent) // self._size * len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        batch, place = divmod(index, len(self._rows))
        return self._parent[batch * self._size + self._rows[place]]


class Batches:
    """An endless iterator over this process's part of each training batch.

    Args:
      source: the data set.
      config: its data.*, train.batch_size and seed are used.
      position: the number of the first batch, to resume there.
      rows: those of the batch that this process reads, in order; see `parallel.rows`. None: all.
    """

    def __init__(
        self,
        source: Source,
        config: ConfigDict,
        *,
        position: int = 0,
        rows: Sequence[int] | None = None,
    ):
        size = config.train.batch_size
        rows = range(size) if rows is None else rows
        side, channels = config.data.hr_size, config.model.image_channels
        blank = Image(np.zeros((side, side, channels), np.uint8), "none")
        self.survivors = Survivors(
            source,
            config.data.max_bad_fraction,
            side,
            blank=blank if jax.process_count() > 1 else None,
        )

        def prepare(item: tuple[int, Image], rng: np.random.Generator) -> Batch:
            index, image = item
            # Grain stacks the fields of many
            return Batch(
                fit(image, config, rng), np.asarray(image.label, np.int32), np.asarray(index)
            )

        images = (
            grain.MapDataset.source(self.survivors)
            .seed(config.seed)
            .shuffle()
            .repeat(None)
            .random_map(prepare)
        )
        dataset = _SomeRows(images, size, rows).batch(len(rows))
        # The buffer counts whole batches; a thread makes one at a time.
        options = grain.ReadOptions(
            num_threads=config.data.threads, prefetch_buffer_size=2 * config.data.threads
        )
        self._iterator = iter(dataset.to_iter_dataset(options))
        self._iterator.set_state({"next_index": position})

    @property
    def bad(self) -> list[Dropped]:
        """The images replaced so far because they could not be read."""
        return list(self.survivors.bad.values())

    def agree(self) -> None:
        """Raises DataError in all processes if one of them has found too many bad images."""
        if jax.process_count() > 1 and (problem := parallel.first_text(self.survivors.problem)):
            raise DataError(problem)

    @property
    def converted(self) -> str:
        """What was converted in the images read so far, in words; each image counts once."""
        return converted(list(self.survivors.notes.values()))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return next(self._iterator)


class Evaluation(NamedTuple):
    """This process's share of the images for evaluation, all in memory."""

    images: UInt8[np.ndarray, "n s s c"]
    names: list[str]
    rows: Int[np.ndarray, " n"]  # their places among the images of all processes
    total: int  # number of images of all processes
    notes: list[tuple[str, ...]]  # what was converted when each was read
    labels: Int[np.ndarray, " n"]  # int32; source.NO_LABEL where there is none

    @property
    def ids(self) -> Int[np.ndarray, " n"]:
        """The numbers that stand for the images in random keys."""
        return np.array([image_id(name) for name in self.names], np.int64)


def load_evaluation(source: Source, config: ConfigDict, limit: int = 0) -> Evaluation:
    """`limit` images of `source` (0: all), spread evenly over it, cropped as for evaluation.

    An unreadable image is replaced by the next good one that is not in the sample already; where
    there is none, it is left out. Of P processes, each reads every P-th image.

    Raises:
      DataError: more images than data.max_bad_fraction failed to load.
    """
    count = min(limit, len(source)) if limit else len(source)
    size = config.data.hr_size
    fraction = config.data.max_bad_fraction
    spread = np.linspace(0, len(source), count + 1).astype(int).tolist()
    kept: dict[int, Image] = {}  # by row, cropped
    bad = [*source.dropped]
    for row in parallel.share(count).tolist():
        for at in range(spread[row], spread[row + 1]):
            # Too many are bad already, and the check below will say so
            if at > spread[row] and len(bad) > fraction * whole(source):
                break
            try:
                image = source[at]
                kept[row] = image._replace(pixels=fit(image, config))
                break
            except ImageError as error:
                bad.append(Dropped("", str(error)))
    found = len(bad) - len(source.dropped)
    all_found = parallel.combine(
        np.array([found]), np.array([jax.process_index()]), jax.process_count()
    ).sum()
    bad += [Dropped("", "an image of another process")] * int(all_found - found)
    check_budget(bad, source, fraction, "evaluation data")
    rows = np.array([*kept], int)
    good = parallel.combine(np.ones(len(rows), bool), rows, count)
    none = np.zeros((0, size, size, config.model.image_channels), np.uint8)
    return Evaluation(
        images=np.stack([image.pixels for image in kept.values()]) if kept else none,
        names=[image.id for image in kept.values()],
        rows=(np.cumsum(good) - 1)[rows],
        total=int(good.sum()),
        notes=[image.notes for image in kept.values()],
        labels=np.array([image.label for image in kept.values()], np.int32),
    )
