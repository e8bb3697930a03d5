"""Any method's images against their references, file by file: `sr3 evaluate --images=DIR --reference=DIR [--lr=DIR]`."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from sr3_jax import images as image_files
from sr3_jax.errors import UserError
from sr3_jax.evaluation import distributions, metrics, pairs, report
from sr3_jax.evaluation.distributions import Reference, Statistics
from sr3_jax.evaluation.inception import FEATURES, Inception
from sr3_jax.evaluation.lpips import SMALLEST, lpips

BATCH = 16
Files = dict[str, dict[str, Path]]


def interval(values: Float[np.ndarray, " n"], draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a mean, by the bootstrap over images."""
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def evaluate(
    images: Path,
    reference: Path,
    lr: Path | None = None,
    inception: Inception | None = None,
    on_start: Callable[[int], object] = lambda total: None,
    on_images: Callable[[int], object] = lambda count: None,
) -> report.Results:
    """What results.json holds: means, their intervals, and each image's values; with `inception` also FID and KID.

    Images are compared in RGB, 8 bits; consistency needs `lr`. Raises UserError for files that do not match, or whose sizes do
    not, before anything is computed.
    """
    stems, files = pairs.match(reference, {"images": images} | ({"lr": lr} if lr else {}))
    if inception and len(stems) < 2:
        raise UserError("FID and KID need at least 2 images")
    batches = list(_batches(stems, files))
    on_start(len(stems))
    per_image: dict[str, dict[str, float]] = {stem: {} for stem in stems}
    made, truth = Statistics(FEATURES), Statistics(FEATURES)
    for batch in batches:
        ours, theirs, *small = (np.stack([pairs.read_rgb(files[name][stem]) for stem in batch]) for name in _order(files))
        found = {"psnr": metrics.psnr(ours, theirs), "ssim": metrics.ssim(ours, theirs)}
        if small:
            found = metrics.scores(ours, theirs, small[0])
        found |= {f"lpips_{name}": lpips(ours, theirs, name) for name in SMALLEST if min(ours.shape[1:3]) >= SMALLEST[name]}
        for name, values in found.items():
            for stem, value in zip(batch, values, strict=True):
                per_image[stem][name] = float(value)
        if inception:
            made.add(np.asarray(inception(ours).features))
            truth.add(np.asarray(inception(theirs).features))
        on_images(len(batch))
    names = [name for name in next(iter(per_image.values())) if all(name in values for values in per_image.values())]
    columns = {name: np.array([values[name] for values in per_image.values()]) for name in names}
    means = {name: float(values.mean()) for name, values in columns.items()}
    if inception:
        means |= {"fid": distributions.fid(made, Reference.of(reference.name, truth))}
        means |= {"kid": distributions.kid(made.sample, truth.sample)[0]}
    return {
        "protocol": "images",
        "images": str(images),
        "reference": str(reference),
        "lr": str(lr) if lr else None,
        "n": len(stems),
        "network": f"{inception.name}, {inception.resize}" if inception else None,
        "versions": report.versions(),
        "methods": {images.name: means},
        "intervals": {images.name: {name: interval(values) for name, values in columns.items()}},
        "per_image": {images.name: per_image},
    }


def _order(files: Files) -> list[str]:
    return ["images", "reference", *(["lr"] if "lr" in files else [])]


def _batches(stems: list[str], files: Files) -> Iterator[list[str]]:
    """Stems of images of one size, a few at a time, so that each size is compiled once; raises UserError where sizes differ."""

    def sizes(stem: str) -> tuple[tuple[int, int], ...]:
        found = tuple(image_files.read_size(files[name][stem]) for name in _order(files))
        ours, theirs, *small = found
        if ours != theirs:
            raise UserError(
                f"{files['images'][stem]} is {ours[0]}×{ours[1]} and {files['reference'][stem]} is {theirs[0]}×{theirs[1]}"
            )
        if min(ours) < 11:
            raise UserError(f"{files['images'][stem]} is {ours[0]}×{ours[1]}; the window of SSIM is 11×11")
        if small and (small[0][0] > ours[0] or small[0][1] > ours[1]):
            raise UserError(f"{files['lr'][stem]} is larger than {files['images'][stem]}")
        return found

    known = {stem: sizes(stem) for stem in stems}
    for _, group in itertools.groupby(sorted(stems, key=lambda stem: (known[stem], stem)), known.__getitem__):
        same = list(group)
        yield from (same[start : start + BATCH] for start in range(0, len(same), BATCH))
