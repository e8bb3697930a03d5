"""`sr3 prepare`."""

from pathlib import Path
from typing import Any

from sr3_jax.cli.options import (
    Arguments,
    Choice,
    Whole,
    argument,
    as_json,
    command,
    option,
    output,
    print_json,
    progress,
    quiet,
)
from sr3_jax.errors import UserError


@command("prepare")
@argument("source", metavar="SOURCE")
@output("The folder for the records.", required=True)
@option(
    "--size",
    type=Whole(),
    default=0,
    help="Height and width in pixels, at least the config's data.hr_size. Needed, but for photos "
    "and fashion.",
)
@option(
    "--resample",
    type=Choice(["area", "bicubic"]),
    default="area",
    show_default=True,
    help="How images are reduced; the paper's is area.",
)
@option(
    "--encoding",
    type=Choice(["png", "raw"]),
    help="raw is larger, and read without decoding. Default: png; for fashion raw.",
)
@option(
    "--tiles",
    metavar="N,N…",
    default="",
    help="Cut large images into squares, reduced by each of these factors first: 2,4.",
)
@option(
    "--detail",
    type=float,
    metavar="X",
    help="Leave out tiles that 4x bicubic restores to within this many levels of 255.",
)
@option(
    "--packages",
    metavar="DIR",
    help="photos, fashion: a folder with the .deb files; by default apt-get downloads them.",
)
@option("--workers", type=Whole(), default=0, help="Processes; by default one a core.")
@quiet()
@as_json("Print a summary as JSON.")
def run(args: Arguments) -> None:
    """Decode, crop and resize images once, into a few large files.

    Training reads these without waiting.

    SOURCE is a folder of images, of any depth, or tfds:NAME[:VERSION][:SPLIT], or orl, or photos,
    or fashion. The output gets ArrayRecord files and manifest.json; use it as data.source=records,
    data.folder=DIR. Each image keeps its largest central square; with --tiles it is cut into as
    many squares as it has room for. The sub-folders of a folder are kept as the classes of its
    images. A stopped run goes on.

    photos: the photographs that photos-4x is trained on, from five packages of Debian, by default
    as it is: --size=256 --tiles=2,3,4 --detail=2.5. Their authors and licences are in DIR/DATA.md;
    some are held out for sr3 evaluate --protocol=validation.

    fashion: Fashion-MNIST, 70,000 grey images of 28 pixels in ten classes, from a package of
    Debian; its 10,000 test images are held out.
    """
    from sr3_jax.datasets import debian_photos, fashion
    from sr3_jax.datasets import prepare as preparation
    from sr3_jax.runtime import paths

    packaged = {
        debian_photos.NAME: (debian_photos.prepare_photos, debian_photos.OPTIONS),
        fashion.NAME: (fashion.prepare_fashion, fashion.OPTIONS),
    }
    make, usual = packaged.get(args.source, (None, preparation.Options(0)))
    _check(args, make is not None)
    factors = _factors(args.tiles)
    if args.detail and not factors and not usual.tiles:
        raise UserError("--detail is for --tiles")
    if factors and args.source == fashion.NAME:
        raise UserError("--tiles is for large images, not for fashion")
    options = preparation.Options(
        args.size or usual.size,
        args.resample,
        args.encoding or usual.encoding,
        factors or usual.tiles,
        usual.detail if args.detail is None else args.detail,
    )
    target = paths.parse(args.output)
    with progress("preparing", args.quiet) as (on_start, on_image):
        others: dict[str, Any] = {
            "workers": args.workers or None,
            "on_start": on_start,
            "on_image": on_image,
        }
        if make:
            packages = Path(args.packages) if args.packages else None
            done = make(target, packages, options, **others)
        else:
            done = preparation.prepare(args.source, target, options, **others)
    if args.json:
        print_json(
            {
                **done._asdict(),
                "dropped": [one._asdict() for one in done.dropped],
                "output": args.output,
            }
        )
        return
    if not args.quiet:
        for note in done.notes:
            print(f"note: {note}")
        for dropped in done.dropped[:20]:
            print(f"dropped: {dropped.id} {dropped.reason}")
        if done.converted:
            print(f"converted: {done.converted}")
    print(
        f"{done.images} images of {options.size}² in {done.shards} files, "
        f"{len(done.dropped)} dropped"
    )
    print(f"--config.data.source=records --config.data.folder={args.output}")


def _check(args: Arguments, packaged: bool) -> None:
    """Raise UserError for what does not go together."""
    from sr3_jax.images import arrays
    from sr3_jax.runtime import paths

    if args.packages and not packaged:
        raise UserError("--packages is for photos and fashion")
    if not packaged and not args.size:
        raise UserError("prepare needs --size=… (sr3 prepare --help)")
    if not packaged or args.packages:
        return
    here = paths.files_below(Path(args.source))
    if any(arrays.is_image_name(Path(name)) for name in here):
        what = "Debian's photographs" if args.source == "photos" else "Debian's images"
        raise UserError(
            f"{args.source} are {what}, but also a folder of images here: "
            f"write ./{args.source} or give --packages=DIR"
        )


def _factors(text: str) -> list[int]:
    """The numbers of --tiles=2,4."""
    words = [word for word in text.split(",") if word]
    if not all(word.isdecimal() and 1 <= int(word) <= 64 for word in words):
        raise UserError(f"--tiles={text} must be factors between 1 and 64, such as 2,4")
    return [int(word) for word in words]
