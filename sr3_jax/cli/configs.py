"""--config=FILE --config.FIELD=VALUE, as users of ml_collections know it.

What is wrong with them is told in one sentence.

Click does not see these words: their names are the config's fields, which only the file knows.
"""

import difflib
import re
import traceback
from collections import deque
from pathlib import Path
from typing import Any

import rich_click as click
from absl import flags

from sr3_jax.cli.options import Command, option, together
from sr3_jax.errors import UserError

KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "tuple": "a list"}


class ConfigCommand(Command):
    """A command with a config, which its function finds as `config`."""

    def parse_args(self, context: click.Context, words: list[str]) -> list[str]:
        """Take the words about the config out, load it, and leave the others to click."""
        words, given = split(words)
        rest = super().parse_args(context, words)
        if not context.resilient_parsing:
            context.params["config"] = load(given, context.command_path)
        return rest


def _show_fields(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from sr3_jax import config

        for field in config.fields():
            print(f"{field.name} = {field.value}  # {field.meaning}")
        context.exit()


# What the help says of them, and --fields
config_options = together(
    option("--config", "file_", metavar="FILE", expose_value=False, panel="Config",
           help="A config file, such as configs/orl_16_64.py; or the exported network, or the "
                "workdir's config.json, whose config it is. [required]"),
    option("--config.FIELD", "field_", metavar="VALUE", expose_value=False, panel="Config",
           help="Change any field of the config."),
    option("--fields", is_flag=True, is_eager=True, expose_value=False, callback=_show_fields,
           panel="Config", help="List the config's fields, with the base's values, and exit."),
)  # fmt: skip


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """Other words, and those about the config: the file first, each as --NAME=VALUE."""
    rest: list[str] = []
    file: list[str] = []
    fields: list[str] = []
    left = deque(words)
    while left:
        word = left.popleft()
        name, equals, value = word.partition("=")
        if word == "--":
            rest += [word, *left]
            break
        if not (name == "--config" or name.startswith(("--config.", "--noconfig."))):
            rest.append(word)
            continue
        if not equals and left and re.match(r"[^-]|-[\d.]", left[0]):  # --config.FIELD VALUE
            equals, value = "=", left.popleft()
        if name == "--config":
            file = [f"--config={value}"]
        else:
            fields.append(f"{name}{equals}{value}")
    return rest, file + fields


def load(given: list[str], command: str) -> Any:
    """The config of such words; raises UserError."""
    if not given or not given[0].startswith("--config="):
        before = " before it can change a field" if given else ""
        raise UserError(
            f"{command.removeprefix('sr3 ')} needs --config=FILE{before} ({command} --help)"
        )
    # grain and clu look at absl's global flags, which must have been parsed; ours are our own.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["sr3"])
    kept = _of_checkpoint(given[0].removeprefix("--config="))
    config = _load_file(given[0]) if kept is None else kept
    _check_overrides(config, given[1:])
    try:
        return _parsed(given if kept is None else given[1:], kept)
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(_explain(error, config, command)) from error


def _parsed(words: list[str], config: Any = None) -> Any:
    """The config of --config=FILE and overrides, or of overrides of a config that is given."""
    from ml_collections.config_flags import config_flags

    found, argv = flags.FlagValues(), ["sr3", *words]
    if config is None:
        config_flags.DEFINE_config_file("config", None, flag_values=found, sys_argv=argv)
    else:
        config_flags.DEFINE_config_dict("config", config, flag_values=found, sys_argv=argv)
    found(argv)
    return found.config


def _of_checkpoint(path: str) -> Any:
    """The config in an exported file, or in a workdir's config.json; None of any other file."""
    from sr3_jax.checkpoints import exported, workdir

    readers = {".safetensors": exported.read_config, ".json": workdir.read_config}
    file = Path(path)
    reader = readers.get(file.suffix)
    return None if reader is None or not file.is_file() else reader(file)


def _load_file(word: str) -> Any:
    """The config of --config=FILE alone.

    Whatever goes wrong in the user's file is told in one sentence.
    """
    from ml_collections import ConfigDict

    from sr3_jax.config import base, flatten

    path = word.removeprefix("--config=")
    if not Path(path.partition(":")[0]).is_file():
        raise UserError(f"--config={path}: no such file")
    try:
        config = _parsed([word])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:  # it is a program: anything can happen in it
        raise UserError(f"{path}{_sentence(error, Path(path).name)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"{path}: get_config() returned {config!r:.50}; "
            "it must return sr3_jax.config.base(), with changes"
        )
    missing = flatten(base()).keys() - flatten(config).keys()
    if missing:
        raise UserError(
            f"{path}: the config has no field {min(missing)}; start from sr3_jax.config.base()"
        )
    return config


def _sentence(error: BaseException, file: str) -> str:
    """Where in `file` the error is, and what it is, in one line.

    Without the traceback that ml_collections quotes, and without its list of fields.
    """
    text = str(error).strip()
    quoted = "Traceback (most recent call last)" in text
    where = text if quoted else "".join(traceback.format_tb(error.__traceback__))
    lines = re.findall(rf'{re.escape(file)}", line (\d+)', where)
    what = text.splitlines()[-1] if quoted else f"{type(error).__name__}: {text}"
    what = re.sub(r"Other fields present: .*?(?=Did you mean|$)", "", what, flags=re.DOTALL)
    return (f" (line {lines[-1]}): " if lines else ": ") + " ".join(what.split())[:300]


def _explain(error: Exception, config: Any, command: str) -> str:
    """Absl's message, with the type that the field wants."""
    from sr3_jax.config import get

    text = " ".join(str(error).split())
    field = re.match(r"flag --config\.([\w.]+)=(.*?): ", text)
    if not field:
        return f"{text} ({command} --help)"
    default = get(config, field[1])
    kind = KINDS.get(type(default).__name__, "a text")
    return f"--config.{field[1]}={field[2]} must be {kind}, such as {default!r}"


def _check_overrides(config: Any, words: list[str]) -> None:
    """Raises UserError for an unknown field, with the nearest known ones."""
    from sr3_jax.config import RENAMED, flatten

    known = list(flatten(config))
    for word in words:
        field = word.lstrip("-").partition("=")[0].partition(".")[2]
        if field in known:
            continue
        if field in RENAMED:
            raise UserError(f"--config.{field} is now called --config.{RENAMED[field]}")
        near = (
            difflib.get_close_matches(field, known, 3, 0.5)
            or [f for f in known if field.split(".")[-1] in f][:3]
        )
        hint = (
            f"; did you mean {' or '.join(near)}?"
            if near
            else "; there are data.hr_size, model.channels, train.steps and others: "
            "sr3 train --fields lists them"
        )
        raise UserError(f"--config.{field}: the config has no such field{hint}")
