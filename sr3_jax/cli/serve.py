"""`sr3 serve`."""

from typing import TYPE_CHECKING, Any

from sr3_jax.cli import devices
from sr3_jax.cli.options import Arguments, Choice, Whole, command, option, server
from sr3_jax.errors import UserError
from sr3_jax.inference.edits import EDITS, shipped

if TYPE_CHECKING:
    from starlette.applications import Starlette

DEFAULT = "photos-4x"
MEGABYTES, MEGAPIXELS = 32, 25


@command("serve")
@option(
    "--checkpoint",
    type=devices.NAME,
    help="What enlarges, or does the --task: a workdir, an exported file, or the name of shipped "
    f"weights. By default {DEFAULT}, or by task.",
)
@option(
    "--task",
    type=Choice(list(EDITS)),
    metavar="TASK",
    help=f"Instead: what edits images: {', '.join(EDITS)}; see sr3 edit.",
)
@option(
    "--stage",
    type=devices.NAME,
    multiple=True,
    help="Instead: what makes images from noise; again for each further stage.",
)
@server
@option(
    "--megabytes",
    type=Whole(1, 2**20),
    panel="Limits",
    help=f"Largest file taken, of an image to enlarge or edit.  [default: {MEGABYTES}]",
)
@option(
    "--megapixels",
    type=Whole(1, 1000),
    panel="Limits",
    help=f"Largest result made, of an image to enlarge or edit.  [default: {MEGAPIXELS}]",
)
@option(
    "--waiting",
    type=Whole(1, 1000),
    default=8,
    show_default=True,
    panel="Limits",
    help="Requests that may wait.",
)
@devices.options
def run(args: Arguments) -> None:
    """A web page on this machine that enlarges or edits images, or makes them from noise.

    \b
    sr3 serve --task=inpaint --checkpoint=runs/inpaint
    sr3 serve --stage=fashion-14 --stage=fashion-14-28

    Upload an image, choose steps and seed, compare before and after, download. With --task, as
    sr3 edit has it: paint over what is to be filled, give margins, or say how strong the flaws
    are. With --stage, as sr3 generate has it: choose class, guidance, number and seed.

    Needs the extra [serve]. Listens on this machine alone, unless --host says otherwise; there is
    no password. One request is worked on at a time. Images stay in memory: nothing is written to
    disk. Ctrl-C ends it.
    """  # noqa: D301 (click's mark is the character, not the escape)
    _check(args)
    devices.choose(args.device)
    try:
        from sr3_jax.runtime import web
        from sr3_jax.serve import app  # noqa: F401 (needs the extra)
    except ModuleNotFoundError as error:
        raise UserError(
            f"serve needs the package {error.name}: pip install 'sr3_jax[serve]'"
        ) from error

    names, origin = web.proxied(args.url)
    # a port that is taken fails before the network is loaded
    with web.listen(args.host, args.port) as listener:
        make = _generating if args.stage else _editing if args.task else _enlarging
        name, work, application = make(args, hosts := web.hosts(listener, *names), origin)
        print(f"{web.url(listener)} serves {name}; Ctrl-C ends it", flush=True)
        if about := web.told(listener, hosts):
            print(about, flush=True)
        web.run(application, listener)
        work.close()


def _check(args: Arguments) -> None:
    """Raises UserError for flags that do not go together, and fills in the limits not given."""
    if args.stage and args.checkpoint:
        raise UserError(
            "--checkpoint enlarges or edits images and --stage makes them from noise: give one of "
            "the two"
        )
    if args.stage and args.task:
        raise UserError(
            "--task edits images and --stage makes them from noise: give one of the two"
        )
    for flag in ("tile", "megabytes", "megapixels"):
        if args.stage and getattr(args, flag):
            raise UserError(
                f"--{flag} is for images that are enlarged or edited, and --stage makes them from "
                "noise"
            )
    args.megabytes = args.megabytes or MEGABYTES
    args.megapixels = args.megapixels or MEGAPIXELS


def _enlarging(
    args: Arguments, hosts: tuple[str, ...], origin: str
) -> tuple[str, Any, "Starlette"]:
    """What is served, its queue and its pages, of a network that enlarges images."""
    from sr3_jax.inference.upscaler import Upscaler
    from sr3_jax.serve import app, jobs

    args.checkpoint = args.checkpoint or DEFAULT
    checkpoint = devices.load(args)
    upscaler = Upscaler(checkpoint, args.batch or None, args.tile or None)
    work = jobs.Jobs(upscaler, waiting=args.waiting, pixels=args.megapixels * 10**6)
    return checkpoint.name, work, app.make_app(upscaler, work, hosts, args.megabytes, origin)


def _editing(args: Arguments, hosts: tuple[str, ...], origin: str) -> tuple[str, Any, "Starlette"]:
    """The same of a network that edits images."""
    from sr3_jax.inference.editor import Editor
    from sr3_jax.serve import edit_app, edits

    args.checkpoint = args.checkpoint or shipped(args.task)
    checkpoint = devices.load(args)
    editor = Editor(checkpoint, args.batch or None, args.tile or None)
    work = edits.Edits(editor, args.task, waiting=args.waiting, pixels=args.megapixels * 10**6)
    name = f"{args.task} by {checkpoint.name}"
    return name, work, edit_app.make_app(work, hosts, args.megabytes, origin)


def _generating(
    args: Arguments, hosts: tuple[str, ...], origin: str
) -> tuple[str, Any, "Starlette"]:
    """The same of networks that make images from noise."""
    from sr3_jax.inference.generator import Generator
    from sr3_jax.serve import generate_app, generations

    generator = Generator(devices.load_stages(args), args.batch or None)
    work = generations.Generations(generator, waiting=args.waiting)
    name = " and ".join(one.name for one in generator.checkpoints)
    return name, work, generate_app.make_app(generator, work, hosts, origin)
