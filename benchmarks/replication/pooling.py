"""How texts are pooled, and whether mixtures follow them: the last part of docs/replication.md, from its kept figures.

docs/replication/pooling.jsonl has a line a run: what it was told, its accuracy on dev and test in percent at the step
that is best on dev, and there the weights' deviation over dev texts and, of a stream, each kind's mean weights on dev
(on the real checkpoint on test).
"""

import json
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from attempt.compare.significance import paired_t
from attempt.runs.report import figure
from benchmarks.replication.results import NOT_RUN

FIGURES = "pooling.jsonl"
TASKS = ("stream", "mrpc", "rte", "mrpc rte")
REAL_TASKS = ("stream", "scitail", "cb")
POOLS = ("max", "mean", "centred")
KINDS = ("mnli", "qnli", "qqp", "sst2")
RATES = ("0.3", "0.01", "0.001")

Rows = list[list[str]]
Run = dict[str, Any]
Way = tuple[str, bool]  # pool, or "prompt" for prompt tuning; and whether there is a target

MIXTURES: tuple[Way, ...] = tuple((pool, target) for target in (False, True) for pool in POOLS)
PROMPT: Way = ("prompt", True)


def named(way: Way) -> str:
    pool, target = way
    return "prompt tuning" if way == PROMPT else f"{pool}, {'with' if target else 'without'} a target"


def read(place: Path) -> list[Run]:
    path = place / FIGURES
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def chosen(runs: Sequence[Run], model: str, task: str, way: Way, rate: str = "0.3") -> dict[int, Run]:
    """seed -> run"""
    pool, target = way
    wanted = (model, task, pool, target, rate)
    found = [run for run in runs if (run["model"], run["task"], run["pool"], run["target"], run["rate"]) == wanted]
    return {run["seed"]: run for run in found}


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± sample deviation (number of seeds)."""
    if not values:
        return NOT_RUN
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return f"{figure(statistics.fmean(values), deviation, digits)} ({len(values)})"


def begun(rows: Rows) -> Rows:
    """Without the rows that have no run; the first is the head."""
    return [rows[0], *(row for row in rows[1:] if set(row[1:]) - {NOT_RUN})]


def own(run: Run) -> list[float]:
    """What each kind's rows give their own source's prompt."""
    return [run["kinds"][kind][run["prompts"].index(kind)] for kind in KINDS]


def routing(model: str, place: Path, rate: str = "0.3") -> Rows:
    """What each kind of the stream's rows gives its own source, and how much the weights vary over texts."""
    rows = [["", *(f"{kind} rows on {kind}" for kind in KINDS), "kinds of 4 with 0.5 or more, by seed", "over texts"]]
    for way in MIXTURES:
        runs = list(chosen(read(place), model, "stream", way, rate).values())
        shares = [own(run) for run in runs]
        cells = [spread([share[i] for share in shares], 2) for i in range(len(KINDS))]
        counts = " ".join(str(sum(weight >= 0.5 for weight in share)) for share in shares)
        rows.append([named(way), *cells, counts or NOT_RUN, spread([run["deviation"]["stream"] for run in runs], 4)])
    return begun(rows)


def routing_at_rates(model: str, rates: Sequence[str], place: Path) -> Rows:
    """The same with G's rate beside each way."""
    found = {rate: routing(model, place, rate) for rate in rates}
    told = [[f"{row[0]}, G's rate {rate}", *row[1:]] for rate, rows in found.items() for row in rows[1:]]
    return [found[rates[0]][0], *told]


def scores(model: str, tasks: Sequence[str], place: Path, rate: str = "0.3") -> Rows:
    """Mean accuracies; `rate` is G's: prompt tuning, which has no G, is kept with the default's."""
    rows = [["accuracy on test, %", *tasks]]
    for way in (PROMPT, *MIXTURES):
        of_G = "0.3" if way == PROMPT else rate
        runs = [chosen(read(place), model, task, way, of_G).values() for task in tasks]
        rows.append([named(way), *(spread([run["test"] for run in found]) for found in runs)])
    return begun(rows)


def compared(model: str, tasks: Sequence[str], place: Path) -> Rows:
    """Paired t-tests over the seeds that both have."""
    pairs = [((pool, target), ("max", target)) for target in (False, True) for pool in ("mean", "centred")]
    pairs += [(way, PROMPT) for way in MIXTURES]
    rows = [["difference on test, points", *tasks]]
    for first, second in pairs:
        cells = [difference(*(chosen(read(place), model, task, way) for way in (first, second))) for task in tasks]
        rows.append([f"{named(first)} - {named(second)}", *cells])
    return begun(rows)


def difference(first: dict[int, Run], second: dict[int, Run]) -> str:
    """Mean, and the chance of one as large by the paired t-test, two-sided."""
    differences = [first[seed]["test"] - second[seed]["test"] for seed in sorted(first.keys() & second.keys())]
    if len(differences) < 2:
        return NOT_RUN if not differences else f"{differences[0]:+.1f}"
    found = paired_t(differences)
    chance = "" if found is None else "p < 0.001" if found[1] < 0.001 else f"p = {found[1]:.3f}"
    return f"{statistics.fmean(differences):+.1f} {chance}".strip()


def dependence(place: Path) -> Rows:
    """How the weights deviate over texts, on the tasks that are no stream; of two at once also between them."""
    rows = [["deviation of the weights", "over mrpc's texts", "over rte's texts", "two at once: over texts", "between"]]
    for way in MIXTURES:
        single = [chosen(read(place), "demo", task, way).values() for task in ("mrpc", "rte")]
        cells = [spread([statistics.fmean(run["deviation"].values()) for run in runs], 4) for runs in single]
        both = chosen(read(place), "demo", "mrpc rte", way).values()
        cells.append(spread([statistics.fmean(run["deviation"].values()) for run in both], 4))
        rows.append([named(way), *cells, spread([run["between"] for run in both], 4)])
    return begun(rows)


def rates(place: Path) -> Rows:
    """G's rate beside the pooling, on the stream without a target: own source's weight, mean of the kinds; test."""
    rows = [["own source's weight; accuracy on test", *(f"G's rate {rate}" for rate in RATES)]]
    for pool in POOLS:
        found = [list(chosen(read(place), "demo", "stream", (pool, False), rate).values()) for rate in RATES]
        weights = [spread([statistics.fmean(own(run)) for run in runs], 2) for runs in found]
        tests = [spread([run["test"] for run in runs]) for runs in found]
        rows.append([pool, *(f"{w}; {t}" if t != NOT_RUN else t for w, t in zip(weights, tests, strict=True))])
    return begun(rows)


TABLES: dict[str, Callable[[Path], Rows]] = {
    "pool-routing": partial(routing, "demo"),
    "pool-scores": partial(scores, "demo", TASKS),
    "pool-tests": partial(compared, "demo", TASKS),
    "pool-dependence": dependence,
    "pool-rates": rates,
    "pool-real": partial(routing_at_rates, "real", ("0.3", "0.01")),
    "pool-real-scores": partial(scores, "real", REAL_TASKS, rate="0.01"),
}
