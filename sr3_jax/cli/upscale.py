"""`sr3 upscale`."""

import sys

import rich_click as click

from sr3_jax.cli import devices
from sr3_jax.cli.options import (
    Arguments,
    Choice,
    Command,
    Number,
    Whole,
    argument,
    as_json,
    command,
    option,
    output,
    overwrite,
    print_json,
    quiet,
    seed,
    shard,
)
from sr3_jax.config import CHOICES
from sr3_jax.errors import UserError
from sr3_jax.tasks.corruptions import known_signals
from sr3_jax.tasks.labels import LABEL
from sr3_jax.tasks.task import Signal


def _told() -> dict[str, Signal]:
    """What networks can be told of an image, by name."""
    return known_signals() | {LABEL.name: LABEL}


class Upscale(Command):
    """With a flag for each signal that a network can be told."""

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        """The declared flags, those of the signals, and --help."""
        told: list[click.Parameter] = [
            click.RichOption(
                [f"--{name}"],
                type=Number(),
                default=None,
                help=f"{signal.label[0].upper()}{signal.label[1:]}.",
                panel="What it makes",
            )
            for name, signal in _told().items()
        ]
        params = super().get_params(context)
        return [*params[:-1], *told, params[-1]]


@command("upscale", Upscale)
@argument("inputs", nargs=-1, required=True, metavar="IN…")
@output("The file or folder to write; - for standard output.", required=True)
@overwrite()
@option(
    "--skip-existing",
    is_flag=True,
    help="Leave out what was made before, in the same way.",
)
@option(
    "--format",
    default="png",
    show_default=True,
    metavar="NAME",
    help="Of files in a folder: png, jpg, webp, tiff, …",
)
@option(
    "--quality",
    type=Whole(1, 100),
    help="Of JPEG, WebP and AVIF.  [default: 95]",
)
@option(
    "--scale",
    type=Number(),
    default=0,
    panel="What it makes",
    help="How many times larger (1: only restored). By default as the network does.",
)
@option(
    "--steps",
    type=Whole(),
    default=0,
    panel="What it makes",
    help="Network evaluations: more take longer, and add detail. "
    "By default the checkpoint's own number.",
)
@option(
    "--samples",
    type=Whole(1, 10_000),
    default=1,
    show_default=True,
    panel="What it makes",
    help="Different results for each image.",
)
@option(
    "--uncertainty",
    is_flag=True,
    panel="What it makes",
    help="Also write the mean of the samples, and how much they differ.",
)
@option(
    "--match-input/--no-match-input",
    default=None,
    panel="What it makes",
    help="Correct the result until, reduced again, it is the input. "
    "By default as the checkpoint says.",
)
@seed("What it makes")
@option(
    "--name",
    metavar="TEXT",
    panel="What it makes",
    help="Draw the noise of all images by this name: equal frames come out equal.",
)
@option(
    "--checkpoint",
    type=devices.NAME,
    default="photos-4x",
    show_default=True,
    panel="Network",
    help="A workdir, an exported file, or the name of shipped weights.",
)
@option(
    "--sampler",
    type=Choice(list(CHOICES["sample.sampler"])),
    panel="Network",
    help="By default the checkpoint's own.",
)
@devices.options
@quiet()
@shard()
@as_json("Print a list of what was written, as JSON, instead of the paths.")
def run(args: Arguments) -> int:
    """Enlarge images of any size: files, folders, patterns, or - for standard input.

    One image goes to the file that -o names, if that has an image's suffix. Otherwise -o names a
    folder, and each image goes there under its own name. Depth, alpha, colour profile and EXIF are
    kept. Nothing is overwritten without --overwrite; one bad image does not stop the others (exit
    code 2). With --shard=I/N, or --skip-existing, several runs share a folder.
    """
    if args.uncertainty and args.samples < 2:
        raise UserError(f"--uncertainty needs --samples of at least 2, not {args.samples}")
    if args.json and args.output == "-":
        raise UserError("--json and the image of --output=- would both go to standard output")
    if args.overwrite and args.skip_existing:
        raise UserError("--overwrite and --skip-existing exclude each other")
    devices.choose(args.device)
    from sr3_jax.inference import files, plan
    from sr3_jax.inference.sampling import Sampling
    from sr3_jax.runtime.parallel import Shard

    naming = plan.Naming(plan.checked_suffix(args.format), args.samples, args.uncertainty)
    planned = plan.plan(args.inputs, args.output, naming, args.shard or Shard())
    if args.skip_existing and planned.folder is None:
        raise UserError("--skip-existing is for an output folder, not for one file")
    if not args.overwrite and not args.skip_existing:
        plan.check_new(planned.jobs)
    for note in () if args.quiet else planned.notes:
        print(note, file=sys.stderr)
    checkpoint = devices.load(args)
    sampling = Sampling(
        args.steps or None,
        args.sampler,
        args.seed,
        match_input=args.match_input,
        scale=args.scale or None,
    ).with_options({name: getattr(args, name) for name in _told()})
    options = files.Options(
        sampling,
        args.samples,
        args.uncertainty,
        args.tile or None,
        args.batch or None,
        args.quiet,
        args.overwrite,
        args.skip_existing,
        args.quality,
        args.name,
    )
    written: list[files.Written] = []
    code = files.upscale_all(
        checkpoint,
        planned.jobs,
        options,
        planned.folder,
        written.append if args.json else files.print_path,
    )
    if args.json:
        print_json([one._asdict() for one in written])
    return code
