"""Errors that the user can do something about."""


class UserError(Exception):
    """Something that the user gave is wrong: a file, an argument, a field of the config.

    The message is one sentence: what is wrong, its value, what is allowed, what to do. The command
    line prints it without a traceback and exits with code 2.
    """


class ConfigError(UserError, ValueError):
    """A field of the config has a value that is not allowed, alone or together with another."""


def first_line(error: BaseException) -> str:
    """What an error of another library says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
