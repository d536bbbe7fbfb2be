"""The one error class of the project."""


class AttemptError(Exception):
    """A mistake that the user can mend: bad flags, bad files, no network.

    The message is one line that says what was expected, what was found, where, and what to do next.
    train.py and eval.py print it without a traceback and exit with status 2.
    """


class NotFound(AttemptError):  # noqa: N818 - the name says what happened
    """The server, or the folder of --data-dir, does not have the file."""
