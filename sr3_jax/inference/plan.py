"""Which image file becomes which, known before anything is loaded."""

import glob
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sr3_jax.errors import UserError
from sr3_jax.images import formats
from sr3_jax.images.files import STDIO
from sr3_jax.images.pairs import listed
from sr3_jax.inference import journal
from sr3_jax.runtime import parallel, paths


class Job(NamedTuple):
    """One image file, and the files that are made of it."""

    source: Path
    # One for each sample, then the mean and the standard deviation if they are asked for
    outputs: list[Path]
    mask: Path | None = None  # where it is to be filled, for inpainting


class Naming(NamedTuple):
    """How the files that are made are called."""

    suffix: str = ".png"  # of what goes to a folder
    samples: int = 1  # of each image; several become NAME-1.png, NAME-2.png, …
    uncertainty: bool = False  # also NAME-mean.png and NAME-deviation.png


class Plan(NamedTuple):
    """The jobs, and what was left out, in words."""

    jobs: list[Job]
    folder: Path | None  # of the outputs; None: one file, or standard output
    notes: list[str]


def plan(
    inputs: Sequence[str],
    output: str,
    naming: Naming = Naming(),  # noqa: B008 (immutable)
    shard: parallel.Shard = parallel.Shard(),  # noqa: B008 (immutable)
) -> Plan:
    """Which file becomes which.

    Args:
      inputs: Files, folders and patterns such as "*.jpg"; "-" is standard input.
      output: A file if there is one image, else a folder, as is what ends with a slash; "-" is
        standard output.
      naming: How the files are called.
      shard: The part of the images that is returned.

    Raises:
      UserError: Inputs and output do not go together, or an input would be lost.
    """
    target = Path(output)
    found = [_expand(given, target) for given in inputs]
    # a file that is given twice is done once
    expanded = list(
        {(one[0].resolve(), one[1]): one for pairs, _ in found for one in pairs}.values()
    )
    notes = [note for _, given in found for note in given]
    one = len(inputs) == len(expanded) == 1 and not Path(inputs[0]).is_dir()
    file = bool(target.suffix) and not output.endswith("/") and not target.is_dir()
    single = one and (target == STDIO or file)
    if target == STDIO and (not single or naming.samples > 1):
        raise UserError("--output=- takes one image, and one sample of it")
    if single and target != STDIO and formats.format_of(target) is None:
        raise UserError(
            f"--output={output}: no image format has the suffix {target.suffix!r}; use .png, .jpg, "
            ".webp or .tiff"
        )
    if target.is_file() and not single:
        raise UserError(
            f"--output={output} is a file; for a folder or several images give a folder"
        )
    if shard.count > 1:
        _check_shares(inputs, [source for source, _ in expanded], target)
    marks = [""] if naming.samples == 1 else [f"-{i + 1}" for i in range(naming.samples)]
    marks += ["-mean", "-deviation"] if naming.uncertainty else []
    names = _names([relative for _, relative in expanded], naming.suffix)
    jobs = []
    for (source, _), name in zip(expanded, names, strict=True):
        whole = target if single else target / name
        outputs = [whole.with_name(f"{whole.stem}{mark}{whole.suffix}") for mark in marks]
        jobs.append(Job(source, outputs))
    _check_losses(jobs)
    return Plan(jobs[shard.index :: shard.count], None if single else target, notes)


def _names(relatives: Sequence[Path], suffix: str) -> list[Path]:
    """The results' paths in the output folder.

    Images that differ in their suffix alone keep it: a.jpg and a.gif become a.jpg.png and
    a.gif.png.
    """
    count = Counter(relative.with_suffix("") for relative in relatives)
    longer = [relative.with_name(f"{relative.name}{suffix}") for relative in relatives]
    names = [
        relative.with_suffix(suffix) if count[relative.with_suffix("")] == 1 else whole
        for relative, whole in zip(relatives, longer, strict=True)
    ]
    while True:  # beside those two, a.jpg.gif would become a.jpg.png as well
        found = Counter(names)
        new = [
            whole if found[name] > 1 else name for name, whole in zip(names, longer, strict=True)
        ]
        if new == names:
            return names
        names = new


def _check_shares(inputs: Sequence[str], sources: Sequence[Path], output: Path) -> None:
    """Raises UserError for work that shards cannot share.

    Each counts the inputs when it begins, so the results of the others must not be among them.
    """
    if STDIO in sources:
        raise UserError("--shard is for a folder or several files, not for standard input")
    if len(inputs) == 1 and Path(inputs[0]).is_file():
        raise UserError(f"--shard is for a folder or several files, not for {inputs[0]} alone")
    target = output.resolve()
    if any(source.resolve().is_relative_to(target) for source in sources):
        raise UserError(
            f"with --shard the images must lie outside of --output={output}: a shard would count "
            "the results of the others among the images"
        )


def with_masks(planned: Plan, mask: str) -> Plan:
    """The plan with a mask for each image.

    Args:
      planned: The plan.
      mask: A file, for all images, or a folder with a mask for each: of the same name, but for the
        suffix.

    Raises:
      UserError: An image has no mask, or several, or a mask would be lost.
    """
    path = Path(mask)
    if not path.exists():
        raise UserError(f"--mask={mask} does not exist")
    if not path.is_dir():
        masks = [path] * len(planned.jobs)
    else:
        # A folder of masks inside that of the images
        own = path.resolve()
        jobs = [job for job in planned.jobs if own not in job.source.resolve().parents]
        planned = planned._replace(jobs=jobs)
        if not jobs:
            raise UserError(f"--mask={mask} holds all the images that were given")
        by_stem: dict[str, list[Path]] = {}
        for name in sorted(path.iterdir()):
            if name.is_file() and formats.is_image_name(name):
                by_stem.setdefault(name.stem, []).append(name)
        masks = [_mask_of(job.source, by_stem, mask) for job in jobs]
        first: dict[Path, Path] = {}
        for job, name in zip(jobs, masks, strict=True):
            other = first.setdefault(name, job.source)
            if other != job.source:
                raise UserError(
                    f"{other} and {job.source} would both get the mask {name}; rename one of them"
                )
    written = {name.resolve() for job in planned.jobs for name in job.outputs if name != STDIO}
    for name in masks:
        if name.resolve() in written:
            raise UserError(f"{name} is a mask, which would be lost; choose another --output")
    return planned._replace(
        jobs=[job._replace(mask=name) for job, name in zip(planned.jobs, masks, strict=True)]
    )


def _mask_of(source: Path, by_stem: Mapping[str, Sequence[Path]], folder: str) -> Path:
    found = by_stem.get("stdin" if source == STDIO else source.stem, [])
    if not found:
        raise UserError(f"--mask={folder} has no mask for {source}: none is called {source.stem}")
    if len(found) > 1:
        names = listed([name.name for name in found])
        raise UserError(f"--mask={folder} has {len(found)} masks for {source}: {names}")
    return found[0]


def check_new(jobs: Sequence[Job]) -> None:
    """Raises UserError if a job's output exists."""
    for name in (name for job in jobs for name in job.outputs if name != STDIO):
        if name.exists():
            raise UserError(
                f"{name} exists; give --overwrite to replace it, or --skip-existing to go on"
            )


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


def _expand(given: str, output: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """The image files of an input: a file, a folder or a pattern; and what is left out of it.

    With each comes the path of its result, relative to the output folder, still with its own
    suffix.
    """
    path = Path(given)
    if path == STDIO:
        return [(STDIO, Path("stdin"))], []
    if path.is_dir():
        return _of_folder(path, output)
    if not path.exists() and glob.has_magic(given):  # a pattern that the shell has left to us
        # Path.glob takes no absolute patterns.
        matches = sorted(map(Path, glob.glob(given, recursive=True)))  # noqa: PTH207
        found = [file for file in matches if formats.is_image_name(file) and file.is_file()]
        if not found:
            raise UserError(f"{given} matches no images")
        return [(file, Path(file.name)) for file in found], []
    if not path.exists():
        raise UserError(f"{given} does not exist")
    return [(path, Path(path.name))], []


def _of_folder(folder: Path, output: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """As `_expand`, of a folder, whose results may lie in a folder below it."""
    below = output.resolve()
    own = below if below != folder.resolve() else None
    made = set() if own else journal.names(folder)  # by earlier runs into the same folder
    closed: list[str] = []
    files = paths.files_below(folder, without=own, on_closed=closed.append)
    names = [Path(name) for name in sorted(files)]
    found = [name for name in names if formats.is_image_name(name) and folder / name not in made]
    unread = [str(name) for name in names if name.suffix.lower() in formats.UNREAD]
    notes = [
        f"{folder}: {len(left)} left out, {why}: {listed(left)}"
        for left, why in (
            (unread, "of formats that are not read"),
            (closed, "which cannot be read"),
        )
        if left
    ]
    if not found:
        raise UserError("; ".join([f"{folder} holds no images that are read", *notes]))
    return [(folder / name, name) for name in found], notes


def checked_suffix(text: str) -> str:
    """The suffix of a format that is named as png, .png or PNG.

    Raises:
      UserError: there is no such format.
    """
    suffix = f".{text.lower().removeprefix('.')}"
    if formats.format_of(Path(f"a{suffix}")) is None:
        raise UserError(f"--format={text}: no image format is called so; use png, jpg, webp, tiff")
    return suffix
