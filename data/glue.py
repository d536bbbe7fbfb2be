"""Reads GLUE's nine data sets from the official files (Wang et al. 2019).

GLUE's TSV is not CSV: quotes are ordinary characters, and CR or U+2028 inside a field is no line break. So
lines are split at "\\n" alone and fields at tabs; a quoting parser loses rows of SST-2, QNLI, MRPC and QQP.
"""

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from attempt.errors import AttemptError

Fetch = Callable[[str, int | None, str | None], Path]
"""(url, size in bytes, SHA-256) -> the local file; `Downloader.fetch`."""

HOST = "https://dl.fbaipublicfiles.com"


class Row(NamedTuple):
    """One example as the file has it: its text fields, stripped, and its label as spelled there."""

    fields: tuple[str, ...]
    label: str
    place: str  # file, member and line, for error messages


class Remote(NamedTuple):
    """A file on its official host."""

    url: str
    size: int
    sha256: str


class Table(NamedTuple):
    """A zip of TSV files, one per split, and the columns that hold the fields and, last, the label."""

    remote: Remote
    members: dict[str, str]
    columns: tuple[str, ...]
    header: tuple[str, ...] | None = None  # for files that have no header line of their own
    skip_short: bool = False  # rows with too few columns are counted and left out


def _members(folder: str) -> dict[str, str]:
    return {"train": f"{folder}/train.tsv", "dev": f"{folder}/dev.tsv"}


MNLI_MEMBERS = {
    "train": "MNLI/train.tsv",
    "dev_matched": "MNLI/dev_matched.tsv",
    "dev_mismatched": "MNLI/dev_mismatched.tsv",
}
PAIR = ("sentence1", "sentence2", "label")

TABLES = {
    # 12 columns in train, 16 in dev (five annotators); the gold label is the last one.
    "mnli": Table(
        Remote(
            f"{HOST}/glue/data/MNLI.zip",
            312783507,
            "e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633",
        ),
        MNLI_MEMBERS,
        ("sentence1", "sentence2", "gold_label"),
    ),
    "qqp": Table(
        Remote(
            f"{HOST}/glue/data/QQP-clean.zip",
            41696084,
            "40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0",
        ),
        _members("QQP"),
        ("question1", "question2", "is_duplicate"),
        skip_short=True,
    ),
    "qnli": Table(
        Remote(
            f"{HOST}/glue/data/QNLIv2.zip",
            10627589,
            "e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5",
        ),
        _members("QNLI"),
        ("question", "sentence", "label"),
    ),
    "sst2": Table(
        Remote(
            f"{HOST}/glue/data/SST-2.zip",
            7439277,
            "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa",
        ),
        _members("SST-2"),
        ("sentence", "label"),
    ),
    "stsb": Table(
        Remote(
            f"{HOST}/glue/data/STS-B.zip",
            802872,
            "e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85",
        ),
        _members("STS-B"),
        ("sentence1", "sentence2", "score"),
    ),
    "rte": Table(
        Remote(
            f"{HOST}/glue/data/RTE.zip",
            697150,
            "6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee",
        ),
        _members("RTE"),
        PAIR,
    ),
    "cola": Table(
        Remote(
            f"{HOST}/glue/data/CoLA.zip",
            376971,
            "f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff",
        ),
        _members("CoLA"),
        ("sentence", "label"),
        header=("source", "label", "mark", "sentence"),
    ),
    "wnli": Table(
        Remote(
            f"{HOST}/glue/data/WNLI.zip",
            28999,
            "ae0e8e4d16f4d46d4a0a566ec7ecceccfd3fbfaa4a7a4b4e02848c0f2561ac46",
        ),
        _members("WNLI"),
        PAIR,
    ),
}

MRPC_PAIRS = Remote(
    f"{HOST}/senteval/senteval_data/msr_paraphrase_train.txt",
    1047044,
    "60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89",
)
MRPC_DEV_IDS = Remote(
    f"{HOST}/glue/data/mrpc_dev_ids.tsv",
    6222,
    "971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7",
)


def read_table(name: str, fetch: Fetch) -> dict[str, list[Row]]:
    """Every split of one of TABLES. Raises AttemptError at the first row that is not as expected."""
    table = TABLES[name]
    path = fetch(*table.remote)
    splits = {}
    for split, member in table.members.items():
        place = f"{path}/{member}"
        columns, lines = _lines(_read_member(path, member), place, table.header)
        wanted = _positions(columns, table.columns, place)
        rows, skipped = [], 0
        for where, cells in lines:
            if table.skip_short and len(cells) < len(columns):
                skipped += 1
                continue
            *fields, label = _pick(cells, wanted, len(columns), where)
            if label != "-":  # MNLI: the annotators did not agree on a label
                rows.append(Row(tuple(fields), label, where))
        if skipped:
            print(f"{name}: skipped {skipped} rows with fewer than {len(columns)} columns in {place}", file=sys.stderr)
        splits[split] = rows
    return splits


def read_mrpc(name: str, fetch: Fetch) -> dict[str, list[Row]]:
    """MRPC: dev = the pairs whose ids GLUE lists, train = the rest of Microsoft's training file."""
    pairs_path, ids_path = fetch(*MRPC_PAIRS), fetch(*MRPC_DEV_IDS)
    _, lines = _lines(ids_path.read_bytes(), str(ids_path), ("id1", "id2"))
    listed = {_pick(cells, [0, 1], 2, where) for where, cells in lines}
    columns, lines = _lines(pairs_path.read_bytes(), str(pairs_path), None)
    wanted = _positions(columns, ("#1 ID", "#2 ID", "#1 String", "#2 String", "Quality"), str(pairs_path))
    splits: dict[str, list[Row]] = {"train": [], "dev": []}
    for where, cells in lines:
        id1, id2, first, second, label = _pick(cells, wanted, len(columns), where)
        splits["dev" if (id1, id2) in listed else "train"].append(Row((first, second), label, where))
    if len(splits["dev"]) != len(listed):
        raise AttemptError(
            f"{name}: expected the {len(listed)} pairs of {ids_path} in {pairs_path}, found "
            f"{len(splits['dev'])}: get both files again"
        )
    return splits


def _read_member(path: Path, member: str) -> bytes:
    """One file of a zip, read without unpacking anything to the disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(member)
    except KeyError:
        raise AttemptError(f"expected {member} in {path}, found none: get the zip again") from None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise AttemptError(f"expected a zip with {member} at {path}, found {error}: get it again") from error


def _lines(raw: bytes, place: str, header: tuple[str, ...] | None) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """(column names, [(place of the line, its cells)]); without `header` the first line has the names."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise AttemptError(f"{place} line {line}: expected UTF-8 text, found {error}: get it again") from error
    lines = text.split("\n")
    if lines[-1] == "":  # what follows the last line's "\n"; CoLA's dev file has none
        lines.pop()
    cells = [(f"{place} line {number}", line.split("\t")) for number, line in enumerate(lines, 1)]
    if header is not None:
        return list(header), cells
    if not cells:
        raise AttemptError(f"{place}: expected a header line, found an empty file: get it again")
    return [name.strip() for name in cells[0][1]], cells[1:]


def _positions(columns: list[str], names: tuple[str, ...], place: str) -> list[int]:
    missing = [name for name in names if name not in columns]
    if missing:
        raise AttemptError(f"{place} line 1: expected the columns {names}, found {columns}: get it again")
    return [columns.index(name) for name in names]


def _pick(cells: list[str], wanted: list[int], count: int, where: str) -> tuple[str, ...]:
    """The wanted cells, stripped: every sentence of SST-2 ends in a space."""
    if len(cells) != count:
        raise AttemptError(f"{where}: expected {count} columns, found {len(cells)}: get the file again")
    return tuple(cells[i].strip() for i in wanted)
