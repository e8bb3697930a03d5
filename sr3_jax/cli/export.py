"""`sr3 export`."""

from dataclasses import replace

from sr3_jax.cli.options import (
    Arguments,
    CheckpointName,
    Choice,
    Whole,
    command,
    option,
    output,
    overwrite,
)
from sr3_jax.errors import UserError


@command("export")
@option(
    "--checkpoint",
    type=CheckpointName(),
    required=True,
    help="A workdir, a step of it, or another export.",
)
@output("The .safetensors file; .zip or .onnx with --format.", required=True)
@overwrite()
@option(
    "--dtype",
    type=Choice(["float32", "bfloat16", "int8"]),
    default="float32",
    show_default=True,
    help="bfloat16 for half the size, int8 for a quarter.",
)
@option(
    "--predictor",
    is_flag=True,
    help="Of model.kind='refine': only the predictor, which is a regression.",
)
@option(
    "--format",
    type=Choice(["safetensors", "stablehlo", "onnx"]),
    default="safetensors",
    show_default=True,
    help="Programs with the weights inside: stablehlo for JAX alone, onnx (docs/format.md).",
)
@option("--steps", type=Whole(1), help="Evaluations of a program. By default the network's own.")
@option("--size", type=Whole(1), help="onnx: side of the small images. By default as in training.")
@option("--data-card", metavar="FILE", help="A Markdown file that says what it was trained on.")
def run(args: Arguments) -> None:
    """Write a checkpoint's EMA weights, config and data card to one .safetensors file.

    The file is for sharing and for --checkpoint.

    The data card, Markdown, says what the network was trained on: without --data-card the one that
    an export has already, or DATA.md in the folder of the training data. `sr3 show` prints it.
    """
    from sr3_jax.checkpoints import exported, names
    from sr3_jax.data import cards
    from sr3_jax.runtime import atomic, paths

    target = paths.parse(args.output)
    suffix = {"safetensors": ".safetensors", "stablehlo": ".zip", "onnx": ".onnx"}[args.format]
    if target.suffix != suffix:
        raise UserError(f"--output={target} must end in {suffix} with --format={args.format}")
    if args.steps and args.format == "safetensors":
        raise UserError("--steps is for --format=stablehlo and onnx")
    if args.size and args.format != "onnx":
        raise UserError("--size is for --format=onnx")
    if target.exists() and not args.overwrite:
        raise UserError(f"{target} exists; give --overwrite to replace it")
    given = cards.read_card(paths.parse(args.data_card)) if args.data_card else ""
    checkpoint = names.load_checkpoint(args.checkpoint)
    checkpoint = checkpoint.predictor if args.predictor else checkpoint
    if args.format != "safetensors":
        from sr3_jax.inference import portable

        if args.format == "onnx":
            program = portable.onnx(checkpoint, args.steps, args.size)
        else:
            program = portable.stablehlo(checkpoint, args.steps)
        with atomic.disk_errors(target), atomic.replacing(target) as temporary:
            temporary.write_bytes(program)
        print(target)
        return
    card = given or checkpoint.data_card or cards.data_card(checkpoint.config)
    exported.export(replace(checkpoint, data_card=card), target, dtype=args.dtype)
    print(target)
