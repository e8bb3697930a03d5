"""Flags and configs from the command line; whatever is wrong with them in one sentence."""

import difflib
import re
import traceback
from pathlib import Path
from typing import Any

from absl import flags

from sr3_jax.cli.command import Command, config_flag
from sr3_jax.errors import UserError


def parse(command: Command, name: str, rest: list[str]) -> tuple[flags.FlagValues, list[str]]:
    # grain and clu look at absl's global flags, which must have been parsed; ours are our own.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["sr3"])
    rest = _config_first([_underscored(argument) for argument in rest])
    fv = flags.FlagValues()
    command.define(fv, rest)
    if "config" in fv and rest and rest[0].startswith("--config="):
        _check_overrides(_load_config(rest[0]), rest[1:])
    elif "config" in fv and any(argument.lstrip("-").startswith("config.") for argument in rest):
        raise UserError(f"{name} needs --config=FILE before it can change a field (sr3 {name} --help)")
    try:
        positional = fv(["sr3", *rest])[1:]
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(_explain(error, fv, name)) from error
    missing = [flag for flag in command.needs if not fv[flag].value]
    if missing:
        raise UserError(f"{name} needs --{missing[0]}=… (sr3 {name} --help)")
    if positional and not command.positional:
        raise UserError(f"{name} takes flags only, not {positional[0]!r} (sr3 {name} --help)")
    if command.positional and not positional:
        raise UserError(f"{name} needs {command.positional} (sr3 {name} --help)")
    return fv, positional


def _underscored(argument: str) -> str:
    """--match-input=… as --match_input=…, --no-match-input as --nomatch_input; the rest as it is."""
    flag, separator, value = argument.partition("=")
    if not flag.startswith("--") or flag.startswith(("--config.", "--noconfig.")):
        return argument
    name = f"no{flag[5:]}" if flag.startswith("--no-") else flag[2:]
    return f"--{name.replace('-', '_')}{separator}{value}"


def _explain(error: Exception, fv: flags.FlagValues, command: str) -> str:
    """absl's message about a flag, with the type that a config field wants."""
    text = " ".join(str(error).split())
    field = re.match(r"flag --config\.([\w.]+)=(.*?): ", text)
    if field and "config" in fv and fv["config"].value is not None:
        from sr3_jax.config import get

        kind = {"int": "a whole number", "float": "a number", "bool": "true or false", "tuple": "a list"}
        default = get(fv["config"].value, field[1])
        return f"--config.{field[1]}={field[2]} must be {kind.get(type(default).__name__, 'a text')}, such as {default!r}"
    return f"{text} (sr3 {command} --help)"


def _config_first(rest: list[str]) -> list[str]:
    """ml_collections wants --config=FILE before --config.FIELD=VALUE; the user need not."""
    out = list(rest)
    for i, argument in enumerate(out):
        if argument in ("--config", "-config") and i + 1 < len(out):
            return [f"--config={out[i + 1]}", *out[:i], *out[i + 2 :]]
        if argument.startswith(("--config=", "-config=")):
            return [f"--{argument.lstrip('-')}", *out[:i], *out[i + 1 :]]
    return out


def _load_config(argument: str) -> Any:
    """The config of --config=FILE alone; whatever goes wrong in the user's file is told in one sentence."""
    from ml_collections import ConfigDict

    from sr3_jax.config import base, flatten

    path = argument.removeprefix("--config=")
    if not Path(path.partition(":")[0]).is_file():
        raise UserError(f"--config={path}: no such file")
    fv = flags.FlagValues()
    config_flag(fv, [argument])
    try:
        fv(["sr3", argument])
        config = fv.config
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:  # it is a program: anything can happen in it
        raise UserError(f"{path}{_sentence(error, Path(path).name)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() returned {config!r:.50}; it must return sr3_jax.config.base(), with changes")
    missing = flatten(base()).keys() - flatten(config).keys()
    if missing:
        raise UserError(f"{path}: the config has no field {min(missing)}; start from sr3_jax.config.base()")
    return config


def _sentence(error: BaseException, file: str) -> str:
    """Where in `file` and what: in one line, without the traceback that ml_collections quotes and its list of all fields."""
    text = str(error).strip()
    quoted = "Traceback (most recent call last)" in text
    where = text if quoted else "".join(traceback.format_tb(error.__traceback__))
    lines = re.findall(rf'{re.escape(file)}", line (\d+)', where)
    what = text.splitlines()[-1] if quoted else f"{type(error).__name__}: {text}"
    what = re.sub(r"Other fields present: .*?(?=Did you mean|$)", "", what, flags=re.DOTALL)
    return (f" (line {lines[-1]}): " if lines else ": ") + " ".join(what.split())[:300]


def _check_overrides(config: Any, arguments: list[str]) -> None:
    """Raises UserError for an unknown field, with the nearest known ones."""
    from sr3_jax.config import RENAMED, flatten

    known = list(flatten(config))
    for argument in arguments:
        if not argument.startswith(("--config.", "-config.", "--noconfig.")):
            continue
        field = argument.lstrip("-").partition("=")[0].partition(".")[2]
        if field not in known:
            if field in RENAMED:
                raise UserError(f"--config.{field} is now called --config.{RENAMED[field]}")
            near = difflib.get_close_matches(field, known, 3, 0.5) or [f for f in known if field.split(".")[-1] in f][:3]
            some = "; there are data.hr_size, model.channels, train.steps and others: sr3 train --help lists them"
            hint = f"; did you mean {' or '.join(near)}?" if near else some
            raise UserError(f"--config.{field}: the config has no such field{hint}")
