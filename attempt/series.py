"""Several runs for one command: tasks one by one, seeds, and SPoT's candidates.

Every run has a folder of its own. The same command again keeps the finished runs and goes on with the interrupted one.
"""

import dataclasses
import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from attempt.build import find_sources
from attempt.checkpoint import PromptConfig, load_prompt, load_prompts, save_prompt
from attempt.command import Command, resumed
from attempt.errors import AttemptError
from attempt.options import Options
from attempt.prompt import SoftPrompt
from attempt.report import table
from attempt.run import Run
from attempt.spot import compare, rank, save, unique, weighted_average

EARLY_STEPS = 10_000  # Vu et al. 2022, sec. 3: a task's embedding is its prompt after 10k steps

TrainRun = Callable[..., None]  # trains a run, from its Options


def train_series(command: Command, train_run: TrainRun) -> None:
    """Train all runs of a command; `train_run` trains one."""
    options = command.options
    parts = [options]
    if command.separately:
        folder = {name: None if options.out is None else str(Path(options.out) / name) for name in options.task}
        parts = [dataclasses.replace(options, task=[name], out=folder[name]) for name in options.task]
    if command.dry_run:
        for part in parts:
            if command.options.method == "spot" and command.options.init is None:
                print("spot       shown with a prompt of its own; the run starts from what --transfer chooses")
            train_run(part, dry_run=True)
        return
    for part in parts:
        for seed in command.seeds:
            out = str(part.folder() / f"seed-{seed}")
            train_one(dataclasses.replace(part, seed=seed, out=out), train_run)
        if command.seeds:
            summarize_seeds(part.folder(), list(command.seeds))
        else:
            train_one(part, train_run)
    if command.separately:
        print(table(compare_tasks([part.folder() for part in parts])))


def train_one(options: Options, train_run: TrainRun) -> None:
    if options.method == "spot" and options.init is None:
        train_spot(options, train_run)
    else:
        train_or_keep(options, train_run)


def train_or_keep(options: Options, train_run: TrainRun) -> None:
    """Train a run, or what is left of it. Raises AttemptError where the folder has a run with other options."""
    if finished(options):
        return
    run = Run(options.folder())
    if run.state.exists():
        train_run(resumed(run.folder, given(options)))
    else:
        train_run(options)


def finished(options: Options) -> bool:
    """Whether the folder has this very run, complete."""
    run = Run(options.folder())
    if not run.result.exists():
        return False
    resumed(run.folder, given(options))
    print(f"kept       {run.folder}: it is complete", flush=True)
    return True


def given(options: Options) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(options).items() if value is not None}


def train_spot(options: Options, train_run: TrainRun) -> None:
    """Find the sources near to the target, train from them, and keep the best on dev (Vu et al. 2022, sec. 3)."""
    if finished(options):
        return
    folder, name = options.folder(), "+".join(options.task)
    if len(options.task) > 1 and not options.shared_prompt:
        raise AttemptError(
            f"--method spot: expected one task to choose sources for, found {', '.join(options.task)}; "
            "give --separately, --shared-prompt, or the prompt to start from by --init"
        )
    sources, names = find_sources(options)
    others = [i for i, source in enumerate(names) if source != name]  # a task's own prompt is no other task's
    if not others:
        raise AttemptError(f"--source-prompts: expected prompts of other tasks than {name}, found its own alone")
    sources, names = sources[others], unique([names[i] for i in others])
    target = early_prompt(options, sources.size(1), train_run)
    if target.size(1) != sources.size(2):
        raise AttemptError(f"expected prompts of one model, found widths {target.size(1)} and {sources.size(2)}")

    rows = compare(sources, names, target, options.similarity)
    save(folder / "ranking.tsv", rows)
    print(f"{table(rows)}\nsaved in {folder / 'ranking.tsv'}", flush=True)
    nearest = rank(target, sources, options.similarity)[: options.top_k]

    folders = {}
    for start, path in first_prompts(options, sources, names, nearest, train_run).items():
        run = dataclasses.replace(options, init=str(path), out=str(folder / f"from-{start}"))
        train_or_keep(run, train_run)
        folders[start] = run.folder()
    keep_best(options, folders, {names[i]: similarity for i, similarity in nearest})


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
    train_or_keep(prompt_run(options, out, length, steps=steps, max_steps=most), train_run)
    return load_prompt(Run(out).last)[0].target[0].detach()


def prompt_run(options: Options, out: Path, length: int, **changes: Any) -> Options:
    """Plain prompt tuning with the options of a SPoT run, leaving out those that only it has."""
    plain = Options(options.task)
    transfer = [f.name for f in dataclasses.fields(Options) if f.metadata["group"] in ("sources", "transfer")]
    settings = {name: getattr(plain, name) for name in transfer} | changes
    length = options.prompt_length or length
    return dataclasses.replace(options, method="prompt", prompt_length=length, out=str(out), **settings)


def first_prompts(
    options: Options, sources: Tensor, names: list[str], nearest: list[tuple[int, float]], train_run: TrainRun
) -> dict[str, Path]:
    """What the target's training starts from, by name, each in a file or run folder of its own."""
    folder, places = options.folder(), [i for i, _ in nearest]
    if options.transfer == "mixture":
        out = folder / "mixture"
        tasks = [*options.task, *(names[i] for i in places)]
        train_or_keep(prompt_run(options, out, sources.size(1), task=tasks, shared_prompt=True), train_run)
        return {"mixture": out}
    if options.transfer == "average":
        prompts = {"average": weighted_average(sources[places], [similarity for _, similarity in nearest])}
    else:
        prompts = {names[i]: sources[i] for i in places}
    files = {}
    for name, prompt in prompts.items():
        files[name] = folder / "sources" / f"{name}.safetensors"
        save_prompt(files[name], SoftPrompt(prompt[None]), PromptConfig("prompt", options.model, [name], [], "digits"))
    return files


def keep_best(options: Options, folders: dict[str, Path], similarities: dict[str, float]) -> None:
    """Give the folder of the whole the files of its best run, and say how the others did."""
    results = {name: json.loads(Run(folder).result.read_text(encoding="utf-8")) for name, folder in folders.items()}
    best = max(results, key=lambda name: results[name]["mean"]["dev"])
    run, chosen = Run(options.folder()), Run(folders[best])
    for source, place in ((chosen.best, run.best), (chosen.last, run.last)):
        shutil.copyfile(source, place)
    plan = json.loads(chosen.config.read_text(encoding="utf-8"))
    run.write_json(run.config, {**plan, "out": str(run.folder)})
    candidates = {name: result["mean"] for name, result in results.items()}
    more = {"transfer": options.transfer, "start": best, "similarities": similarities, "candidates": candidates}
    run.write_json(run.result, {**results[best], **more})
    rows = [["start", "dev", "test"], *([n, f"{c['dev']:.2f}", f"{c['test']:.2f}"] for n, c in candidates.items())]
    print(f"{table(rows)}\nthe best on dev is the one from {best}: {run.folder}", flush=True)


def summarize_seeds(folder: Path, seeds: list[int]) -> None:
    """Mean, sample standard deviation and each run's value of every score: printed, and in summary.json."""
    results = [json.loads(Run(folder / f"seed-{seed}").result.read_text(encoding="utf-8")) for seed in seeds]
    scores: dict[tuple[str, str, str], list[float]] = {}
    for result in results:
        for score in result["scores"]:
            for metric, value in score["metrics"].items():
                scores.setdefault((score["task"], score["split"], metric), []).append(value)
        for split, value in result["mean"].items():
            scores.setdefault(("mean", split, "first metrics"), []).append(value)
    records = [
        {"task": task, "split": split, "metric": metric, **spread(values)}
        for (task, split, metric), values in scores.items()
    ]
    Run(folder).write_json(folder / "summary.json", {"seeds": seeds, "scores": records})
    rows = [["score", "mean", "deviation", *(f"seed {seed}" for seed in seeds)]]
    for record in records:
        figures = [record["mean"], record["deviation"], *record["values"]]
        name = f"{record['task']} {record['split']}: {record['metric']}"
        rows.append([name, *("-" if figure is None else f"{figure:.2f}" for figure in figures)])
    print(f"{table(rows)}\nsaved in {folder / 'summary.json'}", flush=True)


def spread(values: list[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (with n - 1; None for a single value) and the values themselves."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "deviation": deviation, "values": values}


def compare_tasks(folders: list[Path]) -> list[list[str]]:
    """A row a task: its first metric, over seeds the mean; the last row is the mean of all."""
    rows, total = [["run", "dev", "test"]], {"dev": 0.0, "test": 0.0}
    for folder in folders:
        summary = folder / "summary.json"
        if summary.exists():
            records = json.loads(summary.read_text(encoding="utf-8"))["scores"]
            means = {record["split"]: record["mean"] for record in records if record["task"] == "mean"}
        else:
            means = json.loads(Run(folder).result.read_text(encoding="utf-8"))["mean"]
        rows.append([str(folder), *(f"{means[split]:.2f}" for split in total)])
        total = {split: value + means[split] for split, value in total.items()}
    return [*rows, ["mean", *(f"{value / len(folders):.2f}" for value in total.values())]]
