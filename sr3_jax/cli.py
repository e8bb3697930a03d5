"""`sr3 <command>`: parses flags, calls one function of a room, prints. Nothing else happens here.

Exit codes: 0 done (also --help), 1 our fault or a goal missed, 2 the user can mend it (one sentence, no traceback),
130 interrupted by Ctrl-C.
"""

import contextlib
import difflib
import inspect
import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from sr3_jax import startup
from sr3_jax.errors import UserError

Arguments = Any  # absl's FlagValues: flags are attributes
STOPPED_EXIT = "SR3_STOPPED_EXIT"  # of the environment


class Command(NamedTuple):
    define: Callable[[flags.FlagValues, list[str]], None]
    run: Callable[[Arguments, list[str]], int | None]
    positional: str = ""
    needs: tuple[str, ...] = ()  # flags that must be given


# -- the commands; the first line of each docstring is its help


def train(args: Arguments, _: list[str]) -> int:
    """Trains a network, or resumes from the workdir by itself.

    WORKDIR gets config.json, checkpoints/, stats.jsonl, samples/ and, where TensorBoard is installed, tensorboard/. SIGTERM or
    Ctrl-C saves first; the same command goes on from there. The exit code then is 0, or SR3_STOPPED_EXIT of the environment.
    """
    from sr3_jax import parallel, paths
    from sr3_jax.config import validate
    from sr3_jax.evaluation import held_out
    from sr3_jax.training import loop

    validate(args.config)
    stopped = _stopped_exit()
    parallel.start(args.config)
    workdir = paths.parse(args.workdir)
    startup.share_programs(workdir)
    parallel.make_mesh(args.config)  # what does not fit fails before the data are read
    state = loop.train(args.config, workdir, held_out.during_training(args.config))
    return stopped if int(state.step) < args.config.train.steps else 0


def evaluate(args: Arguments, _: list[str]) -> None:
    """PSNR, SSIM and consistency on the held-out split, beside bicubic: a table, results.json and grid.png.

    Several --checkpoint share one table. The files go to --output, by default WORKDIR/evaluation/held_out, or
    evaluation/NAME/held_out for shipped weights and exported files.
    """
    from sr3_jax import parallel, paths
    from sr3_jax.checkpoints import load_checkpoint
    from sr3_jax.evaluation import held_out, report

    places = ([args.workdir] if args.workdir else []) + list(args.checkpoint)
    if not places:
        raise UserError("evaluate needs --workdir=DIR or --checkpoint=PATH")
    _between(args, "samples", 1)
    _between(args, "steps", 0)
    _between(args, "seed", 0)
    _between(args, "limit", 0)
    parallel.start()
    checkpoints = [load_checkpoint(place) for place in places]
    place = paths.parse(places[0])
    if place.is_dir() and place.parent.name == "checkpoints":  # a step: the results belong to its workdir
        place = place.parent.parent
    folder = place / "evaluation" if place.is_dir() else Path("evaluation") / place.stem
    output = paths.parse(args.output) if args.output else folder / "held_out"
    output.mkdir(parents=True, exist_ok=True)  # what cannot be written fails before the work
    results, picture = held_out.evaluate(
        checkpoints,
        samples=args.samples,
        steps=args.steps or None,
        seed=args.seed,
        limit=args.limit,
    )
    if not parallel.is_main():
        return
    report.save(output, results, picture)
    print(f"{results['n']} held-out images, {results['source']}")
    if results["converted"]:
        print(f"converted: {results['converted']}")
    report.show(results["methods"])
    print(f"{output / 'results.json'}\n{output / 'grid.png'}")


def upscale(args: Arguments, inputs: list[str]) -> int:
    """Enlarges images of any size: files, folders, patterns, or - for standard input.

    With one input file and an --output that has an image suffix, that file is written, and for - standard output; otherwise
    --output is a folder, and each image appears in it as its name, .png. Depth, alpha, colour profile and EXIF stay. Nothing is
    overwritten without --overwrite, and one bad file does not stop the others (exit code 2).
    """
    for name in ("scale", "samples", "steps", "tile", "batch"):
        least = {"samples": 1}.get(name, 0)
        _between(args, name, least)
    _between(args, "seed", 0)
    if args.uncertainty and args.samples < 2:
        raise UserError(f"--uncertainty needs --samples of at least 2, not {args.samples}")
    if args.device:
        os.environ["JAX_PLATFORMS"] = {"gpu": "cuda"}.get(args.device, args.device)
    from sr3_jax import parallel
    from sr3_jax.checkpoints import load_checkpoint
    from sr3_jax.inference import files

    jobs = files.plan(inputs, Path(args.output), args.overwrite, args.samples, args.uncertainty)
    parallel.start()
    checkpoint = load_checkpoint(args.checkpoint)
    if args.precision:
        checkpoint.config.model.dtype = args.precision
    options = files.Options(
        samples=args.samples,
        uncertainty=args.uncertainty,
        steps=args.steps or None,
        sampler=args.sampler,
        seed=args.seed,
        scale=args.scale or None,
        match_input=args.match_input,
        tile=args.tile or None,
        batch=args.batch or None,
    )
    return files.upscale_all(checkpoint, jobs, options)


def search(args: Arguments, _: list[str]) -> None:
    """Finds the noise levels and the sampler that are best at a given number of network evaluations (paper, section 2.4).

    Tries --trials of them on every second held-out image, by --metric; the others judge the winner. The winner becomes the
    checkpoint's default for that number of evaluations (schedules.json beside it). The trials and a plot go to --output, by
    default search/NAME-STEPS; a stopped search goes on.
    """
    from rich.console import Console
    from rich.progress import track

    from sr3_jax import checkpoints, images, parallel, paths
    from sr3_jax.evaluation import schedule_search

    for name, least in (("steps", 1), ("trials", 1), ("limit", 0)):
        _between(args, name, least)
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

    found = schedule_search.search(checkpoint, args.steps, args.trials, args.metric, output, args.limit, on_trial)
    next(bar, None)
    images.write(output / "frontier.png", schedule_search.picture(tried, args.metric))
    schedule_search.keep(target, args.steps, found)
    print(", ".join(f"{name} = {value}" for name, value in found.fields.items()))
    for title, scores in (("found", found.held_out), ("before", found.before)):
        print(
            f"{title}, on the other held-out images: PSNR {scores['psnr']:.2f} dB, LPIPS (VGG) {scores['lpips']:.3f}, "
            f"consistency {scores['consistency_db']:.1f} dB"
        )
    print(f"{output / 'frontier.png'}\n{target}")


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


def prepare(args: Arguments, places: list[str]) -> None:
    """Decodes, crops and resizes images once, into a few large files that training reads without waiting.

    SOURCE is a folder of images, of any depth, or tfds:NAME[:SPLIT], or orl. DIR gets ArrayRecord files and manifest.json; use
    it as data.source=records, data.folder=DIR. Each image keeps its largest central square; with --tiles it is cut into as many
    squares as it has room for. A stopped run goes on.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from sr3_jax import paths
    from sr3_jax.data import prepare as preparation

    if len(places) != 1:
        raise UserError(f"prepare takes one SOURCE, not {len(places)} (sr3 prepare --help)")
    _between(args, "size", 1)
    _between(args, "workers", 0)
    factors = [int(factor) for factor in args.tiles if factor.isdecimal() and 1 <= int(factor) <= 64]
    if len(factors) < len(args.tiles):
        raise UserError(f"--tiles={','.join(args.tiles)} must be factors between 1 and 64, such as 2,4")
    if args.detail and not factors:
        raise UserError("--detail is for --tiles")
    if args.encoding not in preparation.ENCODINGS:
        raise UserError(f"--encoding={args.encoding} can be {' or '.join(preparation.ENCODINGS)}")
    if args.resample not in ("area", "bicubic"):
        raise UserError(f"--resample={args.resample} can be area or bicubic")
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("preparing")
        done = preparation.prepare(
            places[0],
            paths.parse(args.output),
            size=args.size,
            method=args.resample,
            encoding=args.encoding,
            tiles=factors,
            detail=args.detail,
            workers=args.workers or None,
            on_start=lambda total, before: progress.update(task, total=total, completed=before),
            on_image=lambda count: progress.advance(task, count),
        )
    for dropped in done.dropped[:20]:
        print(f"dropped: {dropped.id} {dropped.reason}")
    if done.converted:
        print(f"converted: {done.converted}")
    print(f"{done.images} images of {args.size}² in {done.shards} files, {len(done.dropped)} dropped")
    print(f"--config.data.source=records --config.data.folder={args.output}")


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
    """Writes a checkpoint's EMA weights and config to one .safetensors file, for sharing and for --checkpoint."""
    from sr3_jax import checkpoints, paths

    output = paths.parse(args.output)
    if output.suffix != ".safetensors":
        raise UserError(f"--output={output} must end in .safetensors")
    if args.dtype not in ("float32", "bfloat16"):
        raise UserError(f"--dtype={args.dtype} can be float32 or bfloat16")
    if output.exists() and not args.overwrite:
        raise UserError(f"{output} exists; give --overwrite to replace it")
    checkpoints.export(checkpoints.load_checkpoint(args.checkpoint), output, dtype=args.dtype)
    print(output)


def compile_(args: Arguments, _: list[str]) -> int:
    """Compiles for a TPU slice that is not here: memory, time and utilisation, estimated by the TPU compiler.

    Runs on any machine with the extra [aot]. Exit code 1 if it does not fit; then it says what would make it fit.
    """
    from sr3_jax.config import validate
    from sr3_jax.profiling import chips

    if args.what not in ("train", "sample"):
        raise UserError(f"--what={args.what} can be train or sample")
    validate(args.config)
    chips.parse(args.topology)
    chips.prepare_environment()
    from sr3_jax.profiling import aot, report

    estimate, program = aot.estimate(args.config, args.topology, args.what)
    if args.json:
        print(json.dumps(estimate.to_dict(), indent=2))
        return 0 if estimate.fits else 1
    report.show(estimate)
    if program and args.operations:
        clock = chips.parse(args.topology)[0].clock
        print("the most expensive operations, estimated by the compiler:")
        for name, cycles in program.by_operation()[: args.operations]:
            print(f"{1000 * cycles / clock:9.3f} ms  {name}")
    return 0 if estimate.fits else 1


def profile(args: Arguments, _: list[str]) -> None:
    """Traces a few training steps: a table of where the time goes, and a trace to look at.

    Below DIR/plugins/profile: perfetto_trace.json.gz for ui.perfetto.dev, and what TensorBoard's profiler plugin reads
    (tensorboard --logdir=DIR); of several processes, each has a folder of its own in DIR. Trains from scratch on the config's
    data; keeps nothing else.
    """
    from sr3_jax import parallel
    from sr3_jax.config import validate

    _between(args, "steps", 1, 100)
    _between(args, "operations", 0)
    if "://" in args.output:
        raise UserError(f"--output={args.output} must be a folder of this machine: the profiler writes nowhere else")
    validate(args.config)
    parallel.start(args.config)
    from sr3_jax.profiling import report, trace

    found = trace.profile(args.config, Path(args.output), args.steps)
    if not parallel.is_main():
        return
    if args.json:
        print(json.dumps(found.to_dict(), indent=2))
        return
    report.show_profile(found, args.operations)
    print(found.trace)


# -- their flags


def _config_flag(fv: flags.FlagValues, argv: list[str]) -> None:
    from ml_collections.config_flags import config_flags

    config_flags.DEFINE_config_file(
        "config",
        None,
        "A config file, e.g. configs/orl_16_64.py; --config.FIELD=VALUE overrides any field.",
        flag_values=fv,
        sys_argv=["sr3", *argv],
    )


def _train_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    _config_flag(fv, argv)
    flags.DEFINE_string("workdir", None, "Where the run lives; an existing one is resumed.", flag_values=fv)


def _sampling_flags(fv: flags.FlagValues) -> None:
    flags.DEFINE_integer("samples", 1, "Samples per image.", flag_values=fv)
    flags.DEFINE_integer("steps", 0, "Network evaluations per sample; 0: the checkpoint's own number.", flag_values=fv)
    flags.DEFINE_integer("seed", 0, "The same seed gives the same pictures.", flag_values=fv)


def _evaluate_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_string("workdir", None, "A training run: its latest checkpoint.", flag_values=fv)
    flags.DEFINE_multi_string("checkpoint", [], "A workdir, exported file or shipped name; may be repeated.", flag_values=fv)
    flags.DEFINE_string("output", None, "Folder for the results.", flag_values=fv)
    flags.DEFINE_integer("limit", 0, "Evaluate this many images only, spread over the split; 0: all.", flag_values=fv)
    _sampling_flags(fv)


def _upscale_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_string("output", None, "File or folder to write.", flag_values=fv)
    flags.DEFINE_string("checkpoint", "faces-16-64", "A workdir, exported file or shipped name.", flag_values=fv)
    flags.DEFINE_boolean("overwrite", False, "Replace files that exist.", flag_values=fv)
    flags.DEFINE_float("scale", 0, "How many times larger; 0: what the network does in one pass.", flag_values=fv)
    samplers = ["ancestral", "ddim", "dpm_solver", "heun"]
    flags.DEFINE_enum("sampler", None, samplers, "By default the checkpoint's own.", flag_values=fv)
    flags.DEFINE_boolean("uncertainty", False, "Also the mean of the samples, and how much they differ.", flag_values=fv)
    flags.DEFINE_boolean(
        "match_input",
        None,
        "Correct the result until, down-sampled, it is the input; default: the checkpoint's.",
        flag_values=fv,
    )
    flags.DEFINE_enum("device", None, ["cpu", "gpu", "tpu"], "By default the fastest there is.", flag_values=fv)
    flags.DEFINE_enum("precision", None, ["float32", "bfloat16"], "Of the network; default: as trained.", flag_values=fv)
    flags.DEFINE_integer("tile", 0, "Side of a tile of a large image, in pixels of the result; 0: by network.", flag_values=fv)
    flags.DEFINE_integer("batch", 0, "Tiles or small images at a time; 0: by device.", flag_values=fv)
    _sampling_flags(fv)


def _search_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_string("checkpoint", None, "A workdir, exported file or shipped name.", flag_values=fv)
    flags.DEFINE_integer("steps", 8, "Network evaluations allowed.", flag_values=fv)
    flags.DEFINE_integer("trials", 64, "Schedules to try.", flag_values=fv)
    flags.DEFINE_string("metric", "lpips", "lpips (of VGG; extra [metrics]) or psnr.", flag_values=fv)
    flags.DEFINE_integer("limit", 0, "Use this many held-out images only; 0: all.", flag_values=fv)
    flags.DEFINE_string("output", None, "The folder for trials.json and frontier.png.", flag_values=fv)


def _check_data_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    _config_flag(fv, argv)
    flags.DEFINE_string("output", "check-data.png", "The contact sheet.", flag_values=fv)


def _prepare_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_integer("size", 0, "Height and width in pixels, at least the config's data.hr_size.", flag_values=fv)
    flags.DEFINE_string("output", None, "The folder to write.", flag_values=fv)
    flags.DEFINE_string("resample", "area", "area, as the paper's; or bicubic.", flag_values=fv)
    flags.DEFINE_string("encoding", "png", "png; or raw: larger, and read without decoding.", flag_values=fv)
    flags.DEFINE_list(
        "tiles", [], "Cut large images into squares, reduced by each of these factors first: 2,4.", flag_values=fv
    )
    flags.DEFINE_float("detail", 0.0, "Leave out tiles that 4x bicubic restores to within this many levels.", flag_values=fv)
    flags.DEFINE_integer("workers", 0, "Processes; 0: one a core.", flag_values=fv)


def _export_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_string("checkpoint", None, "A workdir, a step of it, or another export.", flag_values=fv)
    flags.DEFINE_string("output", None, "The .safetensors file to write.", flag_values=fv)
    flags.DEFINE_string("dtype", "float32", "float32, or bfloat16 for half the size.", flag_values=fv)
    flags.DEFINE_boolean("overwrite", False, "Replace a file that exists.", flag_values=fv)


def _compile_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    _config_flag(fv, argv)
    flags.DEFINE_string("topology", None, "Chip and layout of the slice: v5e:4x8, v6e:16x16, v4:2x2x4.", flag_values=fv)
    flags.DEFINE_string("what", "train", "train: a training step; sample: a batch of sr3 upscale, on one host.", flag_values=fv)
    flags.DEFINE_boolean("json", False, "Print all numbers as JSON instead.", flag_values=fv)
    flags.DEFINE_integer("operations", 0, "Also list this many of the most expensive operations.", flag_values=fv)


def _profile_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    _config_flag(fv, argv)
    flags.DEFINE_string("output", "profile", "The folder for the trace.", flag_values=fv)
    flags.DEFINE_integer("steps", 5, "Training steps to trace, after two to warm up.", flag_values=fv)
    flags.DEFINE_integer("operations", 10, "List this many of the longest operations.", flag_values=fv)
    flags.DEFINE_boolean("json", False, "Print all numbers as JSON instead.", flag_values=fv)


COMMANDS = {
    "train": Command(_train_flags, train, needs=("config", "workdir")),
    "evaluate": Command(_evaluate_flags, evaluate),
    "upscale": Command(_upscale_flags, upscale, positional="IN…", needs=("output",)),
    "search": Command(_search_flags, search, needs=("checkpoint",)),
    "overfit": Command(_config_flag, overfit, needs=("config",)),
    "check-data": Command(_check_data_flags, check_data, needs=("config",)),
    "prepare": Command(_prepare_flags, prepare, positional="SOURCE", needs=("size", "output")),
    "params": Command(_config_flag, params, needs=("config",)),
    "compile": Command(_compile_flags, compile_, needs=("config", "topology")),
    "profile": Command(_profile_flags, profile, needs=("config",)),
    "export": Command(_export_flags, export, needs=("checkpoint", "output")),
}


# -- parsing


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    try:
        code = _main(argv)
    except (Exception, SystemExit):  # rich ends the program when nobody reads what it prints any more
        if not _one_of_many():
            raise
        with contextlib.suppress(OSError):
            traceback.print_exc()
        code = 1
    if code and str(code) != os.environ.get(STOPPED_EXIT) and _one_of_many():
        # At a usual exit JAX waits for the other processes, which wait for this one. (When a signal stops one, all stop.)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    return code


def _one_of_many() -> bool:
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def _stopped_exit() -> int:
    """The exit code of a training that a signal stopped: whatever launched it may have to tell that from a finished one."""
    value = os.environ.get(STOPPED_EXIT, "0")
    if value != "0" and not (value.isdecimal() and 3 <= int(value) <= 125):
        raise UserError(f"{STOPPED_EXIT}={value} must be 0, or a whole number between 3 and 125")
    return int(value)


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    warnings.filterwarnings("ignore", module="PIL")  # about files that it reads all the same, or that we name ourselves
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")  # Orbax, when a save fails; we tell why
    try:
        if not arguments or arguments[0] in ("--help", "-h", "help"):
            print(_overview())
            return 0
        if arguments[0] == "--version":
            from importlib.metadata import version

            print(version("sr3_jax"))
            return 0
        name, rest = arguments[0], arguments[1:]
        if name not in COMMANDS:
            raise UserError(f"no command {name!r}; there are {', '.join(COMMANDS)} (sr3 --help)")
        if {"--help", "-h", "--helpfull"} & set(rest):
            print(_help(name))
            return 0
        startup.prepare()
        fv, positional = _parse(name, rest)
        return COMMANDS[name].run(fv, positional) or 0
    except UserError as error:
        print(f"sr3: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `sr3 … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a file where a folder should be, no permission
        print(f"sr3: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sr3: interrupted", file=sys.stderr)
        return 130


def _parse(name: str, rest: list[str]) -> tuple[flags.FlagValues, list[str]]:
    command = COMMANDS[name]
    # grain and clu look at absl's global flags, which must have been parsed; ours are our own.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["sr3"])
    rest = _config_first(rest)
    fv = flags.FlagValues()
    command.define(fv, rest)
    if "config" in fv and rest and rest[0].startswith("--config="):
        _check_overrides(_load_config(rest[0]), rest[1:])
    elif "config" in fv and any(argument.lstrip("-").startswith("config.") for argument in rest):
        raise UserError(f"{name} needs --config=FILE before it can change a field (sr3 {name} --help)")
    try:
        positional = fv(["sr3", *rest])[1:]
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(_explain(error, fv, name)) from error
    missing = [flag for flag in command.needs if not fv[flag].value]
    if missing:
        raise UserError(f"{name} needs --{missing[0]}=… (sr3 {name} --help)")
    if positional and not command.positional:
        raise UserError(f"{name} takes flags only, not {positional[0]!r} (sr3 {name} --help)")
    if command.positional and not positional:
        raise UserError(f"{name} needs {command.positional} (sr3 {name} --help)")
    return fv, positional


def _explain(error: Exception, fv: flags.FlagValues, command: str) -> str:
    """absl's message about a flag, with the type that a config field wants."""
    text = " ".join(str(error).split())
    field = re.match(r"flag --config\.([\w.]+)=(.*?): ", text)
    if field and "config" in fv and fv["config"].value is not None:
        from sr3_jax.config import get

        kind = {"int": "a whole number", "float": "a number", "bool": "true or false", "tuple": "a list"}
        default = get(fv["config"].value, field[1])
        return f"--config.{field[1]}={field[2]} must be {kind.get(type(default).__name__, 'a text')}, such as {default!r}"
    return f"{text} (sr3 {command} --help)"


def _config_first(rest: list[str]) -> list[str]:
    """ml_collections wants --config=FILE before --config.FIELD=VALUE; the user need not."""
    out = list(rest)
    for i, argument in enumerate(out):
        if argument in ("--config", "-config") and i + 1 < len(out):
            return [f"--config={out[i + 1]}", *out[:i], *out[i + 2 :]]
        if argument.startswith(("--config=", "-config=")):
            return [f"--{argument.lstrip('-')}", *out[:i], *out[i + 1 :]]
    return out


def _load_config(argument: str) -> Any:
    """The config of --config=FILE alone; whatever goes wrong in the user's file is told in one sentence."""
    from ml_collections import ConfigDict

    from sr3_jax.config import base, flatten

    path = argument.removeprefix("--config=")
    if not Path(path.partition(":")[0]).is_file():
        raise UserError(f"--config={path}: no such file")
    fv = flags.FlagValues()
    _config_flag(fv, [argument])
    try:
        fv(["sr3", argument])
        config = fv.config
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:  # it is a program: anything can happen in it
        raise UserError(f"{path}{_sentence(error, Path(path).name)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() returned {config!r:.50}; it must return sr3_jax.config.base(), with changes")
    missing = flatten(base()).keys() - flatten(config).keys()
    if missing:
        raise UserError(f"{path}: the config has no field {min(missing)}; start from sr3_jax.config.base()")
    return config


def _sentence(error: BaseException, file: str) -> str:
    """Where in `file` and what: in one line, without the traceback that ml_collections quotes and its list of all fields."""
    text = str(error).strip()
    quoted = "Traceback (most recent call last)" in text
    where = text if quoted else "".join(traceback.format_tb(error.__traceback__))
    lines = re.findall(rf'{re.escape(file)}", line (\d+)', where)
    what = text.splitlines()[-1] if quoted else f"{type(error).__name__}: {text}"
    what = re.sub(r"Other fields present: .*?(?=Did you mean|$)", "", what, flags=re.DOTALL)
    return (f" (line {lines[-1]}): " if lines else ": ") + " ".join(what.split())[:300]


def _check_overrides(config: Any, arguments: list[str]) -> None:
    """Raises UserError for an unknown field, with the nearest known ones."""
    from sr3_jax.config import flatten

    known = list(flatten(config))
    for argument in arguments:
        if not argument.startswith(("--config.", "-config.", "--noconfig.")):
            continue
        field = argument.lstrip("-").partition("=")[0].partition(".")[2]
        if field not in known:
            near = difflib.get_close_matches(field, known, 3, 0.5) or [f for f in known if field.split(".")[-1] in f][:3]
            hint = f"; did you mean {' or '.join(near)}?" if near else f"; the fields are {', '.join(known)}"
            raise UserError(f"--config.{field}: the config has no such field{hint}")


def _between(args: Arguments, name: str, least: int, most: int = 2**31 - 1) -> None:
    if not least <= getattr(args, name) <= most:
        raise UserError(f"--{name}={getattr(args, name)} must lie between {least} and {most}")


def _doc(command: Command) -> str:
    return inspect.getdoc(command.run) or ""


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {_doc(command).splitlines()[0]}" for name, command in COMMANDS.items()]
    return (
        "Super-resolution by diffusion (SR3).\n\nsr3 COMMAND [flags]\n\n"
        + "\n".join(lines)
        + "\n\nsr3 COMMAND --help tells more."
    )


def _help(name: str) -> str:
    command = COMMANDS[name]
    fv = flags.FlagValues()
    command.define(fv, [])
    usage = " ".join(["sr3", name, command.positional, *(f"--{flag}=…" for flag in command.needs), "[flags]"]).replace(
        "  ", " "
    )
    lines = [usage, "", _doc(command), ""]
    for flag in sorted(fv.get_flags_for_module(fv.find_module_defining_flag(next(iter(fv)))), key=lambda f: f.name):
        default = "" if flag.default in (None, [], False) else f" (default {flag.default})"
        lines.append(f"  --{flag.name}: {flag.help}{default}")
    if "config" in fv:
        from sr3_jax import config

        lines += ["", "The config's fields, with the base's values:", ""]
        for line in inspect.getsource(config.base).splitlines():
            if " = " in line and "ConfigDict()" not in line:
                lines.append("  " + line.strip().removeprefix("c."))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
