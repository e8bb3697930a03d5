"""How good it is: `sr3 evaluate`, `search`."""

from pathlib import Path

from absl import flags

from sr3_jax.cli.command import Arguments, Command, between, sampling_flags
from sr3_jax.errors import UserError


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


def _evaluate_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_string("workdir", None, "A training run: its latest checkpoint.", flag_values=fv)
    flags.DEFINE_multi_string("checkpoint", [], "A workdir, exported file or shipped name; may be repeated.", flag_values=fv)
    flags.DEFINE_string("output", None, "Folder for the results.", flag_values=fv)
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
    from sr3_jax.evaluation import schedule_search

    for name, least in (("steps", 1), ("trials", 1), ("limit", 0)):
        between(args, name, least)
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


def _search_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_string("checkpoint", None, "A workdir, exported file or shipped name.", flag_values=fv)
    flags.DEFINE_integer("steps", 8, "Network evaluations allowed.", flag_values=fv)
    flags.DEFINE_integer("trials", 64, "Schedules to try.", flag_values=fv)
    flags.DEFINE_string("metric", "lpips", "lpips (of VGG; extra [metrics]) or psnr.", flag_values=fv)
    flags.DEFINE_integer("limit", 0, "Use this many held-out images only; 0: all.", flag_values=fv)
    flags.DEFINE_string("output", None, "The folder for trials.json and frontier.png.", flag_values=fv)


COMMANDS = {
    "evaluate": Command(_evaluate_flags, evaluate),
    "search": Command(_search_flags, search, needs=("checkpoint",)),
}
