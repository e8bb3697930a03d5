"""How commands declare their flags, and those that several of them share."""

import functools
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import rich_click as click

from sr3_jax import weights
from sr3_jax.errors import UserError

Arguments = Any  # the flags and arguments of a command, as attributes
LARGEST = 2**31 - 1
HELP: dict[str, Any] = {
    "context_settings": {
        "help_option_names": ["-h", "--help"],
        # --match_input is --match-input
        "token_normalize_func": lambda name: name.replace("_", "-"),
        "rich_help_config": click.RichHelpConfiguration(
            max_width=100,
            style_options_panel_box="SIMPLE",
            style_commands_panel_box="SIMPLE",
            commands_panel_title="Commands",
            options_panel_title="Help",
            options_table_column_types=["required", "opt_long", "opt_short", "metavar", "help"],
        ),
    }
}

# Metavars of paths, which a shell completes
PATHS = ("PATH", "DIR", "FILE", "FILE…", "IN…", "STUDY", "FOLDER", "SOURCE")


class UserPath(click.Path):
    """A path, in which ~ is the home folder: shells leave it as it is in --flag=~/file."""

    def convert(self, value: Any, param: click.Parameter | None, context: Any) -> Any:
        """The path as text; a slash at its end stays."""
        return super().convert(os.path.expanduser(value), param, context)  # noqa: PTH111


class Choice(click.Choice):
    """One of some words, shown as they are."""

    def get_metavar(self, *_: Any, **__: Any) -> str:
        """The words, as click shows them, but for its normalisation."""
        return f"[{'|'.join(map(str, self.choices))}]"


def argument(name: str, metavar: str, **how: Any) -> Any:
    """An argument; of a path if that is what it is called."""
    how.setdefault("type", UserPath() if metavar in PATHS else str)
    return click.argument(name, metavar=metavar, **how)


def option(*names: str, panel: str | None = None, **how: Any) -> Any:
    """A flag; without a panel of its own it stands in the first one of the help."""
    if how.get("metavar") in PATHS:
        how.setdefault("type", UserPath())
    return click.option(*names, panel=panel or "Options", **how)


def together(*flags: Callable) -> Callable:
    """One decorator for several flags, in the order in which the help shows them."""

    def decorate(run: Callable) -> Callable:
        for flag in reversed(flags):
            run = flag(run)
        return run

    return decorate


class Command(click.RichCommand):
    """A command whose help is shown whatever else stands on the line."""

    def parse_args(self, context: click.Context, words: list[str]) -> list[str]:
        """As click does it, but of --help alone if that is among the words.

        Raises:
          UserError: A flag that is required was given without a value.
        """
        before = words[: words.index("--")] if "--" in words else words
        try:
            rest = super().parse_args(
                context, ["--help"] if {"-h", "--help"} & {*before} else words
            )
        except click.UsageError as error:
            error.ctx = error.ctx or context
            raise
        for param in self.get_params(context):
            if param.required and context.params.get(param.name or "") in ("", ("",)):
                raise UserError(f"{param.opts[0]}= is empty ({context.command_path} --help)")
        return rest


def command(
    name: str, cls: type[click.Command] = Command
) -> Callable[[Callable[[Arguments], int | None]], click.Command]:
    """A command of one function.

    The function takes all flags and arguments as the attributes of one object.
    """

    def decorate(run: Callable[[Arguments], int | None]) -> click.Command:
        @functools.wraps(run)
        def call(**given: Any) -> int | None:
            return run(SimpleNamespace(**given))

        return click.command(name, cls=cls, **HELP)(call)

    return decorate


class Number(click.ParamType):
    """A number between two bounds, both allowed."""

    name = "X"

    def __init__(
        self, least: float | int = 0, most: float | int = float("inf"), number: type = float
    ):
        self.least, self.most, self.number = least, most, number

    def convert(self, value: Any, param: click.Parameter | None, _: click.Context | None) -> Any:
        """The number that the user gave; raises UserError for anything else."""
        flag = param.opts[0] if param else "the value"
        try:
            found = self.number(value)
        except ValueError as error:
            kind = "a whole number" if self.number is int else "a number"
            raise UserError(f"{flag}={value} must be {kind}") from error
        if not self.least <= found <= self.most:
            bounds = (
                f"between {self.least} and {self.most}"
                if self.most < float("inf")
                else f"at or above {self.least}"
            )
            raise UserError(f"{flag}={value} must lie {bounds}")
        return found


class Whole(Number):
    """A whole number between two bounds, both allowed."""

    name = "N"

    def __init__(self, least: int = 0, most: int = LARGEST):
        super().__init__(least, most, int)


class Numbers(click.ParamType):
    """Numbers with commas between them; an empty text is none."""

    name = "X,X…"

    def __init__(self, number: type, least: float | int = -float("inf")):
        self.one = Number(least, number=number)
        self.name = "N,N…" if number is int else "X,X…"

    def convert(self, value: Any, param: click.Parameter | None, _: click.Context | None) -> Any:
        """The numbers; raises UserError for anything else."""
        words = [word for word in str(value).split(",") if word.strip()]
        return [self.one.convert(word.strip(), param, None) for word in words]


class ShardOf(click.ParamType):
    """Part I of N, as a runtime.parallel.Shard."""

    name = "I/N"

    def convert(self, value: Any, _: click.Parameter | None, __: click.Context | None) -> Any:
        """The shard, counted from 0; raises UserError unless the value is I/N, I from 1 to N."""
        from sr3_jax.runtime.parallel import Shard

        found = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", value)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(
                f"--shard={value} must be I/N, two whole numbers with I from 1 to N, such as 1/16"
            )
        return Shard(int(found[1]) - 1, int(found[2]))


class CheckpointName(click.ParamType):
    """A workdir, a step of one, an exported file, or the name of shipped weights.

    A shell completes the names of shipped weights.
    """

    name = "checkpoint"

    def shell_complete(self, _: click.Context, __: click.Parameter, begun: str) -> list[Any]:
        """The shipped weights whose names begin like this; files if there are none."""
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name) for name in weights.shipped() if name.startswith(begun)]
        return names or [CompletionItem(begun, type="file")]


def output(help: str, required: bool = False, **default: str) -> Any:
    """-o, --output; with a `default`, or without."""
    # a default of None would count as one
    shown: dict[str, Any] = {"show_default": True, **default} if default else {}
    return option("--output", "-o", metavar="PATH", help=help, required=required, **shown)


def overwrite() -> Any:
    """--overwrite."""
    return option("--overwrite", is_flag=True, help="Replace files that exist.")


def quiet() -> Any:
    """-q, --quiet."""
    return option(
        "--quiet",
        "-q",
        is_flag=True,
        help="Show no progress and no notes.",
        panel="Scripts",
    )


def as_json(help: str = "Print the results as JSON.") -> Any:
    """--json."""
    return option("--json", is_flag=True, help=help, panel="Scripts")


def seed(panel: str | None = None, help: str = "The same seed gives the same pictures.") -> Any:
    """--seed."""
    return option("--seed", type=Whole(), default=0, show_default=True, panel=panel, help=help)


def shard() -> Any:
    """--shard; None if it is not given."""
    return option(
        "--shard",
        type=ShardOf(),
        panel="Scripts",
        help="Do part I of N, for machines that share the output folder.",
    )


# Of a page that this machine serves
server = together(
    option(
        "--host",
        default="127.0.0.1",
        show_default=True,
        metavar="ADDRESS",
        panel="Server",
        help="Address to listen on; 0.0.0.0: all of this machine's.",
    ),
    option(
        "--port",
        type=Whole(0, 65535),
        default=8000,
        show_default=True,
        panel="Server",
        help="0: any that is free.",
    ),
    option(
        "--url",
        metavar="URL",
        panel="Server",
        help="The address that users see, if it is another: of a proxy, or a name.",
    ),
)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2))


@contextmanager
def progress(
    title: str, quiet: bool = False
) -> Iterator[tuple[Callable[..., object], Callable[[int], object]]]:
    """A progress bar on the main process's terminal.

    Yields two functions: one sets its total and how much is done already, the other advances it.
    """
    import jax
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from sr3_jax.runtime import parallel

    # Whether there are others is known without starting JAX's devices, which not all commands need.
    hidden = quiet or (jax.distributed.is_initialized() and not parallel.is_main())
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=hidden,
    ) as bars:
        task = bars.add_task(title, total=None)

        def start(total: int, before: int = 0) -> None:
            bars.update(task, total=total, completed=before)

        yield start, lambda count: bars.advance(task, count)
