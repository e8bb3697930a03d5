"""Errors that the user can mend."""


class UserError(Exception):
    """Something given to us is wrong.

    The message is one sentence: what, its value, what is allowed, what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class ConfigError(UserError, ValueError):
    """A field of the config has a value that is not allowed, alone or together with another."""
