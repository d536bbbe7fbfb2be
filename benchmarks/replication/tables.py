"""The tables of docs/replication-short.md, each from the kept results alone."""

from collections.abc import Callable
from statistics import fmean, median

import numpy as np

from benchmarks.replication import pooling
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
from data.metrics import pearson, spearman

Rows = list[list[str]]
FROM = tuple(f"from-{source}" for source in SOURCES)
PUBLISHED = (  # name, cells, T5-base with prompts of 100 on FULL as later papers copied it; "-": not found
    ("fine-tuning", "finetune", ("95.8", "71.9", "90.2", "85.7")),
    ("adapter", "adapter", ("-", "71.9", "85.3", "85.7")),
    ("BitFit", "bitfit", ("-", "67.6", "86.8", "78.6")),
    ("prompt tuning (there: second-hand)", "prompt", ("-", "54.7", "68.1", "67.9")),
    ("SPoT (here from MNLI)", "from-mnli", ("91.2", "69.8", "79.7", "46.4")),
    ("ATTEMPT", "attempt", ("93.1", "73.4", "85.7", "78.6")),
    ("ATTEMPT, several tasks", "multi", ("-", "79.9", "86.1", "82.1")),
)


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
    head = ["test (dev)", "constant answer", "T5 alone", "10 steps", "100 steps (squad 50)", "its best step"]
    rows = [[*head, "other metric, test", "dev every 25 steps"]]
    for task in SOURCES:
        found = kept.result(f"source-{task}")
        cells = [constants(kept, task), both(kept, zero_shot_of(task), task), both(kept, f"early-{task}")]
        cells += [both(kept, f"source-{task}"), str(found.best_step) if found else NOT_RUN]
        other = list(found.metrics[task]["test"].items())[1:] if found else []
        others = ", ".join(f"{name} {value:.1f}" for name, value in other) or "-"
        rows.append([f"{task}: {kept.measure(task)}", *cells, others, curve_of(found)])
    return rows


def both(kept: Kept, name: str, task: str | None = None) -> str:
    """test (dev)"""
    test, dev = (kept.score([name], split, task) for split in ("test", "dev"))
    return f"{test} ({dev})" if kept.result(name) else test


def constants(kept: Kept, task: str) -> str:
    """test (dev)"""
    return f"{kept.constant(task, 'test')} ({kept.constant(task, 'dev')})"


def curve_of(found: Result | None) -> str:
    """The score on dev at each evaluation, in order."""
    return ", ".join(f"{value:.1f}" for value in found.on_dev) if found else NOT_RUN


def variants(kept: Kept) -> Rows:
    """SST-2's prompt with one thing changed."""
    rows = [["", "sst2, test (dev)", "dev every 25 steps", "loss of steps 1 to 25"]]
    for variant in ("", *VARIANTS):
        name = f"source-sst2-{variant}" if variant else "source-sst2"
        found = kept.result(name)
        loss = f"{found.losses[0]:.2f}" if found else NOT_RUN
        rows.append([variant or "as above", both(kept, name), curve_of(found), loss])
    return begun(rows)


def methods_table(kept: Kept, tasks: tuple[str, ...], methods: tuple[str, ...]) -> Rows:
    """Test scores of the methods on some targets; SPoT's two choices come from the cells of all sources."""
    rows = [["test", *(f"{task}: {kept.measure(task)}" for task in tasks)]]
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
    return max(runs, key=lambda source: runs[source].mean("dev"))


def chosen(kept: Kept, task: str, choose: Callable[[Result | None, Starts], str | None]) -> str:
    scores, names = [], []
    for seed in SEEDS:
        runs = starts(kept, task, seed)
        source = choose(kept.result(f"{task}-prompt-{seed}"), runs) if runs else None
        if runs and source:
            scores.append(runs[source].mean("test"))
            names.append(source)
    return f"{figure(scores)}, {', '.join(dict.fromkeys(names))}" if scores else NOT_RUN


def costs(kept: Kept) -> Rows:
    """What the methods train, and how long a run took."""
    rows = [["method", "trained parameters", "seconds of a run on SciTail, median"]]
    for method in BRIEF:
        runs = kept.results(seeds(f"scitail-{method}"))
        seconds = f"{median(result.seconds for result in runs):.0f}" if runs else NOT_RUN
        rows.append([method, f"{runs[0].parameters:,}" if runs else NOT_RUN, seconds])
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
    rows = [["", first, "dev", "test", f"weight of {source}'s prompt in the end", "of the target"]]
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
    """For each target and source: the similarity of their prompts, and what starting there gains on test.

    Seed 42 alone: the prompts of one seed begin with the same rows of the vocabulary, those of others do not.
    """
    rows = [["similarity / gain", *SOURCES]]
    for task in FULL:
        found = pairs(kept, task, SEEDS[0])
        rows.append([task, *(f"{found[s][0]:.2f} / {found[s][1]:+.1f}" if found else NOT_RUN for s in SOURCES)])
    return begun(rows)


def pairs(kept: Kept, task: str, seed: int, measure: str = "average") -> dict[str, tuple[float, float]]:
    """(similarity, gain on test over the prompt from scratch) of each source; none where one is missing."""
    own, runs = kept.result(f"{task}-prompt-{seed}"), starts(kept, task, seed)
    if own is None or runs is None or not {f"source-{source}" for source in runs} <= own.similarities.keys():
        return {}
    return {
        source: (own.similarities[f"source-{source}"][measure], run.mean("test") - own.mean("test"))
        for source, run in runs.items()
    }


def correlation(kept: Kept) -> Rows:
    """Of similarity and gain over the sources, each less the mean of its target's run.

    A target's run has its own level of both: the gains share the score that they are gains over, the similarities
    the rows that the run began with.
    """
    rows = [["similarity", "targets' runs", "pairs", "degrees of freedom", "Pearson", "Spearman"]]
    for measure in ("average", "tokens"):
        for numbers, text in ((SEEDS[:1], "seed 42"), (SEEDS, "all seeds")):
            found = [list(pairs(kept, task, seed, measure).values()) for task in FULL for seed in numbers]
            groups = [np.array(group) for group in found if group]
            if not groups:
                continue
            x, y = np.concatenate([group - group.mean(0) for group in groups]).T
            free = len(x) - len(groups) - 1
            rs = [f"{r(x, y) / 100:.2f}" for r in (pearson, spearman)]
            rows.append([f"{measure}, {text}", str(len(groups)), str(len(x)), str(free), *rs])
    return rows


def multi(kept: Kept) -> Rows:
    """Targets one by one and together."""
    rows = [["test", *(f"{task}: {kept.measure(task)}" for task in FULL), "mean", "mean on dev"]]
    single = [kept.score(seeds(f"{task}-attempt"), "test", task) for task in FULL]
    rows.append(["one by one, 60 steps each", *single, *(mean_of_singles(kept, split) for split in ("test", "dev"))])
    for stem, name in (
        ("multi", "together, 160 steps"),
        ("multi-pretrained", "the same, G pre-trained"),
        ("multi-pretrained-slow", "G pre-trained and trained at 0.01"),
    ):
        scores = [kept.score(seeds(stem), "test", task) for task in FULL]
        rows.append([name, *scores, *(kept.score(seeds(stem), split) for split in ("test", "dev"))])
    return begun(rows)


def mean_of_singles(kept: Kept, split: str) -> str:
    """Over the targets, of the seeds that all of them have."""
    runs = [kept.results([f"{task}-attempt-{seed}" for task in FULL]) for seed in SEEDS]
    means = [fmean(run.mean(split) for run in of_seed) for of_seed in runs if len(of_seed) == len(FULL)]
    return figure(means) if means else NOT_RUN


def published(kept: Kept) -> Rows:
    """Accuracies here beside those of T5-base."""
    rows = [["accuracy on test: here / T5-base", *FULL]]
    for name, stem, scores in PUBLISHED:
        row = [name]
        for task, score in zip(FULL, scores, strict=True):
            runs = kept.results(seeds(stem if stem == "multi" else f"{task}-{stem}"))
            here = figure([run.metrics[task]["test"]["accuracy"] for run in runs]) if runs else NOT_RUN
            row.append(f"{here} / {score}")
        rows.append(row)
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
        rows.append([f"{n} examples", *(kept.score(seeds(f"size-{n}-{m}"), "test") for m in PROMPTS)])
    full = [kept.score(seeds(f"scitail-{m}"), "test") for m in PROMPTS]
    return begun([*rows, ["all (60 steps read 960)", *full]])


def reach(kept: Kept) -> Rows:
    """Ways to the comparison of two sentences."""
    ways = {
        "prompt, 100 steps": "source-{}",
        "from a question in flan's manner": "source-{}-text",
        "400 steps": "long-{}",
        "ATTEMPT, 60 steps": "attempt-{}",
        "fine-tuning, 60": "finetune-{}",
    }
    rows = [["test (dev)", "constant answer", "T5 alone", *ways]]
    for task in PAIRS:
        cells = [both(kept, way.format(task)) for way in ways.values()]
        rows.append([task, constants(kept, task), both(kept, zero_shot_of(task), task), *cells])
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
    "published": published,
    "better": better,
    "sizes": sizes,
    "reach": reach,
    **{name: lambda kept, rows=rows: rows(kept.place) for name, rows in pooling.TABLES.items()},  # type: ignore[misc]
}
