"""`sr3 search`."""

from pathlib import Path

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
)


@command("search")
@option(
    "--checkpoint",
    type=CheckpointName(),
    required=True,
    help="A workdir, an exported file, or a shipped name.",
)
@option("--steps", type=Whole(1), default=8, show_default=True, help="Network evaluations allowed.")
@output("The folder for trials.json and frontier.png. By default search/NAME-STEPS.")
@option("--trials", type=Whole(1), default=64, show_default=True, help="Schedules to try.")
@option("--limit", type=Whole(), default=0, help="Use this many held-out images only; 0: all.")
@option(
    "--metric",
    type=Choice(["lpips", "psnr", "fid", "kid"]),
    default="lpips",
    show_default=True,
    panel="Metrics",
    help="lpips is of VGG and needs the extra [metrics].",
)
@option(
    "--inception",
    metavar="FILE",
    panel="Metrics",
    help="fid and kid: the weights of FID's network.",
)
@quiet()
@as_json()
def run(args: Arguments) -> None:
    """Find the noise levels and the sampler that are best at a given number of network evaluations.

    Tries --trials of them (paper, section 2.4) on every second image held out for validation (of
    the AT&T faces: people 26-30, who were trained on; 31-40 are the test set), by --metric; the
    other images judge the winner. The winner becomes the checkpoint's default for that number of
    evaluations (schedules.json beside it). A stopped search goes on.
    """
    from sr3_jax.checkpoints import names
    from sr3_jax.evaluation import search
    from sr3_jax.images import arrays
    from sr3_jax.metrics.networks import inception
    from sr3_jax.runtime import parallel, paths

    network = (
        inception.load(args.inception) if args.inception or args.metric in ("fid", "kid") else None
    )
    parallel.start()
    checkpoint = names.load_checkpoint(args.checkpoint)
    target = names.schedules_file(args.checkpoint)
    folder = paths.parse(args.output or f"search/{Path(args.checkpoint).stem}-{args.steps}")
    folder.mkdir(parents=True, exist_ok=True)
    tried: list[search.Trial] = []
    with progress("searching", args.quiet) as (on_start, on_trials):
        on_start(args.trials)

        def on_trial(trial: search.Trial) -> None:
            tried.append(trial)
            on_trials(1)

        found = search.search(
            checkpoint, args.steps, args.trials, args.metric, folder, args.limit, on_trial, network
        )
    arrays.write(folder / "frontier.png", search.picture(tried, args.metric))
    search.keep(target, args.steps, found)
    if args.json:
        print_json(found._asdict())
        return
    print(", ".join(f"{name} = {value}" for name, value in found.fields.items()))
    for title, scores in (("found", found.held_out), ("before", found.before)):
        features = (
            f", FID {scores['fid']:.2f}, KID {scores['kid']:.5f} ({network.name})"
            if network
            else ""
        )
        print(
            f"{title}, on the other held-out images: PSNR {scores['psnr']:.2f} dB, "
            f"LPIPS (VGG) {scores['lpips']:.3f}, "
            f"consistency {scores['consistency_db']:.1f} dB{features}"
        )
    print(f"{folder / 'frontier.png'}\n{target}")
