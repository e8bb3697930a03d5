"""`sr3 edit`."""

from collections.abc import Mapping
from typing import Any

import rich_click as click

from sr3_jax.cli import devices, pictures
from sr3_jax.cli.options import Arguments, Choice, command, option
from sr3_jax.errors import UserError
from sr3_jax.inference import edits
from sr3_jax.inference.edits import EDITS
from sr3_jax.tasks.corruptions import known_signals
from sr3_jax.tasks.task import Signal


def _flaws() -> dict[str, Signal]:
    return {name: signal for name, signal in known_signals().items() if signal.removed}


class Edit(pictures.Told):
    """With a flag for each flaw that a network can be told of."""

    def signals(self) -> Mapping[str, Signal]:
        """All of these."""
        return _flaws()


class Margin(click.ParamType):
    """Pixels above, at the right, below and at the left."""

    name = "T,R,B,L"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[int, ...]:
        """The four numbers; one number stands for all four. Raises UserError for anything else."""
        words = [word.strip() for word in str(value).split(",")]
        if not all(word.isascii() and word.isdigit() and len(word) < 7 for word in words):
            words = []
        found = [int(word) for word in words]
        if len(found) not in (1, 4) or not any(found):
            raise UserError(
                f"--margin={value} must be one number of pixels, or four with commas between "
                "them: above, right, below, left; not all 0"
            )
        return tuple(found * (4 // len(found)))


@command("edit", Edit)
@pictures.paths
@option(
    "--task",
    type=Choice(list(EDITS)),
    required=True,
    metavar="TASK",
    panel=pictures.MAKES,
    help="What to do: see above.",
)
@option(
    "--mask",
    metavar="PATH",
    panel=pictures.MAKES,
    help="Of inpaint: an image, white where to fill; or a folder of such, named as the images.",
)
@option(
    "--margin",
    type=Margin(),
    panel=pictures.MAKES,
    help="Of uncrop: pixels to add above, right, below, left.",
)
@pictures.results
@pictures.noise
@option(
    "--checkpoint",
    type=devices.NAME,
    panel="Network",
    help="A workdir, an exported file, or the name of shipped weights.",
)
@pictures.sampler
@pictures.machine
def run(args: Arguments) -> int:
    """Edit images of any size: files, folders, patterns, or - for standard input.

    \b
    colourise     give colours to a grey image
    inpaint       fill the holes of --mask; all other pixels stay
    uncrop        go on beyond the edges by --margin
    restore       take off blur, noise and JPEG, of unknown strength
    deblur        take off blur alone
    denoise       take off noise alone
    restore_jpeg  take off the blocks of JPEG alone

    Where results go, and what of a file they keep, is as with sr3 upscale. --blur, --noise and
    --jpeg tell the network how strong the flaw is; it works without being told.
    """  # noqa: D301 (click's mark is the character, not the escape)
    _check(args)
    planned = pictures.plan(args)
    from sr3_jax.inference import files, holes, plan
    from sr3_jax.inference.editor import Editor, told
    from sr3_jax.inference.sampling import Sampling

    if args.mask:
        planned = plan.with_masks(planned, args.mask)
        for mask in {job.mask for job in planned.jobs[:1] if job.mask}:
            holes.of_mask_file(mask)  # before the network is loaded
    args.checkpoint = args.checkpoint or edits.shipped(args.task)
    checkpoint = devices.load(args)
    signals = told(checkpoint, args.task, {name: getattr(args, name) for name in _flaws()})
    editor = Editor(checkpoint, args.batch or None, args.tile or None)
    sampling = Sampling(args.steps or None, args.sampler, args.seed).with_options(signals)
    return pictures.run(
        args,
        sampling,
        lambda options, on_written: files.edit_all(
            editor, args.margin, planned.jobs, options, planned.folder, on_written
        ),
    )


def _check(args: Arguments) -> None:
    """Raises UserError for flags that do not go with --task."""
    kind = EDITS[args.task].kind
    for flag in ("mask", "margin"):
        if getattr(args, flag) and kind != "inpaint":
            raise UserError(f"--{flag} is for inpaint and uncrop, not for --task={args.task}")
    if args.task == "inpaint" and not args.mask:
        raise UserError("--task=inpaint needs --mask=FILE, white where the image is to be filled")
    if args.task == "uncrop" and not args.margin:
        raise UserError(
            "--task=uncrop needs --margin=T,R,B,L: pixels to add above, right, below, left"
        )
    for name in _flaws():
        value = getattr(args, name)
        if value is not None and kind != "restore":
            raise UserError(
                f"--{name}={value:g} is for restore, deblur, denoise and restore_jpeg, "
                f"not for --task={args.task}"
            )
