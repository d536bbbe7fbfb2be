"""What is kept of the cells, as the tables need it."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attempt.run import Run
from benchmarks.replication.chance import CHANCE
from benchmarks.replication.runner import FAILED, SIMILAR

NOT_RUN = "not run"
SPLITS = ("dev", "test")


@dataclass(frozen=True)
class Result:
    """A finished cell."""

    means: dict[str, float]
    """Of dev and test: the first metric, over several tasks its mean."""
    tasks: dict[str, dict[str, float]]
    """The same for each task."""
    parameters: int
    seconds: float
    curve: list[dict[str, Any]]
    """The lines of metrics.jsonl."""
    best_step: int
    similarities: dict[str, dict[str, float]]

    @property
    def on_dev(self) -> list[float]:
        """The first task's first metric at each evaluation."""
        return [next(iter(line["scores"][0]["metrics"].values())) for line in self.curve]

    @property
    def weights(self) -> dict[str, float]:
        """What a mixture gives each prompt at its best step, the mean over dev, of the first task."""
        best = next(line for line in self.curve if line["step"] == self.best_step)
        mixtures = list(best.get("mixture", {}).values())
        return mixtures[0]["weights"] if mixtures else {}


class Kept:
    """The folder of all kept cells."""

    def __init__(self, place: Path) -> None:
        self.place = place
        chance = place / CHANCE
        self.chance: dict[str, Any] = json.loads(chance.read_text(encoding="utf-8")) if chance.exists() else {}

    def result(self, name: str) -> Result | None:
        """None where the cell was not run, or failed."""
        folder = self.place / name
        if not (folder / "result.json").exists():
            return None
        found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        similar = folder / SIMILAR
        tasks: dict[str, dict[str, float]] = {}
        for score in found["scores"]:
            tasks.setdefault(score["task"], {})[score["split"]] = next(iter(score["metrics"].values()))
        return Result(
            found["mean"],
            tasks,
            found["trainable_parameters"],
            found["seconds"],
            Run(folder).read_metrics(),
            found["best_step"],
            json.loads(similar.read_text(encoding="utf-8")) if similar.exists() else {},
        )

    def results(self, names: Sequence[str]) -> list[Result]:
        """Of those that were run."""
        return [found for name in names if (found := self.result(name)) is not None]

    def failed(self, name: str) -> bool:
        return (self.place / name / FAILED).exists()

    def score(self, names: Sequence[str], split: str, task: str | None = None) -> str:
        """A table's cell: the mean over the runs, their sample deviation and number, or why there is none."""
        found = self.results(names)
        if not found:
            return "failed" if any(map(self.failed, names)) else NOT_RUN
        return figure([result.means[split] if task is None else result.tasks[task][split] for result in found])

    def constant(self, task: str, split: str) -> str:
        """The score of the best constant answer."""
        return f"{self.chance[task][split]['constant']:.1f}" if task in self.chance else NOT_RUN


def figure(values: list[float]) -> str:
    """One value, or the mean of several, their sample standard deviation and how many there are."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f} ({len(values)})"
