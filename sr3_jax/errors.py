"""The one error that means: the user can mend this."""


class UserError(Exception):
    """Something given to us is wrong. The message is one sentence: what, its value, what is allowed, what to do.

    The command line prints it without a traceback and exits with code 2.
    """
