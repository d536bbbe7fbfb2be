"""The stream: rows of four source tasks in one training set, without their names: --demo --task stream.

Each kind of row needs another prompt, and nothing but the text says which: what ATTEMPT mixes anew for every instance
can be seen here. It is a user's task of three columns, of which train.py reads the text and the answer.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attempt.answering.answers import instance_weights
from attempt.answering.backbone import new_downloader
from attempt.answering.runner import load
from attempt.answering.splits import load_splits
from attempt.command.options import Options
from attempt.machine import distributed
from attempt.plots.pictures import attention_map
from attempt.plots.plots import can_draw
from attempt.plots.plots import show as draw
from attempt.runs.report import table
from data.tasks import TASKS
from demo.data import STREAM, STREAM_SPLITS

NAME = "stream"
FLAGS = "--source-field text --target-field answer --no-task-name --steps 300 --eval-every 60 --log-every 60"

Numbers = NDArray[np.float64]


def flags(folder: Path) -> list[str]:
    """The options that make the stream a task: its files in the demo's folder of data, and its length."""
    files = [word for split in STREAM_SPLITS for word in (f"--{split}-file", str(folder / NAME / f"{split}.tsv"))]
    return [*files, *FLAGS.split(), "--eval-examples", "600"]


def kind_of(text: str) -> str:
    """Which task a row comes from: its fields' names tell."""
    return next(kind for kind in STREAM if text.partition(": ")[2].startswith(f"{TASKS[kind].fields[0]}: "))


def mixtures(out: Path, options: Options) -> tuple[list[str], dict[str, Numbers]]:
    """The prompts' names, and for each kind the weights of all its dev rows, (N,P), of the best checkpoint."""
    runner = load(out, device=options.device)
    split = load_splits(NAME, 0, ["dev"], options, new_downloader(options), runner.backbone.tokenizer)["dev"]
    weights = instance_weights(runner.backbone, runner.prompt, split.tokens).double().cpu().numpy()
    kinds = np.array([kind_of(example.source) for example in split.examples])
    return runner.config.mixed, {kind: weights[kinds == kind] for kind in STREAM}


def weights_table(prompts: list[str], instances: dict[str, Numbers]) -> str:
    """A row a kind and a column a prompt: mean ± deviation over the kind's rows; * marks the most of a row."""
    rows = [["rows of", *prompts]]
    for kind, weights in instances.items():
        cells = zip(weights.mean(0), weights.std(0), strict=True)
        most = weights.mean(0).argmax()
        marked = [f"{mean:.2f} ± {spread:.2f}{'*' if j == most else ' '}" for j, (mean, spread) in enumerate(cells)]
        rows.append([kind, *marked])
    return table(rows)


def tell(out: Path, options: Options) -> None:
    """What each kind of row gets, in a table and, with [plots], in a picture beside the run's folder."""
    prompts, instances = mixtures(out, options)
    print("\nwhat each kind of row gets: weights on dev, mean ± deviation over its rows, * the most")
    print(f"{weights_table(prompts, instances)}\n", flush=True)
    if can_draw() and distributed.is_main():
        draw([attention_map("dev", prompts, instances)], out.with_suffix(".svg"))
    print(f"type a text of any kind, and see its weights:  python eval.py --run {out} --interactive", flush=True)
