"""What a task's score is worth: the score of the best constant answer, for most the majority share; and the sizes."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from attempt.command.options import Options
from attempt.runs.parsing import parse
from benchmarks.replication.cells import Cell
from data.download import Downloader
from data.metrics import score
from data.splits import paper_splits, take_questions
from data.tasks import get_task, load_official
from model.files import write_whole

CHANCE = "chance.json"


def constant(name: str, options: Options, downloader: Downloader) -> dict[str, Any]:
    """For dev and test, as a run with these options has them: the best first metric of one answer to all, sizes, and
    how often each label is right.
    """
    task = get_task(name)
    splits = paper_splits(task, load_official(task, downloader.fetch, options.labels))
    found: dict[str, Any] = {"metric": task.metrics[0], "train": len(splits["train"])}
    for split in ("dev", "test"):
        examples = take_questions(splits[split], options.eval_examples or len(splits[split]), options.data_seed)
        tried = task.label_texts(options.labels) or list({example.target for example in examples})
        metrics = [score(task, [answer] * len(examples), examples, options.labels) for answer in tried]
        found[split] = {"constant": max(m[task.metrics[0]] for m in metrics), "examples": len(examples)}
        if task.labels:
            right = Counter(example.target for example in examples)
            found[split]["labels"] = {label: right[label] for label in task.label_texts(options.labels)}
    return found


def key(name: str, data_seed: int) -> str:
    """What a task's entry is called; few-shot runs of other seeds are scored on other examples."""
    return name if data_seed == Options.data_seed else f"{name}-{data_seed}"


def keep_chance(cells: list[Cell], data: Path, kept: Path) -> None:
    """chance.json, once for all tasks of the plan and the examples that they are scored on."""
    if (kept / CHANCE).exists():
        return
    found: dict[str, Any] = {}
    downloader = Downloader(data_dir=data)
    for cell in cells:
        options = parse(list(cell.words)).options
        for name in options.task:
            if (entry := key(name, options.data_seed)) not in found:
                found[entry] = constant(name, options, downloader)
    write_whole(kept / CHANCE, (json.dumps(found, indent=2) + "\n").encode())
