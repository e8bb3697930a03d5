"""Enlarges files and folders of images: which are read, where results go, and what failed."""

import dataclasses
import glob
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.errors import UserError
from sr3_jax.images import arrays, files
from sr3_jax.images.files import STDIO, File
from sr3_jax.images.pixels import Picture
from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.upscaler import Cost, Upscaler
from sr3_jax.runtime import parallel

WHITE = 0.25  # the standard deviation, of values in [0, 1], that an uncertainty map shows white
LONG = 10.0  # seconds; work that will take longer is announced


class Job(NamedTuple):
    """One image file, and the files that are made of it."""

    source: Path
    # One for each sample, then the mean and the standard deviation if they are asked for
    outputs: list[Path]


class Written(NamedTuple):
    """A file that was written."""

    input: str
    output: str
    width: int
    height: int


def print_path(written: Written) -> None:
    """On standard output, for scripts."""
    print(written.output)


class Options(NamedTuple):
    """How files are enlarged."""

    sampling: Sampling = Sampling()
    samples: int = 1  # of each image, counted from sampling.sample on
    uncertainty: bool = False  # also the mean of the samples and their standard deviation
    tile: int | None = None
    batch: int | None = None
    quiet: bool = False  # no progress, and no notes on what was converted


def plan(
    inputs: Sequence[str],
    output: Path,
    overwrite: bool,
    samples: int = 1,
    uncertainty: bool = False,
    shard: parallel.Shard = parallel.Shard(),  # noqa: B008 (immutable)
) -> list[Job]:
    """Which file becomes which, known before anything is loaded.

    Args:
      inputs: Files, folders and patterns such as "*.jpg"; "-" is standard input.
      output: A file if there is one image, else a folder; "-" is standard output.
      overwrite: Whether files that are there may be replaced.
      samples: How many samples of each image; several become NAME-1.png, NAME-2.png, …
      uncertainty: Whether NAME-mean.png and NAME-deviation.png are made as well.
      shard: The part of the images that is returned.

    Raises:
      UserError: Inputs and output do not go together, or a file would be lost.
    """
    expanded = [file for given in inputs for file in _expand(given)]
    one = len(inputs) == len(expanded) == 1 and not Path(inputs[0]).is_dir()
    single = one and (output == STDIO or bool(output.suffix)) and not output.is_dir()
    if output == STDIO and (not single or samples > 1):
        raise UserError("--output=- takes one image, and one sample of it")
    if single and output != STDIO and files.format_of(output) is None:
        raise UserError(
            f"--output={output}: no image format has the suffix {output.suffix!r}; use .png, .jpg, "
            ".webp or .tiff"
        )
    if output.is_file() and not single:
        raise UserError(
            f"--output={output} is a file; for a folder or several images give a folder"
        )
    if shard.count > 1:
        _check_shares(inputs, [source for source, _ in expanded], output)
    marks = [""] if samples == 1 else [f"-{i + 1}" for i in range(samples)]
    marks += ["-mean", "-deviation"] if uncertainty else []
    jobs = []
    for source, relative in expanded:
        target = output if single else output / relative.with_suffix(".png")
        outputs = [target.with_name(f"{target.stem}{mark}{target.suffix}") for mark in marks]
        jobs.append(Job(source, outputs))
    _check_losses(jobs)
    mine = jobs[shard.index :: shard.count]
    if not overwrite:
        _check_new(mine)
    return mine


def _check_shares(inputs: Sequence[str], sources: Sequence[Path], output: Path) -> None:
    """Raises UserError for work that shards cannot share.

    Each counts the inputs when it begins, so the results of the others must not be among them.
    """
    if STDIO in sources:
        raise UserError("--shard is for a folder or several files, not for standard input")
    if len(inputs) == 1 and Path(inputs[0]).is_file():
        raise UserError(f"--shard is for a folder or several files, not for {inputs[0]} alone")
    target = output.resolve()
    if any(target.is_relative_to(Path(name).resolve()) for name in inputs) or any(
        source.resolve().is_relative_to(target) for source in sources
    ):
        raise UserError(
            f"with --shard the images must lie outside of --output={output}, and that outside of "
            "their folder: a shard would count the results of the others among the images"
        )


def _check_new(jobs: Sequence[Job]) -> None:
    """Raises UserError if a job's output exists."""
    for name in (name for job in jobs for name in job.outputs if name != STDIO):
        if name.exists():
            raise UserError(f"{name} exists; give --overwrite to replace it")


def _check_losses(jobs: Sequence[Job]) -> None:
    """Raises UserError if a job would write over an input or another's output."""
    seen: dict[Path, Path] = {}
    originals = {job.source.resolve() for job in jobs if job.source != STDIO}
    outputs = ((job.source, name) for job in jobs for name in job.outputs if name != STDIO)
    for source, name in outputs:
        if name in seen:
            raise UserError(
                f"{seen[name]} and {source} would both become {name}; rename one of them"
            )
        seen[name] = source
        if name.resolve() in originals:
            raise UserError(f"{name} is an input, which would be lost; choose another --output")


def _expand(given: str) -> list[tuple[Path, Path]]:
    """The image files of an input: a file, a folder or a pattern.

    With each comes the path of its result, relative to the output folder, still with its own
    suffix.
    """
    path = Path(given)
    if path == STDIO:
        return [(STDIO, Path("stdin"))]
    if path.is_dir():
        files = sorted(
            file for file in path.rglob("*") if arrays.is_image_name(file) and file.is_file()
        )
        if not files:
            raise UserError(f"{given} holds no images")
        return [(file, file.relative_to(path)) for file in files]
    if not path.exists() and glob.has_magic(given):  # a pattern that the shell has left to us
        # Path.glob takes no absolute patterns.
        matches = sorted(map(Path, glob.glob(given, recursive=True)))  # noqa: PTH207
        found = [file for file in matches if arrays.is_image_name(file) and file.is_file()]
        if not found:
            raise UserError(f"{given} matches no images")
        return [(file, Path(file.name)) for file in found]
    if not path.exists():
        raise UserError(f"{given} does not exist")
    return [(path, Path(path.name))]


def upscale_all(
    checkpoint: Checkpoint,
    jobs: Sequence[Job],
    options: Options,
    on_written: Callable[[Written], object] = print_path,
) -> int:
    """Runs this process's share of the jobs; one bad file does not stop the others.

    It prints what was converted and which files failed.

    Args:
      checkpoint: The network.
      jobs: The jobs of all processes.
      options: How files are enlarged.
      on_written: Called with each file as soon as it is written.

    Returns:
      The highest exit code of all processes: 2 if an image failed, else 0.
    """
    mine = [jobs[i] for i in parallel.share(len(jobs))]
    upscaler = Upscaler(checkpoint, options.batch, options.tile)
    options.sampling.check(checkpoint)
    failed: list[str] = []
    with Progress(
        *Progress.get_default_columns()[:-1],
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=options.quiet or not parallel.is_main(),
    ) as progress:
        whole = progress.add_task("images", total=len(mine), visible=len(mine) > 1)
        for job in mine:
            try:
                _upscale(job, upscaler, options, progress, on_written)
            except UserError as error:
                failed.append(str(error))
            progress.advance(whole)
    for sentence in failed:
        print(f"sr3: {sentence}", file=sys.stderr)
    if failed and len(jobs) > 1:
        print(f"sr3: {len(failed)} of {len(mine)} images failed", file=sys.stderr)
    return parallel.worst(2 if failed else 0)


def _upscale(
    job: Job,
    upscaler: Upscaler,
    options: Options,
    progress: Progress,
    on_written: Callable[[Written], object],
) -> None:
    data = files.load(job.source)
    label = "standard input" if job.source == STDIO else str(job.source)
    try:
        height, width = files.header(data, label)
    except files.TooManyPixels as error:
        memory = upscaler.cost(1, error.pixels, options.sampling).bytes
        raise UserError(
            f"{error}: enlarged, they would take {memory / 2**30:.0f} GiB of memory; "
            "cut the image up"
        ) from error
    cost = upscaler.cost(height, width, options.sampling)
    _check_memory(cost, width, height, label)
    file = files.parse(data, label)
    _say(label, (*file.notes, *upscaler.scale_notes(options.sampling.scale)), options.quiet)
    work = cost.tiles * cost.evaluations * options.samples
    task = progress.add_task(job.source.name, total=work)
    clock = _Clock(work, label, cost, progress)

    def advance(count: int) -> None:
        progress.advance(task, count)
        clock.advance(count)

    def write(path: Path, picture: Picture, file: File) -> None:
        _say(str(path), files.write(path, picture, file.info), options.quiet)
        if path != STDIO:
            on_written(Written(label, str(path), *picture.colour.shape[1::-1]))

    drawn: list[Picture] = []
    for sample in range(options.samples):
        sampling = dataclasses.replace(options.sampling, sample=options.sampling.sample + sample)
        picture = upscaler.picture(file.picture, job.source.name, sampling, advance)
        write(job.outputs[sample], picture, file)
        drawn += [picture] if options.uncertainty else []
    if options.uncertainty:
        mean, deviation = spread(drawn)
        write(job.outputs[-2], mean, file)
        write(job.outputs[-1], deviation, file._replace(info={}))
    progress.remove_task(task)


def spread(samples: Sequence[Picture]) -> tuple[Picture, Picture]:
    """The mean of several samples of one image, and a grey map of their standard deviation.

    The map shows the deviation at each pixel, a mean over the channels. White is 0.25 of the whole
    range, or more.
    """
    colours = np.stack([picture.colour for picture in samples])
    deviation = colours.std(axis=0, ddof=1).mean(axis=-1, keepdims=True) / 2
    mean = samples[0]._replace(colour=colours.mean(axis=0))
    return mean, Picture(np.clip(deviation / WHITE, 0, 1) * 2 - 1)


def _say(about: str, notes: Sequence[str], quiet: bool) -> None:
    for note in () if quiet else notes:
        print(f"{about}: {note}", file=sys.stderr)


def _check_memory(cost: Cost, width: int, height: int, label: str) -> None:
    """Raises UserError for an image whose canvases would not fit into this machine's memory."""
    there = (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if hasattr(os, "sysconf")
        else 2**63
    )
    if cost.bytes > 0.8 * there:
        raise UserError(
            f"{label} is {width}×{height}; {cost.width}×{cost.height} takes "
            f"{cost.bytes / 2**30:.0f} GiB of memory, and this "
            f"machine has {there / 2**30:.0f}; cut it up, or give a smaller --scale"
        )


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
