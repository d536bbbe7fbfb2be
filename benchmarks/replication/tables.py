"""The tables of docs/replication.md, each from the kept results alone."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median

from attempt.errors import AttemptError
from attempt.files import write_whole
from benchmarks.replication import plan_gpu
from benchmarks.replication.plan_cpu import (
    ABLATIONS,
    BRIEF,
    ELSEWHERE,
    FULL,
    METHODS,
    OTHERS,
    PAIRS,
    PROMPTS,
    SEEDS,
    SHOTS,
    SIZES,
    SOURCES,
    VARIANTS,
    plan,
    zero_shot_of,
)
from benchmarks.replication.results import NOT_RUN, SPLITS, Kept, Result, figure
from benchmarks.timing import markdown
from data.metrics import pearson, spearman

Rows = list[list[str]]
FROM = tuple(f"from-{source}" for source in SOURCES)


def seeds(stem: str) -> list[str]:
    """The cells of all seeds."""
    return [f"{stem}-{seed}" for seed in SEEDS]


def begun(rows: Rows) -> Rows:
    """Without the rows that have no run yet; the first is the head."""
    return [rows[0], *(row for row in rows[1:] if set(row[1:]) - {NOT_RUN, "-"})]


def progress(kept: Kept) -> Rows:
    """How much of the plan is there, by question."""
    parts: dict[str, list[str]] = {}
    for cell in plan():
        parts.setdefault(cell.part, []).append(cell.name)
    rows = [["part", "cells", "run", "failed"]]
    for part, names in parts.items():
        failed = sum(kept.failed(name) for name in names)
        rows.append([part, str(len(names)), str(len(kept.results(names))), str(failed)])
    return rows


def sources(kept: Kept) -> Rows:
    """Source prompts beside the T5 alone, with their curves."""
    head = [
        "task",
        "metric",
        "constant answer, test",
        "T5 alone, test",
        "10 steps, test",
        "100 steps (squad 50), dev",
        "test",
    ]
    rows = [[*head, "dev every 25 steps"]]
    for task in SOURCES:
        alone = zero_shot_of(task)
        found = kept.result(f"source-{task}")
        curve = curve_of(found)
        scores = [kept.score([f"source-{task}"], split) for split in SPLITS]
        cells = [kept.constant(task, "test"), kept.score([alone], "test", task), kept.score([f"early-{task}"], "test")]
        rows.append([task, metric(kept, task), *cells, *scores, curve])
    return rows


def curve_of(found: Result | None) -> str:
    """The first metric on dev at each evaluation, in order."""
    return ", ".join(f"{value:.1f}" for value in found.on_dev) if found else NOT_RUN


def metric(kept: Kept, task: str) -> str:
    return str(kept.chance[task]["metric"]) if task in kept.chance else ""


def variants(kept: Kept) -> Rows:
    """Source prompts with one thing changed."""
    tasks = ("sst2", "mnli")
    rows = [["", *(f"{task}, {split}" for task in tasks for split in SPLITS), "sst2, dev after 25, 50, 75, 100 steps"]]
    for variant in ("", *VARIANTS):
        names = ["-".join(filter(None, ["source", task, variant])) for task in tasks]
        found = kept.result(names[0])
        curve = curve_of(found)
        rows.append([variant or "as above", *(kept.score([name], s) for name in names for s in SPLITS), curve])
    return begun(rows)


def methods_table(kept: Kept, tasks: tuple[str, ...], methods: tuple[str, ...]) -> Rows:
    """Test scores of the methods on some targets; SPoT's two choices come from the cells of all sources."""
    rows = [["test", *(f"{task}: {metric(kept, task)}" for task in tasks)]]
    rows.append(["constant answer", *(kept.constant(task, "test") for task in tasks)])
    rows.append(["T5 alone", *(kept.score([zero_shot_of(task)], "test", task) for task in tasks)])
    for method in methods:
        rows.append([method, *(kept.score(seeds(f"{task}-{method}"), "test") for task in tasks)])
    if set(FROM) <= set(methods):
        rows.append(["SPoT: nearest source", *(chosen(kept, task, nearest) for task in tasks)])
        rows.append(["SPoT: best on dev", *(chosen(kept, task, best_on_dev) for task in tasks)])
    return begun(rows)


Starts = dict[str, Result]  # the runs of a target from each source


def starts(kept: Kept, task: str, seed: int) -> Starts | None:
    """None where one of them is missing: the choice would not be SPoT's."""
    found = {source: kept.result(f"{task}-from-{source}-{seed}") for source in SOURCES}
    runs = {source: result for source, result in found.items() if result is not None}
    return runs if len(runs) == len(SOURCES) else None


def nearest(own: Result | None, runs: Starts) -> str | None:
    """The source whose prompt is most like the target's own (by the mean of its rows)."""
    if own is None or not set(runs) <= {name.removeprefix("source-") for name in own.similarities}:
        return None
    return max(runs, key=lambda source: own.similarities[f"source-{source}"]["average"])


def best_on_dev(own: Result | None, runs: Starts) -> str | None:
    return max(runs, key=lambda source: runs[source].means["dev"])


def chosen(kept: Kept, task: str, choose: Callable[[Result | None, Starts], str | None]) -> str:
    scores, names = [], []
    for seed in SEEDS:
        runs = starts(kept, task, seed)
        source = choose(kept.result(f"{task}-prompt-{seed}"), runs) if runs else None
        if runs and source:
            scores.append(runs[source].means["test"])
            names.append(source)
    return f"{figure(scores)}, {', '.join(dict.fromkeys(names))}" if scores else NOT_RUN


def costs(kept: Kept) -> Rows:
    """What the methods train, and how long a run took."""
    rows = [["method", "trained parameters", "seconds, median of all runs of 60 steps"]]
    for method in BRIEF:
        runs = kept.results([name for task in (*FULL, *OTHERS) for name in seeds(f"{task}-{method}")])
        middle = median(result.seconds for result in runs) if runs else None
        rows.append([method, f"{runs[0].parameters:,}" if runs else NOT_RUN, f"{middle:.0f}" if middle else NOT_RUN])
    return begun(rows)


def few_shot(kept: Kept) -> Rows:
    rows = [["test", "constant answer", "T5 alone", "prompt", "from-mnli", "attempt"]]
    for task, numbers in SHOTS.items():
        for k in numbers:
            scores = [kept.score(seeds(f"shots-{task}-{k}-{m}"), "test") for m in PROMPTS]
            if set(scores) != {NOT_RUN}:
                alone = kept.score([zero_shot_of(task)], "test", task)
                rows.append([f"{task}, k = {k}", kept.constant(task, "test"), alone, *scores])
    return rows


def ablations(kept: Kept) -> Rows:
    return mixtures(kept, "dev after 15 steps", "sst2", {name: f"ablation-{name}" for name in ABLATIONS})


def elsewhere(kept: Kept) -> Rows:
    names = ("attempt", "prompt", "from-mnli", *ELSEWHERE)
    return mixtures(kept, "dev after 30 steps", "mnli", {name: f"scitail-{name}" for name in names})


def mixtures(kept: Kept, first: str, source: str, stems: dict[str, str]) -> Rows:
    """Scores and two weights of some runs, by name."""
    rows = [["", first, "dev", "test", f"weight of {source}'s prompt", "of the target"]]
    for name, stem in stems.items():
        runs = kept.results(seeds(stem))
        scores = [kept.score(seeds(stem), split) for split in SPLITS]
        rows.append([name, at_first(runs), *scores, *(share(runs, prompt) for prompt in (source, "target"))])
    return begun(rows)


def at_first(runs: list[Result]) -> str:
    """The score on dev at the first evaluation."""
    return figure([run.on_dev[0] for run in runs]) if runs else NOT_RUN


def share(runs: list[Result], prompt: str) -> str:
    """A prompt's mean weight over the runs; "-" where it is not mixed."""
    found = [run.weights[prompt] for run in runs if prompt in run.weights]
    return f"{sum(found) / len(found):.3f}" if found else "-"


def transfer(kept: Kept) -> Rows:
    """For each target and source: the similarity of their prompts, and what starting there gains on test."""
    rows = [["similarity / gain", *SOURCES]]
    for task in FULL:
        runs = [found for seed in SEEDS if (found := pairs(kept, task, seed))]
        row = []
        for source in SOURCES:
            means = [fmean(run[source][i] for run in runs) for i in range(2)] if runs else []
            row.append(f"{means[0]:.2f} / {means[1]:+.1f}" if runs else NOT_RUN)
        rows.append([task, *row])
    return begun(rows)


def pairs(kept: Kept, task: str, seed: int, measure: str = "average") -> dict[str, tuple[float, float]]:
    """(similarity, gain on test over the prompt from scratch) of each source; none where one is missing.

    A seed's prompts begin with the same rows of the vocabulary, so that seeds must not be mixed: see SPoT in the page.
    """
    own, runs = kept.result(f"{task}-prompt-{seed}"), starts(kept, task, seed)
    if own is None or runs is None or not {f"source-{source}" for source in runs} <= own.similarities.keys():
        return {}
    return {
        source: (own.similarities[f"source-{source}"][measure], run.means["test"] - own.means["test"])
        for source, run in runs.items()
    }


def correlation(kept: Kept) -> Rows:
    """Of similarity and gain, over all pairs of a target's run and a source.

    The gains of one run share the score that they are gains over, and its noise: less their mean they do not.
    """
    rows = [["similarity", "pairs", "Pearson", "Spearman", "Pearson, both less the mean of their target's run"]]
    for measure in ("average", "tokens"):
        groups = [list(pairs(kept, task, seed, measure).values()) for task in FULL for seed in SEEDS]
        points = [point for group in groups for point in group]
        if len(points) < 3:
            rows.append([measure, str(len(points)), *[NOT_RUN] * 3])
            continue
        x, y = zip(*points, strict=True)
        inner = [g - fmean(p[1] for p in group) for group in groups for _, g in group]
        own = [s - fmean(p[0] for p in group) for group in groups for s, _ in group]
        both = (pearson(x, y), spearman(x, y), pearson(own, inner))
        rows.append([measure, str(len(points)), *("-" if math.isnan(r) else f"{r / 100:.2f}" for r in both)])
    return rows


def multi(kept: Kept) -> Rows:
    """Targets one by one and together."""
    rows = [["test", *(f"{task}: {metric(kept, task)}" for task in FULL), "mean"]]
    single = [kept.score(seeds(f"{task}-attempt"), "test") for task in FULL]
    rows.append(["attempt, one by one (60 steps each)", *single, "-"])
    for stem, name in (("multi", "attempt, four tasks (160 steps)"), ("multi-pretrained", "the same, G pre-trained")):
        scores = [kept.score(seeds(stem), "test", task) for task in FULL]
        rows.append([name, *scores, kept.score(seeds(stem), "test")])
    return rows


def better(kept: Kept) -> Rows:
    """The same mixture of sources of 10 and of 100 steps, and of none that knows the task."""
    rows = [["SST-2 from", "sst2's prompt alone, test", "dev after 15 steps", "dev", "test"]]
    cases = (("sources of 100 steps", "attempt", "source-sst2"), ("sources of 10 steps", "early", "early-sst2"))
    for text, name, source in (
        *cases,
        ("sources without sst2", "without-sst2", ""),
        ("no sources: prompt tuning", "prompt", ""),
    ):
        runs = kept.results(seeds(f"ablation-{name}"))
        scores = [kept.score(seeds(f"ablation-{name}"), split) for split in SPLITS]
        rows.append([text, kept.score([source], "test") if source else "-", at_first(runs), *scores])
    return rows


def sizes(kept: Kept) -> Rows:
    rows = [["scitail, test", "prompt", "from-mnli", "attempt"]]
    for n in SIZES:
        rows.append(
            [
                f"{n:,} examples",
                *(kept.score(seeds(f"size-{n}-{m}"), "test") for m in PROMPTS),
            ]
        )
    full = [kept.score(seeds(f"scitail-{m}"), "test") for m in PROMPTS]
    return begun([*rows, ["all (60 steps read 960)", *full]])


def reach(kept: Kept) -> Rows:
    """Ways to the comparison of two sentences."""
    ways = ("source-{}", "source-{}-text", "long-{}", "attempt-{}", "finetune-{}")
    head = [
        "prompt, 100 steps",
        "from a question in flan's manner",
        "400 steps",
        "ATTEMPT, 60 steps",
        "fine-tuning, 60",
    ]
    rows = [["test (dev)", "constant answer", "T5 alone", *head]]
    for task in PAIRS:
        rows.append([task, kept.constant(task, "test"), kept.score([zero_shot_of(task)], "test", task)])
        for way in ways:
            test, dev = (kept.score([way.format(task)], split) for split in ("test", "dev"))
            rows[-1].append(f"{test} ({dev})" if kept.result(way.format(task)) else test)
    return rows


TABLES: dict[str, Callable[[Kept], Rows]] = {
    "progress": progress,
    "sources": sources,
    "variants": variants,
    "targets": lambda kept: methods_table(kept, FULL, tuple(METHODS)),
    "others": lambda kept: methods_table(kept, OTHERS, BRIEF),
    "costs": costs,
    "few-shot": few_shot,
    "ablations": ablations,
    "elsewhere": elsewhere,
    "transfer": transfer,
    "correlation": correlation,
    "multi": multi,
    "better": better,
    "sizes": sizes,
    "reach": reach,
}
GPU_SCRIPT = "gpu.sh"
MARK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, kept: Kept) -> str:
    """The document with its tables made anew, each between its two marks."""

    def made(match: re.Match[str]) -> str:
        return f"{match[1]}{markdown(TABLES[match[2]](kept))}\n{match[3]}"

    if unknown := [match[2] for match in MARK.finditer(text) if match[2] not in TABLES]:
        raise AttemptError(f"expected tables of {', '.join(TABLES)}, found {', '.join(unknown)}")
    return MARK.sub(made, text)


def write_tables(document: Path, place: Path) -> None:
    """The document, and the script for a GPU beside the kept cells."""
    write_whole(document, filled(document.read_text(encoding="utf-8"), Kept(place)).encode())
    write_whole(place / GPU_SCRIPT, plan_gpu.script().encode())
