"""`sr3 profile`."""

from pathlib import Path

from sr3_jax.cli.configs import ConfigCommand, config_options
from sr3_jax.cli.options import Arguments, Whole, as_json, command, option, output, print_json
from sr3_jax.errors import UserError


@command("profile", ConfigCommand)
@config_options
@output("The folder for the trace.", default="profile")
@option(
    "--steps",
    type=Whole(1, 100),
    default=5,
    show_default=True,
    help="Training steps to trace, after two to warm up.",
)
@option(
    "--operations",
    type=Whole(),
    default=10,
    show_default=True,
    help="List this many of the longest operations.",
)
@as_json()
def run(args: Arguments) -> None:
    """Trace a few training steps: a table of where the time goes, and a trace to look at.

    Below DIR/plugins/profile: perfetto_trace.json.gz for ui.perfetto.dev, and what TensorBoard's
    profiler plugin reads (tensorboard --logdir=DIR); of several processes, each has a folder of its
    own in DIR. Trains from scratch on the config's data; keeps nothing else.
    """
    from sr3_jax.config import validate
    from sr3_jax.runtime import parallel

    if "://" in args.output:
        raise UserError(
            f"--output={args.output} must be a folder of this machine: "
            "the profiler writes nowhere else"
        )
    validate(args.config)
    parallel.start(args.config)
    from sr3_jax.profiling import report, trace

    found = trace.profile(args.config, Path(args.output), args.steps)
    if not parallel.is_main():
        return
    if args.json:
        print_json(found.to_dict())
    else:
        report.show_profile(found, args.operations)
        print(found.trace)
