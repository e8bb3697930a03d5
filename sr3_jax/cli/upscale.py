"""`sr3 upscale`."""

from collections.abc import Mapping

from sr3_jax.cli import devices, pictures
from sr3_jax.cli.options import Arguments, Number, command, option
from sr3_jax.tasks.corruptions import known_signals
from sr3_jax.tasks.labels import LABEL
from sr3_jax.tasks.task import Signal


def _told() -> dict[str, Signal]:
    return known_signals() | {LABEL.name: LABEL}


class Upscale(pictures.Told):
    """With a flag for all that a network can be told, its class included."""

    def signals(self) -> Mapping[str, Signal]:
        """All of these."""
        return _told()


@command("upscale", Upscale)
@pictures.paths
@option(
    "--scale",
    type=Number(),
    default=0,
    panel=pictures.MAKES,
    help="How many times larger (1: only restored). By default as the network does.",
)
@pictures.results
@option(
    "--match-input/--no-match-input",
    default=None,
    panel=pictures.MAKES,
    help="Correct the result until, reduced again, it is the input. "
    "By default as the checkpoint says.",
)
@pictures.noise
@option(
    "--checkpoint",
    type=devices.NAME,
    default="photos-4x",
    show_default=True,
    panel="Network",
    help="A workdir, an exported file, or the name of shipped weights.",
)
@pictures.sampler
@pictures.machine
def run(args: Arguments) -> int:
    """Enlarge images of any size: files, folders, patterns, or - for standard input.

    One image goes to the file that -o names, if that has an image's suffix. Otherwise -o names a
    folder, and each image goes there under its own name. Depth, alpha, colour profile and EXIF are
    kept. Nothing is overwritten without --overwrite; one bad image does not stop the others (exit
    code 2). With --shard=I/N, or --skip-existing, several runs share a folder.
    """
    planned = pictures.plan(args)
    from sr3_jax.inference import files
    from sr3_jax.inference.sampling import Sampling

    checkpoint = devices.load(args)
    sampling = Sampling(
        args.steps or None,
        args.sampler,
        args.seed,
        match_input=args.match_input,
        scale=args.scale or None,
    ).with_options({name: getattr(args, name) for name in _told()})
    return pictures.run(
        args,
        sampling,
        lambda options, on_written: files.upscale_all(
            checkpoint, planned.jobs, options, planned.folder, on_written
        ),
    )
