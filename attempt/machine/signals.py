"""Signals to a running program: Ctrl-C and SIGTERM end it between two steps, SIGUSR1 makes it save."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from attempt.machine import distributed
from model.errors import Interrupted

AGAIN = 5.0  # seconds in which a signal to one of several processes is the same one, sent by torchrun and by SLURM too
ENDING = (signal.SIGINT, signal.SIGTERM)
SAVING = getattr(signal, "SIGUSR1", None)  # Windows has none


listening: "Signals | None" = None


class Signals:
    """While it is entered, a signal is noted, and the training loop looks at it after each step.

    A second signal to end does so at once, as if nobody had listened: what was saved last is still whole. Of several
    processes all do what any of them is told, after the same step or the same batch of an evaluation.
    """

    def __init__(self) -> None:
        self.ending: int | None = None  # the signal that asks for the end
        self.since = 0.0  # when it came, on the clock of time.monotonic
        self.saving = False
        self.at_once = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        global listening  # noqa: PLW0603 - as signals themselves
        listening = self
        if threading.current_thread() is threading.main_thread():  # no other thread may listen
            numbers = [*ENDING, *([] if SAVING is None else [SAVING])]
            self.before = {number: signal.signal(number, self.note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        global listening  # noqa: PLW0603
        listening = None
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: FrameType | None) -> None:
        if number == SAVING:
            self.saving = True
            return
        if self.ending is not None:
            if distributed.size() > 1 and time.monotonic() < self.since + AGAIN:
                return
            raise KeyboardInterrupt
        self.ending, self.since = number, time.monotonic()
        if self.at_once and distributed.size() == 1:
            raise Interrupted(number)
        print("\nfinishing the step and saving; the same signal again ends the program at once", file=sys.stderr)

    def agreed(self) -> tuple[int | None, bool]:
        """The signal to end, if any, and whether to save: what any process has received, for all of them the same."""
        told = distributed.take_largest(torch.tensor([self.ending or 0, self.saving]))
        return int(told[0]) or None, bool(told[1])

    @contextmanager
    def may_end_at_once(self) -> Iterator[None]:
        """For work that changes nothing and can be done again: an ending signal raises Interrupted inside it."""
        end_together(self)
        self.at_once = True
        try:
            yield
        finally:
            self.at_once = False


def end_together(signals: Signals | None = None) -> None:
    """Raises Interrupted in all processes where one got a signal to end: before and between an evaluation's batches.

    Without Signals that may end at once nothing happens.
    """
    if signals is None:
        signals = listening if listening is not None and listening.at_once and distributed.size() > 1 else None
    ending = None if signals is None else signals.agreed()[0]
    if ending is not None:
        raise Interrupted(ending)
