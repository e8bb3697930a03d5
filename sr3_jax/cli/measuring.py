"""How good it is: `sr3 evaluate`, `search`, `study`."""

import contextlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from absl import flags

from sr3_jax.cli.command import Arguments, Command, between, sampling_flags
from sr3_jax.errors import UserError


def evaluate(args: Arguments, _: list[str]) -> None:
    """PSNR, SSIM and consistency on the held-out split, beside bicubic: a table, results.json and grid.png.

    Several --checkpoint share one table. The files go to --output, by default WORKDIR/evaluation/held_out, or
    evaluation/NAME/held_out for shipped weights and exported files.

    sr3 evaluate --images=DIR --reference=DIR [--lr=DIR] measures any method's images instead, matched by their stems, and
    also by LPIPS (extra [metrics]), with 95 % intervals and each image's values in results.json; with --inception=PATH by FID
    and KID too. By default into evaluation/NAME.
    """
    if args.images or args.reference:
        _evaluate_images(args)
        return
    if args.lr or args.inception:
        raise UserError("--lr and --inception are for --images")
    from sr3_jax import parallel, paths
    from sr3_jax.checkpoints import load_checkpoint
    from sr3_jax.evaluation import held_out, report

    places = ([args.workdir] if args.workdir else []) + list(args.checkpoint)
    if not places:
        raise UserError("evaluate needs --workdir=DIR or --checkpoint=PATH")
    between(args, "samples", 1)
    between(args, "steps", 0)
    between(args, "seed", 0)
    between(args, "limit", 0)
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


def _evaluate_images(args: Arguments) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from sr3_jax import paths
    from sr3_jax.evaluation import folders, inception, report

    if not args.images or not args.reference:
        raise UserError("evaluate needs both --images=DIR and --reference=DIR")
    if args.workdir or args.checkpoint:
        raise UserError("evaluate takes --images or a checkpoint, not both")
    for flag, default in (("limit", 0), ("samples", 1), ("steps", 0), ("seed", 0)):
        if getattr(args, flag) != default:
            raise UserError(f"--{flag} is for checkpoints, not for --images")
    network = inception.load(args.inception) if args.inception else None
    output = paths.parse(args.output or f"evaluation/{Path(args.images).resolve().name}")
    images, lr = Path(args.images), Path(args.lr) if args.lr else None
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("measuring", total=None)

        def start(total: int) -> None:
            progress.update(task, total=total)
            output.mkdir(parents=True, exist_ok=True)  # what cannot be written fails before the work

        results = folders.evaluate(
            images,
            Path(args.reference),
            lr,
            network,
            start,
            lambda count: progress.advance(task, count),
        )
    report.save(output, results)
    print(f"{results['n']} images")
    report.show(results["methods"])
    print(output / "results.json")


def _evaluate_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_string("workdir", None, "A training run: its latest checkpoint.", flag_values=fv)
    flags.DEFINE_multi_string("checkpoint", [], "A workdir, exported file or shipped name; may be repeated.", flag_values=fv)
    flags.DEFINE_string("output", None, "Folder for the results.", flag_values=fv)
    flags.DEFINE_string("images", None, "A folder of a method's images, to measure instead of a checkpoint.", flag_values=fv)
    flags.DEFINE_string("reference", None, "... the folder of the real ones.", flag_values=fv)
    flags.DEFINE_string("lr", None, "... the folder of what was given, for consistency.", flag_values=fv)
    flags.DEFINE_string("inception", None, "... the file with the weights of FID's network.", flag_values=fv)
    flags.DEFINE_integer("limit", 0, "Evaluate this many images only, spread over the split; 0: all.", flag_values=fv)
    sampling_flags(fv)


def search(args: Arguments, _: list[str]) -> None:
    """Finds the noise levels and the sampler that are best at a given number of network evaluations (paper, section 2.4).

    Tries --trials of them on every second held-out image, by --metric; the others judge the winner. The winner becomes the
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


def study(args: Arguments, words: list[str]) -> None:
    """Asks people: pairs of a real and a super-resolved image, which is which? The paper's fool rate, as a web page.

    sr3 study create --reference=DIR --candidates=DIR [--candidates=NAME=DIR …] [--lr=DIR] --task=1|2 --output=STUDY
    sr3 study serve STUDY [--subjects=50] [--host=…] [--port=…]
    sr3 study report STUDY [--output=DIR]

    create copies the images, matched by their stems, into a folder of their own. serve (extra [serve]) writes a link for each
    subject to STUDY/links.txt; every answer is on the disk before the next pair is shown. report writes fool rates with 95 %
    intervals, report.md, report.json, fool_rates.png and answers.csv, by default to STUDY/report.
    """
    parts: dict[str, Any] = {"create": _study_create, "serve": _study_serve, "report": _study_report}
    action, rest = words[0], words[1:]
    if action not in parts:
        raise UserError(f"study {action}: there are {', '.join(parts)} (sr3 study --help)")
    if len(rest) != (0 if action == "create" else 1):
        raise UserError(f"study {action} takes {'flags only' if action == 'create' else 'one STUDY'} (sr3 study --help)")
    parts[action](args, *map(Path, rest))


def _study_create(args: Arguments) -> None:
    from sr3_jax.evaluation.human_study import study as studies

    for flag in ("reference", "candidates", "output", "task"):
        if not getattr(args, flag):
            raise UserError(f"study create needs --{flag}=… (sr3 study --help)")
    between(args, "task", 1, 2)
    for flag, least in (("trials", 1), ("training", 0), ("catch", 0), ("seed", 0)):
        between(args, flag, least, 10_000 if flag != "seed" else 2**31 - 1)
    if not 0.01 <= args.seconds <= 60:
        raise UserError(f"--seconds={args.seconds:g} must lie between 0.01 and 60")
    made = studies.create(
        Path(args.output),
        Path(args.reference),
        studies.named_folders(args.candidates),
        Path(args.lr) if args.lr else None,
        task=args.task,
        seconds=args.seconds,
        per_subject=args.trials,
        training=args.training,
        catch=args.catch,
        seed=args.seed,
    )
    print(f"{len(made.stems)} images, {', '.join(made.methods)}; {made.per_subject} pairs a subject")
    print(f"sr3 study serve {args.output}")


def _study_serve(args: Arguments, folder: Path) -> None:
    from sr3_jax.evaluation.human_study import study as studies
    from sr3_jax.evaluation.human_study.answers import Answers

    try:
        from sr3_jax import web
        from sr3_jax.evaluation.human_study import app
    except ModuleNotFoundError as error:
        raise UserError(f"study serve needs the package {error.name}: pip install 'sr3_jax[serve]'") from error
    from sr3_jax.checkpoints import write_text

    if args.url and not re.fullmatch(r"https?://[^/\s]+/?", args.url):
        raise UserError(f"--url={args.url} must be an address without a path, such as https://study.example")
    if args.host in ("0.0.0.0", "::") and not args.url:
        raise UserError(f"--host={args.host} needs --url=…, the address under which subjects reach this machine")
    between(args, "subjects", 1, 100_000)
    between(args, "port", 0, 65535)
    found = studies.load(folder)
    with web.listen(args.host, args.port) as listener, contextlib.closing(Answers(folder)) as answers:
        base = args.url.rstrip("/") + "/" if args.url else web.url(listener)
        shown = urlsplit(base)
        links = [f"{base}s/{token}" for token in answers.invite(args.subjects)]
        write_text(folder / "links.txt", "".join(f"{link}\n" for link in links))
        print(f"{links[0]}\n{len(links)} such links, one a subject, are in {folder / 'links.txt'}; Ctrl-C ends it", flush=True)
        if args.url:
            print(f"serving at {web.url(listener)}", flush=True)
        hosts = web.hosts(listener, *([shown.hostname] if shown.hostname else []))
        web.run(app.make_app(folder, found, answers, hosts, shown.netloc), listener)


def _study_report(args: Arguments, folder: Path) -> None:
    from sr3_jax.evaluation.human_study import report
    from sr3_jax.evaluation.human_study import study as studies
    from sr3_jax.evaluation.human_study.answers import Answers

    if not 0 <= args.least_catch <= 1:
        raise UserError(f"--least_catch={args.least_catch:g} must lie between 0 and 1")
    found = studies.load(folder)
    with contextlib.closing(Answers(folder)) as answers:
        given = answers.all()
    if not given:
        raise UserError(f"{folder} has no answers yet")
    results = report.analyse(found, given, args.least_catch)
    output = Path(args.output) if args.output else folder / "report"
    report.save(output, found, given, results)
    print(report.table(results), end="")
    print(output / "report.md")


def _study_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_string("reference", None, "create: the folder of real images.", flag_values=fv)
    flags.DEFINE_multi_string("candidates", [], "create: a method's images, DIR or NAME=DIR; may be repeated.", flag_values=fv)
    flags.DEFINE_string("lr", None, "create: the folder of LR images, which task 1 shows.", flag_values=fv)
    flags.DEFINE_integer("task", 0, "create: 1, which is better, LR image shown; 2, which is from a camera.", flag_values=fv)
    flags.DEFINE_float("seconds", 3.0, "create: how long a pair is shown.", flag_values=fv)
    flags.DEFINE_integer(
        "trials", 50, "create: pairs a subject sees, at most what the other trials leave of the images.", flag_values=fv
    )
    flags.DEFINE_integer("training", 3, "create: pairs before those, with feedback.", flag_values=fv)
    flags.DEFINE_integer("catch", 5, "create: pairs among them with a plain answer.", flag_values=fv)
    flags.DEFINE_integer("seed", 0, "create: of the order of images and methods.", flag_values=fv)
    flags.DEFINE_string("output", None, "create: the new folder; report: where the report goes.", flag_values=fv)
    flags.DEFINE_integer("subjects", 50, "serve: links that there are to be.", flag_values=fv)
    flags.DEFINE_string("host", "127.0.0.1", "serve: address to listen on; 0.0.0.0: all of this machine's.", flag_values=fv)
    flags.DEFINE_integer("port", 8000, "serve: port; 0: any that is free.", flag_values=fv)
    flags.DEFINE_string("url", None, "serve: the address that subjects see, e.g. of a proxy; for the links.", flag_values=fv)
    flags.DEFINE_float(
        "least_catch", 0.8, "report: subjects with a smaller share of catch trials right are out.", flag_values=fv
    )


COMMANDS = {
    "evaluate": Command(_evaluate_flags, evaluate),
    "search": Command(_search_flags, search, needs=("checkpoint",)),
    "study": Command(_study_flags, study, positional="create|serve|report [STUDY]"),
}
