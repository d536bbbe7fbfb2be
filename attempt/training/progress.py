"""How far a run is: a bar on a terminal, lines elsewhere, with the loss, the rate, the speed and the time that is left.

Nothing is read from a GPU for it: its clock is looked at where the losses are read anyway, after which the GPU has done
all the steps that were asked of it.
"""

import sys
import time
from typing import NoReturn

from tqdm import tqdm

from attempt.runs.plan import Plan

FORMAT = "{percentage:3.0f}% {bar} {n_fmt}/{total_fmt} steps [{elapsed}<{remaining}{postfix}]"


class Progress:
    """Measures the seconds of a step and of an evaluation, and tells what follows from them once it is known.

    The first stretch of steps is the warm-up, when memory is asked for and kernels are made: no estimate counts it.
    """

    def __init__(self, options: Plan, step: int, examples_a_step: float) -> None:
        self.options, self.examples_a_step = options, examples_a_step
        self.bar: tqdm[NoReturn] = tqdm(
            total=options.steps, initial=step, unit="step", bar_format=FORMAT, disable=not sys.stderr.isatty()
        )
        self.first, self.since = step, time.monotonic()  # where the present stretch of steps began
        self.warm, self.told = False, False
        self.rate = 0.0  # examples a second, in the last stretch
        self.steps, self.seconds = 0, 0.0  # of all stretches after the first
        self.evaluations, self.evaluating, self.last_evaluated = 0, 0.0, -1

    def measure(self, step: int) -> None:
        """End a stretch of steps; the losses have just been read."""
        now = time.monotonic()
        if step > self.first:
            self.rate = (step - self.first) * self.examples_a_step / (now - self.since)
            if self.warm:
                self.steps, self.seconds = self.steps + step - self.first, self.seconds + now - self.since
            self.warm = True
        self.first, self.since = step, now

    def evaluated(self) -> None:
        """End an evaluation, which began where the last stretch of steps ended."""
        now = time.monotonic()
        self.last_evaluated = self.first
        self.evaluations, self.evaluating = self.evaluations + 1, self.evaluating + now - self.since
        self.since = now

    def left(self, step: int) -> float | None:
        """Seconds up to the last evaluation on dev; evaluations are left out while none was measured. None: unknown."""
        if not self.steps:
            return None
        total, every = self.options.steps, self.options.eval_every
        made = step // every - (step % every == 0 and self.last_evaluated != step)  # that of this step may be to come
        evaluations = -(-total // every) - made  # there is one at the last step too
        evaluation = self.evaluating / self.evaluations if self.evaluations else 0.0
        return (total - step) * self.seconds / self.steps + evaluations * evaluation

    def log(self, step: int, loss: float, lr: float) -> None:
        """The facts of the last steps, at the bar or on a line; the expected time once, as soon as it is known."""
        facts = f"lr {lr:.3g}, {self.rate:.3g} examples/s"
        left = self.left(step)
        if self.bar.disable:
            rest = "" if left is None else f", {tqdm.format_interval(left)} left"
            print(f"step {step}/{self.options.steps}: loss {loss:.4f} nats/token, {facts}{rest}", flush=True)
        self.bar.set_postfix_str(f"loss {loss:.3f}, {facts}")
        if left is not None and not self.told and step < self.options.steps:
            self.told = True
            each = f"{self.seconds / self.steps:.2g} s a step"
            if self.evaluations:
                each += f", {self.evaluating / self.evaluations:.2g} s an evaluation"
            else:
                each += "; evaluations are not measured yet, and not in it"
            self.bar.write(
                f"expected   {duration(left)} for the steps from {step + 1} to {self.options.steps} ({each})"
            )


def duration(seconds: float) -> str:
    """A time in the unit that suits it: 45 s, 12 min, 3.2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
