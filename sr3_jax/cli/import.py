"""`sr3 import`."""

from sr3_jax.cli.options import Arguments, Choice, argument, command, option, output, overwrite
from sr3_jax.errors import UserError

NETWORK = "What the weights do not tell"


@command("import")
@argument("file", metavar="FILE")
@option(
    "--from",
    "project",
    type=Choice(["janspiry", "guided-diffusion"]),
    required=True,
    help="Whose file it is.",
)
@output("The .safetensors file.", required=True)
@overwrite()
@option(
    "--dtype",
    type=Choice(["float32", "bfloat16", "int8"]),
    default="float32",
    show_default=True,
    help="bfloat16 for half the size, int8 for a quarter.",
)
@option(
    "--json",
    metavar="FILE",
    panel=NETWORK,
    help="The project's configuration or flags, instead of the flags below.",
)
@option("--hr-size", type=int, metavar="N", panel=NETWORK, help="Side of the images it makes.")
@option("--lr-size", type=int, metavar="N", panel=NETWORK, help="Side of those it enlarges.")
@option("--groups", type=int, metavar="N", panel=NETWORK, help="janspiry: norm_groups, mostly 32.")
@option("--heads", type=int, metavar="N", panel=NETWORK, help="guided-diffusion: num_heads.")
@option(
    "--head-channels",
    type=int,
    metavar="N",
    panel=NETWORK,
    help="guided-diffusion: num_head_channels.",
)
@option(
    "--attention-order",
    type=Choice(["legacy", "new"]),
    panel=NETWORK,
    help="guided-diffusion: use_new_attention_order.",
)
@option(
    "--noise-schedule",
    "noise",
    type=Choice(["linear", "cosine"]),
    panel=NETWORK,
    help="guided-diffusion: noise_schedule.",
)
@option("--steps", type=int, metavar="N", panel=NETWORK, help="guided-diffusion: diffusion_steps.")
def run(args: Arguments) -> None:
    """Make a checkpoint of ours of another project's: FILE, as PyTorch saved it.

    PyTorch is not needed, and nothing in FILE is executed. Afterwards `sr3 upscale`, `generate`,
    `evaluate` and `train` take it like any other. The public files of guided-diffusion are known by
    their names.
    """
    from sr3_jax.checkpoints import exported, torch_files
    from sr3_jax.checkpoints.foreign import FORMATS
    from sr3_jax.runtime import paths

    source, target = paths.parse(args.file), paths.parse(args.output)
    if target.suffix != ".safetensors":
        raise UserError(f"--output={target} must end in .safetensors")
    if target.exists() and not args.overwrite:
        raise UserError(f"{target} exists; give --overwrite to replace it")
    names = ("hr_size", "lr_size", "groups", "heads", "head_channels", "attention_order", "noise")
    said = {name: getattr(args, name) for name in (*names, "steps")}
    for name, value in said.items():
        if isinstance(value, int) and value < 1:
            raise UserError(f"--{name.replace('_', '-')}={value} must be at least 1")
    if args.json:
        try:
            said["json"] = paths.parse(args.json).read_text()
        except (OSError, ValueError) as error:
            detail = getattr(error, "strerror", None) or error
            raise UserError(f"--json={args.json} cannot be read: {detail}") from error
    with paths.local_copy(source) as local:
        weights = torch_files.load(local)
        checkpoint = FORMATS[args.project](weights, str(source), said, target.name)
        del weights  # the checkpoint has what it needs
        exported.export(checkpoint, target, dtype=args.dtype)
    print(target)
