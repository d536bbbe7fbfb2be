"""The tables of docs/replication.md: what the plan for a GPU has found, from the kept cells alone."""

import re
import statistics
from collections.abc import Callable, Sequence

from attempt.compare.significance import paired_t
from benchmarks.replication.plan_gpu import FIRST, OTHERS, SEEDS, SOURCES, GpuPlan
from benchmarks.replication.results import NOT_RUN, Kept, Result, figure
from benchmarks.replication.store import unpacked

Rows = list[list[str]]
METHODS = tuple(GpuPlan().methods)
SOURCES_PUBLISHED = {"mnli": "84.6", "sst2": "95.4", "qnli": "95.5", "qqp": "94.2", "squad": "68.8"}
"""T5-base's, of the replication study."""
PUBLISHED = {  # T5-base with prompts of 100, on FIRST, as later papers copied it
    "prompt": ("54.7", "68.1", "67.9", "-"),
    "from-mnli": ("69.8", "79.7", "46.4", "91.2"),
    "attempt-max": ("73.4", "85.7", "78.6", "93.1"),
    "finetune": ("71.9", "90.2", "85.7", "95.8"),
    "adapter": ("71.9", "85.3", "85.7", "-"),
}
PAIRS = (
    ("attempt-max", "prompt"),
    ("attempt-max", "from-mnli"),
    ("attempt-centred", "attempt-max"),
    ("from-mnli", "prompt"),
    ("finetune", "prompt"),
    ("adapter", "prompt"),
    ("finetune", "adapter"),
)
CPU = re.compile(r"^device +cpu", re.MULTILINE)


def runs(kept: Kept, task: str, method: str) -> dict[int, Result]:
    """By seed, those that were run."""
    found = {seed: kept.result(f"{task}-{method}-{seed}") for seed in SEEDS}
    return {seed: result for seed, result in found.items() if result is not None}


def on_cpu(kept: Kept, names: Sequence[str]) -> str:
    """What marks a figure with a run that was made on a CPU: without graphs, and with other sums."""
    logs = [kept.cells[name]["log"] for name in names if "log" in kept.cells.get(name, {})]
    return ", CPU" if any(CPU.search(unpacked(log)) for log in logs) else ""


def score(kept: Kept, task: str, method: str) -> str:
    names = [f"{task}-{method}-{seed}" for seed in SEEDS]
    return kept.score(names, "test") + on_cpu(kept, names)


def begun(rows: Rows) -> Rows:
    """Without the rows that have no run; the first is the head."""
    return [rows[0], *(row for row in rows[1:] if set(row[1:]) - {NOT_RUN, "-"})]


def progress(kept: Kept) -> Rows:
    """How much of the plan is there."""
    cells, rows = GpuPlan().cells(), [["part", "cells", "run", "of them on a CPU", "failed"]]
    for part in dict.fromkeys(one.part for one in cells):
        names = [one.name for one in cells if one.part == part]
        cpu = sum(bool(on_cpu(kept, [name])) for name in names)
        counts = len(names), len(kept.results(names)), cpu, sum(kept.failed(name) for name in names)
        rows.append([part, *map(str, counts)])
    return rows


def sources(kept: Kept) -> Rows:
    rows = [["", "constant answer, test", "test", "dev at each quarter of the steps", "its best step", "T5-base"]]
    for task in SOURCES:
        for optimizer in ("", "-adafactor"):
            found = kept.result(f"source-{task}{optimizer}")
            test = kept.score([f"source-{task}{optimizer}"], "test")
            dev = ", ".join(f"{value:.1f}" for value in found.on_dev) if found else NOT_RUN
            best = str(found.best_step) if found else NOT_RUN
            if found or not optimizer:
                name = f"{task}{optimizer}: {kept.measure(task)}"
                rows.append([name, kept.constant(task, "test"), test, dev, best, SOURCES_PUBLISHED[task]])
    return rows


def targets(kept: Kept) -> Rows:
    tasks = [*FIRST, *(task for task in OTHERS if any(runs(kept, task, method) for method in METHODS))]
    rows = [["test", *(f"{task}: {kept.measure(task)}" for task in tasks)]]
    rows.append(["constant answer", *(kept.constant(task, "test") for task in tasks)])
    for method in METHODS:
        rows.append([method, *(score(kept, task, method) for task in tasks)])
    return [*rows[:2], *begun([rows[0], *rows[2:]])[1:]]


def compared(kept: Kept) -> Rows:
    """Differences on test over the seeds that both have; and of the tasks' means, over the tasks."""
    rows = [["difference on test, points", *FIRST, "over the tasks"]]
    for first, second in PAIRS:
        found = [both(kept, task, first, second) for task in FIRST]
        means = [statistics.fmean(values) for values in found if values]
        rows.append([f"{first} - {second}", *map(difference, found), difference(means)])
    return begun(rows)


def both(kept: Kept, task: str, first: str, second: str) -> list[float]:
    ours, theirs = (runs(kept, task, method) for method in (first, second))
    return [ours[seed].mean("test") - theirs[seed].mean("test") for seed in sorted(ours.keys() & theirs.keys())]


def difference(values: list[float]) -> str:
    """Mean, how many there are, and the chance of one as large by the paired t-test, two-sided."""
    if not values:
        return NOT_RUN
    found = paired_t(values) if len(values) > 1 else None
    return f"{statistics.fmean(values):+.1f} ({len(values)})" + (f", p = {found[1]:.3f}" if found else "")


def curves(kept: Kept) -> Rows:
    """dev at each quarter of a run, the mean over the seeds: which is ahead after equally many steps?"""
    rows = [["dev at each quarter of the steps", *FIRST]]
    for method in METHODS:
        cells = []
        for task in FIRST:
            found = [result.on_dev for result in runs(kept, task, method).values()]
            means = [f"{statistics.fmean(values):.1f}" for values in zip(*found, strict=True)]
            cells.append(f"{', '.join(means)} ({len(found)})" if found else NOT_RUN)
        rows.append([method, *cells])
    return begun(rows)


def published(kept: Kept) -> Rows:
    rows = [["accuracy on test: here / T5-base", *FIRST]]
    for method, scores in PUBLISHED.items():
        found = [list(runs(kept, task, method).values()) for task in FIRST]
        here = [[run.metrics[task]["test"]["accuracy"] for run in own] for task, own in zip(FIRST, found, strict=True)]
        cells = [f"{figure(own) if own else NOT_RUN} / {score}" for own, score in zip(here, scores, strict=True)]
        rows.append([method, *cells])
    return rows


def mixtures(kept: Kept) -> Rows:
    """What ATTEMPT gives each prompt in the end, the mean over dev's texts and the seeds."""
    rows = [["weight at the last step", *SOURCES, "target"]]
    for task in FIRST:
        for method in ("attempt-max", "attempt-centred"):
            weights = [run.weights for run in runs(kept, task, method).values() if run.weights]
            shares = [[w[name] for w in weights if name in w] for name in (*SOURCES, "target")]
            cells = [f"{statistics.fmean(share):.2f} ({len(share)})" if share else NOT_RUN for share in shares]
            rows.append([f"{task}, {method}", *cells])
    return begun(rows)


def others(kept: Kept) -> Rows:
    """All that is no source and no target alone: several tasks, a stream, few examples."""
    rows = [["mean over the tasks", "dev", "test"]]
    stems = [one.name.rpartition("-")[0] for one in GpuPlan().cells() if one.part not in ("sources", "targets")]
    for stem in dict.fromkeys(stem for stem in stems if stem != "source"):
        names = [f"{stem}-{seed}" for seed in SEEDS]
        rows.append([stem, kept.score(names, "dev"), kept.score(names, "test") + on_cpu(kept, names)])
    return begun(rows)


TABLES: dict[str, Callable[[Kept], Rows]] = {
    "gpu-progress": progress,
    "gpu-sources": sources,
    "gpu-targets": targets,
    "gpu-compared": compared,
    "gpu-curves": curves,
    "gpu-published": published,
    "gpu-mixtures": mixtures,
    "gpu-others": others,
}
