"""`sr3 <command>`: parses flags, calls one function of a room, prints. Nothing else happens here.

Exit codes: 0 done (also --help), 1 our fault or a goal missed, 2 the user can mend it (one sentence, no traceback),
130 interrupted by Ctrl-C.

The first line of a command's docstring is its help.
"""

import contextlib
import inspect
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from absl import flags

from sr3_jax import startup
from sr3_jax.cli import devices, enlarging, learning, measuring, studying
from sr3_jax.cli.command import Command
from sr3_jax.cli.parsing import parse
from sr3_jax.errors import UserError

COMMANDS = enlarging.COMMANDS | learning.COMMANDS | measuring.COMMANDS | studying.COMMANDS | devices.COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    try:
        code = _main(argv)
    except (Exception, SystemExit):  # rich ends the program when nobody reads what it prints any more
        if not _one_of_many():
            raise
        with contextlib.suppress(OSError):
            traceback.print_exc()
        code = 1
    if code and str(code) != os.environ.get(learning.STOPPED_EXIT) and _one_of_many():
        # At a usual exit JAX waits for the other processes, which wait for this one. (When a signal stops one, all stop.)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    return code


def _one_of_many() -> bool:
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    warnings.filterwarnings("ignore", module="PIL")  # about files that it reads all the same, or that we name ourselves
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")  # Orbax, when a save fails; we tell why
    try:
        if not arguments or arguments[0] in ("--help", "-h", "help"):
            print(_overview())
            return 0
        if arguments[0] == "--version":
            from importlib.metadata import version

            print(version("sr3_jax"))
            return 0
        name, rest = arguments[0], arguments[1:]
        if name not in COMMANDS:
            raise UserError(f"no command {name!r}; there are {', '.join(COMMANDS)} (sr3 --help)")
        if {"--help", "-h", "--helpfull"} & set(rest):
            print(_help(name))
            return 0
        startup.prepare()
        fv, positional = parse(COMMANDS[name], name, rest)
        return COMMANDS[name].run(fv, positional) or 0
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


def _doc(command: Command) -> str:
    return inspect.getdoc(command.run) or ""


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {_doc(command).splitlines()[0]}" for name, command in COMMANDS.items()]
    return (
        "Super-resolution by diffusion (SR3).\n\nsr3 COMMAND [flags]\n\n"
        + "\n".join(lines)
        + "\n\nsr3 COMMAND --help tells more."
    )


def _help(name: str) -> str:
    command = COMMANDS[name]
    fv = flags.FlagValues()
    command.define(fv, [])
    usage = " ".join(["sr3", name, command.positional, *(f"--{flag}=…" for flag in command.needs), "[flags]"]).replace(
        "  ", " "
    )
    lines = [usage, "", _doc(command), ""]
    for flag in (fv[name] for name in sorted(fv)):
        default = "" if flag.default in (None, [], False) else f" (default {flag.default})"
        lines.append(f"  --{flag.name}: {flag.help}{default}")
    if "config" in fv:
        from sr3_jax import config

        lines += ["", "The config's fields, with the base's values:", ""]
        lines += [f"  {field.name} = {field.value}  # {field.meaning}" for field in config.fields()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
