"""What ends a run that has gone wrong, or counts what was left out of it: losses and gradients that are not finite."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attempt.runs.plan import Plan
from attempt.training.trainer import Trainer
from model.errors import AttemptError

RATE = "try a smaller --lr or --precision fp32"
SHOWN = 8


@dataclass
class Guards:
    """Looks at what the trainer has seen since the last evaluation."""

    trainer: Trainer
    options: Plan
    parts: NDArray[np.int64]
    """(N,) the number of each training example's task."""
    rows_of: Callable[[int], Sequence[int]]
    """The positions of a step's examples in the training set."""

    def check_finite(self) -> None:
        """Raises AttemptError, with the step and its examples, at a bad loss or gradient since the last evaluation."""
        bad = self.trainer.first_bad()
        if bad is None:
            return
        step, found = bad
        raise AttemptError(
            f"step {step}: expected a finite loss and gradient, found {found}; {RATE}, or --skip-bad-steps; what was "
            f"trained up to the last evaluation is in {self.options.folder()}; the step's training examples: "
            f"{self.examples_of(step)}"
        )

    def check_progress(self) -> None:
        """Raises AttemptError where every step since the last evaluation was skipped: what was trained is broken."""
        trainer = self.trainer
        if trainer.skipped and not trainer.losses and trainer.step > trainer.evaluated:
            raise AttemptError(
                f"steps {trainer.evaluated + 1} to {trainer.step}: expected a finite loss and gradient in some, found "
                f"none; {RATE}; what was trained up to the last evaluation is in {self.options.folder()}"
            )

    def examples_of(self, step: int) -> str:
        """The first examples of a step, by their tasks and their numbers in them."""
        sizes, rows = np.bincount(self.parts), self.rows_of(step)
        found = [(int(self.parts[row]), row) for row in rows[:SHOWN]]
        names = [f"{self.options.task[part]} {row - sizes[:part].sum()}" for part, row in found]
        return f"{', '.join(names)}{' …' * (len(rows) > SHOWN)}"

    def skipped(self) -> dict[str, Any]:
        """What --skip-bad-steps has left out so far: how many steps, and of the first ones why and which examples."""
        if not self.options.skip_bad_steps:
            return {}
        steps = [{"step": s, "found": why, "examples": self.examples_of(s)} for s, why in self.trainer.first_skipped]
        return {"skipped": {"count": self.trainer.skipped, "first": steps}}

    def skipped_line(self) -> str:
        """How many, and the last of those that are named; nothing where none was."""
        if not self.trainer.skipped:
            return ""
        step, why = self.trainer.first_skipped[-1]
        return (
            f"skipped {self.trainer.skipped:,} steps so far, whose loss or gradient was not finite: step {step} "
            f"({why}; {self.examples_of(step)})"
        )
