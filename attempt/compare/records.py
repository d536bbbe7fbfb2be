"""Runs read back for tables and pictures: their options, what they measured, and which belong together."""

import dataclasses
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attempt.command.options import MACHINE_FLAGS, Options, spoken
from attempt.runs.folder import Run
from attempt.runs.kept import found_runs, is_there
from attempt.runs.parsing import USES
from attempt.runs.plan import Plan
from attempt.runs.report import METHODS
from attempt.training.series import SEARCH, Summary, read_scores
from model.errors import AttemptError, briefly, one_line

# What may differ between runs of the same settings, or follows from something else that differs.
OF_THE_RUN = MACHINE_FLAGS | {"seed", "asked", "early_prompt", "eval_batch_size", "code", "formats", "where"}
CODE = "the code"  # among a run's settings: the sums over the sources that it was computed with
FOUND = "found for each seed"  # what SPoT's search has each run start from
MARKS = ("config.json", "result.json", SEARCH)  # what makes a folder a run, or SPoT's search for one


@dataclass(frozen=True)
class Evaluation:
    """A line of metrics.jsonl."""

    step: int
    loss: float
    """Nats per token of the answers, the mean since the evaluation before; NaN where there was no step in between."""
    scores: dict[str, tuple[str, float]]
    """For each task the name of its first metric, and that in percent, on dev."""
    examples: dict[str, int]
    """For each task the number of dev examples."""
    mixture: dict[str, dict[str, float]]
    """For each task of a mixture the mean weight of every prompt on dev, the target's the last."""


@dataclass(frozen=True)
class Record:
    """A run, as its folder has it."""

    folder: Path
    plan: Plan
    evaluations: list[Evaluation]
    result: dict[str, Any] | None
    """result.json; None where the run is not complete."""

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Raises AttemptError where anything in the folder is not what a run writes."""
        run = Run(folder)
        if not is_there(run.config) and (folder / SEARCH).exists():
            raise AttemptError(f"{folder}: expected a complete search of SPoT, found one that has not ended")
        plan = Plan.read(run.config)
        result = read_scores(run.result) if is_there(run.result) else None
        start = f"from-{(result or {}).get('start')}"  # a search's evaluations are those of the candidate that it kept
        if not is_there(run.metrics) and Path(start).name == start:
            run = Run(folder / start)
        return cls(folder, plan, [_evaluation(record, run.metrics) for record in run.read_metrics()], result)

    @property
    def best(self) -> Evaluation | None:
        """The evaluation of the checkpoint that was kept."""
        step = (self.result or {}).get("best_step")
        return next((evaluation for evaluation in self.evaluations if evaluation.step == step), None)

    def scores(self, split: str) -> dict[str, tuple[str, float]]:
        """For each task the name of its first metric and its value in percent, of the best checkpoint."""
        found = [score for score in (self.result or {"scores": []})["scores"] if score["split"] == split]
        return {score["task"]: next(iter(score["metrics"].items())) for score in found if score["metrics"]}

    def constant(self, split: str) -> dict[str, float]:
        """For each task the first metric, in percent, of the training set's most common answer, given to all."""
        found = [one for one in (self.result or {}).get("constant", ()) if one["split"] == split and one["metrics"]]
        return {one["task"]: float(next(iter(one["metrics"].values()))) for one in found}

    def examples(self, split: str) -> dict[str, int]:
        found = [score for score in (self.result or {"scores": []})["scores"] if score["split"] == split]
        return {score["task"]: score["examples"] for score in found if type(score.get("examples")) is int}


def _evaluation(record: dict[str, Any], path: Path) -> Evaluation:
    try:
        scores = [score for score in record["scores"] if score["split"] == "dev"]
        found = Evaluation(
            record["step"],
            float(record["loss"]),
            {score["task"]: next(iter(score["metrics"].items())) for score in scores},
            {score["task"]: int(score["examples"]) for score in scores},
            {task: dict(mixed["weights"]) for task, mixed in record.get("mixture", {}).items()},
        )
        names = [*found.scores, *found.mixture, *(name for mixed in found.mixture.values() for name in mixed)]
        values = [value for _, value in found.scores.values()]
        values += [weight for mixed in found.mixture.values() for weight in mixed.values()]
        if not all(isinstance(name, str) for name in (*names, *(metric for metric, _ in found.scores.values()))):
            raise ValueError("tasks that are no names")
        if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
            raise ValueError("scores or weights that are no numbers")
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, OverflowError) as e:
        problem = f"{type(e).__name__}: {briefly(e)}"
        raise AttemptError(f"{path}: expected the evaluations of a run, found {problem}") from None
    return found


def find_runs(folder: Path) -> Iterator[Path]:
    """The runs in a folder or a file, or itself; SPoT's early prompts and candidates are parts of their search."""
    yield from found_runs(folder)
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if any(mark in files for mark in MARKS):
            folders.clear()
            yield Path(place)
            continue
        for file in sorted(files):
            yield from found_runs(Path(place, file))


def read_all(paths: Sequence[Path]) -> tuple[list[Record], dict[Path, str]]:
    """The runs in some folders, and for each one that cannot be read the reason."""
    records, damaged = [], {}
    for folder in dict.fromkeys(folder for path in paths for folder in find_runs(path)):
        try:
            records.append(Record.read(folder))
        except AttemptError as e:
            damaged[folder] = str(e)
    if not records and not damaged:
        places = ", ".join(map(str, paths))
        raise AttemptError(f"{places}: expected runs of train.py (folders with a config.json), found none")
    return records, damaged


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds alone, see `pooled`; often a single one."""

    label: str
    runs: list[Record]
    settings: dict[str, Any]
    """What decides their results, see `settings`."""

    @property
    def tasks(self) -> list[str]:
        return self.runs[0].plan.task

    @property
    def plan(self) -> Plan:
        return self.runs[0].plan


Told = tuple[Path, Plan, Mapping[str, Any] | None]  # a run's folder, options and result


def settings(runs: Sequence[Told]) -> list[dict[str, Any]]:
    """What decides each run's results, its seed apart; no options that its method passes over.

    What each seed has of its own, in folders seed-1, seed-2 …, is one setting, as is what SPoT found for each. A folder
    that another seed of the series names too is nobody's own.
    """
    found = [_settings(plan, result) for _, plan, result in runs]
    found = [one | scored for one, scored in zip(found, _scored_on(runs, found), strict=True)]
    series = [_of_any_seed(str(folder.resolve()), plan.seed) for folder, plan, _ in runs]
    seeds: dict[str, set[int]] = {}
    users: dict[str, set[tuple[str, int]]] = {}  # of each text among the settings: series and seed
    for (_, plan, _), place, one in zip(runs, series, found, strict=True):
        seeds.setdefault(place, set()).add(plan.seed)
        for value in one.values():
            for text in value if isinstance(value, list) else [value]:
                users.setdefault(str(text), set()).add((place, plan.seed))

    def common(value: Any, place: str, seed: int) -> Any:
        if isinstance(value, list):
            return [common(one, place, seed) for one in value]
        others = {other for other, its in users[str(value)] if its != seed}
        shared = place in others if len(seeds[place]) > 1 else others
        return value if shared or not isinstance(value, str) else _of_any_seed(value, seed)

    return [
        {name: common(value, place, plan.seed) for name, value in one.items()}
        for (_, plan, _), place, one in zip(runs, series, found, strict=True)
    ]


def _of_any_seed(path: str, seed: int) -> str:
    """A path with seed-N in the place of the folder of this seed."""
    return re.sub(rf"(?<![^/\\])seed-{seed}(?![^/\\])", "seed-N", path)


def _settings(plan: Plan, result: Mapping[str, Any] | None) -> dict[str, Any]:
    left_out = set(OF_THE_RUN)
    for option in dataclasses.fields(Options):
        if plan.method not in USES.get(option.metadata["group"], {plan.method}):
            left_out |= {option.name}
    found = {name: value for name, value in plan.stored().items() if name not in left_out}
    found[CODE] = ", then ".join(plan.code) or "unknown"
    return found | ({"init": FOUND} if "start" in (result or {}) else {})


def _scored_on(runs: Sequence[Told], found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """On how many examples each run was scored, by which decoding; an incomplete one as its like."""
    own = [_scored(result) if result else None for _, _, result in runs]
    places = [(repr(one), folder.parent) for one, (folder, _, _) in zip(found, runs, strict=True)]
    beside = {place: scored for place, scored in zip(places, own, strict=True) if scored is not None}
    anywhere = {told: scored for (told, _), scored in beside.items()}
    return [
        beside.get(place, anywhere.get(place[0], {})) if scored is None else scored
        for place, scored in zip(places, own, strict=True)
    ]


def _scored(result: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for split in ("dev", "test"):
        scores = [score for score in result["scores"] if score["split"] == split]
        counts = " + ".join(str(score.get("examples", "?")) for score in scores)
        decoding = "/".join(sorted({str(score.get("decoding", "generate")) for score in scores}))
        found[f"scored {split}"] = f"{counts} examples by {decoding}"
    return found


def pooled(runs: Sequence[Told], told: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Which runs are the seeds of one another, by their numbers: those that are `told` the same, each seed once.

    Where a seed comes twice, as in two folders of the same command, the runs of each folder are by themselves; of runs
    beside each other those whose names differ in the seed alone are together, such as a-1 and a-2.
    """
    groups: dict[str, list[int]] = {}
    for i, one in enumerate(told):
        groups.setdefault(repr(one), []).append(i)
    found: list[list[int]] = []
    for same in groups.values():
        if len({runs[i][1].seed for i in same}) == len(same):
            found.append(same)
            continue
        places: dict[Path, list[int]] = {}
        for i in same:
            folder, seed = runs[i][0].resolve(), runs[i][1].seed
            name = re.sub(rf"(?<!\d){seed}(?!\d)", "N", folder.name)
            places.setdefault(folder.parent / name, []).append(i)
        found += places.values()
    return found


def differing(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings that are not the same in all runs that have them, in the order of --help."""
    names = dict.fromkeys(option.name for option in dataclasses.fields(Options))
    names |= {name: None for one in found for name in one}
    return [name for name in names if len({repr(one[name]) for one in found if name in one}) > 1]


def differing_on_a_task(groups: Sequence[Group]) -> list[str]:
    """The settings that are not the same in all runs of some task."""
    by_task: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for one in groups:
        by_task.setdefault(tuple(one.plan.task), []).append(one.settings)
    own = {name for same in by_task.values() for name in differing(same)}
    return [name for name in differing([one.settings for one in groups]) if name in own]


def group(records: Sequence[Record]) -> list[Group]:
    """Put the seeds of one another together, and name all groups."""
    runs: list[Told] = [(record.folder, record.plan, record.result) for record in records]
    told = settings(runs)
    together = pooled(runs, told)
    series = [Group("", [records[i] for i in same], told[same[0]]) for same in together]
    labels = [_label(one, series) for one in series]
    named: dict[tuple[str, str], list[int]] = {}
    for i, one in enumerate(series):
        named.setdefault((labels[i], repr(one.tasks)), []).append(i)
    places = [common_folder([record.folder for record in one.runs]) for one in series]
    for (label, _), same in named.items():
        if len(same) > 1:  # the same settings twice: their folders are the difference
            above = Path(os.path.commonpath([places[i] for i in same]))
            for i in same:
                labels[i] = f"{label}, {one_line(str(places[i].relative_to(above)), 80)}"
    return [dataclasses.replace(one, label=label) for label, one in zip(labels, series, strict=True)]


def common_folder(folders: Sequence[Path]) -> Path:
    """The folder that all of these are in; of a single one itself, unless it is called for its seed."""
    only = folders[0].resolve()
    if len(folders) == 1:
        return only.parent if re.fullmatch(r"seed-\d+", only.name) else only
    return Path(os.path.commonpath([folder.resolve() for folder in folders]))


def _label(one: Group, groups: Sequence[Group]) -> str:
    """The method, and what distinguishes runs of it on the same tasks; the same words for runs on other tasks."""
    plan, words = one.plan, [METHODS[one.plan.method]]
    if len({other.plan.model for other in groups}) > 1:
        words.append(plan.model_name)
    if len(plan.task) > 1:
        words.append(f"{len(plan.task)} tasks at once")
    rivals = [other for other in groups if other.plan.method == plan.method and len(other.plan.task) == len(plan.task)]
    follows = {option.name for option in dataclasses.fields(Options) if option.default is None}
    asked = {name for other in rivals for name in other.plan.asked}
    for name in differing_on_a_task(rivals):
        if name == "model" or (name in follows and name not in asked):
            continue
        value, said = one.settings[name], name.replace("_", " ")
        if isinstance(value, bool):
            words += [said] * value
        elif isinstance(value, list):
            words.append(f"{len(value)} {said}")
        elif value is not None:
            words.append(f"{said} {spoken(value)}")
    return one_line(", ".join(words), 160)


def read_summaries(folder: Path, damaged: dict[Path, str]) -> list[Summary]:
    """What the series in a folder have written of themselves; those that cannot be read become part of `damaged`."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "summary.json" in files:
            try:
                found.append(Summary.read(Path(place) / "summary.json"))
            except AttemptError as e:
                damaged[Path(place) / "summary.json"] = str(e)
    return found
