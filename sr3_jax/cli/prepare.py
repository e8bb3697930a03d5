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
    help="Height and width in pixels, at least the config's data.hr_size. Needed, but for photos.",
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
    default="png",
    show_default=True,
    help="raw is larger, and read without decoding.",
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
    help="photos: a folder with the packages' .deb files; by default apt-get downloads them.",
)
@option("--workers", type=Whole(), default=0, help="Processes; by default one a core.")
@quiet()
@as_json("Print a summary as JSON.")
def run(args: Arguments) -> None:
    """Decode, crop and resize images once, into a few large files.

    Training reads these without waiting.

    SOURCE is a folder of images, of any depth, or tfds:NAME[:VERSION][:SPLIT], or orl, or photos.
    The output gets ArrayRecord files and manifest.json; use it as data.source=records,
    data.folder=DIR. Each image keeps its largest central square; with --tiles it is cut into as
    many squares as it has room for. A stopped run goes on.

    photos: the photographs that photos-4x is trained on, from five packages of Debian, by default
    as it is: --size=256 --tiles=2,3,4 --detail=2.5. Their authors and licences are in DIR/DATA.md;
    some are held out for sr3 evaluate --protocol=validation.
    """
    from sr3_jax.datasets import debian_photos
    from sr3_jax.datasets import prepare as preparation
    from sr3_jax.runtime import paths

    photos = args.source == debian_photos.NAME
    _check(args, photos)
    factors = _factors(args.tiles)
    if args.detail and not factors and not photos:
        raise UserError("--detail is for --tiles")
    usual = debian_photos.OPTIONS if photos else preparation.Options(0)
    options = preparation.Options(
        args.size or usual.size,
        args.resample,
        args.encoding,
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
        if photos:
            done = debian_photos.prepare_photos(
                target, Path(args.packages) if args.packages else None, options, **others
            )
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


def _check(args: Arguments, photos: bool) -> None:
    """Raise UserError for what does not go together."""
    from sr3_jax.images import arrays
    from sr3_jax.runtime import paths

    if args.packages and not photos:
        raise UserError("--packages is for photos")
    if not photos and not args.size:
        raise UserError("prepare needs --size=… (sr3 prepare --help)")
    here = paths.files_below(Path("photos"))
    if photos and not args.packages and any(arrays.is_image_name(Path(name)) for name in here):
        raise UserError(
            "photos are Debian's photographs, but also a folder of images here: "
            "write ./photos or give --packages=DIR"
        )


def _factors(text: str) -> list[int]:
    """The numbers of --tiles=2,4."""
    words = [word for word in text.split(",") if word]
    if not all(word.isdecimal() and 1 <= int(word) <= 64 for word in words):
        raise UserError(f"--tiles={text} must be factors between 1 and 64, such as 2,4")
    return [int(word) for word in words]
