"""Reads lines, tables and JSON records from the archives of the official data sets, without unpacking them.

Benchmarks' TSV is not CSV: quotes are ordinary characters, and CR or U+2028 inside a field is no line break. So
lines are split at "\\n" alone and fields at tabs; a quoting parser loses rows of SST-2, QNLI, MRPC, QQP, SciTail.
"""

import codecs
import csv
import gzip
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from model.errors import AttemptError, briefly, note

Fetch = Callable[[str, int | None, str | None], Path]
"""(url, size in bytes, SHA-256) -> the local file; `Downloader.fetch`."""

BUFFER = 1 << 17  # bytes
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # the first is the beginning of UTF-32's too
LONGEST_LINE = 1 << 26  # bytes; SQuAD's 30 MB are the longest of the official files
csv.field_size_limit(LONGEST_LINE)  # characters of a cell, of all readers; Python's own limit is 131,072
# An archive's text is refused where it is longer than SMALL bytes and PACKED_MOST times longer than the archive:
# text packs to a third or a fifth, a bomb to a thousandth.
SMALL = 1 << 26
PACKED_MOST = 100


class Row(NamedTuple):
    """One example as the file has it: its text fields, stripped, and its label as spelled there."""

    fields: tuple[str, ...]
    label: str  # free-text tasks: the answer to learn
    place: str  # file, member and line, for error messages
    references: tuple[str, ...] = ()  # free-text tasks: all answers that are right
    group: str = ""  # "PASSAGE/QUESTION" where several rows ask the same question


class Remote(NamedTuple):
    """A file on its official host."""

    url: str
    size: int
    sha256: str


class Table(NamedTuple):
    """An archive of TSV files, one per split, and the columns that hold the fields and, last, the label."""

    remote: Remote
    members: dict[str, str]
    columns: tuple[str, ...]
    header: tuple[str, ...] | None = None  # for files that have no header line of their own
    skip_short: bool = False  # rows with too few columns are counted and left out


def read_table(name: str, table: Table, fetch: Fetch) -> dict[str, list[Row]]:
    """Every split of a table. Raises AttemptError at the first row that is not as expected."""
    path = fetch(*table.remote)
    splits = {}
    for split, member in table.members.items():
        place = place_of(path, member)
        columns, lines = cells(text_lines(path, member), place, table.header)
        wanted = positions(columns, table.columns, place)
        rows, skipped = [], 0
        for where, line in lines:
            if table.skip_short and len(line) < len(columns):
                skipped += 1
                continue
            *fields, label = pick(line, wanted, len(columns), where)
            if label != "-":  # MNLI: the annotators did not agree on a label
                rows.append(Row(tuple(fields), label, where))
        if skipped:
            note(f"{name}: skipped {skipped} rows with fewer than {len(columns)} columns in {place}")
        splits[split] = rows
    return splits


def place_of(path: Path, member: str | None) -> str:
    """How errors name a file, or a file in an archive."""
    return f"{path}/{member}" if member else str(path)


@contextmanager
def open_member(path: Path, member: str | None = None) -> Iterator[IO[bytes]]:
    """A file of a zip or tar, a gzipped file, or (member None) a plain one. KeyError: there is no such member.

    Nothing is unpacked to the disk, so a member's name, or a link, leads nowhere.
    """
    if member is None:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            yield cast("IO[bytes]", file)
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            # zipfile's own readline is slow Python: MNLI's 400 MB take twice as long without the buffer
            yield cast("IO[bytes]", io.BufferedReader(cast("io.RawIOBase", file), BUFFER))
    else:
        with open_tar(path) as tar:
            found = next((entry for entry in tar if entry.name == member and entry.isfile()), None)
            if found is None:
                raise KeyError(member)
            yield cast("IO[bytes]", tar.extractfile(found))


@contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """A gzipped tar to read once, from its beginning to its end; links in it are not followed."""
    with gzip.open(path) as unpacked:
        bounded = cast("IO[bytes]", Bounded(cast("IO[bytes]", unpacked), path))
        with tarfile.open(fileobj=bounded, mode="r|") as tar:
            yield tar


class Bounded:
    """An unpacked file, read until it is larger than the archive at `path` can hold in earnest."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path, self._left = file, path, unpacked_most(path)

    def read(self, size: int) -> bytes:
        block = self._file.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise bomb(self._path)
        return block


def unpacked_most(path: Path) -> int:
    """The bytes that an archive may unpack to."""
    return max(SMALL, PACKED_MOST * path.stat().st_size)


def bomb(path: Path) -> AttemptError:
    return AttemptError(
        f"{path}: expected a data set, found an archive that unpacks to more than {PACKED_MOST} times its size: "
        "get it again from a place that you trust"
    )


def ending_of(path: Path | str) -> str:
    """How a file's name ends, in small letters and without a .gz: ".csv" of Q.CSV.GZ."""
    return Path(str(path).lower().removesuffix(".gz")).suffix


def standard_lines() -> Iterator[tuple[str, str]]:
    """(place, text) of each line of the standard input, as it comes, read as a file is."""
    if sys.stdin is None:
        raise AttemptError("expected lines on the standard input, found it closed")
    return text_lines(Path("standard input"), advice="check the lines", file=sys.stdin.buffer)


def text_lines(
    path: Path, member: str | None = None, advice: str = "get it again", file: IO[bytes] | None = None
) -> Iterator[tuple[str, str]]:
    """(place, text) of each line, split at "\\n" alone, UTF-8 with or without a byte order mark.

    advice: how the errors end. file: is read in the path's place, which is only its name.
    """
    packed = path.suffix.lower() == ".gz"
    kind = "zip" if path.suffix == ".zip" else "tar.gz" if member else "gzip file" if packed else "file"
    number = size = 0
    where = place_of(path, member)
    try:
        most = 0 if kind == "file" else unpacked_most(path)
        with open_member(path, member) if file is None else nullcontext(file) as opened:
            while raw := opened.readline(LONGEST_LINE + 1):
                number, size = number + 1, size + len(raw)
                where = f"{place_of(path, member)} line {number}"
                if len(raw) > LONGEST_LINE:
                    raise AttemptError(f"{where}: expected at most {LONGEST_LINE} bytes, found more: {advice}")
                if kind != "file" and size > most:
                    raise bomb(path)
                if number == 1 and (raw.startswith(UTF16) or b"\0" in raw):
                    raise AttemptError(f"{where}: expected UTF-8 text, found UTF-16 or UTF-32: save it as UTF-8")
                yield where, raw.removesuffix(b"\n").decode("utf-8-sig" if number == 1 else "utf-8")
    except AttemptError:
        raise
    except KeyError:
        raise AttemptError(f"expected {member} in {path}, found none: get the {kind} again") from None
    except UnicodeDecodeError as error:
        raise AttemptError(f"{where}: expected UTF-8 text, found {error}: {advice}") from None
    except Exception as error:  # a damaged archive fails in any of a dozen ways, and all mean the same
        inside = f" with {member}" if member else ""
        raise AttemptError(f"expected a {kind}{inside} at {path}, found {briefly(error)}: {advice}") from None


def tar_texts(path: Path, folders: Container[str]) -> Iterator[tuple[str, str]]:
    """(member, text) of each file that lies in one of the folders, in the archive's order.

    In one pass: to look up one member after another would unpack the archive as many times.
    """
    name = ""
    try:
        with open_tar(path) as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if member.isfile() and name.rpartition("/")[0] in folders:
                    text = cast("IO[bytes]", tar.extractfile(member)).read(LONGEST_LINE + 1)
                    if len(text) > LONGEST_LINE:
                        raise AttemptError(f"{path}/{name}: expected at most {LONGEST_LINE} bytes, found more")
                    yield name, text.decode("utf-8")
    except AttemptError:
        raise
    except UnicodeDecodeError as error:
        raise AttemptError(f"{path}/{name}: expected UTF-8 text, found {error}: get it again") from None
    except Exception as error:  # as in text_lines
        raise AttemptError(f"expected a tar.gz at {path}, found {briefly(error)}: get it again") from None


def shown(value: object) -> str:
    """What was found, on one short line of visible characters: a damaged file may hold anything."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]} …"


def cells(
    lines: Iterator[tuple[str, str]], place: str, header: tuple[str, ...] | None
) -> tuple[list[str], Iterator[tuple[str, list[str]]]]:
    """(column names, (place of the line, its cells) …); without `header` the first line has the names."""
    split = ((where, line.split("\t")) for where, line in lines)
    if header is not None:
        return list(header), split
    first = next(split, None)
    if first is None:
        raise AttemptError(f"{place}: expected a header line, found an empty file: get it again")
    return [name.strip() for name in first[1]], split


def positions(columns: list[str], names: tuple[str, ...], place: str) -> list[int]:
    """Where the named columns are."""
    missing = [name for name in names if name not in columns]
    if missing:
        raise AttemptError(f"{place} line 1: expected the columns {names}, found {shown(columns)}: get it again")
    return [columns.index(name) for name in names]


def pick(line: list[str], wanted: list[int], count: int, where: str) -> tuple[str, ...]:
    """The wanted cells, stripped: every sentence of SST-2 ends in a space."""
    if len(line) != count:
        raise AttemptError(f"{where}: expected {count} columns, found {len(line)}: get the file again")
    return tuple([line[i].strip() for i in wanted])  # faster than a generator, and a set has a million cells


def json_lines(path: Path, member: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, record) of each line of a JSON-lines file; empty lines are left out."""
    for where, line in text_lines(path, member):
        if line.strip():
            yield where, as_record(parse_json(line, where), where)


def parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AttemptError(f"{where}: expected JSON, found {error}: get the file again") from None


def as_record(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise AttemptError(f"{where}: expected a JSON object, found {shown(value)}: get the file again")
    return value


def item(record: dict[str, Any], key: str, kind: type, where: str) -> Any:
    """record[key], if it is there and of that type; texts are stripped."""
    value = record.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        found = shown(value) if key in record else f"the keys {shown(list(record))}"
        raise AttemptError(f"{where}: expected a {kind.__name__} {key!r}, found {found}: get the file again")
    return checked_text(value, where) if isinstance(value, str) else value


def is_unicode(text: str) -> bool:
    """JSON can spell half a surrogate pair, which no tokenizer takes."""
    return text.isascii() or text.encode("utf-8", "replace").decode("utf-8") == text


def checked_text(text: str, where: str) -> str:
    """The text, stripped."""
    if not is_unicode(text):
        raise AttemptError(f"{where}: expected Unicode text, found half a surrogate pair: get the file again")
    return text.strip()


def records(record: dict[str, Any], key: str, where: str) -> list[tuple[str, dict[str, Any]]]:
    """(place, record) of each entry of the list record[key]."""
    entries = [(f"{where} {key} {i}", entry) for i, entry in enumerate(item(record, key, list, where))]
    return [(place, as_record(entry, place)) for place, entry in entries]
