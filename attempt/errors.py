"""The one error class of the project, and how a program ends."""

import sys
from collections.abc import Callable


class AttemptError(Exception):
    """A mistake that the user can mend: bad flags, bad files, no network.

    The message is one line that says what was expected, what was found, where, and what to do next.
    The programs print it without a traceback and exit with status 2.
    """


class NotFound(AttemptError):  # noqa: N818 - the name says what happened
    """The server, or the folder of --data-dir, does not have the file."""


class Interrupted(Exception):  # noqa: N818 - the name says what happened
    """A signal asked for the end; everything is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.status = 128 + number  # as shells have it: 130 for Ctrl-C, 143 for SIGTERM


def exit_status(program: str, work: Callable[[], None], interrupted: str = "interrupted") -> int:
    """Do a program's work: 0; or 2, and a line, for a user's mistake; 130 for Ctrl-C, 143 for SIGTERM."""
    try:
        work()
    except AttemptError as e:
        print(f"{program}: error: {e}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Interrupted) as e:
        print(f"\n{interrupted}", file=sys.stderr)
        return e.status if isinstance(e, Interrupted) else 130
    return 0
