"""Folders as runs leave them, with figures that a test chooses."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attempt.command.options import Options
from attempt.runs.plan import Plan


def scored(task: str, split: str, value: float) -> dict[str, Any]:
    metrics = {"accuracy": float(value), "f1": 1.0}
    return {"task": task, "split": split, "metrics": metrics, "invalid": 0.5, "examples": 400, "answers": {"1": 400}}


def record_run(
    folder: Path,
    dev: Mapping[int, float],
    *,
    task: str = "mrpc",
    method: str = "attempt",
    test: float | None = 70.0,
    weights: Mapping[int, Mapping[str, float]] | None = None,
    losses: Sequence[float] = (),
    **options: Any,
) -> Path:
    """A run with these scores (step -> percent) on dev; without `test` it is not complete."""
    folder.mkdir(parents=True)
    plan = Plan.complete(Options([task], method=method, out=str(folder), **options), 100, 16)
    (folder / "config.json").write_text(json.dumps(plan.stored()))
    with open(folder / "metrics.jsonl", "w") as file:
        for i, (step, value) in enumerate(dev.items()):
            line: dict[str, Any] = {"step": step, "loss": losses[i] if losses else 1 / step}
            line["scores"] = [scored(task, "dev", value)]
            if weights:
                line["mixture"] = {task: {"weights": weights[step], "entropy": 1.0}}
            file.write(json.dumps(line) + "\n")
    if test is not None:
        best = max(dev, key=lambda step: dev[step])
        scores = [scored(task, "dev", dev[best]), scored(task, "test", test)]
        mean = {"dev": float(dev[best]), "test": float(test)}
        told = {"best_step": best, "steps": max(dev), "trainable_parameters": 1234, "seconds": 5.5}
        (folder / "result.json").write_text(json.dumps({"scores": scores, "mean": mean, **told}))
    return folder


def seeds(folder: Path) -> list[Path]:
    """Two seeds of a mixture and of prompt tuning, on one task."""
    mixed = [{"qqp": 0.2, "sst2": 0.5, "target": 0.3}, {"qqp": 0.6, "sst2": 0.1, "target": 0.3}]
    other = [{"qqp": 0.4, "sst2": 0.5, "target": 0.1}, {"qqp": 0.8, "sst2": 0.1, "target": 0.1}]
    return [
        record_run(
            folder / "a/seed-1", {5: 60, 10: 80}, seed=1, test=71, weights=dict(zip((5, 10), mixed, strict=True))
        ),
        record_run(
            folder / "a/seed-2", {5: 70, 10: 84}, seed=2, test=77, weights=dict(zip((5, 10), other, strict=True))
        ),
        record_run(folder / "p/seed-1", {5: 50, 10: 52}, seed=1, test=50, method="prompt"),
        record_run(folder / "p/seed-2", {5: 54}, seed=2, test=None, method="prompt"),
    ]
