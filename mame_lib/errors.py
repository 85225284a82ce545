"""The one exception a user is meant to read: a clear sentence, never a traceback."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one sentence that says what is wrong, where, and how to mend it.
    The command line prints it and exits with status 2; library callers may catch it as `ValueError`.
    """
