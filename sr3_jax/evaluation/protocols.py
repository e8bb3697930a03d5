"""Protocols: the paper's tables of results, and our own.

A protocol says which images are measured, at which sizes and by which metrics, and what others have
reported. What it does not say is as in the paper: the LR image is the HR image down-sampled by
anti-aliased bicubic and rounded to 8 bits; the HR image is the largest central square of an image,
area-resampled; results are rounded to 8 bits, and raw unless match_input is set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sr3_jax.evaluation.damage import LEVELS
from sr3_jax.evaluation.meters import Classifier
from sr3_jax.metrics.distributions import Reference
from sr3_jax.metrics.identity import Embed
from sr3_jax.metrics.networks.inception import FeatureNetwork
from sr3_jax.runtime.parallel import Shard


@dataclass(frozen=True)
class Options:
    """What a run may choose. Metrics whose network is not given are left out."""

    data: str = ""  # a folder, one that `sr3 prepare` wrote, or tfds:NAME[:VERSION][:SPLIT]
    # The folder of each method's images by the method's name
    images: Mapping[str, Path] = field(default_factory=dict)
    # Protocol table5: LR images that an earlier stage made. Protocol images: the methods' LR images
    lr: Path | None = None
    samples: int = 1
    steps: Sequence[int] = ()  # network evaluations, one row for each; none: the checkpoint's own
    seed: int = 0
    limit: int = 0  # images; 0: all
    match_input: bool = False
    inception: FeatureNetwork | None = None
    # Statistics that FID compares with; None: those of the HR images
    reference: Reference | None = None
    classifier: Classifier | None = None
    # Each image's class by its file name; none: the folders, sorted, are the classes
    labels: Mapping[str, int] = field(default_factory=dict)
    embed: Embed | None = None
    # Metrics whose weights are in packages of their own, which may not be installed
    perceptual: bool = True  # LPIPS, and what else runs VGG16
    dists: bool = False
    niqe: bool = False
    # Metrics whose weights are not installed, and how to install them
    not_installed: Mapping[str, str] = field(default_factory=dict)
    # The part of the images that is measured here; the last shard writes the results
    shard: Shard = Shard()  # noqa: RUF009 (immutable)


@dataclass(frozen=True)
class Protocol:
    """One table of results: its images, sizes and metrics, and the numbers that were published."""

    name: str
    title: str
    columns: tuple[str, ...]  # of report.COLUMNS
    hr_size: int = 0  # 0: the checkpoint's
    lr_size: int = 0
    # Fields of config.data; {}: options.data or the checkpoint's
    data: Mapping[str, Any] = field(default_factory=dict)
    first: int = 0  # only so many images, the first by their file names; 0: all
    each: int = 0  # at most so many squares of one photograph, spread over it; 0: all
    # Networks get the LR image resized to this, and their result is resized to hr_size
    within: int | None = None
    # How LR images are made: one of edit_damage.CORRUPTIONS; "": by the network's task
    damage: str = ""
    told: bool = False  # a second row for networks with signals: told what the image has suffered
    edit: str = ""  # what editors and simple answers do: one of inference.edits.EDITS
    parts: tuple["Protocol", ...] = ()  # a protocol of several tables; each name is NAME/PART
    about: str = ""  # what belongs above several tables
    small: bool = False  # several tables, and small files to look at; those of options.data too
    needs: tuple[str, ...] = ()  # options that must be given
    paper: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # rows as published


PIXELS = ("psnr", "ssim", "consistency_mse_1e5", "consistency_db")
LPIPS = ("lpips_vgg", "lpips_alexnet")
LARGE = ("dists", "niqe", "crops_kd")  # what larger images are also measured by
IDENTITY = ("rank_1", "cosine")
DIVERSITY = ("diversity_lpips", "diversity_deviation", "spread_to_error", "coverage")
SPEED = ("seconds_per_megapixel",)
SETS = ("fid", "kid", "inception_score", "precision", "recall")
COLOUR = ("ciede2000", "colourfulness")
HOLE = ("psnr_hole", "ssim", *LPIPS, "dists")  # what images with holes are measured by
FLAWS = ("psnr", "ssim", *LPIPS, "dists")
ABOUT_REAL = (
    "Blur, noise and JPEG of each image are in its table's results.json. Consistency is with the "
    "damaged input, so that less is right. A row that is told knows blur, noise and JPEG of each "
    "image; the others know nothing. Seconds are per megapixel of the result, image by image, "
    "without compiling or loading; those of other methods were measured as their images were made."
)
ABOUT_EDITS = (
    "What is done to each image, its flaws or the seed of its hole, is in its table's "
    "results.json. A row that is told knows the strength of the flaws of each image; the others "
    "only that there are none but those which the edit removes. Simple answers have the settings "
    "that are best of a grid on the photographs of validation-edit. "
    "Seconds are per megapixel of the result, image by image, without compiling "
    "or loading."
)


def _real(size: int, level: str) -> Protocol:
    """One table of photos-real: photographs of `size` pixels at a level of damage, or clean."""
    suffered = f"{level} blur, noise and JPEG" if level else "clean"
    return Protocol(
        f"photos-real/{size}-{level or 'clean'}",
        f"public photographs {size // 4} → {size}, {suffered}",
        (*PIXELS, *LPIPS, *LARGE, *SPEED, *DIVERSITY),
        size,
        size // 4,
        {"source": "photos", "fit": "crop"},
        damage=level,
        told=True,
    )


# The tables of edits: what is done to a photograph, which edit, what it is measured by
EDITED = {
    "colourise": ("colourise", "colour for grey ones", ("psnr", "ssim", *LPIPS, *COLOUR)),
    "inpaint-free_form": ("inpaint", "holes as of a brush", HOLE),
    "inpaint-box": ("inpaint", "rectangles missing", HOLE),
    "uncrop": ("uncrop", "the outside missing", HOLE),
    "restore_jpeg": ("restore_jpeg", "JPEG of quality 10–40, 4:2:0", FLAWS),
    "denoise": ("denoise", "Gaussian noise of 10–50 levels", FLAWS),
    "deblur": ("deblur", "Gaussian blur of 1–2 pixels and noise of 1–2 levels", FLAWS),
    "restore": ("restore", "blur, noise and JPEG", FLAWS),
}


def _edits(name: str, title: str, **options: Any) -> Protocol:
    """A table for each of EDITED, of photographs of 256 pixels."""
    shared: dict[str, Any] = {"hr_size": 256, "lr_size": 256, **options}
    tables = tuple(
        Protocol(
            f"{name}/{damage}",
            f"{title}, {what}",
            (*columns, *SPEED, *DIVERSITY),
            damage=damage,
            told=columns == FLAWS,
            edit=edit,
            **shared,
        )
        for damage, (edit, what, columns) in EDITED.items()
    )
    columns = dict.fromkeys(column for table in tables for column in table.columns)
    return Protocol(name, title, tuple(columns), parts=tables, about=ABOUT_EDITS, **shared)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "held_out",
            "the held-out images of the checkpoint's own data",
            (*PIXELS, *LPIPS, *IDENTITY, *SETS, *DIVERSITY),
        ),
        Protocol(
            "orl",
            "AT&T faces 16 → 64, people 31–40",
            (
                "psnr",
                "ssim",
                "lpips_vgg",
                *IDENTITY,
                "consistency_mse_1e5",
                "consistency_db",
                *DIVERSITY,
            ),
            64,
            16,
            {"source": "orl", "resample": "bicubic"},
        ),
        Protocol(
            "photos",
            "public photographs 32 → 128, reduced to half their size before",
            (*PIXELS, "psnr_y", "ssim_y", *LPIPS, *SETS, *DIVERSITY),
            128,
            32,
            {"source": "photos", "fit": "crop"},
        ),
        Protocol(
            "photos-large",
            "public photographs 64 → 256, at their own size",
            (*PIXELS, "psnr_y", "ssim_y", *LPIPS, *LARGE, *SETS, *DIVERSITY),
            256,
            64,
            {"source": "photos", "fit": "crop"},
        ),
        *(
            Protocol(
                f"photos-{level}",
                f"public photographs 64 → 256, {level} blur, noise and JPEG",
                (*PIXELS, *LPIPS, *LARGE, *DIVERSITY),
                256,
                64,
                {"source": "photos", "fit": "crop"},
                damage=level,
            )
            for level in LEVELS
        ),
        Protocol(
            "photos-real",
            "public photographs 64 → 256 and 128 → 512, clean and with blur, noise and JPEG",
            (*PIXELS, *LPIPS, *LARGE, *SPEED, *DIVERSITY),
            256,
            64,
            parts=tuple(_real(size, level) for size in (256, 512) for level in ("", *LEVELS)),
            about=ABOUT_REAL,
            small=True,
        ),
        _edits("edit", "public photographs of 256 × 256", data={"source": "photos", "fit": "crop"}),
        _edits(
            "validation-edit",
            "photographs of 256 × 256, held out by `sr3 prepare photos` to choose by",
            data={"fit": "crop"},
            each=3,
            needs=("data",),
        ),
        *(
            Protocol(
                f"validation-{level}",
                f"the photographs of the protocol validation, 64 → 256, {level} blur, noise and "
                "JPEG: to choose by, not to report",
                (*PIXELS, *LPIPS, *LARGE, *DIVERSITY),
                256,
                64,
                {"fit": "crop"},
                each=3,
                needs=("data",),
                damage=level,
            )
            for level in LEVELS
        ),
        Protocol(
            "validation",
            "photographs 32 → 128, held out by `sr3 prepare photos`: to choose by, not to report",
            (*PIXELS, *LPIPS, "dists", "crops_kd", *DIVERSITY),  # too small for NIQE
            128,
            32,
            {"fit": "crop"},
            each=6,
            needs=("data",),
        ),
        Protocol(
            "table1",
            "faces 16 → 128, CelebA-HQ (paper, table 1)",
            ("psnr", "ssim", "consistency_mse_1e5"),
            128,
            16,
            needs=("data",),
            paper={
                "PULSE (paper)": {"psnr": 16.88, "ssim": 0.44, "consistency_mse_1e5": 161.1},
                "FSRGAN (paper)": {"psnr": 23.01, "ssim": 0.62, "consistency_mse_1e5": 33.8},
                "Regression (paper)": {"psnr": 23.96, "ssim": 0.69, "consistency_mse_1e5": 2.71},
                "SR3 (paper)": {"psnr": 23.04, "ssim": 0.65, "consistency_mse_1e5": 2.68},
            },
        ),
        Protocol(
            "table2",
            "natural images 64 → 256, ImageNet validation (paper, table 2)",
            ("fid", "inception_score", "psnr", "ssim"),
            256,
            64,
            needs=("data", "inception"),
            paper={
                "Reference (paper)": {"fid": 1.9, "inception_score": 240.8},
                "Regression (paper)": {
                    "fid": 15.2,
                    "inception_score": 121.1,
                    "psnr": 27.9,
                    "ssim": 0.801,
                },
                "SR3 (paper)": {"fid": 5.2, "inception_score": 180.1, "psnr": 26.4, "ssim": 0.762},
            },
        ),
        Protocol(
            "table3",
            "a classifier on 4× super-resolution, the first 1,000 of ImageNet validation "
            "(paper, table 3)",
            ("top_1", "top_5"),
            224,
            56,
            first=1000,
            within=64,
            needs=("data", "classifier"),
            paper={
                "HR (paper)": {"top_1": 0.748, "top_5": 0.920},
                "DRCN (paper)": {"top_1": 0.523, "top_5": 0.758},
                "FSRCNN (paper)": {"top_1": 0.563, "top_5": 0.804},
                "PsyCo (paper)": {"top_1": 0.546, "top_5": 0.776},
                "ENet-E (paper)": {"top_1": 0.551, "top_5": 0.786},
                "RCAN (paper)": {"top_1": 0.607, "top_5": 0.833},
                "Regression (paper)": {"top_1": 0.617, "top_5": 0.827},
                "SR3 (paper)": {"top_1": 0.683, "top_5": 0.880},
            },
        ),
        Protocol(
            "table4",
            "class-conditional ImageNet 256, 50,000 images of each method (paper, table 4)",
            ("fid", "kid", "inception_score"),
            needs=("images", "inception", "reference"),
            paper={
                "VQ-VAE-2 (paper)": {"fid": 38.1},
                "BigGAN, truncation 1.0 (paper)": {"fid": 7.4},
                "BigGAN, truncation 1.5 (paper)": {"fid": 11.8},
                "SR3 cascade (paper)": {"fid": 11.3},
            },
        ),
        Protocol(
            "table5",
            "the super-resolution stage of the cascade, with and without blur, L1 and L2 "
            "(paper, table 5)",
            ("fid", "kid", "inception_score"),
            256,
            64,
            needs=("inception",),
            paper={
                "without blur (paper)": {"fid": 13.1},
                "with blur, L2 (paper)": {"fid": 11.8},
                "with blur, L1 (paper)": {"fid": 11.3},
            },
        ),
        Protocol(
            "fashion",
            "Fashion-MNIST by class, sets of generated images against the test images, by a "
            "classifier of our own",
            ("fd", "kd", "precision", "recall", "as_asked", "cas"),
            28,
            14,
            needs=("data", "images", "classifier"),
        ),
        Protocol(
            "images",
            "any methods' images against their references",
            (*PIXELS, "psnr_y", "ssim_y", *LPIPS, *LARGE, *IDENTITY, *SETS),
        ),
    )
}
