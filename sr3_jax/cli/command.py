"""What a command is, and what several of them share."""

from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags

from sr3_jax.errors import UserError

Arguments = Any  # absl's FlagValues: flags are attributes


class Command(NamedTuple):
    define: Callable[[flags.FlagValues, list[str]], None]
    run: Callable[[Arguments, list[str]], int | None]
    positional: str = ""
    needs: tuple[str, ...] = ()  # flags that must be given


def config_flag(fv: flags.FlagValues, argv: list[str]) -> None:
    from ml_collections.config_flags import config_flags

    config_flags.DEFINE_config_file(
        "config",
        None,
        "A config file, e.g. configs/orl_16_64.py; --config.FIELD=VALUE overrides any field.",
        flag_values=fv,
        sys_argv=["sr3", *argv],
    )


def sampling_flags(fv: flags.FlagValues) -> None:
    flags.DEFINE_integer("samples", 1, "Samples per image.", flag_values=fv)
    flags.DEFINE_integer("steps", 0, "Network evaluations per sample; 0: the checkpoint's own number.", flag_values=fv)
    flags.DEFINE_integer("seed", 0, "The same seed gives the same pictures.", flag_values=fv)


def between(args: Arguments, name: str, least: int, most: int = 2**31 - 1) -> None:
    if not least <= getattr(args, name) <= most:
        raise UserError(f"--{name}={getattr(args, name)} must lie between {least} and {most}")
