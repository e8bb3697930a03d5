"""Enlarges or edits files and folders of images, and tells what failed."""

import dataclasses
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

from sr3_jax.checkpoints.checkpoint import Checkpoint, fingerprint
from sr3_jax.errors import UserError, first_line
from sr3_jax.images import files
from sr3_jax.images.decoding import TooManyPixels
from sr3_jax.images.files import STDIO
from sr3_jax.images.metadata import Metadata
from sr3_jax.images.pixels import Picture
from sr3_jax.inference import holes, journal
from sr3_jax.inference.editor import Edit, Editor
from sr3_jax.inference.holes import Margin
from sr3_jax.inference.journal import Journal
from sr3_jax.inference.plan import Job
from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.upscaler import Cost, Upscaler
from sr3_jax.runtime import limits, parallel

WHITE = 0.25  # the standard deviation, of values in [0, 1], that an uncertainty map shows white
MEMORY_SHARE = 0.8  # of what there is, that one image may take
EXHAUSTED = "RESOURCE_EXHAUSTED"  # in errors of a device whose memory is full
LONG = 10.0  # seconds; work that will take longer is announced


class Written(NamedTuple):
    """A file that was written."""

    input: str
    output: str
    width: int
    height: int


def print_path(written: Written) -> None:
    """On standard output, for scripts."""
    print(written.output)


@runtime_checkable
class Worker(Protocol):
    """What makes a picture of a picture: an `Upscaler`, or an `Edit` of an `Editor`."""

    @property
    def checkpoint(self) -> Checkpoint:
        """The network's checkpoint."""
        ...

    def prepared(self, file: files.File, sampling: Sampling) -> files.File:
        """The file as it is worked on, with what the user should know of it as notes."""
        ...

    def cost(self, height: int, width: int, sampling: Sampling | None = None) -> Cost:
        """What an image of height × width takes; raises UserError if it cannot be done."""
        ...

    def bytes(self, count: int, sampling: Sampling) -> int:
        """The memory that an image of so many pixels takes."""
        ...

    def picture(
        self, picture: Picture, name: str, sampling: Sampling, on_tiles: Callable[[int], object]
    ) -> Picture:
        """The picture that is made; see `Upscaler.picture`."""
        ...


class Options(NamedTuple):
    """How files are enlarged or edited."""

    sampling: Sampling = Sampling()
    samples: int = 1  # of each image, counted from sampling.sample on
    uncertainty: bool = False  # also the mean of the samples and their standard deviation
    tile: int | None = None
    batch: int | None = None
    quiet: bool = False  # no progress, and no notes on what was converted
    overwrite: bool = False  # files that exist
    skip_existing: bool = False  # leave out what an earlier run has made in the same way
    quality: int | None = None  # of 100, for formats that lose some
    name: str | None = None  # whose noise all images get; None: each its own


def upscale_all(
    checkpoint: Checkpoint,
    jobs: Sequence[Job],
    options: Options,
    folder: Path | None = None,
    on_written: Callable[[Written], object] = print_path,
) -> int:
    """Enlarges the images of all jobs; see `run_all`."""
    upscaler = Upscaler(checkpoint, options.batch, options.tile)
    options.sampling.check(checkpoint)
    made = Journal(folder, _settings(checkpoint, options)) if folder else None
    return run_all(lambda _: upscaler, jobs, options, made, on_written)


def edit_all(
    editor: Editor,
    margin: Margin | None,
    jobs: Sequence[Job],
    options: Options,
    folder: Path | None = None,
    on_written: Callable[[Written], object] = print_path,
) -> int:
    """Edits the images of all jobs, each with its mask; see `run_all`."""

    def edit(job: Job) -> Edit:
        if job.mask is None:
            return editor.edit(margin=margin or ())
        return editor.edit(holes.of_mask_file(job.mask), margin or (), str(job.mask))

    options.sampling.check(editor.checkpoint)
    settings = _settings(editor.checkpoint, options) | {"margin": margin}
    made = Journal(folder, settings) if folder else None
    return run_all(edit, jobs, options, made, on_written)


def run_all(
    worker_of: Callable[[Job], Worker],
    jobs: Sequence[Job],
    options: Options,
    made: Journal | None,
    on_written: Callable[[Written], object] = print_path,
) -> int:
    """Runs this process's share of the jobs; what goes wrong with one does not stop the others.

    It prints what was converted and which images failed.

    Args:
      worker_of: What works on the image of a job.
      jobs: The jobs of all processes.
      options: How files are made.
      made: The journal of the output folder; None: there is none.
      on_written: Called with each file as soon as it is written.

    Returns:
      The highest exit code of all processes: 2 if the user can mend what failed, 1 if not, else 0.
    """
    mine = [jobs[i] for i in parallel.share(len(jobs))]
    with Progress(
        *Progress.get_default_columns()[:-1],
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=options.quiet or not parallel.is_main(),
    ) as progress:
        run = _Run(worker_of, options, progress, on_written, made)
        whole = progress.add_task("images", total=len(mine), visible=len(mine) > 1)
        later = []
        for job in mine:
            if run.job(job):
                progress.advance(whole)
            else:
                later.append(job)
        for job in later:
            run.job(job, wait=True)
            progress.advance(whole)
    for sentence in run.failed:
        print(f"sr3: {sentence}", file=sys.stderr)
    if run.skipped and not options.quiet:
        print(f"{run.skipped} of {len(mine)} images were there already", file=sys.stderr)
    if run.failed and len(jobs) > 1:
        print(f"sr3: {len(run.failed)} of {len(mine)} images failed", file=sys.stderr)
    return parallel.worst(run.code)


def _settings(checkpoint: Checkpoint, options: Options) -> dict[str, Any]:
    """All that results depend on, beside their images."""
    config, sampling = checkpoint.config, options.sampling
    # What is the default counts as the same if it is said
    settled = {
        "scale": float(sampling.scale or config.data.hr_size / config.data.lr_size),
        "steps": sampling.steps or config.sample.steps,
    }
    return {
        "parameters": fingerprint(checkpoint),
        "dtype": config.model.dtype,
        "sampling": dataclasses.asdict(sampling) | settled,
        "tile": options.tile,
        "quality": options.quality,
        "name": options.name,
        "samples": options.samples,
    }


class _Given(NamedTuple):
    """An image that was read."""

    worker: Worker
    image: journal.Image  # without its data
    file: files.File
    cost: Cost
    said: dict[Path, list[str]]  # what a format cannot keep, by file to be written


class _Run:
    """What the images of one call share, and what became of them."""

    def __init__(
        self,
        worker_of: Callable[[Job], Worker],
        options: Options,
        progress: Progress,
        on_written: Callable[[Written], object],
        made: Journal | None,
    ):
        self.worker_of, self.options, self.progress = worker_of, options, progress
        self.on_written, self.made = on_written, made
        self.failed: list[str] = []
        self.skipped, self.code = 0, 0

    def job(self, job: Job, wait: bool = False) -> bool:
        """Does a job; whatever goes wrong is noted. Returns False if another run is at it."""
        try:
            if not self._is_new(job):
                self.skipped += 1
                return True
            given = self._prepare(job)
            with journal.claimed(job.outputs[0], wait) as own:
                if own and self._is_new(job):
                    self._make(job, given)
                elif own:
                    self.skipped += 1
                return own
        except UserError as error:
            self._fail(str(error), 2)
        except (OSError, MemoryError) as error:  # a full disk; more than there is of memory
            self._fail(f"{_label(job)}: {_reason(error)}", 2)
        except Exception as error:  # the others must not suffer
            memory_gone = EXHAUSTED in str(error)
            if not memory_gone:
                traceback.print_exc()
            self._fail(f"{_label(job)}: {_reason(error)}", 2 if memory_gone else 1)
        return True

    def _fail(self, sentence: str, code: int) -> None:
        self.failed.append(sentence)
        self.code = max(self.code, code)

    def _is_new(self, job: Job) -> bool:
        """Whether a job's files are still to be made; raises UserError if others are there."""
        there = [name for name in job.outputs if name != STDIO and name.exists()]
        if self.options.overwrite or not there:
            return True
        if not self.options.skip_existing:
            raise UserError(f"{there[0]} has appeared meanwhile and was left as it is")
        for name in there:
            if not self._is_ours(job, name):
                raise UserError(
                    f"{name} exists, and was not made from this image by this network and these "
                    "settings; give --overwrite to replace it, or another --output"
                )
        # Of several samples some may be missing: they are made again together
        return len(there) < len(job.outputs)

    def _is_ours(self, job: Job, name: Path) -> bool:
        """Whether a file is what this run, or one like it, makes of the job."""
        return (
            self.made is not None and name.exists() and self.made.made(job.source, name, job.mask)
        )

    def _prepare(self, job: Job) -> _Given:
        """Reads an image, and finds what would go wrong before the network is run."""
        label = _label(job)
        image = journal.read(job.source, job.mask)
        worker = self.worker_of(job)
        cost = self._cost(worker, image.data, label)
        file = worker.prepared(files.parse(image.data, label), self.options.sampling)
        self._say(label, file.notes)
        said = {}
        for name in job.outputs:
            said[name] = files.rehearse(name, file, cost.height, cost.width)
            self._say(str(name), said[name])
        return _Given(worker, image._replace(data=b""), file, cost, said)

    def _make(self, job: Job, given: _Given) -> None:
        options, (worker, image, file, cost, said), label = self.options, given, _label(job)
        work = cost.tiles * cost.evaluations * options.samples
        task = self.progress.add_task(job.source.name, total=work)
        clock = _Clock(work, label, cost, self.progress)

        def advance(count: int) -> None:
            self.progress.advance(task, count)
            clock.advance(count)

        def write(path: Path, picture: Picture, kept: Metadata) -> None:
            replace = options.overwrite or (path != STDIO and self._is_ours(job, path))

            def note(size: int) -> None:
                if self.made is not None and path != STDIO:
                    self.made.add(image, path, size)

            notes = files.write(path, picture, kept, options.quality, replace, note)
            self._say(str(path), [one for one in notes if one not in said[path]])
            if path != STDIO:
                self.on_written(Written(label, str(path), *picture.colour.shape[1::-1]))

        spread = Spread()
        try:
            for sample in range(options.samples):
                sampling = dataclasses.replace(
                    options.sampling, sample=options.sampling.sample + sample
                )
                key = job.source.name if options.name is None else options.name
                picture = worker.picture(file.picture, key, sampling, advance)
                write(job.outputs[sample], picture, file.metadata)
                if options.uncertainty:
                    spread.add(picture)
            if options.uncertainty:
                write(job.outputs[-2], spread.mean, file.metadata)
                write(job.outputs[-1], spread.deviation, Metadata())
        finally:
            self.progress.remove_task(task)

    def _cost(self, worker: Worker, data: bytes, label: str) -> Cost:
        """What an image will take, from its header; raises UserError if that is too much."""
        sampling = self.options.sampling
        try:
            height, width = files.header(data, label)
        except TooManyPixels as error:
            needed = worker.bytes(error.pixels, sampling)
            raise UserError(
                f"{error}: it would take {needed / 2**30:.0f} GiB of memory; cut the image up"
            ) from error
        cost = worker.cost(height, width, sampling)
        needed = cost.bytes
        if self.options.uncertainty:  # mean and spread, in float64
            channels = worker.checkpoint.config.model.image_channels
            needed += 2 * 8 * channels * cost.height * cost.width
        if needed > MEMORY_SHARE * limits.memory():
            raise UserError(
                f"{label} is {width}×{height}; {cost.width}×{cost.height} takes "
                f"{needed / 2**30:.0f} GiB of memory, and there are "
                f"{limits.memory() / 2**30:.0f}; cut it up"
                + (", or give a smaller --scale" if isinstance(worker, Upscaler) else "")
            )
        return cost

    def _say(self, about: str, notes: Sequence[str]) -> None:
        for note in () if self.options.quiet else notes:
            print(f"{about}: {note}", file=sys.stderr)


def _label(job: Job) -> str:
    return "standard input" if job.source == STDIO else str(job.source)


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError) or EXHAUSTED in str(error):
        return "there is not enough memory; give a smaller --tile or --batch, or cut it up"
    if isinstance(error, OSError):
        return error.strerror or first_line(error)
    return f"{type(error).__name__}: {first_line(error)}"


class Spread:
    """The mean of several samples of one image, and how much they differ, as they come.

    The samples are not kept (Welford's algorithm).
    """

    def __init__(self) -> None:
        self._count = 0
        self._last: Picture | None = None
        self._mean: Any = 0.0
        self._squares: Any = 0.0

    def add(self, sample: Picture) -> None:
        """Counts in a sample."""
        self._count += 1
        self._last = sample
        difference = sample.colour - self._mean
        self._mean = self._mean + difference / np.float64(self._count)
        self._squares = self._squares + difference * (sample.colour - self._mean)

    @property
    def mean(self) -> Picture:
        """The mean of the samples."""
        assert self._last is not None
        return self._last._replace(colour=self._mean.astype(np.float32))

    @property
    def deviation(self) -> Picture:
        """A grey map of the standard deviation at each pixel, a mean over the channels.

        White is 0.25 of the whole range, or more.
        """
        deviation = np.sqrt(self._squares / (self._count - 1)).mean(axis=-1, keepdims=True) / 2
        return Picture((np.clip(deviation / WHITE, 0, 1) * 2 - 1).astype(np.float32))


class _Clock:
    """Announces once how long the rest of an image will take, if that is long.

    It does so when the second group of tiles is done, because the first group's time includes the
    compilation.
    """

    def __init__(self, work: int, label: str, cost: Cost, progress: Progress):
        self._left, self._label, self._cost, self._progress = work, label, cost, progress
        self._started: float | None = None
        self._told = False

    def advance(self, count: int) -> None:
        now = time.perf_counter()
        self._left -= count
        if self._started is not None and not self._told:
            self._told = True
            seconds = (now - self._started) / count * self._left
            if seconds > LONG:
                self._progress.console.print(
                    f"{self._label}: {self._cost.width}×{self._cost.height}, "
                    f"{self._cost.tiles} tiles × {self._cost.evaluations} evaluations, about "
                    f"{_duration(seconds)} and {self._cost.bytes / 2**30:.1f} GiB "
                    "beside the network",
                    highlight=False,
                    soft_wrap=True,
                )
        self._started = now


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
