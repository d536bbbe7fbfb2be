"""How many runs at a time, and which still fit: as told, or as measured while they run."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.replication.cells import Cell

WINDOW = 15.0  # seconds that a number of runs at a time is measured for: of twelve, each told its steps every 7 s,
SETTLED = 40.0  # from when all of them are at their steps, or at most so many seconds after the last was begun
GAIN = 1.25  # by which more at a time must be faster than fewer: each takes longer, and what needs it waits longer
STEPPED = re.compile(r"^step ([\d,]+)/", re.MULTILINE)


class Pace:
    """So many at a time, and whatever is next fits."""

    def __init__(self, jobs: int = 1) -> None:
        self.jobs = jobs

    def width(self, running: Sequence[Cell]) -> int:
        return self.jobs

    def seconds(self, cell: Cell) -> float:
        """How long a run of it is expected to take."""
        return 0.0

    def ended(self, cell: Cell, seconds: float) -> None:
        pass


class Measured(Pace):
    """The widths are tried in their order, on the plan's own runs, until one is not faster than the one before."""

    def __init__(
        self,
        widths: Sequence[int],
        predicted: Callable[[Cell], float],
        work: Callable[[Cell, int], float],
        log: Callable[[Cell], Path],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """predicted: a cell's seconds; work: what so many of its steps count; log: where it tells its steps."""
        super().__init__(widths[0])
        self.widths, self.rates = list(widths), [0.0]
        self.predicted, self.work, self.log, self.now = predicted, work, log, now
        self.reached: float | None = None  # when there were so many at first
        self.before: tuple[float, float] | None = None  # time and work at the begin of the window
        self.done: dict[Cell, float] = {}
        self.spent, self.expected = 0.0, 0.0

    def seconds(self, cell: Cell) -> float:
        """As predicted, and as much longer as those that have ended took."""
        return self.predicted(cell) * (self.spent / self.expected if self.expected else 1.0)

    def ended(self, cell: Cell, seconds: float) -> None:
        self._look(cell)
        self.spent += seconds
        self.expected += self.predicted(cell)

    def width(self, running: Sequence[Cell]) -> int:
        if len(self.rates) > len(self.widths):  # chosen
            return self.jobs
        for cell in running:
            self._look(cell)
        now, work = self.now(), sum(self.done.values())
        if self.before is None:
            if self.reached is None and len(running) == self.jobs:
                self.reached = now
            stepping = len(running) == self.jobs and all(self.done[cell] for cell in running)
            if stepping or (work and self.reached is not None and now - self.reached >= SETTLED):
                self.before = now, work
        elif now - self.before[0] >= WINDOW:
            self._judge((work - self.before[1]) / (now - self.before[0]))
        return self.jobs

    def _look(self, cell: Cell) -> None:
        log = self.log(cell)
        steps = STEPPED.findall(log.read_text(encoding="utf-8", errors="replace")) if log.exists() else []
        self.done[cell] = self.work(cell, int(steps[-1].replace(",", "")) if steps else 0)

    def _judge(self, rate: float) -> None:
        self.before = self.reached = None
        print(f"{self.jobs} at a time: {rate:.3g} predicted seconds of steps a second", flush=True)
        last, tried = self.rates[-1], len(self.rates)
        self.rates.append(rate)
        if rate < GAIN * last:
            self.jobs = self.widths[tried - 2]
        elif tried < len(self.widths):
            self.jobs = self.widths[tried]
            return
        self.rates += [rate] * len(self.widths)  # no more is tried
        print(f"so {self.jobs} at a time", flush=True)
