"""What `sr3 upscale` and `sr3 edit` have in common: their flags, and how their files are run."""

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

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
    option,
    output,
    overwrite,
    print_json,
    quiet,
    seed,
    shard,
    together,
)
from sr3_jax.config import CHOICES
from sr3_jax.errors import UserError
from sr3_jax.tasks.task import Signal

if TYPE_CHECKING:
    from sr3_jax.inference.files import Options, Written
    from sr3_jax.inference.plan import Plan
    from sr3_jax.inference.sampling import Sampling

MAKES = "What it makes"  # a panel of the help


class Told(Command):
    """A command with a flag for each signal that a network can be told of an image."""

    def signals(self) -> Mapping[str, Signal]:
        """These signals, by name; asked each time, since corruptions can be added."""
        raise NotImplementedError

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        """The declared flags, those of the signals, and --help."""
        told: list[click.Parameter] = [
            click.RichOption(
                [f"--{name}"],
                type=Number(),
                default=None,
                help=f"{signal.label[0].upper()}{signal.label[1:]}.",
                panel=MAKES,
            )
            for name, signal in self.signals().items()
        ]
        params = super().get_params(context)
        return [*params[:-1], *told, params[-1]]


paths = together(
    argument("inputs", nargs=-1, required=True, metavar="IN…"),
    output("The file or folder to write; - for standard output.", required=True),
    overwrite(),
    option(
        "--skip-existing",
        is_flag=True,
        help="Leave out what was made before, in the same way.",
    ),
    option(
        "--format",
        default="png",
        show_default=True,
        metavar="NAME",
        help="Of files in a folder: png, jpg, webp, tiff, …",
    ),
    option(
        "--quality",
        type=Whole(1, 100),
        help="Of JPEG, WebP and AVIF.  [default: 95]",
    ),
)
results = together(
    option(
        "--steps",
        type=Whole(),
        default=0,
        panel=MAKES,
        help="Network evaluations: more take longer, and add detail. "
        "By default the checkpoint's own number.",
    ),
    option(
        "--samples",
        type=Whole(1, 10_000),
        default=1,
        show_default=True,
        panel=MAKES,
        help="Different results for each image.",
    ),
    option(
        "--uncertainty",
        is_flag=True,
        panel=MAKES,
        help="Also write the mean of the samples, and how much they differ.",
    ),
)
noise = together(
    seed(MAKES),
    option(
        "--name",
        metavar="TEXT",
        panel=MAKES,
        help="Draw the noise of all images by this name: equal frames come out equal.",
    ),
)
sampler = option(
    "--sampler",
    type=Choice(list(CHOICES["sample.sampler"])),
    panel="Network",
    help="By default the checkpoint's own.",
)
machine = together(
    devices.options,
    quiet(),
    shard(),
    as_json("Print a list of what was written, as JSON, instead of the paths."),
)


def plan(args: Arguments) -> "Plan":
    """Which file becomes which, before anything is loaded.

    Raises:
      UserError: Flags or files do not go together.
    """
    if args.uncertainty and args.samples < 2:
        raise UserError(f"--uncertainty needs --samples of at least 2, not {args.samples}")
    if args.json and args.output == "-":
        raise UserError("--json and the image of --output=- would both go to standard output")
    if args.overwrite and args.skip_existing:
        raise UserError("--overwrite and --skip-existing exclude each other")
    devices.choose(args.device)
    from sr3_jax.inference import plan
    from sr3_jax.runtime.parallel import Shard

    naming = plan.Naming(plan.checked_suffix(args.format), args.samples, args.uncertainty)
    planned = plan.plan(args.inputs, args.output, naming, args.shard or Shard())
    if args.skip_existing and planned.folder is None:
        raise UserError("--skip-existing is for an output folder, not for one file")
    if not args.overwrite and not args.skip_existing:
        plan.check_new(planned.jobs)
    for note in () if args.quiet else planned.notes:
        print(note, file=sys.stderr)
    return planned


def run(
    args: Arguments,
    sampling: "Sampling",
    make: "Callable[[Options, Callable[[Written], object]], int]",
) -> int:
    """Runs what makes the files, prints what was written, and returns the exit code.

    Args:
      args: The flags.
      sampling: How images are drawn.
      make: Gets how files are made, and what to call with each that was written.
    """
    from sr3_jax.inference import files

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
    written: list[Any] = []
    code = make(options, written.append if args.json else files.print_path)
    if args.json:
        print_json([one._asdict() for one in written])
    return code
