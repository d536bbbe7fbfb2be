"""A task from a user's own files: .tsv, .csv or .jsonl, each also .gz, in UTF-8.

.tsv    a line of column names, then a row a line; quotes are ordinary characters, as in the benchmarks' files, and a
        note tells of cells that look quoted, as pandas and spreadsheets write them
.csv    a row of column names; cells in double quotes may hold commas, line breaks and doubled quotes
.jsonl  an object a line; numbers and booleans count as the texts that they are written as

Empty lines are left out, a "\\r" at the end of a line is not part of it, a line break in a cell becomes a space, also
a "\\r" alone in a .csv's.
"""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from data.files import Fetch, Row, ending_of, is_unicode, shown, text_lines
from data.tasks import Task
from model.errors import AttemptError, meant, meant_path, note

SPLITS = ("train", "dev", "test")
ENDINGS = (".tsv", ".csv", ".jsonl")
MOST_LABELS = 20  # training files with more different targets have free-text answers
QUOTES = "if another program has put them there, save the file as .csv"
OBJECTS = "write one object a line, as pandas does by to_json(orient='records', lines=True)"
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
    """"labels" or "text"; None: as the targets suggest (`kind_of`); "counted": as the training file's alone do, which
    was the rule of earlier runs."""
    text_scores: str = "plain"
    """How free-text answers are compared: "plain", as they are but for case and spaces, or "squad", SQuAD's way."""
    task: tuple[str, str] | None = None
    """A column, and what it says of the task's own rows, where the files have other tasks' too."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.fields, self.target, *([self.task[0]] if self.task else []))


def user_task(name: str, files: UserFiles, known: Sequence[str] | None = None, wanted: Sequence[str] = SPLITS) -> Task:
    """The task of these files. Raises AttemptError naming the file and line of a bad row.

    Its labels are the training file's targets, sorted: accuracy and macro F1; free-text answers: F1 and EM, whose
    names say how texts are compared.
    known: the labels of a finished run (none: free text), for which the training file need no longer be there.
    wanted: the splits that are read.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise AttemptError(f"--task: expected a name of letters, digits, '_', '.' and '-', found {name!r}")
    columns = files.columns
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise AttemptError(
            f"--source-field, --target-field, --task-field: expected each column once, found {', '.join(repeated)}"
        )
    labels = tuple(known) if known is not None else _labels(files, (_stamp(files.train), _stamp(files.dev)))
    texts = ("f1", "em") if files.text_scores == "squad" else ("plain_f1", "plain_em")
    metrics = ("accuracy", "macro_f1") if labels else texts
    read = partial(_read_splits, files, labels, "the run" if known is not None else files.train, wanted)
    return Task(name, files.fields, labels, metrics, "given", labels, read, free_text=not labels)


def _stamp(name: str) -> tuple[int, ...]:
    """What changes with a file's content; () where there is none."""
    path = Path(name)
    if not path.is_file():
        return ()
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=8)  # a task is looked up several times in a run, and again in every run of a series
def _labels(files: UserFiles, stamps: tuple[tuple[int, ...], ...]) -> tuple[str, ...]:
    """The labels of the training file; the files' `stamps` make a changed file another one."""
    targets, answers = [row.label for row in read_rows(files.train, files)], files.answers
    if answers == "counted":
        answers = "labels" if few(targets) else "text"
    elif answers is None:
        answers = kind_of(targets, lambda: [row.label for row in read_rows(files.dev, files)], files)
    return labels_of(targets) if answers == "labels" else ()


def labels_of(targets: Sequence[str]) -> tuple[str, ...]:
    """The different targets, sorted, whole numbers by value."""
    distinct = set(targets)
    numbers = all(target.isdecimal() and len(target) < 19 for target in distinct)
    return tuple(sorted(distinct, key=lambda target: (int(target) if numbers else 0, target)))


def few(targets: Sequence[str]) -> bool:
    """At most 20 different targets, and fewer than half as many as rows: else most would have been seen once."""
    return len(set(targets)) <= MOST_LABELS and 2 * len(set(targets)) < len(targets)


def kind_of(train: Sequence[str], read_dev: Callable[[], Sequence[str]], files: UserFiles) -> str:
    """ "labels" where the training targets are few, else "text".

    A small training file has too few rows to tell labels by: they are labels if dev has no others and both files
    together have few, text if dev has others alone. Raises AttemptError where neither is so.
    """
    if few(train):
        return "labels"
    if len(set(train)) > MOST_LABELS:
        return "text"
    dev = read_dev()
    known = set(dev) & set(train)
    if not known:
        return "text"
    if known == set(dev) and few([*train, *dev]):
        return "labels"
    raise AttemptError(
        f"{files.train}: expected answers that are plainly labels, or plainly free text, found {len(set(train))} "
        f"different ones in {len(train)} rows, and {len(known)} of {files.dev}'s {len(set(dev))} among them; say which "
        "by --answers labels or --answers text"
    )


def _read_splits(
    files: UserFiles, labels: tuple[str, ...], whose: str, wanted: Sequence[str], name: str, fetch: Fetch
) -> dict[str, list[Row]]:
    """The wanted files' rows. Raises AttemptError at a label that the training file, or the run, does not have."""
    serving = ["dev"] if files.test is None and "test" in wanted else []
    given = {"train": files.train, "dev": files.dev, **({"test": files.test} if files.test is not None else {})}
    paths = {split: path for split, path in given.items() if split in (*wanted, *serving)}
    for split, path in paths.items():
        if not Path(path).is_file():
            near = meant_path(Path(path))
            raise AttemptError(f"{path}: expected the {split} file, found none there{near}; name it by --{split}-file")
    splits = {split: read_rows(path, files) for split, path in paths.items()}
    tell_twins(files.train, labels)
    for split, path in paths.items():
        if is_tsv(path):
            tell_quotes(path, splits[split])
    known = set(labels)
    for row in (row for rows in splits.values() for row in rows):
        if labels and row.label not in known:
            free = ", or make the answers free text by --answers text" * (whose == files.train)
            raise AttemptError(
                f"{row.place}: expected one of the labels of {whose} ({', '.join(labels):.200}), found "
                f"{shown(row.label)}; mend the row{free}"
            )
    return splits


def tell_twins(path: str, labels: Sequence[str]) -> None:
    """Notes labels that differ in spelling alone, as 1 and 1.0 do, and one that may be a missing number."""
    twins: dict[str | float, list[str]] = defaultdict(list)
    for label in labels:
        try:
            twins[float(label)].append(label)
        except ValueError:
            twins[label.casefold()].append(label)
    for same in twins.values():
        if len(same) > 1:
            note(f"{path}: the labels {', '.join(same)} differ only in spelling, and are {len(same)} classes")
        elif same[0].casefold() == "nan":
            note(f"{path}: the label {same[0]} is a class like any other, although it may mean a missing value")


def tell_quotes(path: str, rows: Sequence[Row]) -> None:
    """Notes cells of a .tsv in which another program's quotes seem to stand."""
    cell = re.compile(r'"(?:[^"]|"")*"')
    places = [row.place for row in rows if any(map(cell.fullmatch, (*row.fields, row.label)))]
    if places:
        note(
            f"{places[0]}{f' and {len(places) - 1:,} more' if places[1:] else ''}: a cell in double quotes, which are "
            f"part of it in a .tsv; {QUOTES}"
        )


def is_tsv(path: Path | str) -> bool:
    return ending_of(path) == ".tsv"


def cells_of(path: Path, columns: tuple[str, ...], advice: str = "see --source-field, --target-field") -> Cells:
    """The wanted cells of each row of a file, stripped, as they are read. advice: for a column that is not there."""
    ending = ending_of(path)
    if ending not in ENDINGS:
        raise AttemptError(f"{path}: expected a file named .tsv, .csv or .jsonl, or one of these with .gz after it")
    if not path.is_file():
        raise AttemptError(f"{path}: expected a file of examples, found none there{meant_path(path)}; check the path")
    lines = _lines(path)
    if ending == ".jsonl":
        cells = _json_cells(lines, columns, advice)
    else:
        cells = _pick(_csv_cells(lines, path) if ending == ".csv" else _tsv_cells(lines), columns, path, advice)
    for where, values in cells:
        yield where, [value.replace("\r\n", " ").replace("\n", " ").strip() for value in values]


def read_rows(name: str, files: UserFiles) -> list[Row]:
    """The rows of one file: the source fields and the target, stripped."""
    path, rows, others = Path(name), list[Row](), set()
    for where, texts in cells_of(path, files.columns):
        if files.task and (task := texts.pop()) != files.task[1]:
            others.add(task)
            continue
        *fields, target = texts
        if not target:
            raise AttemptError(
                f"{where}: expected an answer in {files.target!r}, found none; fill it in, or drop the row"
            )
        if not any(fields):
            raise AttemptError(
                f"{where}: expected a text in {' or '.join(map(repr, files.fields))}, found none; fill it in, or drop "
                "the row"
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


def _lines(path: Path) -> Lines:
    """Raises AttemptError where the first line's end is an old Mac's, "\\r" alone: the file would be one line."""
    for number, (where, line) in enumerate(text_lines(path, advice="check the file")):
        bare = line.removesuffix("\r")
        if number == 0 and "\r" in bare:
            raise AttemptError(f"{where}: expected lines that end in LF or CRLF, found only CR; save it with LF")
        yield where, bare


def _tsv_cells(lines: Lines) -> Cells:
    return ((where, line.split("\t")) for where, line in lines if line)


def _csv_cells(lines: Lines, path: Path) -> Cells:
    """A row may take several lines; its place is the first of them."""
    # csv.writer leaves a "\r" without quotes, and csv.reader takes it for the end of a line
    reader = csv.reader((f"{line}\n".replace("\r", " ") for _, line in lines), strict=True)
    number = 1
    try:
        for row in reader:
            if row:
                yield f"{path} line {number}", row
            number = reader.line_num + 1
    except csv.Error as error:
        raise AttemptError(f"{path} line {number}: expected CSV, found {error}; mend the row") from None


def _json_cells(lines: Lines, columns: tuple[str, ...], advice: str) -> Cells:
    for where, line in lines:
        if not line.strip():
            continue
        try:  # numbers stay as they are written: 1.0 is "1.0", and no digit is lost; a NaN is a missing one, no text
            record = json.loads(
                line, parse_int=str, parse_float=str, parse_constant=float, object_pairs_hook=_each_key_once
            )
        except (ValueError, RecursionError) as error:
            several = line.strip() in ("{", "[")
            found = "one over several lines" if several else error
            mend = OBJECTS if several or line.lstrip().startswith("[") else "mend the line"
            raise AttemptError(f"{where}: expected a JSON object, found {found}; {mend}") from None
        if not isinstance(record, dict):
            mend = OBJECTS if isinstance(record, list) else "mend the line"
            raise AttemptError(f"{where}: expected a JSON object, found {shown(line.strip())[1:-1]}; {mend}")
        yield where, [_json_text(record, column, where, advice) for column in columns]


def _each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return record


def _json_text(record: dict[str, object], key: str, where: str, advice: str) -> str:
    if key not in record:
        raise AttemptError(f"{where}: expected the key {key!r}, found {_listed(record)}{meant(key, record)}; {advice}")
    value = record[key]
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        raise AttemptError(
            f"{where}: expected a text, number or boolean in {key!r}, found {json.dumps(value):.60}; fill it in, or "
            "drop the line"
        )
    if not is_unicode(value):
        raise AttemptError(f"{where}: expected Unicode text in {key!r}, found half a surrogate pair; mend the line")
    return value


def _pick(rows: Cells, columns: tuple[str, ...], path: Path, advice: str) -> Cells:
    """The wanted cells of each row of a table, whose first row has the columns' names."""
    where, header = next(rows, ("", []))
    if not header:
        raise AttemptError(f"{path}: expected a line of column names, found an empty file")
    names = [name.strip() for name in header]
    for column in columns:
        if (count := names.count(column)) > 1:
            raise AttemptError(f"{where}: expected one column {column!r}, found {count}; rename the others")
        if column not in names:
            raise AttemptError(
                f"{where}: expected one column {column!r}, found {_listed(names)}{meant(column, names)}; {advice}"
                + _quotes(names, path)
            )
    wanted = [names.index(column) for column in columns]
    for where, cells in rows:
        if len(cells) != len(names):
            raise AttemptError(
                f"{where}: expected {len(names)} cells, found {len(cells)}; mend the row{_quotes(cells, path)}"
            )
        yield where, [cells[i] for i in wanted]


def _quotes(cells: Sequence[str], path: Path) -> str:
    """What may be wrong with a .tsv's row that has quotes."""
    return f"; quotes hold nothing together in a .tsv: {QUOTES}" if is_tsv(path) and '"' in "".join(cells) else ""


def _listed(names: Sequence[str] | dict[str, object]) -> str:
    return shown(list(names)).strip("[]") if names else "none"
