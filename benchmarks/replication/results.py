"""What is kept of the cells, as the tables need it."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.replication.chance import CHANCE, key
from benchmarks.replication.plan_cpu import FULL, OTHERS
from benchmarks.replication.store import kept_cells

NOT_RUN = "not run"
SPLITS = ("dev", "test")
BALANCED = "balanced accuracy"
Scores = dict[str, dict[str, float]]  # task -> split -> score


@dataclass(frozen=True)
class Result:
    """A finished cell."""

    scores: Scores
    """By the tables' measure, of the step that is best on dev."""
    metrics: dict[str, dict[str, dict[str, float]]]
    """task -> split -> the papers' metrics, by name, at the same step."""
    on_dev: list[float]
    """The first task's score on dev at each evaluation."""
    losses: list[float]
    """The mean training loss up to each evaluation, from the one before it."""
    mixtures: dict[str, dict[str, Any]]
    """task -> at the last step `weights`, what each prompt gets, the mean over dev, and their `deviation` over dev."""
    parameters: int
    seconds: float
    best_step: int
    similarities: dict[str, dict[str, float]]

    def mean(self, split: str) -> float:
        """Over the tasks."""
        return statistics.fmean(scores[split] for scores in self.scores.values())

    @property
    def weights(self) -> dict[str, float]:
        """Of the first task's mixture."""
        return next((mixture["weights"] for mixture in self.mixtures.values()), {})


class Kept:
    """All kept cells."""

    def __init__(self, place: Path) -> None:
        self.place, self.cells = place, kept_cells(place)
        chance = place / CHANCE
        self.chance: dict[str, Any] = json.loads(chance.read_text(encoding="utf-8")) if chance.exists() else {}

    def result(self, name: str) -> Result | None:
        """None where the cell was not run, or failed."""
        cell = self.cells.get(name, {})
        if "result" not in cell:
            return None
        found, curve, data_seed = cell["result"], cell["curve"], cell["config"]["data_seed"]
        scores: Scores = {}
        metrics: dict[str, dict[str, dict[str, float]]] = {}
        for one in found["scores"]:
            scores.setdefault(one["task"], {})[one["split"]] = self.measured(one, data_seed)
            metrics.setdefault(one["task"], {})[one["split"]] = one["metrics"]
        return Result(
            scores,
            metrics,
            [self.measured(line["scores"][0], data_seed) for line in curve],
            [line["loss"] for line in curve],
            curve[-1].get("mixture", {}),
            found["trainable_parameters"],
            found["seconds"],
            found["best_step"],
            cell.get("similarities", {}),
        )

    def results(self, names: Sequence[str]) -> list[Result]:
        """Of those that were run."""
        return [found for name in names if (found := self.result(name)) is not None]

    def failed(self, name: str) -> bool:
        return "failed" in self.cells.get(name, {})

    def measure(self, task: str) -> str:
        """The name of the tables' measure: the task's first metric, but for a target's accuracy.

        Its splits may have different shares of labels (of SciTail's dev 47 % are neutral, of its test 64 %), so that a
        run that says one of them too often loses on one split what it gains on the other.
        """
        name = str(self.chance[task]["metric"]) if task in self.chance else ""
        return BALANCED if name == "accuracy" and task in (*FULL, *OTHERS) else name

    def measured(self, score: dict[str, Any], data_seed: int) -> float:
        """A line of scores by that measure."""
        metrics: dict[str, float] = score["metrics"]
        if self.measure(score["task"]) != BALANCED:
            return next(iter(metrics.values()))
        right = self.chance[key(score["task"], data_seed)][score["split"]]["labels"]
        return balanced(metrics["accuracy"], score["answers"], right)

    def score(self, names: Sequence[str], split: str, task: str | None = None) -> str:
        """A table's cell: the mean over the runs, their sample deviation and number, or why there is none."""
        found = self.results(names)
        if not found:
            return "failed" if any(map(self.failed, names)) else NOT_RUN
        return figure([result.mean(split) if task is None else result.scores[task][split] for result in found])

    def constant(self, task: str, split: str) -> str:
        """The score of the best constant answer."""
        if task not in self.chance:
            return NOT_RUN
        return "50.0" if self.measure(task) == BALANCED else f"{self.chance[task][split]['constant']:.1f}"


def balanced(accuracy: float, answers: dict[str, int], right: dict[str, int]) -> float:
    """The mean of two labels' recalls, in percent.

    answers, right: how often each label was answered, and is right. No other answers than labels were given.
    """
    (first, firsts), (_, seconds) = right.items()
    correct = accuracy / 100 * (firsts + seconds)
    # answered first: the correct ones, and the second label's wrong ones, seconds - (correct - correct_first)
    correct_first = (answers.get(first, 0) + correct - seconds) / 2
    return 50 * (correct_first / firsts + (correct - correct_first) / seconds)


def figure(values: list[float]) -> str:
    """One value, or the mean of several, their sample standard deviation and how many there are."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f} ({len(values)})"
