"""Several runs for one command: tasks one by one, seeds, and SPoT's candidates.

Every run has a folder of its own. The same command again keeps the finished runs and goes on with the interrupted one.
"""

import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from attempt.checkpoint import PromptConfig, load_prompt, load_prompts, save_prompt
from attempt.command.options import MACHINE_FLAGS, Options, difference
from attempt.command.source import code_sum
from attempt.machine import distributed
from attempt.prompt import SoftPrompt
from attempt.runs.folder import Run
from attempt.runs.kept import text_of
from attempt.runs.parsing import Command, refuse
from attempt.runs.plan import NEWER, Plan
from attempt.runs.report import table
from attempt.spot import compare, file_names, rank, save, weighted_average
from attempt.training.build import find_sources, sources_changed
from model.config import width_of
from model.errors import AttemptError, briefly
from model.files import write_whole

EARLY_STEPS = 10_000  # Vu et al. 2022, sec. 3: a task's embedding is its prompt after 10k steps
EARLY_SCORED = 64  # examples of dev and test: nobody reads these scores, but a question's answers stay together
MIXTURE_CAP = 2**19  # examples of a task in a mixture (Vu et al. 2022, sec. 2)
SEARCH = "search.json"  # the options of a SPoT search, in its folder

TrainRun = Callable[..., None]  # trains a run, from its Options
CheckNames = Callable[[Options], None]  # raises AttemptError for an unknown task


def train_series(command: Command, train_run: TrainRun, check_names: CheckNames) -> None:
    """Train all runs of a command. One that fails is reported, and the other tasks are still trained."""
    options = command.options
    parts = [options]
    if command.separately:
        folder = {name: None if options.out is None else str(Path(options.out) / name) for name in options.task}
        parts = [dataclasses.replace(options, task=[name], out=folder[name]) for name in options.task]
    failed: dict[str, list[Options]] = {}  # message -> the tasks that ended with it
    for part in parts:
        try:
            if command.dry_run:
                show_part(part, command.seeds, train_run)
            elif command.seeds:
                with Run(part.folder()).held():
                    for seed in command.seeds:
                        out = str(part.folder() / f"seed-{seed}")
                        train_one(dataclasses.replace(part, seed=seed, out=out), train_run, check_names)
                    summarize_seeds(part.folder(), list(command.seeds))
            else:
                train_one(part, train_run, check_names)
        except AttemptError as e:
            if not command.separately or distributed.size() > 1:  # another process may be in the midst of that run
                raise
            said = "the same" if str(e) in failed else e  # a missing file, say, which all of them need
            failed.setdefault(str(e), []).append(part)
            print(f"train.py: error: {'+'.join(part.task)}: {said}", file=sys.stderr)
    ended = [part for same in failed.values() for part in same]
    if command.separately and not command.dry_run:
        done = [part.folder() for part in parts if part not in ended]
        print(table(compare_tasks(done, bool(command.seeds))) if done else "no run was completed")
    if ended:
        names = ", ".join("+".join(part.task) for part in ended)
        raise AttemptError(f"expected {len(parts)} tasks to be trained, found {len(ended)} that failed: {names}")


def show_part(options: Options, seeds: tuple[int, ...], train_run: TrainRun) -> None:
    """The dry run of a task: of its first seed, and of SPoT with the target's own prompt in the place of a source's."""
    if seeds:
        print(f"runs       {len(seeds)}, with the seeds {', '.join(map(str, seeds))}")
        options = dataclasses.replace(options, seed=seeds[0])
    if searches(options):
        sources, names = candidates(options)
        print(f"spot       starts from what --transfer {options.transfer} makes of {', '.join(names)}; here from vocab")
        options = dataclasses.replace(options, prompt_length=sources.size(1))
    train_run(options, dry_run=True)


def searches(options: Options) -> bool:
    """Whether a run of SPoT has yet to find what it starts from."""
    return options.method == "spot" and options.init is None


def train_one(options: Options, train_run: TrainRun, check_names: CheckNames) -> None:
    if searches(options):
        with Run(options.folder()).held():
            train_spot(options, train_run, check_names)
    else:
        train_or_keep(options, train_run)


def train_or_keep(options: Options, train_run: TrainRun) -> None:
    """Train a run, or what is left of it. Raises AttemptError where the folder has a run with other options."""
    run = Run(options.folder())
    if not distributed.decided(lambda: run.result.exists() or run.begun):
        train_run(options)
        return
    plan = Plan.read(run.config)
    refuse(run.folder, plan.differences(options))
    if not kept(run, options):
        machine = {name: getattr(options, name) for name in MACHINE_FLAGS if name != "out"}
        train_run(dataclasses.replace(plan, out=str(run.folder), **machine))


def kept(run: Run, options: Options) -> bool:
    """Whether a run is complete, and need not be trained. A line reports its changed code or sources."""
    if not distributed.decided(run.result.exists):
        return False
    result = read_result(run)
    changed = ["the code"] * (code_of([result]) != [code_sum()])
    changed += ["its source prompts"] * sources_changed(options, run.folder)
    told = f", but {' and '.join(changed)} changed since; delete {run.folder}, or give another --out, to train it again"
    print(f"kept       {run.folder}: it is complete{told * bool(changed)}", flush=True)
    return True


def code_of(results: Iterable[dict[str, Any]]) -> list[str]:
    """The sums over the sources that runs were computed with; of a run of before there was one "unknown"."""
    found = [result.get("code") for result in results]
    sums = [code.get("sums") if isinstance(code, dict) else None for code in found]
    return list(dict.fromkeys(str(one) for several in sums for one in (several or ["unknown"])))


def read_result(run: Run) -> dict[str, Any]:
    """The result.json of a complete run, whose checkpoint lies beside it."""
    advice = f"delete {run.folder} to train it again"
    result = read_scores(run.result, advice)
    if not run.best.exists():
        raise bad_result(run.result, f"no {run.best.name} beside it", advice)
    return result


def read_scores(path: Path, advice: str = "mend it, or leave its run out") -> dict[str, Any]:
    """A result.json, whose scores are numbers; the checkpoint may be elsewhere."""
    try:
        result: dict[str, Any] = json.loads(text_of(path))
        records = [*result["scores"], *result.get("constant", [])]
        scores = [value for score in records for value in score["metrics"].values()]
        means = [result["mean"][split] for split in ("dev", "test")]
        spreads = [mixed["deviation"] for mixed in result.get("mixture", {}).values()]
        spreads.append(result.get("mixture_between_tasks", 0.0))
        if not all(isinstance(value, float) and math.isfinite(value) for value in [*scores, *means, *spreads]):
            raise ValueError("scores that are no numbers")
        if not all(isinstance(score[name], str) for score in records for name in ("task", "split")):
            raise ValueError("scores without a task and a split")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise bad_result(path, f"{type(e).__name__}: {briefly(e)}", advice) from None
    return result


def bad_result(path: Path, found: str, advice: str) -> AttemptError:
    return AttemptError(f"{path}: expected the result of a complete run, found {found}; {advice}")


def train_spot(options: Options, train_run: TrainRun, check_names: CheckNames) -> None:
    """Find the sources near to the target, train from them, and keep the best on dev (Vu et al. 2022, sec. 3)."""
    run = Run(options.folder())
    if searched(run, options):
        return
    sources, names = candidates(options)
    if options.transfer == "mixture":  # before anything is trained
        check_names(dataclasses.replace(options, task=[*options.task, *names]))
    run.write_json(run.folder / SEARCH, options.stored())
    target = early_prompt(options, sources.size(1), train_run)
    if target.size(1) != sources.size(2):
        raise AttemptError(f"expected prompts of one model, found widths {target.size(1)} and {sources.size(2)}")

    rows = compare(sources, names, target, options.similarity)
    if distributed.is_main():
        save(run.folder / "ranking.tsv", rows)
    print(f"{table(rows)}\nsaved in {run.folder / 'ranking.tsv'}", flush=True)
    nearest = rank(target, sources, options.similarity)[: options.top_k]

    folders = {}
    for start, path in first_prompts(options, sources, names, nearest, train_run).items():
        folders[start] = run.folder / f"from-{start}"
        train_or_keep(dataclasses.replace(options, init=str(path), out=str(folders[start])), train_run)
    keep_best(options, folders, {names[i]: similarity for i, similarity in nearest})


def searched(run: Run, options: Options) -> bool:
    """Whether this very search is complete. Raises AttemptError where the folder has anything else than it."""
    asked = options.stored()
    if not distributed.decided((run.folder / SEARCH).exists):
        distributed.decided(run.check_empty)
        return False
    try:
        found = {**NEWER, **json.loads((run.folder / SEARCH).read_text(encoding="utf-8"))}
        changed = [name for name, value in asked.items() if value != found[name] and name not in MACHINE_FLAGS]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        problem = f"{type(e).__name__}: {briefly(e)}"
        raise AttemptError(f"{run.folder / SEARCH}: expected the options of a search, found {problem}") from None
    refuse(run.folder, [difference(name, asked[name], found[name]) for name in changed])
    return kept(run, options)


def candidates(options: Options) -> tuple[Tensor, list[str]]:
    """The sources (N,L,D) that a target may start from, and names for them that are names of files too."""
    if len(options.task) > 1 and not options.shared_prompt:
        raise AttemptError(
            f"--method spot: expected one task to choose sources for, found {', '.join(options.task)}; "
            "give --separately, --shared-prompt, or the prompt to start from by --init"
        )
    sources, names = find_sources(options)
    own = {*options.task, "+".join(options.task)}
    others = [i for i, source in enumerate(names) if source not in own]  # a task's own prompt is no other task's
    if not others:
        raise AttemptError(
            f"--source-prompts: expected prompts of other tasks than {', '.join(options.task)}, found only its own"
        )
    sources = sources[others]
    if options.prompt_length not in (None, sources.size(1)):
        raise AttemptError(
            f"--prompt-length {options.prompt_length}: expected the sources' length {sources.size(1)}; leave it out"
        )
    width = width_of(options.model)
    if width not in (None, sources.size(2)):
        raise AttemptError(f"--source-prompts: expected prompts of width {width}, found width {sources.size(2)}")
    return sources, file_names([names[i] for i in others])


def early_prompt(options: Options, length: int, train_run: TrainRun) -> Tensor:
    """The target's own prompt (L,D), which the sources are compared with."""
    if options.early_prompt is not None:
        prompts, names = load_prompts(Path(options.early_prompt))
        if len(prompts) != 1:
            raise AttemptError(f"--early-prompt {options.early_prompt}: expected one prompt, found {', '.join(names)}")
        return prompts[0]
    most = min(options.max_steps or EARLY_STEPS, EARLY_STEPS)
    steps = options.early_steps or (min(options.steps, most) if options.steps else None)
    out = options.folder() / "early"
    scored = min(options.eval_examples or EARLY_SCORED, EARLY_SCORED)
    unread = {"eval_examples": scored, "patience": None}  # it is compared as it is after the last step
    train_or_keep(prompt_run(options, out, length, steps=steps, max_steps=most, **unread), train_run)
    return load_prompt(Run(out).last)[0].target[0].detach()


def prompt_run(options: Options, out: Path, length: int, **changes: Any) -> Options:
    """Plain prompt tuning with the options of a SPoT run, leaving out those that only it has."""
    plain = Options(options.task)
    transfer = [f.name for f in dataclasses.fields(Options) if f.metadata["group"] in ("sources", "transfer")]
    settings = {name: getattr(plain, name) for name in transfer} | changes
    return dataclasses.replace(options, method="prompt", prompt_length=length, out=str(out), **settings)


def first_prompts(
    options: Options, sources: Tensor, names: list[str], nearest: list[tuple[int, float]], train_run: TrainRun
) -> dict[str, Path]:
    """What the target's training starts from, by name, each in a file or run folder of its own."""
    folder, places = options.folder(), [i for i, _ in nearest]
    if options.transfer == "mixture":
        out = folder / "mixture"
        tasks = [*options.task, *(names[i] for i in places)]
        cap = options.mixing_cap or MIXTURE_CAP
        mixed = prompt_run(options, out, sources.size(1), task=tasks, shared_prompt=True, mixing_cap=cap)
        train_or_keep(mixed, train_run)
        return {"mixture": out}
    if options.transfer == "average":
        prompts = {"average": weighted_average(sources[places], [similarity for _, similarity in nearest])}
    else:
        prompts = {names[i]: sources[i] for i in places}
    files = {}
    for name, prompt in prompts.items():
        files[name] = folder / "sources" / f"{name}.safetensors"
        if distributed.is_main():
            config = PromptConfig("prompt", options.model, [name], [], "digits")
            save_prompt(files[name], SoftPrompt(prompt[None]), config)
    distributed.wait_for_all()
    return files


def keep_best(options: Options, folders: dict[str, Path], similarities: dict[str, float]) -> None:
    """Give the folder of the whole the files of its best run, and say how the others did."""
    results = {name: read_result(Run(folder)) for name, folder in folders.items()}
    best = max(results, key=lambda name: results[name]["mean"]["dev"])
    run, chosen = Run(options.folder()), Run(folders[best])
    for source, place in ((chosen.best, run.best), (chosen.last, run.last)):
        if distributed.is_main():
            write_whole(place, source.read_bytes())
    code = code_of(results.values())  # of all candidates: the choice is theirs
    run.create(dataclasses.replace(Plan.read(chosen.config), out=str(run.folder), code=code))
    candidates = {name: result["mean"] for name, result in results.items()}
    more = {"transfer": options.transfer, "start": best, "similarities": similarities, "candidates": candidates}
    more["code"] = {**results[best].get("code", {}), "sums": code}
    run.write_json(run.result, {**results[best], **more})
    distributed.wait_for_all()
    rows = [["start", "dev", "test"], *([n, f"{c['dev']:.2f}", f"{c['test']:.2f}"] for n, c in candidates.items())]
    print(f"{table(rows)}\nthe best on dev is the one from {best}: {run.folder}", flush=True)


def summarize_seeds(folder: Path, seeds: list[int]) -> None:
    """Print what summary.json says of the runs of these seeds, once it is written."""
    rows = [["score", "mean", "deviation", *(f"seed {seed}" for seed in seeds)]]
    for record in write_summary(folder, seeds):
        figures = [record["mean"], record["deviation"], *record["values"]]
        name = f"{record['task']} {record['split']}: {record['metric']}"
        rows.append([name, *("-" if figure is None else f"{figure:.2f}" for figure in figures)])
    print(f"{table(rows)}\nsaved in {folder / 'summary.json'}", flush=True)


def write_summary(folder: Path, seeds: list[int]) -> list[dict[str, Any]]:
    """Mean, sample standard deviation and each run's value of every score, in the folder's summary.json."""
    results = [read_result(Run(folder / f"seed-{seed}")) for seed in seeds]
    scores: dict[tuple[str, str, str], list[float]] = {}
    for result in results:
        for score in result["scores"]:
            for metric, value in score["metrics"].items():
                scores.setdefault((score["task"], score["split"], metric), []).append(value)
        for split, value in result["mean"].items():
            scores.setdefault(("mean", split, "first metrics"), []).append(value)
    for key, values in scores.items():
        if len(values) != len(seeds):
            expected = f"{folder}: expected each run of the series to have every score once"
            raise AttemptError(f"{expected}, found {len(values)} of {' '.join(key)} in {len(seeds)} runs")
    records = [
        {"task": task, "split": split, "metric": metric, **spread(values)}
        for (task, split, metric), values in scores.items()
    ]
    Run(folder).write_json(folder / "summary.json", {"seeds": seeds, "scores": records})
    distributed.wait_for_all()
    return records


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a series of seeds has written of itself: summary.json."""

    folder: Path
    seeds: list[int]
    scores: list[dict[str, Any]]
    """task, split, metric, mean, deviation (None of a single run), values."""
    means: dict[str, float]
    """For dev and test the mean over the seeds, of the first metrics."""

    @classmethod
    def read(cls, path: Path) -> "Summary":
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            for score in found["scores"]:
                numbers = [score["mean"], *score["values"], 0 if score["deviation"] is None else score["deviation"]]
                if not all(type(value) in (int, float) and math.isfinite(value) for value in numbers):
                    raise ValueError("scores that are no numbers")
                if not all(isinstance(score[name], str) for name in ("task", "split", "metric")):
                    raise ValueError("scores without a task, a split and a metric")
            means = {score["split"]: score["mean"] for score in found["scores"] if score["task"] == "mean"}
            means = {split: means[split] for split in ("dev", "test")}
            return cls(path.parent, [int(seed) for seed in found["seeds"]], found["scores"], means)
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as e:
            problem = f"{type(e).__name__}: {briefly(e)}"
            raise AttemptError(f"{path}: expected the summary of a series, found {problem}; delete it") from None


def spread(values: list[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (with n - 1; None for a single value) and the values themselves."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "deviation": deviation, "values": values}


def compare_tasks(folders: list[Path], seeds: bool) -> list[list[str]]:
    """A row a task: its first metric, over seeds the mean; the last row is the mean of all."""
    rows, total = [["run", "dev", "test"]], {"dev": 0.0, "test": 0.0}
    for folder in folders:
        if seeds:
            means = Summary.read(folder / "summary.json").means
        else:
            means = read_result(Run(folder))["mean"]
        rows.append([str(folder), *(f"{means[split]:.2f}" for split in total)])
        total = {split: value + means[split] for split, value in total.items()}
    return [*rows, ["mean", *(f"{value / len(folders):.2f}" for value in total.values())]]
