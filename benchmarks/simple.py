"""The settings of the simple answers to edits: a grid of each, on the validation photographs.

    python benchmarks/simple.py [--data=runs/photos-256] [--limit=18]

Prints for each setting the mean PSNR (of holes: of the hole) and LPIPS (AlexNet), in three parts
of the images by the strength of the flaw where there is one. What sr3_jax/evaluation/simple.py has
as defaults was chosen on it: six minutes on two cores that others used as well.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from sr3_jax.evaluation import image_sets, simple
from sr3_jax.evaluation.edit_damage import CORRUPTIONS
from sr3_jax.evaluation.protocols import PROTOCOLS, Options
from sr3_jax.metrics import distortion
from sr3_jax.metrics.lpips import lpips

Setting = tuple[str, Callable]
PARTS = {part.name.partition("/")[2]: part for part in PROTOCOLS["validation-edit"].parts}


def settings() -> dict[str, tuple[str, list[Setting]]]:
    """By part: the flaw by whose strength images are divided, and the settings."""
    holes = [
        (f"{name} {radius}", lambda image, flaws, f=f, r=radius: _fill(f, image, radius=r))
        for name, f in (("telea", simple.telea), ("navier_stokes", simple.navier_stokes))
        for radius in (1, 3, 5, 9, 15)
    ]
    return {
        "inpaint-free_form": ("", holes),
        "inpaint-box": ("", holes),
        "uncrop": ("", holes),
        "restore_jpeg": ("jpeg", [("itself", lambda image, flaws: image), *_jpeg()]),
        "denoise": ("noise", list(_noise())),
        "deblur": ("noise", [("itself", lambda image, flaws: image), *_blur()]),
    }


def _fill(function: Callable, given: np.ndarray, **options: float) -> np.ndarray:
    return function(np.ascontiguousarray(given[..., :3]), given[..., 3] == 0, **options)


def _jpeg() -> Iterator[Setting]:
    for colour, space in itertools.product((0.1, 0.2, 0.3, 0.5, 0.8), (1, 2, 3)):
        yield (
            f"bilateral colour {colour} space {space}",
            lambda image, flaws, c=colour, s=space: simple.bilateral(image, flaws["jpeg"], c, s),
        )
    for strength, colour in itertools.product((0.02, 0.04, 0.06, 0.08), (0.05, 0.1, 0.2)):
        yield (
            f"non-local means {strength} colour {colour}",
            lambda image, flaws, s=strength, c=colour: simple.non_local_means_jpeg(
                image, flaws["jpeg"], s, c
            ),
        )


def _noise() -> Iterator[Setting]:
    for strength, colour in itertools.product((0.4, 0.5, 0.6, 0.7, 0.85), (0.3, 0.5, 0.7, 1.0)):
        yield (
            f"non-local means {strength} colour {colour}",
            lambda image, flaws, s=strength, c=colour: simple.non_local_means_noise(
                image, flaws["noise"], s, c
            ),
        )


def _blur() -> Iterator[Setting]:
    for balance in (10, 30, 100, 300, 1000, 3000, 10000):
        yield (
            f"wiener {balance}",
            lambda image, flaws, b=balance: simple.wiener(image, flaws["blur"], flaws["noise"], b),
        )
    yield (
        "unsupervised wiener",
        lambda image, flaws: simple.unsupervised_wiener(image, flaws["blur"]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="runs/photos-256")
    parser.add_argument("--limit", type=int, default=18)
    parser.add_argument("--only", choices=list(settings()), help="one of the tables")
    options = parser.parse_args()
    for part, (flaw, grid) in settings().items():
        if options.only in (None, part):
            _measure(part, flaw, grid, Options(data=options.data, limit=options.limit))


def _measure(part: str, flaw: str, grid: list[Setting], options: Options) -> None:
    data, damage = image_sets.split(PARTS[part], None, options), CORRUPTIONS[PARTS[part].damage]
    images = [data.load([place]) for place in data.places]
    if flaw:
        images.sort(key=lambda one: damage.told(one.ids[0])[flaw])
    print(f"\n{part}, {len(images)} images" + (f", thirds by {flaw}" if flaw else ""))
    for name, function in grid:
        scores = []
        for one in images:
            given, hr = one.lr[0], one.hr
            made = function(given, damage.told(one.ids[0]))[None]
            hole = given[None, ..., 3] == 0 if given.shape[-1] == 4 else np.ones(hr.shape[:3], bool)
            psnr = distortion.psnr_within(made, hr, hole)[0]
            scores.append((psnr, lpips(made, hr, "alexnet")[0]))
        thirds = np.array_split(np.array(scores), 3 if flaw else 1)
        shown = "   ".join(f"{psnr:.2f} {far:.3f}" for psnr, far in (t.mean(0) for t in thirds))
        print(f"{name:36} {shown}", flush=True)


if __name__ == "__main__":
    main()
