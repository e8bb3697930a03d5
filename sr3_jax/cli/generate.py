"""`sr3 generate`."""

from sr3_jax.cli import devices
from sr3_jax.cli.options import (
    Arguments,
    CheckpointName,
    Choice,
    Numbers,
    Whole,
    as_json,
    command,
    option,
    output,
    print_json,
    progress,
    quiet,
    seed,
    shard,
)
from sr3_jax.config import CHOICES
from sr3_jax.errors import UserError


@command("generate")
@option(
    "--stage",
    type=CheckpointName(),
    multiple=True,
    required=True,
    panel="Networks",
    help="A workdir, an exported file or a shipped name; again for each further stage.",
)
@option(
    "--steps",
    type=Numbers(int, 0),
    default="",
    panel="Networks",
    help="Network evaluations, of all stages or of each: 256,100,40. "
    "0: the checkpoint's own number.",
)
@option(
    "--sampler",
    type=Choice(list(CHOICES["sample.sampler"])),
    panel="Networks",
    help="By default each checkpoint's own.",
)
@option(
    "--augment",
    type=Numbers(float, 0),
    default="",
    panel="Networks",
    help="Noise in the input of the stages after the first (8-bit levels), of all or of each: "
    "10,5. More hides more of what the stage before got wrong.",
)
@option(
    "--truncated",
    is_flag=True,
    panel="Networks",
    help="With --augment: each stage ends early and leaves that noise, instead of adding it after.",
)
@option(
    "--count",
    type=Whole(1),
    default=16,
    show_default=True,
    panel="What it makes",
    help="How many images.",
)
@option(
    "--classes",
    default="all",
    show_default=True,
    metavar="all|balanced|N,N…",
    panel="What it makes",
    help="all: drawn at random; balanced: all in turn; or some, by number or name, in turn.",
)
@option(
    "--guidance",
    type=Numbers(float, 0),
    default="",
    panel="What it makes",
    help="Classifier-free guidance, of all stages or of each: 1 is none; above 1 images are more "
    "typical of their class and less diverse.",
)
@option(
    "--guidance-interval",
    type=Numbers(float),
    default="",
    metavar="LOW,HIGH",
    panel="What it makes",
    help="Guide only between these two log-SNRs.",
)
@seed("What it makes")
@option(
    "--keep-stages",
    is_flag=True,
    panel="What it makes",
    help="Also write the images of the stages before the last one.",
)
@output("The folder for the images.", required=True)
@devices.machine
@quiet()
@shard()
@as_json("Print a summary as JSON.")
def run(args: Arguments) -> None:
    """Make images from noise, by one network or by a cascade of several.

    \b
      sr3 generate --stage=fashion-14 --stage=fashion-14-28 --count=60 -o fashion

    The first stage makes images from noise, or of a class; each further stage enlarges them. The
    output gets images/CLASS/NUMBER.png, sheet.png with some of them at a glance, and manifest.json,
    which says how they were made; sr3 evaluate --protocol=table4 --images=NAME=DIR reads it.

    Image n depends on the seed and on n alone. So a run that was stopped goes on with the same
    command, a larger --count adds images to a run, and many machines can share one: --shard=I/N.
    """  # noqa: D301 (click's mark is the character, not the escape)
    if args.guidance_interval and len(args.guidance_interval) != 2:
        raise UserError("--guidance-interval needs two log-SNRs, the lower one first: -1,3")
    devices.choose(args.device)
    checkpoints = devices.load_stages(args)
    from sr3_jax.inference.generated import Run, generate
    from sr3_jax.inference.generator import Drawing, Generator
    from sr3_jax.runtime import paths
    from sr3_jax.runtime.parallel import Shard

    generator = Generator(checkpoints, args.batch or None)
    drawing = Drawing(
        tuple(args.steps),
        tuple(args.guidance),
        tuple(args.guidance_interval) or None,
        tuple(args.augment),
        args.truncated,
        args.sampler,
        args.seed,
    )
    target = paths.parse(args.output)
    task = Run(target, args.count, args.classes, drawing, args.keep_stages)
    with progress("generating", args.quiet) as (on_start, on_images):
        made = generate(generator, task, args.shard or Shard(), on_start, on_images)
    if args.json:
        print_json({"output": str(target), "count": args.count, "made": made})
        return
    print(target / "images")
    if (target / "sheet.png").exists():
        print(target / "sheet.png")
