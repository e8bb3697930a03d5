"""`sr3 train-classifier`."""

from pathlib import Path

from sr3_jax.cli.options import (
    Arguments,
    Whole,
    as_json,
    command,
    option,
    output,
    overwrite,
    print_json,
    progress,
    quiet,
    seed,
)
from sr3_jax.errors import UserError


@command("train-classifier")
@option(
    "--data",
    metavar="FOLDER",
    required=True,
    help="Images in sub-folders, one a class, or what sr3 prepare made of such.",
)
@output("The .safetensors file.", required=True)
@overwrite()
@option(
    "--size",
    type=Whole(8, 128),
    default=28,
    show_default=True,
    help="Height and width that images are reduced to.",
)
@option(
    "--epochs",
    type=Whole(1, 10_000),
    default=6,
    show_default=True,
    help="How many times each image is seen.",
)
@option("--flip/--no-flip", default=True, help="Mirror half of the training images (default).")
@seed(help="Of parameters, order, mirroring and dropout.")
@quiet()
@as_json("Print what is known of the classifier as JSON.")
def run(args: Arguments) -> None:
    """Train a small classifier on labelled images, for metrics of generated images.

    It learns from the training images, and its accuracy on the held-out images is noted in the
    file. By its features sets of images are compared as FID does it by Inception's; the numbers
    are not FID, and compare only with others by the same file.
    """
    from sr3_jax.evaluation import classifier

    target = Path(args.output)
    if target.suffix != ".safetensors":
        raise UserError(f"--output={target} must end in .safetensors")
    if target.exists() and not args.overwrite:
        raise UserError(f"{target} exists; give --overwrite to replace it")
    with progress("training", args.quiet) as (on_start, _):
        about = classifier.train(
            args.data,
            target,
            size=args.size,
            epochs=args.epochs,
            seed=args.seed,
            flip=args.flip,
            on_step=lambda done, steps: on_start(steps, done),
        )
    if args.json:
        print_json({**about._asdict(), "output": str(target)})
        return
    print(
        f"{len(about.classes)} classes, {about.images} images; "
        f"accuracy {about.accuracy:.4f} on {about.held_out} held-out images"
    )
    print(target)
