"""Answers to rows without labels, as JSON lines: python eval.py --run runs/mine --answer new.tsv

    {"index": 0, "task": "mine", "source": "mine text: …", "prediction": "good", "probabilities": {"good": 0.9, …}}

`index` counts the rows from 0, `source` is what the model reads, `probabilities` are there with --answer-by labels.
"""

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from attempt.answering.runner import Answer, Runner, Text
from data.user import ENDINGS, cells_of
from model.errors import AttemptError, meant_path

STDIN = "-"


def answer_rows(runner: Runner, path: str, out: TextIO) -> None:
    """Answer a file's rows, as many at a time as --eval-batch-size says, each batch as soon as it is read."""
    rows, index = rows_of(runner, path), 0
    choose = runner.plan.answer_by == "labels"
    while chunk := list(islice(rows, runner.plan.eval_batch_size)):
        tasks, texts = [task for task, _ in chunk], [text for _, text in chunk]
        answers = runner.answer(texts, tasks, probabilities=True) if choose else runner.answer(texts, tasks)
        for (task, text), answer in zip(chunk, answers, strict=True):
            record: dict[str, Any] = {"index": index, "task": task, "source": runner.questions[task].text_of(text)}
            if isinstance(answer, Answer):
                record |= {"prediction": answer.text, "probabilities": answer.probabilities}
            else:
                record |= {"prediction": answer}
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
            index += 1
        out.flush()


def rows_of(runner: Runner, path: str) -> Iterator[tuple[str, Text]]:
    """(task, values of its fields) of each row of a .tsv, .csv or .jsonl with the run's columns, or of each line."""
    known, column = runner.questions, runner.plan.task_field
    only = next(iter(known)) if len(known) == 1 else None
    if path == STDIN or not path.lower().removesuffix(".gz").endswith(ENDINGS):
        if only is None:
            raise AttemptError(f"--answer {path}: expected one task, found {', '.join(known)}; choose by --task")
        count = len(known[only].task.fields)
        for text in lines_of(path):
            yield only, text.split("\t") if count > 1 else text
        return
    if only is None and column is None:
        raise AttemptError(f"--answer {path}: expected one task, found {', '.join(known)}; choose by --task")
    fields = next(iter(known.values())).task.fields
    if only is not None:
        yield from ((only, values) for _, values in cells_of(Path(path), fields))
        return
    for where, (*values, task) in cells_of(Path(path), (*fields, str(column))):
        if task not in known:
            raise AttemptError(
                f"{where}: expected a task of the run, {', '.join(known)}, in {column!r}, found {task!r}"
            )
        yield task, values


def lines_of(path: str) -> Iterator[str]:
    """The lines of a file or of the standard input; empty ones are left out."""
    if path != STDIN and not Path(path).is_file():
        raise AttemptError(f"--answer {path}: expected a file, or -, found none there{meant_path(Path(path))}")
    try:
        with open(sys.stdin.fileno() if path == STDIN else path, encoding="utf-8", closefd=path != STDIN) as file:
            yield from (line.strip() for line in file if line.strip())
    except UnicodeDecodeError as e:
        raise AttemptError(f"--answer {path}: expected lines in UTF-8, found {e}") from None
