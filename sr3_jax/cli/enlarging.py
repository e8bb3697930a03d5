"""From images to larger images: `sr3 upscale`, `serve`, `demo`."""

from pathlib import Path

from absl import flags

from sr3_jax.cli.command import Arguments, Command, between, sampling_flags
from sr3_jax.errors import UserError


def upscale(args: Arguments, inputs: list[str]) -> int:
    """Enlarges images of any size: files, folders, patterns, or - for standard input.

    With one input file and an --output that has an image suffix, that file is written, and for - standard output; otherwise
    --output is a folder, and each image appears in it as its name, .png. Depth, alpha, colour profile and EXIF stay. Nothing is
    overwritten without --overwrite, and one bad file does not stop the others (exit code 2).
    """
    for name in ("scale", "steps", "tile", "batch"):
        between(args, name, 0)
    between(args, "samples", 1)
    between(args, "seed", 0)
    if args.uncertainty and args.samples < 2:
        raise UserError(f"--uncertainty needs --samples of at least 2, not {args.samples}")
    _use_device(args.device)
    from sr3_jax.checkpoints import load_checkpoint
    from sr3_jax.inference import files
    from sr3_jax.inference.sampling import Sampling
    from sr3_jax.tasks.corruptions import CORRUPTIONS

    jobs = files.plan(inputs, Path(args.output), args.overwrite, args.samples, args.uncertainty)
    _start(args.device)
    checkpoint = load_checkpoint(args.checkpoint)
    checkpoint.config.model.dtype = args.precision or checkpoint.config.model.dtype
    sampling = Sampling(args.steps or None, args.sampler, args.seed, match_input=args.match_input, scale=args.scale or None)
    sampling = sampling.with_options({name: args[name].value for name in CORRUPTIONS})
    options = files.Options(sampling, args.samples, args.uncertainty, args.tile or None, args.batch or None)
    return files.upscale_all(checkpoint, jobs, options)


def _upscale_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_string("output", None, "File or folder to write.", flag_values=fv)
    _network_flags(fv)
    flags.DEFINE_boolean("overwrite", False, "Replace files that exist.", flag_values=fv)
    flags.DEFINE_float("scale", 0, "How many times larger; 0: what the network does in one pass.", flag_values=fv)
    from sr3_jax.config import CHOICES
    from sr3_jax.tasks.corruptions import CORRUPTIONS

    flags.DEFINE_enum("sampler", None, list(CHOICES["sample.sampler"]), "By default the checkpoint's own.", flag_values=fv)
    for name, corruption in CORRUPTIONS.items():
        flags.DEFINE_float(name, 0, f"{corruption.signal.title} of the input, to remove.", flag_values=fv)
    flags.DEFINE_boolean("uncertainty", False, "Also the mean of the samples, and how much they differ.", flag_values=fv)
    flags.DEFINE_boolean(
        "match_input",
        None,
        "Correct the result until, down-sampled, it is the input; default: the checkpoint's.",
        flag_values=fv,
    )
    sampling_flags(fv)


def serve(args: Arguments, _: list[str]) -> None:
    """A web page on this machine: upload an image, choose steps and seed, compare before and after, download (extra [serve]).

    Listens on this machine alone, unless --host says otherwise; there is no password. One image is made at a time. Images stay
    in memory: nothing is written to disk. Ctrl-C ends it.
    """
    for name, least in (("tile", 0), ("batch", 0), ("port", 0), ("megabytes", 1), ("megapixels", 1), ("waiting", 1)):
        between(args, name, least, {"port": 65535, "megapixels": 1000, "waiting": 1000}.get(name, 2**20))
    _use_device(args.device)
    try:
        from sr3_jax import web
        from sr3_jax.serve import app, jobs
    except ModuleNotFoundError as error:
        raise UserError(f"serve needs the package {error.name}: pip install 'sr3_jax[serve]'") from error
    from sr3_jax.checkpoints import load_checkpoint
    from sr3_jax.inference.upscaler import Upscaler

    with web.listen(args.host, args.port) as listener:  # what is taken fails before the network is loaded
        _start(args.device)
        checkpoint = load_checkpoint(args.checkpoint)
        checkpoint.config.model.dtype = args.precision or checkpoint.config.model.dtype
        upscaler = Upscaler(checkpoint, args.batch or None, args.tile or None)
        work = jobs.Jobs(upscaler, waiting=args.waiting, pixels=args.megapixels * 10**6)
        print(f"{web.url(listener)} serves {checkpoint.name}; Ctrl-C ends it", flush=True)
        web.run(app.make_app(upscaler, work, web.hosts(listener), args.megabytes), listener)
        work.close()


def _serve_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    _network_flags(fv)
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0: all of this machine's.", flag_values=fv)
    flags.DEFINE_integer("port", 8000, "Port; 0: any that is free.", flag_values=fv)
    flags.DEFINE_integer("megabytes", 32, "Largest file taken.", flag_values=fv)
    flags.DEFINE_integer("megapixels", 25, "Largest result made.", flag_values=fv)
    flags.DEFINE_integer("waiting", 8, "Images that may wait.", flag_values=fv)


def demo(args: Arguments, _: list[str]) -> None:
    """Shows the shipped networks at work: faces and photographs they have never seen, and an image of yours (--image).

    Needs the extras [faces,photos], which hold the images. Writes demo.png; of your image yours.png, four times larger, and
    compare.png, its middle beside bicubic.
    """
    from sr3_jax import parallel
    from sr3_jax.inference import demo

    image = Path(args.image) if args.image else None
    parallel.start()
    for path in demo.run(Path(args.output), image):
        print(path)


def _demo_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_string("output", "demo", "Folder to write, new or empty.", flag_values=fv)
    flags.DEFINE_string("image", None, "An image of yours.", flag_values=fv)


def _network_flags(fv: flags.FlagValues) -> None:
    flags.DEFINE_string("checkpoint", "photos-4x", "A workdir, exported file or shipped name.", flag_values=fv)
    flags.DEFINE_enum("device", None, ["cpu", "gpu", "tpu"], "By default the fastest there is.", flag_values=fv)
    flags.DEFINE_enum("precision", None, ["float32", "bfloat16"], "Of the network; default: as trained.", flag_values=fv)
    flags.DEFINE_integer(
        "tile",
        0,
        "Side of a tile of a large image, in pixels of the result; 0: by network, picture and memory.",
        flag_values=fv,
    )
    flags.DEFINE_integer("batch", 0, "Tiles or small images at a time; 0: by device.", flag_values=fv)


def _use_device(device: str | None) -> None:
    if device:
        import jax

        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(device, device))


def _start(device: str | None) -> None:
    """Joins the other processes, if there are any; raises UserError when there is no such device."""
    import jax

    from sr3_jax import parallel

    parallel.start()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # a platform that fails; one whose plugin is not installed
        if device is None:
            raise
        extra = {"gpu": " (it needs the extra [cuda])", "tpu": " (it needs the extra [tpu])"}.get(device, "")
        detail = f": {str(error).splitlines()[0]}" if str(error) else ""
        raise UserError(f"--device={device}: JAX finds none on this machine{extra}{detail}") from error


COMMANDS = {
    "upscale": Command(_upscale_flags, upscale, positional="IN…", needs=("output",)),
    "serve": Command(_serve_flags, serve),
    "demo": Command(_demo_flags, demo),
}
