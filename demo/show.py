"""python train.py --task mnli --method attempt --demo: the files, settings and runs that --demo stands for.

The runs are train.py's own, one after the other on the same data: prompt tuning from scratch, SPoT from the source
that is nearest to that prompt, and ATTEMPT. A table and the mixture's weights come last. For the stream
(demo/stream.py) it is ATTEMPT alone, and what each kind of row gets.
"""

import dataclasses
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from attempt.answering.backbone import Backbone
from attempt.answering.splits import load_splits
from attempt.command.options import Options
from attempt.runs.folder import Run
from attempt.runs.parsing import Command
from attempt.runs.report import METHODS, bars, figure, table
from attempt.training.series import read_result, show_part, spread, train_one, write_summary
from data.download import Downloader
from data.metrics import constant_score
from data.tasks import Example, Task
from demo import stream
from demo.data import demo_folder
from model.errors import AttemptError

HERE = Path(__file__).parent
MIXES = ("attempt", "spot")
PROMPTS = ["--prompt-length", "16", "--optimizer", "adafactor", "--lr", "0.3"]
RATES = {"finetune": "1e-3", "adapter": "1e-2", "bitfit": "1e-2"}  # for AdamW
FIRST = ["--task", "mrpc"]  # unless another is named: it has a near relative among the sources
SEEDS = ["--seeds", "1", "2", "3"]  # one alone would say nothing of chance
COMPARED: dict[str, dict[str, Any]] = {  # name in the table -> how its runs differ
    METHODS["prompt"]: {"method": "prompt", "source_prompts": []},
    METHODS["spot"]: {"method": "spot", "top_k": 1},
    METHODS["attempt"]: {"method": "attempt"},
}


def demo_words(words: Sequence[str]) -> list[str]:
    """A command line with --demo -> the same with its files and settings in front: what the user gives counts.

    From now on one thread computes: with more of them sums are rounded otherwise, and the figures are others.
    """
    torch.set_num_threads(1)
    spoken = [part for word in words for part in word.split("=", 1)]
    method = next((spoken[i + 1] for i, word in enumerate(spoken[:-1]) if word == "--method"), "attempt")
    given = method == "spot" and "--init" in spoken  # then there is nothing to choose
    sources = sorted((HERE / "sources").glob("*/best.safetensors")) if method in MIXES and not given else []
    flags = [
        f"@{HERE / 'demo.args'}",
        "--model",
        path_of(HERE / "checkpoint"),
        "--data-dir",
        str(demo_folder()),
        *(["--lr", RATES[method]] if method in RATES else PROMPTS),
    ]
    if "--resume" not in spoken:
        flags += FIRST
    after = words[words.index("--task") + 1 :] if "--task" in words else []
    streamed = stream.NAME in takewhile(lambda word: not word.startswith("-"), after)
    if method == "attempt" and not streamed and not {"--seed", "--seeds", "--resume"} & {*spoken}:
        flags += SEEDS
    flags += ["--source-prompts", *map(path_of, sources)] if sources else []
    return [*flags, *(stream.flags(demo_folder()) if streamed else []), *words]


def path_of(file: Path) -> str:
    """As short as below the current folder it can be; else from the root, which holds wherever a run is read."""
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


def show(command: Command, train_run: Callable[..., None]) -> None:
    """Train all methods on each task, and say how they compare. A task's own prompt is not among its sources.

    The dry run shows each of them, with its first seed.
    """
    if stream.NAME in command.options.task and len(command.options.task) > 1:
        raise AttemptError(f"--demo: expected --task {stream.NAME} alone, found {' '.join(command.options.task)}")
    for name in command.options.task:
        folder = Path(command.options.out or "runs/demo") / name
        if name == stream.NAME:
            show_stream(command, folder, train_run)
            continue
        others = [path for path in command.options.source_prompts if Path(path).parent.name != name]
        options = dataclasses.replace(command.options, task=[name], source_prompts=others)
        if command.dry_run:
            for method, changes in COMPARED.items():
                print(f"\n{method}")
                out = str(folder / changes["method"])
                show_part(dataclasses.replace(options, **changes, out=out), command.seeds, train_run)
        else:
            compare(options, command.seeds or (options.seed,), folder, train_run)


def show_stream(command: Command, folder: Path, train_run: Callable[..., None]) -> None:
    if command.dry_run:
        show_part(dataclasses.replace(command.options, out=str(folder / "attempt")), command.seeds, train_run)
        return
    for seed in command.seeds or (command.options.seed,):
        out = folder / "attempt" / f"seed-{seed}"
        options = dataclasses.replace(command.options, seed=seed, out=str(out))
        train_one(options, train_run, lambda _: None)
        stream.tell(out, options)


def compare(options: Options, seeds: Sequence[int], folder: Path, train_run: Callable[..., None]) -> None:
    task, splits = read_task(options)
    rows = [
        ["method", "dev", "test"],
        ["majority answer", *(f"{majority(task, splits, s, options.labels):.2f}" for s in ("dev", "test"))],
    ]
    for name, changes in COMPARED.items():
        results = []
        for seed in seeds:
            out = folder / changes["method"] / f"seed-{seed}"
            run: dict[str, Any] = {**changes, "seed": seed, "out": str(out)}
            if changes["method"] == "spot":  # compared with the prompt that was just trained
                run["early_prompt"] = str(folder / "prompt" / f"seed-{seed}")
            print(f"\n{name}, seed {seed}", flush=True)
            train_one(dataclasses.replace(options, **run), train_run, lambda _: None)
            results.append(read_result(Run(out)))
        write_summary(folder / changes["method"], list(seeds))
        found = [spread([result["mean"][split] for result in results]) for split in ("dev", "test")]
        rows.append([name, *(figure(one["mean"], one["deviation"]) for one in found)])
    print(f"\n{task.name}: {task.metrics[0]}, in percent; {len(seeds)} seed{'s' * (len(seeds) > 1)}\n{table(rows)}")
    print(f"\nwhat ATTEMPT mixes for {task.name}: mean weights on dev\n{bars(mean_weights(folder, seeds, task.name))}")
    print(f"\nall runs are in {folder}", flush=True)


def read_task(options: Options) -> tuple[Task, dict[str, list[Example]]]:
    downloader = Downloader(data_dir=Path(options.data_dir or ""))
    tokenizer = Backbone.load(options, downloader).tokenizer
    found = load_splits(options.task[0], 0, ("train", "dev", "test"), options, downloader, tokenizer)
    return found["train"].task, {name: split.examples for name, split in found.items()}


def majority(task: Task, splits: dict[str, list[Example]], split: str, style: str) -> float:
    """The first metric of the answer that is most common in the training set, given to every example."""
    return constant_score(task, splits["train"], splits[split], style)[task.metrics[0]]


def mean_weights(folder: Path, seeds: Sequence[int], task: str) -> dict[str, float]:
    """Each prompt's weight at the best step, the mean over dev and the seeds."""
    found: dict[str, float] = {}
    for seed in seeds:
        run = Run(folder / "attempt" / f"seed-{seed}")
        best = read_result(run)["best_step"]
        record = next(record for record in run.read_metrics() if record["step"] == best)
        for name, weight in record["mixture"][task]["weights"].items():
            found[name] = found.get(name, 0.0) + weight / len(seeds)
    return found
