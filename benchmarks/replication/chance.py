"""What a task's score is worth: the score of the best constant answer, for most the majority share; and the sizes."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from attempt.command import parse
from attempt.files import write_whole
from attempt.options import Options
from benchmarks.replication.cells import Cell
from data.download import Downloader
from data.metrics import score
from data.splits import paper_splits, take_questions
from data.tasks import get_task, load_official

CHANCE = "chance.json"


def constant(name: str, options: Options, downloader: Downloader) -> dict[str, Any]:
    """For dev and test, as a run with these options has them: the best first metric of one answer to all; sizes."""
    task = get_task(name)
    splits = paper_splits(task, load_official(task, downloader.fetch, options.labels))
    found: dict[str, Any] = {"metric": task.metrics[0], "train": len(splits["train"])}
    for split in ("dev", "test"):
        examples = take_questions(splits[split], options.eval_examples or len(splits[split]), options.data_seed)
        tried = task.label_texts(options.labels) or list({example.target for example in examples})
        metrics = [score(task, [answer] * len(examples), examples, options.labels) for answer in tried]
        found[split] = {"constant": max(m[task.metrics[0]] for m in metrics), "examples": len(examples)}
    return found


def keep_chance(cells: list[Cell], data: Path, kept: Path) -> None:
    """chance.json, once for all tasks of the plan. They are all scored on the same examples but for few-shot seeds."""
    if (kept / CHANCE).exists():
        return
    found: dict[str, Any] = {}
    downloader = Downloader(data_dir=data)
    for cell in cells:
        options = dataclasses.replace(parse(list(cell.words)).options, data_seed=Options.data_seed)
        for name in options.task:
            if name not in found:
                found[name] = constant(name, options, downloader)
    write_whole(kept / CHANCE, (json.dumps(found, indent=2) + "\n").encode())
