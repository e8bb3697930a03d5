"""`sr3 COMMAND`: reads flags, calls one function of a room, prints. Nothing else happens here.

Exit codes: 0 done (also --help), 1 our fault or a goal missed, 2 the user can mend it (one
sentence, no traceback), 130 interrupted by Ctrl-C.

A command is a file of its own, NAME.py, whose click command is called `run`, and a line in
COMMANDS.
"""

import contextlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module

import rich_click as click
from click.exceptions import Exit
from click.shell_completion import shell_complete

import sr3_jax
from sr3_jax.cli.options import HELP
from sr3_jax.errors import UserError
from sr3_jax.runtime import console, startup

# Of the environment: the exit code of a training that a signal stopped
STOPPED_EXIT = "SR3_STOPPED_EXIT"
COMMANDS = {
    "upscale": "Enlarge images of any size.",
    "edit": "Colour, fill, extend or restore images of any size.",
    "generate": "Make images from noise, by one network or a cascade.",
    "serve": "A web page on this machine that enlarges images.",
    "demo": "Show the shipped networks at work.",
    "prepare": "Turn images into records that training reads fast.",
    "check-data": "Tell what is in a data set; write a contact sheet.",
    "params": "List a network's parameters.",
    "overfit": "Train on one small batch for a minute, as a first test.",
    "train": "Train a network, or resume a run.",
    "export": "Write a checkpoint's weights to one file.",
    "import": "Make a checkpoint of another project one of ours.",
    "show": "Show a checkpoint's step, config and data card.",
    "evaluate": "Measure checkpoints, or any method's images.",
    "statistics": "Compute the statistics that FID compares with.",
    "train-classifier": "Train a classifier for metrics of generated images.",
    "search": "Find the best noise levels for a number of evaluations.",
    "study": "Ask people which image is real.",
    "compile": "Estimate memory and time on a TPU slice that is not here.",
    "profile": "Trace training steps: where does the time go?",
}


class Commands(click.RichGroup):
    """Imports a command when it is asked for, so that `sr3 --help` is fast."""

    def list_commands(self, _: click.Context) -> list[str]:
        """The names of all commands, in the order of `sr3 --help`."""
        return list(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        """A stand-in of that name with its one-line help; None if there is no such command."""
        return click.RichCommand(name=name, help=COMMANDS[name]) if name in COMMANDS else None

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import the command that the first word names; raises UserError if there is none."""
        name, *rest = words
        if context.resilient_parsing and name not in COMMANDS:  # a shell completes it
            return None, None, words
        if name not in COMMANDS:
            raise UserError(f"no command {name!r}; there are {', '.join(COMMANDS)} (sr3 --help)")
        return name, import_module(f"sr3_jax.cli.{name.replace('-', '_')}").run, rest


@click.group(cls=Commands, **HELP)
@click.version_option(sr3_jax.__version__, message="%(version)s")
def sr3() -> None:
    """Super-resolution by diffusion (SR3). `sr3 COMMAND --help` tells more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    console.prepare()
    try:
        code = _main(list(sys.argv[1:] if argv is None else argv))
        if not code and (lost := console.lost()):
            print(f"sr3: {lost}", file=sys.stderr)
            code = 2
    except (
        Exception,
        SystemExit,
    ):  # rich ends the program when nobody reads what it prints any more
        if not _one_of_many():
            raise
        with contextlib.suppress(OSError):
            traceback.print_exc()
        code = 1
    if code and str(code) != os.environ.get(STOPPED_EXIT) and _one_of_many():
        # At a usual exit JAX waits for the other processes, which wait for this one. (When a signal
        # stops one, all stop.)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    return code


def _one_of_many() -> bool:
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def _main(words: list[str]) -> int:
    # About files that it reads all the same, or that we name ourselves
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    # Orbax, when a save fails; we tell why.
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")
    if not words or words[0] == "help":
        words = ["--help"]
    if words[0] in COMMANDS and not {"--help", "-h"} & set(words):
        startup.prepare()  # before a command imports JAX
    try:
        if "_SR3_COMPLETE" in os.environ:
            return shell_complete(sr3, {}, "sr3", "_SR3_COMPLETE", os.environ["_SR3_COMPLETE"])
        # Not sr3.main, which has exit codes and words of its own for pipes, Ctrl-C and the like
        with sr3.make_context("sr3", words) as context:
            return sr3.invoke(context) or 0
    except Exit as done:
        return done.exit_code
    except click.UsageError as error:
        print(f"sr3: {_sentence(error)}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"sr3: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `sr3 … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a file where a folder should be, no permission
        print(f"sr3: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sr3: interrupted", file=sys.stderr)
        return 130


def _sentence(error: click.UsageError) -> str:
    """Click's message, and where there is help."""
    path = error.ctx.command_path if error.ctx else "sr3"
    message = " ".join(error.format_message().split()).rstrip(".")
    message = f"{message[0].lower()}{message[1:]} ({path} --help)"
    return f"{path.removeprefix('sr3 ')}: {message}" if path != "sr3" else message


if __name__ == "__main__":
    sys.exit(main())
