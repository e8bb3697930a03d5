"""`sr3 train`."""

import functools
import os

from sr3_jax.cli import STOPPED_EXIT
from sr3_jax.cli.configs import ConfigCommand, config_options
from sr3_jax.cli.options import Arguments, command, option
from sr3_jax.errors import UserError
from sr3_jax.runtime import startup


@command("train", ConfigCommand)
@config_options
@option(
    "--workdir",
    metavar="DIR",
    required=True,
    help="Where the run lives; an existing one is resumed.",
)
@option(
    "--teacher",
    metavar="CHECKPOINT",
    help="Distill from this checkpoint, by DDIM: objective=distill.",
)
def run(args: Arguments) -> int:
    """Train a network, or resume the run in --workdir.

    The workdir gets config.json, checkpoints/, stats.jsonl, samples/ and, where TensorBoard is
    installed, tensorboard/. SIGTERM or Ctrl-C saves first; the same command goes on from there. The
    exit code then is 0, or SR3_STOPPED_EXIT of the environment. With --teacher it distills: the
    network learns to do in sample.steps evaluations what the teacher does in train.teacher_steps
    times as many.
    """
    from sr3_jax.config import validate
    from sr3_jax.evaluation import held_out
    from sr3_jax.metrics import lpips
    from sr3_jax.runtime import parallel, paths
    from sr3_jax.training import run as runs

    if args.teacher:
        args.config.update_from_flattened_dict(
            {
                "objective": "distill",
                "train.teacher": args.teacher,
                "sample.sampler": "ddim",
                "sample.eta": 0.0,
            }
        )
    validate(args.config)
    stopped = _stopped_exit()
    parallel.start(args.config)
    workdir = paths.parse(args.workdir)
    startup.share_programs(workdir)
    parallel.make_mesh(args.config)  # what does not fit fails before the data are read
    vgg = functools.partial(lpips.load, "vgg")
    state = runs.train(args.config, workdir, held_out.during_training(args.config), vgg)
    return stopped if int(state.step) < args.config.train.steps else 0


def _stopped_exit() -> int:
    """The exit code of a training that a signal stopped.

    Its launcher may have to tell that from a finished one.
    """
    value = os.environ.get(STOPPED_EXIT, "0")
    if value != "0" and not (value.isdecimal() and 3 <= int(value) <= 125):
        raise UserError(f"{STOPPED_EXIT}={value} must be 0, or a whole number between 3 and 125")
    return int(value)
