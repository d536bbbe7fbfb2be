"""The tables of docs/replication.md: what the plan for a GPU has found, and the demo's, from the kept cells alone."""

import re
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attempt.compare.significance import paired_t
from benchmarks.replication.plan_gpu import DEMO, FIRST, POOL, SEEDS, SOURCES, STREAM, GpuPlan, Setting
from benchmarks.replication.results import NOT_RUN, Kept, Result, figure
from benchmarks.replication.store import unpacked

Rows = list[list[str]]
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
    ("attempt-max", "spot"),
    ("attempt-max", "attempt-cut"),
    (f"attempt-{POOL}", "attempt-max"),
    ("from-mnli", "prompt"),
    ("finetune", "prompt"),
    ("adapter", "prompt"),
    ("finetune", "adapter"),
)
CPU = re.compile(r"^device +cpu", re.MULTILINE)


def by_seed(stem: str) -> list[str]:
    return [f"{stem}-{seed}" for seed in SEEDS]


def runs(kept: Kept, task: str, method: str) -> dict[int, Result]:
    """By seed, those that were run."""
    found = {seed: kept.result(f"{task}-{method}-{seed}") for seed in SEEDS}
    return {seed: result for seed, result in found.items() if result is not None}


def on_cpu(plan: GpuPlan, kept: Kept, names: Sequence[str]) -> str:
    """What marks a GPU's figure with a run that was made on a CPU: without graphs, and with other sums."""
    if "cpu" in plan.setting.machine:
        return ""
    logs = [kept.cells[name]["log"] for name in names if "log" in kept.cells.get(name, {})]
    return ", CPU" if any(CPU.search(unpacked(log)) for log in logs) else ""


def score(plan: GpuPlan, kept: Kept, task: str, method: str) -> str:
    names = by_seed(f"{task}-{method}")
    return kept.score(names, "test") + on_cpu(plan, kept, names)


def begun(rows: Rows) -> Rows:
    """Without the rows that have no run; the first is the head."""
    return [rows[0], *(row for row in rows[1:] if set(row[1:]) - {NOT_RUN, "-"})]


def progress(plan: GpuPlan, kept: Kept) -> Rows:
    """How much of the plan is there."""
    cells, rows = plan.cells(), [["part", "cells", "run", "of them on a CPU", "failed"]]
    for part in dict.fromkeys(one.part for one in cells):
        names = [one.name for one in cells if one.part == part]
        cpu = sum(bool(on_cpu(plan, kept, [name])) for name in names)
        counts = len(names), len(kept.results(names)), cpu, sum(kept.failed(name) for name in names)
        rows.append([part, *map(str, counts)])
    return rows


def sources(plan: GpuPlan, kept: Kept) -> Rows:
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


def targets(plan: GpuPlan, kept: Kept) -> Rows:
    others = [task for task in plan.setting.others if any(runs(kept, task, method) for method in plan.methods)]
    tasks = [*plan.setting.first, *others]
    rows = [["test", *(f"{task}: {kept.measure(task)}" for task in tasks)]]
    rows.append(["constant answer", *(kept.constant(task, "test") for task in tasks)])
    for method in plan.methods:
        rows.append([method, *(score(plan, kept, task, method) for task in tasks)])
    return [*rows[:2], *begun([rows[0], *rows[2:]])[1:]]


def compared(plan: GpuPlan, kept: Kept) -> Rows:
    """Differences on test over the seeds that both have; and of the tasks' means, over the tasks."""
    tasks = plan.setting.first
    rows = [["difference on test, points", *tasks, "over the tasks"]]
    for first, second in PAIRS:
        found = [both(kept, task, first, second) for task in tasks]
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
    chance = "" if found is None else ", p < 0.001" if found[1] < 0.001 else f", p = {found[1]:.3f}"
    return f"{statistics.fmean(values):+.1f} ({len(values)}){chance}"


def curves(plan: GpuPlan, kept: Kept) -> Rows:
    """dev at each quarter of a run, the mean over the seeds: which is ahead after equally many steps?"""
    rows = [["dev at each quarter of the steps", *plan.setting.first]]
    for method in plan.methods:
        cells = []
        for task in plan.setting.first:
            found = [result.on_dev for result in runs(kept, task, method).values()]
            means = [f"{statistics.fmean(values):.1f}" for values in zip(*found, strict=True)]
            cells.append(f"{', '.join(means)} ({len(found)})" if found else NOT_RUN)
        rows.append([method, *cells])
    return begun(rows)


def published(plan: GpuPlan, kept: Kept) -> Rows:
    rows = [["accuracy on test: here / T5-base", *FIRST]]
    for method, scores in PUBLISHED.items():
        found = [list(runs(kept, task, method).values()) for task in FIRST]
        here = [[run.metrics[task]["test"]["accuracy"] for run in own] for task, own in zip(FIRST, found, strict=True)]
        cells = [f"{figure(own) if own else NOT_RUN} / {score}" for own, score in zip(here, scores, strict=True)]
        rows.append([method, *cells])
    return rows


def mixtures(plan: GpuPlan, kept: Kept) -> Rows:
    """What ATTEMPT gives each prompt in the end, the mean over dev's texts and the seeds; how much texts differ."""
    rows = [["weight at the last step", *SOURCES, "target", "deviation over texts"]]
    for task in plan.setting.first:
        for method in ("attempt-max", f"attempt-{POOL}", "attempt-cut"):
            found = [run.mixtures[task] for run in runs(kept, task, method).values() if task in run.mixtures]
            shares = [[one["weights"][name] for one in found] for name in (*SOURCES, "target")]
            cells = [f"{statistics.fmean(share):.2f} ({len(share)})" if share else NOT_RUN for share in shares]
            rows.append([f"{task}, {method}", *cells, over_texts(found)])
    return begun(rows)


def over_texts(mixtures: Sequence[dict[str, Any]]) -> str:
    return f"{statistics.fmean(one['deviation'] for one in mixtures):.5f}" if mixtures else NOT_RUN


def routing(plan: GpuPlan, kept: Kept) -> Rows:
    """What each kind of the stream's rows gives its own source in the end: weight, and deviation over texts."""
    rows = [["weight of the row's own source", *STREAM]]
    for stem in (f"stream-{target}-{pool}" for target in ("attempt", "no-target") for pool in ("max", POOL)):
        found = kept.results(by_seed(stem))
        cells = []
        for task in STREAM:
            own = [run.mixtures[task] for run in found]
            weight = statistics.fmean(one["weights"][task] for one in own) if own else 0.0
            cells.append(f"{weight:.2f}, {over_texts(own)} ({len(own)})" if own else NOT_RUN)
        rows.append([stem, *cells])
    return begun(rows)


def others(plan: GpuPlan, kept: Kept) -> Rows:
    """All that is no source and no target alone: several tasks, a stream, few examples."""
    rows = [["mean over the tasks", "dev", "test"]]
    stems = [one.name.rpartition("-")[0] for one in plan.cells() if one.part not in ("sources", "targets")]
    for stem in dict.fromkeys(stem for stem in stems if stem != "source"):
        names = by_seed(stem)
        rows.append([stem, kept.score(names, "dev"), kept.score(names, "test") + on_cpu(plan, kept, names)])
    return begun(rows)


def others_compared(plan: GpuPlan, kept: Kept) -> Rows:
    """Differences on test, of the means over the tasks, over the seeds that both have. `alone`: a run for each task."""
    rows = [["difference on test, points, of the means over the tasks", "(seeds), p"]]
    pairs = [("multi", "alone"), ("multi-own-rate", "alone"), ("multi-own-rate", "multi")]
    pairs += [("multi-pretrained", "multi-own-rate"), ("multi-pretrained", "alone")]
    pairs += [(f"stream-{one}-{POOL}", f"stream-{one}-max") for one in ("no-target", "attempt")]
    pairs += [(f"stream-{one}-{POOL}", "stream-prompt") for one in ("no-target", "attempt")]
    few = [f"shots-{task}" for task in plan.setting.few]
    pairs += [(f"{task}-attempt-max", f"{task}-{other}") for task in few for other in ("prompt", "from-mnli")]

    def means(stem: str, seed: int) -> float | None:
        if stem == "alone":
            found = kept.results([f"{task}-attempt-max-{seed}" for task in plan.setting.first])
            return (
                statistics.fmean(run.mean("test") for run in found) if len(found) == len(plan.setting.first) else None
            )
        run = kept.result(f"{stem}-{seed}")
        return None if run is None else run.mean("test")

    for first, second in pairs:
        both = [(means(first, seed), means(second, seed)) for seed in SEEDS]
        rows.append([f"{first} - {second}", difference([a - b for a, b in both if a is not None and b is not None])])
    return begun(rows)


def of(setting: Setting, folder: str, table: Callable[[GpuPlan, Kept], Rows]) -> Callable[[Kept], Rows]:
    """A table of the cells that are kept in this folder, beside the document's."""
    return lambda kept: table(GpuPlan(setting), Kept(kept.place.with_name(folder)))


GPU = (progress, sources, targets, compared, curves, published, mixtures, others)
IN_DEMO = (targets, compared, curves, mixtures, others, others_compared, routing)
TABLES: dict[str, Callable[[Kept], Rows]] = {
    **{f"gpu-{table.__name__}": partial(table, GpuPlan()) for table in GPU},
    **{f"demo-{table.__name__.replace('_', '-')}": of(DEMO, "demo", table) for table in IN_DEMO},
}
