"""Whether all forms of all methods compute the same: python -m benchmarks.forms --device cuda --model t5-small

The base is the plain form in fp32, which is itself held to transformers and peft. Every other form and precision trains
a few steps from the same values and then answers, through the program's own entry points: Trainer.train_step, which on
a GPU replays graphs, and the answering functions. What is compared:

gradient    of the first step, without dropout: AdamW's first moment after it is a tenth of the (clipped) gradient
losses      of steps whose batches have several lengths, the last one fewer rows
tokens      share of equal ones in greedy answers of ten
labels      log-probabilities of labels, relative to the base's
dropout     how far the losses of steps on one batch spread, as a share of the eager form's spread: a graph that drew
            the same masks at every replay would have none
"""

import dataclasses
import gc
import statistics
import sys
import traceback
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attempt.command.flags import Parser
from benchmarks.evaluate import LONG, equal_share
from benchmarks.harness import Case, named, on_device, random_batch
from benchmarks.machine import save
from benchmarks.ours import METHODS, TASKS, Ours
from benchmarks.peers import PEERED, Peer, sample
from benchmarks.shapes import SHAPES
from data.batches import Batch
from model.errors import AttemptError, briefly, exit_status

EAGER = "ours, eager"
PRECISIONS = ("fp32", "bf16", "fp16")
ALL = {  # the forms of each precision
    "fp32": (EAGER, "ours, all"),
    "bf16": ("hugging face", EAGER, "ours, all", "ours, compiled"),
    "fp16": (EAGER, "ours, all"),
}
# Largest relative differences of gradient, losses and labels, and the least share of equal tokens: with random weights
# two tokens are at times nearly as probable as each other.
LIMITS = {"fp32": (5e-3, 1e-3, 1e-3, 0.98), "bf16": (0.12, 0.05, 0.1, 0.5), "fp16": (0.05, 0.02, 0.05, 0.8)}
SPREAD = (0.2, 5.0)  # of the losses under dropout, against the eager form's
TRIES = 20  # steps until one is not skipped: the scale of fp16 begins high, and is halved at each
DRAWS = 12


def batches_of(case: Case, method: str) -> list[Batch]:
    """Batches of several lengths, each twice, rows ragged, and a last one that is smaller."""
    n, B = case.text_tokens, case.batch_size
    found = []
    for longest, rows in ((n, B), (2 * n, B), (n, B), (n // 2, B), (2 * n, B), (n, max(1, B // 2 - 1))):
        texts = [longest - i % (longest // 2) for i in range(rows)]
        batch = random_batch(case.config, texts, [1 + (i + 1) % case.target_tokens for i in range(rows)])
        tasks = torch.arange(rows) % TASKS if method == "tasks" else batch.tasks
        found.append(dataclasses.replace(batch, tasks=tasks))
    return found


def moment(program: Ours | Peer) -> Tensor | None:
    """What the optimizer has seen of the first gradient; None as long as every step was skipped."""
    parameters = program.trained if isinstance(program, Peer) else program.parameters
    optimizer = program.optimizer if isinstance(program, Peer) else program.trainer.optimizer
    moments = {name: optimizer.state[p]["exp_avg"] for name, p in parameters.items() if "exp_avg" in optimizer.state[p]}
    seen = sample(moments) * 10 if moments else None
    return seen if seen is not None and bool(seen.any()) else None


def loss_of_step(program: Ours | Peer, batch: Batch) -> float:
    """Take a step; its loss before."""
    if isinstance(program, Ours):
        program.step(batch)
        return program.trainer.losses[-1].item()
    with torch.no_grad():
        loss = program.loss(batch).item()
    program.step(batch)
    return loss


def found_by(program: Ours | Peer, batches: list[Batch]) -> dict[str, Any]:
    """The figures of a program that was just made."""
    losses, first = [], None
    for _ in range(TRIES):
        loss, first = loss_of_step(program, batches[0]), moment(program)
        if first is not None:
            break
    losses = [loss, *(loss_of_step(program, batch) for batch in batches[1:])]
    tokens = [program.generate(batch, LONG) for batch in batches]
    labels = batches[0].labels[1:5:3]  # (2,T), both as long as they may be: the peer takes no others
    scores = program.label_scores(batches[0], labels)
    graphs = program.trainer.graphs if isinstance(program, Ours) else None
    failed = graphs is not None and graphs.failed  # then it went on without them, and its figures say nothing of them
    return {"gradient": first, "losses": losses, "tokens": tokens, "labels": scores, "failed": failed}


def spread_of(program: Ours | Peer, batch: Batch) -> float:
    """Under dropout, of one program's losses on one batch: of the differences from one step to the next."""
    losses = [loss_of_step(program, batch) for _ in range(DRAWS + 1)]
    return statistics.pstdev(b - a for a, b in pairwise(losses))


def compared(found: dict[str, Any], base: dict[str, Any]) -> dict[str, float]:
    def off(name: str) -> float:
        a, b = (torch.as_tensor(figures[name]).float() for figures in (found, base))
        return ((a - b).norm() / b.norm()).item()

    pairs = list(zip(found["tokens"], base["tokens"], strict=True))
    same = statistics.fmean(equal_share(a, b) for a, b in pairs)
    return {"gradient": off("gradient"), "losses": off("losses"), "labels": off("labels"), "tokens": same}


class Check:
    """All forms of one method."""

    def __init__(self, case: Case, method: str, device: torch.device) -> None:
        self.case, self.method, self.device = case, method, device
        self.batches = batches_of(case, method)
        self.spreads: dict[tuple[str, str], float] = {}  # of a form in a precision

    def program(self, name: str, precision: str) -> Ours | Peer:
        gc.collect()
        case = dataclasses.replace(self.case, precision=precision)
        return case.programs([named(name, self.method)], self.device)[named(name, self.method)]

    def found(self, name: str, precision: str) -> dict[str, Any]:
        """The figures of a form, which is made anew."""
        batches = [on_device(batch, name, self.device) for batch in self.batches]
        return found_by(self.program(name, precision), batches)

    def row(self, name: str, precision: str, base: dict[str, Any]) -> dict[str, Any]:
        """The differences of a form from the base; `problem` says what is wrong, if anything is."""
        row: dict[str, Any] = {"program": named(name, self.method), "precision": precision, "problem": ""}
        try:
            found = self.found(name, precision)
            row |= compared(found, base)
            *limits, least = LIMITS[precision]
            names = ("gradient", "losses", "labels")
            over = [name for name, limit in zip(names, limits, strict=True) if not row[name] <= limit]
            wrong = [f"{', '.join(over)} off"] * bool(over) + ["other tokens"] * (row["tokens"] < least)
            wrong += ["no graphs"] * found["failed"]
            if name != "hugging face":
                row["dropout"] = share = self.dropout(name, precision)
                wrong += ["dropout does not draw"] * (not SPREAD[0] <= share <= SPREAD[1])
            row["problem"] = "; ".join(wrong)
        except Exception as e:  # the other forms are to be looked at all the same
            traceback.print_exc()
            row["problem"] = f"{type(e).__name__}: {briefly(e)}"
        return row

    def dropout(self, name: str, precision: str) -> float:
        """The spread of the losses under dropout, as a share of the eager form's."""
        for form in (EAGER, name):
            if (form, precision) not in self.spreads:
                program = self.program(form, precision)
                program.set_dropout(0.3)
                self.spreads[form, precision] = spread_of(program, self.batches[0])
        return self.spreads[name, precision] / self.spreads[EAGER, precision]

    def rows(self, programs: dict[str, tuple[str, ...]]) -> Iterator[dict[str, Any]]:
        """One after another, so that what is cut leaves those that it has found."""
        base = self.found("ours, plain", "fp32")
        names = [(name, precision) for precision, names in programs.items() for name in names]
        names = [("hugging face", "fp32"), *names]
        for name, precision in names:
            if name != "hugging face" or self.method in PEERED:
                yield self.row(name, precision, base)


def new_parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.forms", description="Whether all forms compute the same.")
    add = parser.add_argument
    add("--model", default="t5-small", choices=SHAPES, metavar="NAME", help="default: %(default)s")
    add("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="NAME", help="default: all")
    add("--precisions", nargs="+", default=["fp32"], choices=PRECISIONS, help="default: fp32")
    add("--programs", nargs="+", metavar="NAME", help="the forms (default: all that the device has)")
    add("--device", default="cpu", help="default: cpu")
    add("--out", type=Path, metavar="FILE", help="write the figures, as JSON")
    return parser


def run(argv: Sequence[str] | None) -> None:
    given = new_parser().parse_args(argv)
    device, rows = torch.device(given.device), list[dict[str, Any]]()
    case = Case(given.model, 24, 8, 0.0, "fp32", 20, 3, True)
    chosen = {p: tuple(n for n in ALL[p] if not given.programs or n in given.programs) for p in given.precisions}
    for method in given.methods:
        for row in Check(case, method, device).rows(chosen):
            rows.append(row)
            save(given.out, {"rows": rows})
            print(told(row), flush=True)
    if bad := [row for row in rows if row["problem"]]:
        raise AttemptError(f"expected all forms to agree, found {len(bad)} that do not, first {told(bad[0])}")


def told(row: dict[str, Any]) -> str:
    figures = [
        f"{name} {row[name]:.2g}" for name in ("gradient", "losses", "labels", "tokens", "dropout") if name in row
    ]
    return f"{row['program']} in {row['precision']}: {', '.join(figures)} {row['problem']}".rstrip()


def main(argv: Sequence[str] | None = None) -> int:
    return exit_status("python -m benchmarks.forms", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
