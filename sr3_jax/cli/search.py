"""`sr3 search`."""

from pathlib import Path

from sr3_jax.cli.options import (
    Arguments,
    CheckpointName,
    Choice,
    Numbers,
    Whole,
    as_json,
    command,
    option,
    output,
    print_json,
    progress,
    quiet,
)
from sr3_jax.errors import UserError


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
@option(
    "--before",
    type=CheckpointName(),
    multiple=True,
    panel="Augmentation of a cascade's stage",
    help="The stages before --checkpoint, the first one first; may be repeated.",
)
@option(
    "--augment",
    type=Numbers(float, 0),
    default="",
    panel="Augmentation of a cascade's stage",
    help="The levels to try, instead of schedules: 0,5,10,20.",
)
@option(
    "--classifier",
    metavar="FILE",
    panel="Augmentation of a cascade's stage",
    help="What sr3 train-classifier wrote: its features compare the images; or --inception.",
)
@option(
    "--count",
    type=Whole(1),
    default=2000,
    show_default=True,
    panel="Augmentation of a cascade's stage",
    help="Images made for each level.",
)
@quiet()
@as_json()
def run(args: Arguments) -> None:
    """Find the noise levels and the sampler that are best at a given number of network evaluations.

    Tries --trials of them (paper, section 2.4) on every second image held out for validation (of
    the AT&T faces: people 26-30, who were trained on; 31-40 are the test set), by --metric; the
    other images judge the winner. The winner becomes the checkpoint's default for that number of
    evaluations (schedules.json beside it). A stopped search goes on.

    With --augment and --before it finds instead how much noise to add to the input of a cascade's
    last stage (sr3 generate --augment): it makes --count images at each level, and compares them
    with training images by the features of a network.
    """
    if args.augment or args.before:
        _augment(args)
        return
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


def _augment(args: Arguments) -> None:
    """Find the augmentation of a cascade's last stage."""
    from sr3_jax.evaluation import search_augment
    from sr3_jax.inference.generator import Drawing, Generator
    from sr3_jax.metrics.networks import classifier, inception
    from sr3_jax.runtime import parallel, paths

    if not args.augment or not args.before:
        raise UserError(
            "search needs both --augment, the levels to try, and --before, the stages before "
            "--checkpoint"
        )
    if bool(args.classifier) == bool(args.inception):
        raise UserError("search --augment needs --classifier=FILE or --inception=FILE")
    network = inception.load(args.inception) if args.inception else classifier.load(args.classifier)
    parallel.start()
    generator = Generator.load([*args.before, args.checkpoint])
    folder = paths.parse(args.output or f"search/{Path(args.checkpoint).stem}-augment")
    with progress("searching", args.quiet) as (on_start, on_level):
        on_start(len(args.augment))
        found = search_augment.search(
            generator,
            args.augment,
            network,
            Drawing(),
            count=args.count,
            folder=folder,
            on_tried=lambda _: on_level(1),
        )
    if args.json:
        print_json([tried._asdict() for tried in found])
        return
    print(f"Fréchet distance from training images, {args.count} images each; {network.name}")
    for tried in found:
        print(f"--augment={tried.level:g}: {tried.distance:.3f}")
    print(folder / "augment.json")
