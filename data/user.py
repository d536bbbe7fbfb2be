"""A task from a user's own files: .tsv, .csv or .jsonl, each also .gz, in UTF-8.

.tsv    a line of column names, then a row a line; quotes are ordinary characters, as in the benchmarks' files
.csv    a row of column names; cells in double quotes may hold commas, line breaks and doubled quotes
.jsonl  an object a line; numbers and booleans count as the texts that they are written as

Empty lines are left out, a "\\r" at the end of a line is not part of it, a line break in a cell becomes a space.
"""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from attempt.errors import AttemptError, meant, meant_path
from data.files import Fetch, Row, is_unicode, shown, text_lines
from data.tasks import Task

ENDINGS = (".tsv", ".csv", ".jsonl")
MOST_LABELS = 20  # training files with more different targets have free-text answers
Lines = Iterator[tuple[str, str]]  # (place, text)
Cells = Iterator[tuple[str, list[str]]]  # (place, cells)


@dataclass(frozen=True)
class UserFiles:
    """The files of a task, and where in them its texts are."""

    train: str
    dev: str
    test: str | None
    """None: dev serves as test."""
    fields: tuple[str, ...]
    """The columns of the source text, in its order."""
    target: str
    """The column of the answers."""
    answers: str | None = None
    """"labels" or "text"; None: as the training file's targets suggest."""
    task: tuple[str, str] | None = None
    """A column, and what it says of the task's own rows, where the files have other tasks' too."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.fields, self.target, *([self.task[0]] if self.task else []))


def user_task(name: str, files: UserFiles) -> Task:
    """The task of these files. Raises AttemptError naming the file and line of a bad row.

    Its labels are the training file's targets, sorted: accuracy and macro F1; free-text answers: F1 and EM.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise AttemptError(f"--task: expected a name of letters, digits, '_', '.' and '-', found {name!r}")
    columns = files.columns
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise AttemptError(
            f"--source-field, --target-field, --task-field: expected each column once, found {', '.join(repeated)}"
        )
    labels = _labels(files, _stamp(files.train))
    metrics = ("accuracy", "macro_f1") if labels else ("f1", "em")
    read = partial(_read_splits, files, labels)
    return Task(name, files.fields, labels, metrics, "given", labels, read, free_text=not labels)


def _stamp(name: str) -> tuple[int, ...]:
    """What changes with a file's content; () where there is none."""
    path = Path(name)
    if not path.is_file():
        return ()
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=8)  # a task is looked up several times in a run, and again in every run of a series
def _labels(files: UserFiles, stamp: tuple[int, ...]) -> tuple[str, ...]:
    """The labels of the training file, whose `stamp` makes a changed file another one."""
    return labels_of([row.label for row in read_rows(files.train, files)], files.answers)


def labels_of(targets: Sequence[str], answers: str | None = None) -> tuple[str, ...]:
    """The different targets, sorted, whole numbers by value; () where the answers are free text.

    Unless `answers` says which, targets are labels where there are at most 20 different ones, and fewer than half
    as many as rows: else most labels would have been seen once.
    """
    distinct = set(targets)
    few = len(distinct) <= MOST_LABELS and 2 * len(distinct) < len(targets)
    if answers == "text" or (answers is None and not few):
        return ()
    numbers = all(target.isdecimal() and len(target) < 19 for target in distinct)
    return tuple(sorted(distinct, key=lambda target: (int(target) if numbers else 0, target)))


def _read_splits(files: UserFiles, labels: tuple[str, ...], name: str, fetch: Fetch) -> dict[str, list[Row]]:
    """Every file's rows. Raises AttemptError at a label that the training file does not have."""
    paths = {"train": files.train, "dev": files.dev, "test": files.test}
    splits = {split: read_rows(path, files) for split, path in paths.items() if path is not None}
    known = set(labels)
    for row in (row for rows in splits.values() for row in rows):
        if labels and row.label not in known:
            raise AttemptError(
                f"{row.place}: expected one of the labels of {files.train} ({', '.join(labels):.200}), found "
                f"{shown(row.label)}; mend the row, or make the answers free text by --answers text"
            )
    return splits


def read_rows(name: str, files: UserFiles) -> list[Row]:
    """The rows of one file: the source fields and the target, stripped."""
    path = Path(name)
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    if ending not in ENDINGS:
        raise AttemptError(f"{path}: expected a file named .tsv, .csv or .jsonl, or one of these with .gz after it")
    if not path.is_file():
        raise AttemptError(f"{path}: expected a file of examples, found none there{meant_path(path)}; check the path")
    lines = ((where, line.removesuffix("\r")) for where, line in text_lines(path, advice="check the file"))
    if ending == ".jsonl":
        cells = _json_cells(lines, files.columns)
    else:
        cells = _pick(_csv_cells(lines, path) if ending == ".csv" else _tsv_cells(lines), files.columns, path)
    rows, others = [], set()
    for where, values in cells:
        texts = [value.replace("\r\n", " ").replace("\n", " ").strip() for value in values]
        if files.task and (task := texts.pop()) != files.task[1]:
            others.add(task)
            continue
        *fields, target = texts
        if not target:
            raise AttemptError(
                f"{where}: expected an answer in {files.target!r}, found none; fill it in, or drop the row"
            )
        rows.append(Row(tuple(fields), target, where))
    if not rows and files.task and others:
        column, task = files.task
        raise AttemptError(
            f"{path}: expected rows of the task {task} in the column {column!r}, found those of "
            f"{_listed(sorted(others))}{meant(task, others)}; give these names by --task"
        )
    if not rows:
        raise AttemptError(f"{path}: expected at least 1 example, found none; check the file")
    return rows


def _tsv_cells(lines: Lines) -> Cells:
    return ((where, line.split("\t")) for where, line in lines if line)


def _csv_cells(lines: Lines, path: Path) -> Cells:
    """A row may take several lines; its place is the first of them."""
    reader = csv.reader((f"{line}\n" for _, line in lines), strict=True)
    number = 1
    try:
        for row in reader:
            if row:
                yield f"{path} line {number}", row
            number = reader.line_num + 1
    except csv.Error as error:
        raise AttemptError(f"{path} line {number}: expected CSV, found {error}; mend the row") from None


def _json_cells(lines: Lines, columns: tuple[str, ...]) -> Cells:
    for where, line in lines:
        if not line.strip():
            continue
        try:  # numbers stay as they are written: 1.0 is "1.0", and no digit is lost
            record = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
        except (ValueError, RecursionError) as error:
            raise AttemptError(f"{where}: expected a JSON object, found {error}; mend the line") from None
        if not isinstance(record, dict):
            raise AttemptError(f"{where}: expected a JSON object, found {shown(line.strip())[1:-1]}; mend the line")
        yield where, [_json_text(record, column, where) for column in columns]


def _json_text(record: dict[str, object], key: str, where: str) -> str:
    if key not in record:
        raise AttemptError(
            f"{where}: expected the key {key!r}, found {_listed(record)}{meant(key, record)}; see --source-field, "
            "--target-field"
        )
    value = record[key]
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        raise AttemptError(f"{where}: expected a text, number or boolean in {key!r}, found {json.dumps(value):.60}")
    if not is_unicode(value):
        raise AttemptError(f"{where}: expected Unicode text in {key!r}, found half a surrogate pair; mend the line")
    return value


def _pick(rows: Cells, columns: tuple[str, ...], path: Path) -> Cells:
    """The wanted cells of each row of a table, whose first row has the columns' names."""
    where, header = next(rows, ("", []))
    if not header:
        raise AttemptError(f"{path}: expected a line of column names, found an empty file")
    names = [name.strip() for name in header]
    for column in columns:
        if names.count(column) != 1:
            raise AttemptError(
                f"{where}: expected one column {column!r}, found {_listed(names)}{meant(column, names)}; see "
                "--source-field, --target-field"
            )
    wanted = [names.index(column) for column in columns]
    for where, cells in rows:
        if len(cells) != len(names):
            raise AttemptError(f"{where}: expected {len(names)} cells, found {len(cells)}; mend the row")
        yield where, [cells[i] for i in wanted]


def _listed(names: Sequence[str] | dict[str, object]) -> str:
    return shown(list(names)).strip("[]") if names else "none"
