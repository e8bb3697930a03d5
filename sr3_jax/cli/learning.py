"""Data and training: `sr3 prepare`, `check-data`, `params`, `overfit`, `train`, `export`, `show`."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from absl import flags

from sr3_jax import startup
from sr3_jax.cli.command import Arguments, Command, between, config_flag
from sr3_jax.errors import UserError

STOPPED_EXIT = "SR3_STOPPED_EXIT"  # of the environment


def train(args: Arguments, _: list[str]) -> int:
    """Trains a network, or resumes from the workdir by itself.

    WORKDIR gets config.json, checkpoints/, stats.jsonl, samples/ and, where TensorBoard is installed, tensorboard/. SIGTERM or
    Ctrl-C saves first; the same command goes on from there. The exit code then is 0, or SR3_STOPPED_EXIT of the environment.
    With --teacher it distills: the network learns to do in sample.steps evaluations what the teacher does in
    train.teacher_steps times as many.
    """
    from sr3_jax import parallel, paths
    from sr3_jax.config import validate
    from sr3_jax.evaluation import held_out
    from sr3_jax.training import loop

    if args.teacher:
        args.config.objective, args.config.train.teacher = "distill", args.teacher
        args.config.sample.sampler, args.config.sample.eta = "ddim", 0.0
    validate(args.config)
    stopped = _stopped_exit()
    parallel.start(args.config)
    workdir = paths.parse(args.workdir)
    startup.share_programs(workdir)
    parallel.make_mesh(args.config)  # what does not fit fails before the data are read
    state = loop.train(args.config, workdir, held_out.during_training(args.config))
    return stopped if int(state.step) < args.config.train.steps else 0


def _stopped_exit() -> int:
    """The exit code of a training that a signal stopped: whatever launched it may have to tell that from a finished one."""
    value = os.environ.get(STOPPED_EXIT, "0")
    if value != "0" and not (value.isdecimal() and 3 <= int(value) <= 125):
        raise UserError(f"{STOPPED_EXIT}={value} must be 0, or a whole number between 3 and 125")
    return int(value)


def _train_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    config_flag(fv, argv)
    flags.DEFINE_string("workdir", None, "Where the run lives; an existing one is resumed.", flag_values=fv)
    flags.DEFINE_string("teacher", None, "Distill from this checkpoint, by DDIM: objective=distill.", flag_values=fv)


def overfit(args: Arguments, _: list[str]) -> int:
    """Trains on one small batch for a minute; the loss must fall. The first thing to run on new data or a new network.

    Exit code 1 if after train.overfit_steps the loss is not below train.overfit_loss of what it was.
    """
    from sr3_jax.config import validate
    from sr3_jax.training.overfit import overfit

    validate(args.config)
    outcome = overfit(args.config)
    verdict = "reached" if outcome.reached else "NOT reached"
    print(f"loss {outcome.before:.4f} → {outcome.after:.4f}; goal, below {outcome.goal:.4f}: {verdict}")
    return 0 if outcome.reached else 1


def check_data(args: Arguments, _: list[str]) -> None:
    """Reads every image of the data set and tells what is in it, what would be dropped and why; writes a contact sheet.

    The sheet shows LR, conditioning and HR as the network will see them, augmentation included.
    """
    from sr3_jax.config import validate
    from sr3_jax.data.check import check

    validate(args.config)
    output = Path(args.output)
    for line in check(args.config, output):
        print(line)
    print(output)


def _check_data_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    config_flag(fv, argv)
    flags.DEFINE_string("output", "check-data.png", "The contact sheet.", flag_values=fv)


def prepare(args: Arguments, places: list[str]) -> None:
    """Decodes, crops and resizes images once, into a few large files that training reads without waiting.

    SOURCE is a folder of images, of any depth, or tfds:NAME[:VERSION][:SPLIT], or orl, or photos. DIR gets ArrayRecord files
    and manifest.json; use it as data.source=records, data.folder=DIR. Each image keeps its largest central square; with --tiles
    it is cut into as many squares as it has room for. A stopped run goes on.

    photos: the photographs that photos-4x is trained on, from five packages of Debian, by default as it is:
    --size=256 --tiles=2,3,4 --detail=2.5. Their authors and licences are in DIR/DATA.md; some are held out for
    sr3 evaluate --protocol=validation.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from sr3_jax import images, paths
    from sr3_jax.data import debian_photos
    from sr3_jax.data import prepare as preparation

    if len(places) != 1:
        raise UserError(f"prepare takes one SOURCE, not {len(places)} (sr3 prepare --help)")
    photos = places[0] == debian_photos.NAME
    if photos and not args.packages and any(images.is_image_name(Path(name)) for name in paths.files_below(Path("photos"))):
        raise UserError(
            "photos are Debian's photographs, but also a folder of images here: write ./photos or give --packages=DIR"
        )
    if args.packages and not photos:
        raise UserError("--packages is for photos")
    if not photos and not args.size:
        raise UserError("prepare needs --size=… (sr3 prepare --help)")
    between(args, "size", 0)
    between(args, "workers", 0)
    factors = [int(factor) for factor in args.tiles if factor.isdecimal() and 1 <= int(factor) <= 64]
    if len(factors) < len(args.tiles):
        raise UserError(f"--tiles={','.join(args.tiles)} must be factors between 1 and 64, such as 2,4")
    if args.detail and not factors and not photos:
        raise UserError("--detail is for --tiles")
    if args.encoding not in preparation.ENCODINGS:
        raise UserError(f"--encoding={args.encoding} can be {' or '.join(preparation.ENCODINGS)}")
    if args.resample not in ("area", "bicubic"):
        raise UserError(f"--resample={args.resample} can be area or bicubic")
    output, size, detail = paths.parse(args.output), args.size, args.detail or 0.0
    if photos:
        size, factors = size or debian_photos.SIZE, factors or [*debian_photos.TILES]
        detail = debian_photos.DETAIL if args.detail is None else detail
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("preparing", total=None)
        options: dict[str, Any] = {
            "method": args.resample,
            "encoding": args.encoding,
            "workers": args.workers or None,
            "on_start": lambda total, before: progress.update(task, total=total, completed=before),
            "on_image": lambda count: progress.advance(task, count),
        }
        if photos:
            packages = Path(args.packages) if args.packages else None
            done = debian_photos.prepare_photos(output, packages, size=size, tiles=factors, detail=detail, **options)
        else:
            done = preparation.prepare(places[0], output, size=size, tiles=factors, detail=detail, **options)
    for note in done.notes:
        print(f"note: {note}")
    for dropped in done.dropped[:20]:
        print(f"dropped: {dropped.id} {dropped.reason}")
    if done.converted:
        print(f"converted: {done.converted}")
    print(f"{done.images} images of {size}² in {done.shards} files, {len(done.dropped)} dropped")
    print(f"--config.data.source=records --config.data.folder={args.output}")


def _prepare_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_integer("size", 0, "Height and width in pixels, at least the config's data.hr_size.", flag_values=fv)
    flags.DEFINE_string("output", None, "The folder to write.", flag_values=fv)
    flags.DEFINE_string("resample", "area", "area, as the paper's; or bicubic.", flag_values=fv)
    flags.DEFINE_string("encoding", "png", "png; or raw: larger, and read without decoding.", flag_values=fv)
    flags.DEFINE_list(
        "tiles", [], "Cut large images into squares, reduced by each of these factors first: 2,4.", flag_values=fv
    )
    flags.DEFINE_float("detail", None, "Leave out tiles that 4x bicubic restores to within this many levels.", flag_values=fv)
    flags.DEFINE_integer("workers", 0, "Processes; 0: one a core.", flag_values=fv)
    flags.DEFINE_string(
        "packages", None, "photos: a folder with the packages' .deb files; by default apt-get downloads them.", flag_values=fv
    )


def params(args: Arguments, _: list[str]) -> None:
    """Lists the network's parameters and their number, without allocating them."""
    import jax
    from clu import parameter_overview

    from sr3_jax.config import validate
    from sr3_jax.method import Method

    validate(args.config)
    abstract = jax.eval_shape(Method(args.config).init, jax.random.key(0))
    print(parameter_overview.get_parameter_overview(abstract, include_stats=False))


def export(args: Arguments, _: list[str]) -> None:
    """Writes a checkpoint's EMA weights, config and data card to one .safetensors file, for sharing and for --checkpoint.

    The data card, Markdown, says what the network was trained on: without --data-card the one that an export has already, or
    DATA.md in the folder of the training data. `sr3 show` prints it.
    """
    from sr3_jax import checkpoints, paths
    from sr3_jax.data import sources

    output = paths.parse(args.output)
    if output.suffix != ".safetensors":
        raise UserError(f"--output={output} must end in .safetensors")
    if args.dtype not in ("float32", "bfloat16", "int8"):
        raise UserError(f"--dtype={args.dtype} can be float32, bfloat16 or int8")
    if output.exists() and not args.overwrite:
        raise UserError(f"{output} exists; give --overwrite to replace it")
    given = sources.read_card(paths.parse(args.data_card)) if args.data_card else ""
    checkpoint = checkpoints.load_checkpoint(args.checkpoint)
    checkpoint = checkpoint.predictor if args.predictor else checkpoint
    card = given or checkpoint.data_card or sources.data_card(checkpoint.config)
    checkpoints.export(replace(checkpoint, data_card=card), output, dtype=args.dtype)
    print(output)


def _export_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_string("checkpoint", None, "A workdir, a step of it, or another export.", flag_values=fv)
    flags.DEFINE_string("output", None, "The .safetensors file to write.", flag_values=fv)
    flags.DEFINE_string("dtype", "float32", "float32, bfloat16 for half the size, or int8 for a quarter.", flag_values=fv)
    flags.DEFINE_boolean(
        "predictor", False, "Of model.kind='refine': only the predictor, which is a regression.", flag_values=fv
    )
    flags.DEFINE_string("data_card", None, "A Markdown file that says what it was trained on.", flag_values=fv)
    flags.DEFINE_boolean("overwrite", False, "Replace a file that exists.", flag_values=fv)


def show(args: Arguments, places: list[str]) -> None:
    """Prints what a checkpoint says of itself: step, config and data card.

    CHECKPOINT is a workdir, a step of it, an exported file, or the name of shipped weights. The data card says what it was
    trained on, whose that is, and under which licence.
    """
    from sr3_jax import config
    from sr3_jax.checkpoints import load_checkpoint
    from sr3_jax.data import sources

    if len(places) != 1:
        raise UserError(f"show takes one CHECKPOINT, not {len(places)} (sr3 show --help)")
    checkpoint = load_checkpoint(places[0])
    print(f"{checkpoint.name}, step {checkpoint.step}\n\n{config.to_json(checkpoint.config)}\n")
    print(checkpoint.data_card or sources.data_card(checkpoint.config) or "It has no data card.")


COMMANDS = {
    "train": Command(_train_flags, train, needs=("config", "workdir")),
    "overfit": Command(config_flag, overfit, needs=("config",)),
    "check-data": Command(_check_data_flags, check_data, needs=("config",)),
    "prepare": Command(_prepare_flags, prepare, positional="SOURCE", needs=("output",)),
    "params": Command(config_flag, params, needs=("config",)),
    "export": Command(_export_flags, export, needs=("checkpoint", "output")),
    "show": Command(lambda fv, argv: None, show, positional="CHECKPOINT"),
}
