"""`sr3 compile`."""

from sr3_jax.cli.configs import ConfigCommand, config_options
from sr3_jax.cli.options import Arguments, Choice, Whole, as_json, command, option, print_json


@command("compile", ConfigCommand)
@config_options
@option(
    "--topology",
    required=True,
    metavar="CHIP:LAYOUT",
    help="Chip and layout of the slice: v5e:4x8, v6e:16x16, v4:2x2x4.",
)
@option(
    "--what",
    type=Choice(["train", "sample"]),
    default="train",
    show_default=True,
    help="A training step; or a batch of sr3 upscale, on one host.",
)
@option(
    "--operations",
    type=Whole(),
    default=0,
    help="Also list this many of the most expensive operations.",
)
@as_json()
def run(args: Arguments) -> int:
    """Compile for a TPU slice that is not here.

    Prints memory, time and utilisation, estimated by the TPU compiler.

    Runs on any machine with the extra [aot]. Exit code 1 if it does not fit; then it says what
    would make it fit.
    """
    from sr3_jax.config import validate
    from sr3_jax.profiling import chips

    validate(args.config)
    chip, _ = chips.parse(args.topology)
    chips.prepare_environment()
    from sr3_jax.profiling import aot, report

    estimate, program = aot.estimate(args.config, args.topology, args.what)
    if args.json:
        print_json(estimate.to_dict())
    else:
        report.show(estimate)
        if program and args.operations:
            print("the most expensive operations, estimated by the compiler:")
            for name, cycles in program.by_operation()[: args.operations]:
                print(f"{1000 * cycles / chip.clock:9.3f} ms  {name}")
    return 0 if estimate.fits else 1
