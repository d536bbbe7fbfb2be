"""What pictures of runs show: their figures, and the same as text. attempt/plots/draw.py draws them.

Shapes: T rows, one a target task; P prompts in a mixture (sources + target); N examples, or prompts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attempt.compare.records import Group
from attempt.plots.cluster import leaf_order
from attempt.runs.report import bars, figure, table
from attempt.training.series import spread

Numbers = NDArray[np.float64]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class AttentionMap:
    """How much of each prompt the targets get (Asai et al. 2022, fig. 4); with how it varies over the instances."""

    title: str
    targets: list[str]
    prompts: list[str]
    weights: Numbers
    """(T,P): means over the examples; NaN where a target does not mix a prompt."""
    instances: dict[str, Numbers] = field(default_factory=dict)
    """For targets of which they are known, every example's weights (N,P)."""

    def text(self) -> str:
        blocks = [self.title]
        for target, row in zip(self.targets, self.weights, strict=True):
            pairs = zip(self.prompts, row.tolist(), strict=True)
            shares = {name: weight for name, weight in pairs if not math.isnan(weight)}
            blocks.append(f"{target}: mean weights\n{bars(shares)}")
            if target in self.instances:
                quantiles = np.quantile(self.instances[target], QUANTILES, axis=0).T  # (P,5)
                rows = [["", *(f"{q:.0%}" for q in QUANTILES)]]
                rows += [[n, *(f"{v:.3f}" for v in values)] for n, values in zip(self.prompts, quantiles, strict=True)]
                blocks.append(f"{target}: quantiles over the {len(self.instances[target]):,} examples\n{table(rows)}")
        return "\n\n".join(blocks)


def attention_map(split: str, prompts: Sequence[str], instances: dict[str, Numbers]) -> AttentionMap:
    """Of every example's weights (N,P), for each task."""
    sizes = ", ".join(f"{task} ({len(weights):,} examples)" for task, weights in instances.items())
    means = np.stack([weights.mean(0) for weights in instances.values()])
    return AttentionMap(f"Weights of the prompts on {split}: {sizes}", list(instances), list(prompts), means, instances)


def attention_maps(groups: Sequence[Group]) -> list[AttentionMap]:
    """One picture of all finished mixtures: at their best steps, on dev, means over seeds. None: an empty list."""
    rows: list[tuple[str, str, dict[str, float]]] = []  # task, group, prompt -> weight
    sizes: set[int] = set()
    for one in groups:
        bests = [record.best for record in one.runs if record.best is not None and record.best.mixture]
        for task in dict.fromkeys(task for best in bests for task in best.mixture):
            rows.append((task, one.label, mean_of([best.mixture[task] for best in bests if task in best.mixture])))
            sizes |= {best.examples[task] for best in bests if task in best.examples}
    if not rows:
        return []
    prompts = by_target_last(weights for _, _, weights in rows)
    several = len({label for _, label, _ in rows}) > 1
    names = [f"{task}: {label}" if several else task for task, label, _ in rows]
    values = np.array([[weights.get(name, math.nan) for name in prompts] for _, _, weights in rows])
    title = f"Weights of the prompts on dev ({either(sizes)} examples), best step, mean of the seeds"
    return [AttentionMap(title, names, prompts, values)]


def mean_of(shares: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each name over the dicts that have it."""
    names = dict.fromkeys(name for one in shares for name in one)
    return {name: float(np.mean([one[name] for one in shares if name in one])) for name in names}


def by_target_last(shares: Any) -> list[str]:
    names = list(dict.fromkeys(name for one in shares for name in one))
    return sorted(names, key=lambda name: name == "target")  # a stable sort


def either(sizes: set[int]) -> str:
    """Of which numbers of examples figures are: "400", "400 or 1,000"."""
    return " or ".join(f"{size:,}" for size in sorted(sizes)) or "unknown"


@dataclass(frozen=True)
class Line:
    """A quantity over training steps: mean over seeds, and sample deviation (NaN of a single run)."""

    label: str
    steps: list[int]
    mean: Numbers
    deviation: Numbers
    seeds: int
    method: str = ""
    """Whose the quantity is, as --method has it; "" where that is the same for all lines."""


def line(label: str, runs: Sequence[dict[int, float]], method: str = "") -> Line:
    """Of runs (step -> value), at the steps that all of them have: else the band would be of different runs."""
    steps = sorted(set.intersection(*map(set, runs))) if runs else []
    found = [spread([run[step] for run in runs]) for step in steps]
    deviations = [math.nan if one["deviation"] is None else one["deviation"] for one in found]
    return Line(label, steps, np.array([one["mean"] for one in found]), np.array(deviations), len(runs), method)


@dataclass(frozen=True)
class Panel:
    """Lines over the same axes."""

    unit: str
    lines: list[Line]
    from_zero: bool = True
    """Whether the axis begins at 0."""
    constant: list[float] = field(default_factory=list)
    """What a constant answer has: usually one value, more where the runs' training sets differ."""


@dataclass(frozen=True)
class Curves:
    """Panels over training steps, one below the other."""

    title: str
    panels: list[Panel]

    def text(self) -> str:
        blocks = [self.title]
        for panel in self.panels:
            steps = sorted({step for one in panel.lines for step in one.steps})
            rows = [["step", *(one.label for one in panel.lines)]]
            rows += [[f"{step:,}", *(self._cell(one, step) for one in panel.lines)] for step in steps]
            constant = f"\nconstant answer: {several(panel.constant)}" if panel.constant else ""
            blocks.append(f"{panel.unit}\n{table(rows)}{constant}")
        return "\n\n".join(blocks)

    @staticmethod
    def _cell(one: Line, step: int) -> str:
        if step not in one.steps:
            return "-"
        at = one.steps.index(step)
        return figure(float(one.mean[at]), float(one.deviation[at]), 3)


def learning_curves(groups: Sequence[Group]) -> list[Curves]:
    """For each task its score on dev, and the loss of the runs that train on it, over training steps."""
    found = []
    for task in tasks_of(groups):
        scores, losses, sizes, metrics = [], [], set(), set()
        for one in groups:
            with_task = [[e for e in record.evaluations if task in e.scores] for record in one.runs]
            runs = [evaluations for evaluations in with_task if evaluations]
            if runs:
                values = [{e.step: e.scores[task][1] for e in run} for run in runs]
                scores.append(line(one.label, values, one.plan.method))
                values = [{e.step: e.loss for e in run if math.isfinite(e.loss)} for run in runs]
                losses.append(line(one.label, values, one.plan.method))
                sizes |= {e.examples[task] for run in runs for e in run}
                metrics |= {e.scores[task][0] for run in runs for e in run}
        if any(one.steps for one in scores):
            title = f"{task}: learning curves, dev ({either(sizes)} examples)"
            unit = f"{' or '.join(sorted(metrics))} (%)"
            score = Panel(unit, scores, from_zero=False, constant=constants(groups, task, "dev"))
            found.append(Curves(title, [score, Panel("loss (nats/token)", losses)]))
    return found


def mixture_curves(groups: Sequence[Group]) -> list[Curves]:
    """For each mixture and task the weights of the prompts over training steps."""
    found = []
    for one in groups:
        for task in one.tasks:
            runs = [[e for e in record.evaluations if task in e.mixture] for record in one.runs]
            lines = []
            for name in by_target_last(e.mixture[task] for run in runs for e in run):
                weights = [{e.step: e.mixture[task][name] for e in run if name in e.mixture[task]} for run in runs]
                lines.append(line(name, [run for run in weights if run]))
            if any(each.steps for each in lines):
                sizes = either({e.examples[task] for run in runs for e in run if task in e.examples})
                title = f"{task}: weights of the prompts on dev ({sizes} examples); {one.label}"
                found.append(Curves(title, [Panel("mean weight", lines)]))
    return found


def constants(groups: Sequence[Group], task: str, split: str) -> list[float]:
    """The first metric of a constant answer: of runs on other examples there may be several."""
    found = [record.constant(split) for one in groups for record in one.runs]
    return sorted({one[task] for one in found if task in one})


def several(values: Sequence[float]) -> str:
    return " or ".join(f"{value:.2f}" for value in values)


def tasks_of(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(task for one in groups for task in one.tasks))


@dataclass(frozen=True)
class Results:
    """The first metric of every task and group of runs: the values of its seeds."""

    title: str
    tasks: list[str]
    notes: list[str]
    """For each task its metric and the number of examples."""
    groups: list[str]
    methods: list[str]
    """Each group's, as --method has it."""
    values: dict[tuple[str, str], list[float]]
    """(group, task) -> a value a seed, in percent."""
    constants: dict[str, list[float]] = field(default_factory=dict)
    """What a constant answer has on each task."""

    def rows(self) -> list[list[str]]:
        """A row a group and a column a task: mean ± sample deviation, in percent (number of runs)."""
        heads = [f"{task}: {note}" for task, note in zip(self.tasks, self.notes, strict=True)]
        found = [["method", *heads], *([one, *(self._cell(one, task) for task in self.tasks)] for one in self.groups)]
        if any(self.constants.values()):
            found.append(["constant answer", *(several(self.constants.get(task, [])) or "-" for task in self.tasks)])
        return found

    def _cell(self, one: str, task: str) -> str:
        values = self.values.get((one, task))
        if not values:
            return "-"
        found = spread(values)
        return f"{figure(found['mean'], found['deviation'])} ({len(values)})"

    def text(self) -> str:
        return f"{self.title}\n\n{table(self.rows())}"


def results(groups: Sequence[Group], split: str) -> list[Results]:
    """Of all complete runs; none: an empty list."""
    values: dict[tuple[str, str], list[float]] = {}
    sizes: dict[str, set[int]] = {}
    metrics: dict[str, set[str]] = {}
    for one in groups:
        for record in one.runs:
            for task, (metric, value) in record.scores(split).items():
                values.setdefault((one.label, task), []).append(value)
                metrics.setdefault(task, set()).add(metric)
                sizes.setdefault(task, set()).update({record.examples(split).get(task, 0)} - {0})
    tasks, labels = list(metrics), list(dict.fromkeys(label for label, _ in values))
    notes = [f"{' or '.join(sorted(metrics[task]))}, {either(sizes[task])} examples" for task in tasks]
    title = f"Results on {split}: the first metric, mean ± deviation over the runs"
    methods = {one.label: one.plan.method for one in groups}
    constant = {task: constants(groups, task, split) for task in tasks}
    found = Results(title, tasks, notes, labels, [methods[label] for label in labels], values, constant)
    return [found] if values else []


@dataclass(frozen=True)
class Similarity:
    """How alike prompts are (Vu et al. 2022, fig. 3), those of a cluster next to each other."""

    title: str
    names: list[str]
    values: Numbers
    """(N,N), from -1 to 1."""

    def text(self) -> str:
        rows = [[n, *(f"{v:.2f}" for v in values)] for n, values in zip(self.names, self.values, strict=True)]
        return f"{self.title}\n\n{table([['', *self.names], *rows])}"


def similarity_matrix(names: Sequence[str], values: Numbers, measure: str) -> Similarity:
    order = leaf_order(values)
    what = {"average": "of the prompts' mean tokens", "tokens": "of all pairs of tokens, mean"}[measure]
    title = f"Cosine similarity {what}; {len(names)} prompts"
    return Similarity(title, [names[i] for i in order], values[np.ix_(order, order)])


Picture = AttentionMap | Curves | Results | Similarity
