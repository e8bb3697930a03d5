"""How fast it is, and on which device it fits: `sr3 compile`, `profile`."""

import json
from pathlib import Path

from absl import flags

from sr3_jax.cli.command import Arguments, Command, between, config_flag
from sr3_jax.errors import UserError


def compile_(args: Arguments, _: list[str]) -> int:
    """Compiles for a TPU slice that is not here: memory, time and utilisation, estimated by the TPU compiler.

    Runs on any machine with the extra [aot]. Exit code 1 if it does not fit; then it says what would make it fit.
    """
    from sr3_jax.config import validate
    from sr3_jax.profiling import chips

    if args.what not in ("train", "sample"):
        raise UserError(f"--what={args.what} can be train or sample")
    validate(args.config)
    chips.parse(args.topology)
    chips.prepare_environment()
    from sr3_jax.profiling import aot, report

    estimate, program = aot.estimate(args.config, args.topology, args.what)
    if args.json:
        print(json.dumps(estimate.to_dict(), indent=2))
        return 0 if estimate.fits else 1
    report.show(estimate)
    if program and args.operations:
        clock = chips.parse(args.topology)[0].clock
        print("the most expensive operations, estimated by the compiler:")
        for name, cycles in program.by_operation()[: args.operations]:
            print(f"{1000 * cycles / clock:9.3f} ms  {name}")
    return 0 if estimate.fits else 1


def _compile_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    config_flag(fv, argv)
    flags.DEFINE_string("topology", None, "Chip and layout of the slice: v5e:4x8, v6e:16x16, v4:2x2x4.", flag_values=fv)
    flags.DEFINE_string("what", "train", "train: a training step; sample: a batch of sr3 upscale, on one host.", flag_values=fv)
    flags.DEFINE_boolean("json", False, "Print all numbers as JSON instead.", flag_values=fv)
    flags.DEFINE_integer("operations", 0, "Also list this many of the most expensive operations.", flag_values=fv)


def profile(args: Arguments, _: list[str]) -> None:
    """Traces a few training steps: a table of where the time goes, and a trace to look at.

    Below DIR/plugins/profile: perfetto_trace.json.gz for ui.perfetto.dev, and what TensorBoard's profiler plugin reads
    (tensorboard --logdir=DIR); of several processes, each has a folder of its own in DIR. Trains from scratch on the config's
    data; keeps nothing else.
    """
    from sr3_jax import parallel
    from sr3_jax.config import validate

    between(args, "steps", 1, 100)
    between(args, "operations", 0)
    if "://" in args.output:
        raise UserError(f"--output={args.output} must be a folder of this machine: the profiler writes nowhere else")
    validate(args.config)
    parallel.start(args.config)
    from sr3_jax.profiling import report, trace

    found = trace.profile(args.config, Path(args.output), args.steps)
    if not parallel.is_main():
        return
    if args.json:
        print(json.dumps(found.to_dict(), indent=2))
        return
    report.show_profile(found, args.operations)
    print(found.trace)


def _profile_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    config_flag(fv, argv)
    flags.DEFINE_string("output", "profile", "The folder for the trace.", flag_values=fv)
    flags.DEFINE_integer("steps", 5, "Training steps to trace, after two to warm up.", flag_values=fv)
    flags.DEFINE_integer("operations", 10, "List this many of the longest operations.", flag_values=fv)
    flags.DEFINE_boolean("json", False, "Print all numbers as JSON instead.", flag_values=fv)


COMMANDS = {
    "compile": Command(_compile_flags, compile_, needs=("config", "topology")),
    "profile": Command(_profile_flags, profile, needs=("config",)),
}
