"""The one error class of the project, the names that a mistyped one is near to, and how a program ends."""

import difflib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

LONGEST = 2000  # characters of a message


def one_line(text: str, most: int = LONGEST) -> str:
    """The text on one line of visible characters, its middle left out where it is longer than `most`."""
    if len(text) > most:
        text = f"{text[: most * 2 // 3]} … {text[-most // 3 :]}"
    if text.isprintable():
        return text
    shown = "".join(c if c.isprintable() else " " if c == "\n" else repr(c)[1:-1] for c in text)
    return shown if len(shown) <= most + 3 else one_line(shown, most)


def briefly(error: BaseException) -> str:
    """An error on one short line."""
    return one_line(" ".join(str(error).split())[:200]) or type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is nearest to a given one, in any case; "" where none is near."""
    names = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return names[near[0]] if near else ""


def meant(name: str, known: Iterable[str]) -> str:
    """ " (did you mean NAME?)", or "" where no known name is near: to be put behind the name that was given."""
    near = nearest(name, known)
    return f" (did you mean {near}?)" if near not in ("", name) else ""


def meant_path(path: Path) -> str:
    """The same for a path that is not there: the nearest of the names that stand where its first wrong one does."""
    try:
        wrong = next(place for place in [*reversed(path.parents), path] if not place.exists())
        near = nearest(wrong.name, [place.name for place in wrong.parent.iterdir() if not place.name.startswith(".")])
    except (OSError, StopIteration):
        return ""
    return f" (did you mean {wrong.parent / near / path.relative_to(wrong)}?)" if near else ""


_told: set[str] = set()


def note(text: str) -> None:
    """Tell something on a line of stderr, once in a program: several of its runs may come upon it."""
    if text not in _told:
        _told.add(text)
        print(f"note: {one_line(text)}", file=sys.stderr)


class AttemptError(Exception):
    """A mistake that the user can mend: bad flags, bad files, no network.

    The message is one line that says what was expected, what was found, where, and what to do next. It may quote a
    stranger's file: what cannot be printed is escaped, the middle of a long one is left out.
    The programs print it without a traceback and exit with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Advised(AttemptError):  # noqa: N818
    """An error with more lines, such as commands to copy; none of them quotes a file."""

    def __init__(self, message: str, *lines: str) -> None:
        super().__init__(message)
        self.lines = lines

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *self.lines])


class NotFound(AttemptError):  # noqa: N818 - the name says what happened
    """The server, or the folder of --data-dir, does not have the file."""


class Interrupted(Exception):  # noqa: N818 - the name says what happened
    """A signal asked for the end; everything is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.status = 128 + number  # as shells have it: 130 for Ctrl-C, 143 for SIGTERM


def exit_status(program: str, work: Callable[[], None], interrupted: str = "interrupted") -> int:
    """Do a program's work: 0; or 2, and a line, for a user's mistake; 130 for Ctrl-C, 143 for SIGTERM.

    141, and no line, where nobody reads the output any more, as after `| head`. Output to a closed stream is lost.
    """
    sys.stdout, sys.stderr = (s or open(os.devnull, "w", encoding="utf-8") for s in (sys.stdout, sys.stderr))  # noqa: SIM115
    try:
        work()
        sys.stdout.flush()
    except AttemptError as e:
        print(f"{program}: error: {e}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Interrupted) as e:
        print(f"\n{interrupted}", file=sys.stderr)
        return e.status if isinstance(e, Interrupted) else 130
    except BrokenPipeError:
        return 141  # as of a shell's tool, which SIGPIPE ends
    except OSError as e:  # a full disk, a folder that one may not enter, a name too long
        print(f"{program}: error: {briefly(e)}", file=sys.stderr)
        return 2
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:  # the interpreter's end would try again, and complain
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return 0
