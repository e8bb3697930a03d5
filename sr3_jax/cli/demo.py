"""`sr3 demo`."""

from pathlib import Path

from sr3_jax.cli.options import Arguments, command, option, output


@command("demo")
@output("A folder, new or empty.", default="demo")
@option("--image", metavar="PATH", help="An image of yours.")
def run(args: Arguments) -> None:
    """Show the shipped networks at work.

    They enlarge faces and photographs they have never seen, and an image of yours (--image).

    Needs the extras [faces,photos], which hold the images. Writes demo.png; of your image
    yours.png, four times larger, and compare.png, its middle beside bicubic.
    """
    from sr3_jax.inference import demo
    from sr3_jax.runtime import parallel

    parallel.start()
    for path in demo.run(Path(args.output), Path(args.image) if args.image else None):
        print(path)
