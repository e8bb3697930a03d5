"""`sr3 statistics`."""

from collections.abc import Callable
from pathlib import Path

from sr3_jax.cli.options import (
    Arguments,
    Choice,
    argument,
    command,
    option,
    output,
    overwrite,
    progress,
    quiet,
)
from sr3_jax.errors import UserError


def resize_option() -> Callable:
    """How images come to FID's network."""
    return option(
        "--resize",
        type=Choice(["tf1-bilinear", "antialiased-bilinear"]),
        default="tf1-bilinear",
        show_default=True,
        panel="Metrics",
        help="How images come to FID's network: as for most published numbers, or anti-aliased.",
    )


@command("statistics")
@argument("folder", metavar="FOLDER")
@output("The .npz file.", required=True)
@overwrite()
@option(
    "--inception",
    metavar="FILE",
    required=True,
    panel="Metrics",
    help="The weights of FID's network.",
)
@resize_option()
@quiet()
def run(args: Arguments) -> None:
    """Compute mean and covariance of FID's features over a folder of images, as the common .npz.

    sr3 evaluate --protocol=… --reference=STATISTICS.npz compares with it, and so do other FID
    tools. A run that is stopped goes on.
    """
    from sr3_jax.evaluation import runs
    from sr3_jax.metrics.networks import inception
    from sr3_jax.runtime import parallel

    network = inception.load(args.inception, args.resize)
    target = Path(args.output)
    if target.exists() and not args.overwrite:
        raise UserError(f"{target} exists; give --overwrite to replace it")
    parallel.start()
    folder = target.with_suffix(".parts")
    with progress("reading", args.quiet) as (_, on_images):
        found = runs.statistics(Path(args.folder), folder, network, on_images)
    if not parallel.is_main():
        return
    found.save(target)
    runs.finish(folder)
    folder.rmdir()
    print(f"{found.n} images\n{target}")
