"""Signals to a running program: Ctrl-C and SIGTERM end it between two steps, SIGUSR1 makes it save."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from attempt.errors import Interrupted

ENDING = (signal.SIGINT, signal.SIGTERM)
SAVING = getattr(signal, "SIGUSR1", None)  # Windows has none


class Signals:
    """While it is entered, a signal is noted, and the training loop looks at it after each step.

    A second signal to end does so at once, as if nobody had listened: what was saved last is still whole.
    """

    def __init__(self) -> None:
        self.ending: int | None = None  # the signal that asks for the end
        self.saving = False
        self.at_once = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():  # no other thread may listen
            numbers = [*ENDING, *([] if SAVING is None else [SAVING])]
            self.before = {number: signal.signal(number, self.note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: FrameType | None) -> None:
        if number == SAVING:
            self.saving = True
            return
        if self.ending is not None:
            raise KeyboardInterrupt
        self.ending = number
        if self.at_once:
            raise Interrupted(number)
        print("\nfinishing the step and saving; the same signal again ends the program at once", file=sys.stderr)

    @contextmanager
    def may_end_at_once(self) -> Iterator[None]:
        """For work that changes nothing and can be done again: an ending signal raises Interrupted inside it."""
        if self.ending is not None:
            raise Interrupted(self.ending)
        self.at_once = True
        try:
            yield
        finally:
            self.at_once = False
