"""Answers to rows without labels, as JSON lines: python eval.py --run runs/mine --answer new.tsv

    {"index": 0, "task": "mine", "source": "mine text: …", "prediction": "good", "probabilities": {"good": 0.9, …}}

`index` counts the rows from 0, `source` is what the model reads, `probabilities` are there with --answer-by labels.
Where the model wrote none of the labels, `prediction` is null and `written` has what it wrote.
"""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from attempt.answering.question import Question
from attempt.answering.runner import Runner
from data.files import ending_of, standard_lines, text_lines
from data.tasks import expand
from data.user import ENDINGS, cells_of
from model.errors import AttemptError, meant_path, note

STDIN = "-"
COLUMNS = "the run's columns are needed, but not its answers"


def answer_rows(runner: Runner, path: str, out: TextIO) -> None:
    """Answer a file's rows, as many at a time as --eval-batch-size says, each batch as soon as it is read."""
    told = Counter[str]()
    rows, index = rows_of(runner, path, told), 0
    while chunk := list(islice(rows, runner.plan.eval_batch_size)):
        tasks, texts = [task for task, _ in chunk], [text for _, text in chunk]
        told["answered {:,} rows with an empty field"] += sum(not all(text) for text in texts)
        for (task, text), answer in zip(chunk, runner.answers(texts, tasks), strict=True):
            record: dict[str, Any] = {"index": index, "task": task, "source": runner.questions[task].text_of(text)}
            record |= {"prediction": answer.text}
            if answer.text is None:
                record |= {"written": answer.written}
            if answer.probabilities:
                record |= {"probabilities": answer.probabilities}
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
            index += 1
        out.flush()
    told.update({f"cut {{:,}} texts to {most:,} tokens": count for most, count in runner.cut.items()})
    for what, count in (+told).items():
        note(f"--answer {path}: {what.format(count)}")
    if not index:
        note(f"--answer {path}: found no row")


def rows_of(runner: Runner, path: str, told: Counter[str]) -> Iterator[tuple[str, list[str]]]:
    """(task, values of its fields) of each row of a .tsv, .csv or .jsonl with the run's columns, or of each line.

    The column that says which task a row is of is read where the run's own files had one.
    told: counts what is left out.
    """
    known = runner.questions
    own = [name for name, question in known.items() if question.task.split == "given"]
    column = runner.plan.task_field if own else None
    lines = path == STDIN or ending_of(path) not in ENDINGS
    if len(known) > 1 and (lines or column is None):
        raise AttemptError(f"--answer {path}: expected one task, found {', '.join(known)}; choose by --task")
    name = next(iter(known))
    if lines:
        for number, (where, line) in enumerate(lines_of(path, told)):
            if number == 0:
                check_plain(known[name], where, line)
            yield name, known[name].values_of(line, f"{where}: ")
    elif column is None:
        fields = known[name].task.fields
        yield from ((name, values) for _, values in cells_of(Path(path), fields, COLUMNS))
    else:
        of_run = expand(runner.plan.task)
        for where, (*values, task) in cells_of(Path(path), (*known[own[0]].task.fields, column), COLUMNS):
            if task in own:
                yield task, values
            elif task in of_run:
                told["left out {:,} rows of other tasks"] += 1
            else:
                raise AttemptError(f"{where}: expected one of {', '.join(of_run)} in {column!r}, found {task!r}")


def check_plain(question: Question, where: str, line: str) -> None:
    """Raises AttemptError where the first line shows that the lines are another format's rows."""
    named = question.task.fields == tuple(name.strip() for name in line.split("\t"))
    if named or line.lstrip().startswith('{"'):
        found = "names of columns" if named else "a JSON object"
        raise AttemptError(f"{where}: expected a text on each line, found {found}; give a file named .tsv or .jsonl")


def lines_of(path: str, told: Counter[str]) -> Iterator[tuple[str, str]]:
    """(place, line) of each line of a file, or of the standard input as it comes; empty ones are left out."""
    if path != STDIN and (Path(path).is_dir() or not Path(path).exists()):
        raise AttemptError(f"--answer {path}: expected a file, or -, found none there{meant_path(Path(path))}")
    for where, line in standard_lines() if path == STDIN else text_lines(Path(path), advice="check the file"):
        if line.strip():
            yield where, line
        else:
            told["left out {:,} empty lines"] += 1
