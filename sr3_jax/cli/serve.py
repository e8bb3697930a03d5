"""`sr3 serve`."""

from sr3_jax.cli import devices
from sr3_jax.cli.options import Arguments, Whole, command, option, server
from sr3_jax.errors import UserError


@command("serve")
@option(
    "--checkpoint",
    type=devices.NAME,
    default="photos-4x",
    show_default=True,
    help="A workdir, an exported file, or the name of shipped weights.",
)
@server
@option(
    "--megabytes",
    type=Whole(1, 2**20),
    default=32,
    show_default=True,
    panel="Limits",
    help="Largest file taken.",
)
@option(
    "--megapixels",
    type=Whole(1, 1000),
    default=25,
    show_default=True,
    panel="Limits",
    help="Largest result made.",
)
@option(
    "--waiting",
    type=Whole(1, 1000),
    default=8,
    show_default=True,
    panel="Limits",
    help="Images that may wait.",
)
@devices.options
def run(args: Arguments) -> None:
    """A web page on this machine that enlarges images.

    Upload an image, choose steps and seed, compare before and after, download.

    Needs the extra [serve]. Listens on this machine alone, unless --host says otherwise; there is
    no password. One image is made at a time. Images stay in memory: nothing is written to disk.
    Ctrl-C ends it.
    """
    devices.choose(args.device)
    try:
        from sr3_jax.runtime import web
        from sr3_jax.serve import app, jobs
    except ModuleNotFoundError as error:
        raise UserError(
            f"serve needs the package {error.name}: pip install 'sr3_jax[serve]'"
        ) from error
    from sr3_jax.inference.upscaler import Upscaler

    # a port that is taken fails before the network is loaded
    with web.listen(args.host, args.port) as listener:
        checkpoint = devices.load(args)
        upscaler = Upscaler(checkpoint, args.batch or None, args.tile or None)
        work = jobs.Jobs(upscaler, waiting=args.waiting, pixels=args.megapixels * 10**6)
        print(f"{web.url(listener)} serves {checkpoint.name}; Ctrl-C ends it", flush=True)
        web.run(app.make_app(upscaler, work, web.hosts(listener), args.megabytes), listener)
        work.close()
