"""Files and folders of images through an Upscaler: what is read, where it goes, what failed."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from rich.console import Console
from rich.progress import Progress

from sr3_jax import images, parallel
from sr3_jax.checkpoints import Checkpoint
from sr3_jax.errors import UserError
from sr3_jax.inference.upscaler import Upscaler


class Job(NamedTuple):
    source: Path
    outputs: list[Path]  # one a sample


def plan(inputs: Sequence[Path], output: Path, samples: int, overwrite: bool) -> list[Job]:
    """Which file becomes which, before anything is loaded; raises UserError when something would be lost."""
    sources = [file for given in inputs for file in _expand(given)]
    single = len(inputs) == 1 and inputs[0].is_file() and bool(output.suffix) and not output.is_dir()
    if single and not images.can_write(output):
        raise UserError(f"--output={output}: no image format has the suffix {output.suffix!r}; use .png, .jpg, .webp or .tiff")
    if output.is_file() and not single:
        raise UserError(f"--output={output} is a file; for a folder or several images give a folder")
    jobs = []
    for source, relative in sources:
        target = output if single else output / relative.with_suffix(".png")
        names = (
            [target] if samples == 1 else [target.with_name(f"{target.stem}-{i + 1}{target.suffix}") for i in range(samples)]
        )
        jobs.append(Job(source, names))
    seen: dict[Path, Path] = {}
    originals = {job.source.resolve() for job in jobs}
    for job in jobs:
        for name in job.outputs:
            if name in seen:
                raise UserError(f"{seen[name]} and {job.source} would both become {name}; rename one of them")
            seen[name] = job.source
            if name.resolve() in originals:
                raise UserError(f"{name} is an input, which would be lost; choose another --output")
            if name.exists() and not overwrite:
                raise UserError(f"{name} exists; give --overwrite to replace it")
    return jobs


def _expand(given: Path) -> list[tuple[Path, Path]]:
    """(file, its path relative to the given folder) for a file or everything in a folder."""
    if given.is_dir():
        files = sorted(path for path in given.rglob("*") if images.is_image_name(path) and path.is_file())
        if not files:
            raise UserError(f"{given} holds no images")
        return [(file, file.relative_to(given)) for file in files]
    if not given.exists():
        raise UserError(f"{given} does not exist")
    return [(given, Path(given.name))]


def upscale_all(checkpoint: Checkpoint, jobs: Sequence[Job], *, samples: int, steps: int | None, seed: int) -> int:
    """Runs this process's share of the jobs. Says what was converted, lists failures; returns the worst process's exit code.

    One bad file does not stop the others.
    """
    mine = [jobs[i] for i in parallel.share(len(jobs))]
    # On a CPU a larger batch is no faster, and the first picture comes later.
    batch_size = max(1, min(len(mine), jax.local_device_count() if jax.default_backend() == "cpu" else 16))
    upscaler = Upscaler(checkpoint, batch_size=batch_size)
    failed: list[str] = []
    with Progress(console=Console(stderr=True), transient=True, disable=not parallel.is_main()) as progress:
        task = progress.add_task("upscaling", total=len(mine) * samples)
        for start in range(0, len(mine), batch_size):
            ready = list(_read(mine[start : start + batch_size], upscaler, failed))
            for sample in range(samples if ready else 0):
                names = [job.source.name for job, _ in ready]
                results = upscaler.images([pixels for _, pixels in ready], names, seed=seed, sample=sample, steps=steps)
                for (job, _), result in zip(ready, results, strict=True):
                    try:
                        images.write(job.outputs[sample], result)
                        print(job.outputs[sample])
                    except UserError as error:
                        failed.append(str(error))
                progress.advance(task, len(ready))
    for sentence in failed:
        print(f"sr3: {sentence}", file=sys.stderr)
    if failed and len(jobs) > 1:
        print(f"sr3: {len(failed)} of {len(mine)} images failed", file=sys.stderr)
    return parallel.worst(2 if failed else 0)


def _read(jobs: Sequence[Job], upscaler: Upscaler, failed: list[str]) -> Iterator[tuple[Job, images.Pixels]]:
    """The images that can be upscaled; why the others cannot goes to `failed`."""
    for job in jobs:
        try:
            pixels, notes = images.read(job.source, None)
            upscaler.check_size(pixels, job.source.name)
        except UserError as error:
            failed.append(str(error))
            continue
        for note in notes:
            print(f"{job.source}: {note}", file=sys.stderr)
        yield job, pixels
