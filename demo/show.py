"""python train.py --task mnli --method attempt --demo: the files, settings and runs that --demo stands for.

The runs are train.py's own, one after the other on the same data: prompt tuning from scratch, SPoT from the source
that is nearest to that prompt, and ATTEMPT. A table and the mixture's weights come last. For the stream
(demo/stream.py) it is ATTEMPT alone, and what each kind of row gets.
"""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from attempt.command import Command
from attempt.errors import AttemptError
from attempt.options import Options
from attempt.report import bars, figure, table
from attempt.run import Run
from attempt.series import read_result, spread, train_one
from data.download import Downloader
from data.metrics import score
from data.tasks import Example, Task
from demo import stream
from demo.data import demo_folder
from eval import Backbone, load_splits

HERE = Path(__file__).parent
MIXES = ("attempt", "spot")
COMPARED: dict[str, dict[str, Any]] = {  # name in the table -> how its runs differ
    "prompt tuning": {"method": "prompt", "source_prompts": []},
    "SPoT": {"method": "spot", "top_k": 1},
    "ATTEMPT": {"method": "attempt"},
}


def demo_words(words: Sequence[str]) -> list[str]:
    """A command line with --demo -> the same with its files and settings in front: what the user gives counts."""
    method = next((words[i + 1] for i, word in enumerate(words[:-1]) if word == "--method"), "attempt")
    given = method == "spot" and "--init" in words  # then there is nothing to choose
    sources = sorted((HERE / "sources").glob("*/best.safetensors")) if method in MIXES and not given else []
    flags = [
        f"@{HERE / 'demo.args'}",
        "--model",
        os.path.relpath(HERE / "checkpoint"),
        "--data-dir",
        str(demo_folder()),
    ]
    flags += ["--source-prompts", *map(os.path.relpath, sources)] if sources else []
    after = words[words.index("--task") + 1 :] if "--task" in words else []
    streamed = stream.NAME in takewhile(lambda word: not word.startswith("-"), after)
    return [*flags, *(stream.flags(demo_folder()) if streamed else []), *words]


def show(command: Command, train_run: Callable[..., None]) -> None:
    """Train all methods on each task, and say how they compare. A task's own prompt is not among its sources."""
    if stream.NAME in command.options.task and len(command.options.task) > 1:
        raise AttemptError(f"--demo: expected --task {stream.NAME} alone, found {' '.join(command.options.task)}")
    for name in command.options.task:
        folder = Path(command.options.out or "runs/demo") / name
        if name == stream.NAME:
            show_stream(command, folder, train_run)
            continue
        others = [path for path in command.options.source_prompts if Path(path).parent.name != name]
        options = dataclasses.replace(command.options, task=[name], source_prompts=others)
        compare(options, command.seeds or (options.seed,), folder, train_run)


def show_stream(command: Command, folder: Path, train_run: Callable[..., None]) -> None:
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
    answer = Counter(example.target for example in splits["train"]).most_common(1)[0][0]
    return score(task, [answer] * len(splits[split]), splits[split], style)[task.metrics[0]]


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
