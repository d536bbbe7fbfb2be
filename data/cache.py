"""The cache of downloaded files: finished ones and parts, a record beside each, and a lock while one is filled.

A file without its record, or of another size than the record says, is not there: records are written last.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from model.errors import AttemptError, note
from model.files import lock_file, unlock_file

if sys.platform != "win32":  # there, two processes must not download the same file at once
    import fcntl


class Sums(NamedTuple):
    """What a file should be, or what it is; None = unknown, not checked."""

    size: int | None
    sha256: str | None


def differs(found: Sums, want: Sums) -> bool:
    """Is the file surely not the wanted one?"""
    return any(w is not None and f != w for f, w in zip(found, want, strict=True))


def record_of(path: Path) -> Path:
    """The small JSON file beside `path`."""
    return path.with_name(f".{path.name}.json")


def read_record(path: Path) -> dict[str, Any]:
    """The record of the file at `path`; {} where there is none or it was damaged."""
    try:
        record = json.loads(record_of(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Written aside, synced and moved into place: a record is there whole or not at all."""
    aside = record_of(path).with_suffix(".json.tmp")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, record_of(path))


def is_finished(target: Path, want: Sums, addresses: tuple[str, str]) -> bool:
    """Is the cached file the wanted one? Without a known sum, only if it came from the same address."""
    record = read_record(target)
    if not target.is_file() or target.stat().st_size != record.get("bytes"):
        return False
    if want.sha256 is None and record.get("url") not in addresses:
        return False
    return not differs(Sums(record["bytes"], record.get("sha256")), want)


def finish(part: Path, target: Path, source: str, found: Sums) -> None:
    """Moves a verified part into place. The old record goes first, the new one is written last."""
    record_of(target).unlink(missing_ok=True)
    os.replace(part, target)
    record_of(part).unlink(missing_ok=True)
    write_record(target, {"url": source, "bytes": found.size, "sha256": found.sha256})


def drop(part: Path) -> None:
    """Forgets a part: it is not, or not surely, the beginning of the wanted file."""
    part.unlink(missing_ok=True)
    record_of(part).unlink(missing_ok=True)


def resumable(part: Path, source: str, want: Sums) -> tuple[int, str]:
    """(bytes at hand, their ETag); 0 bytes where nothing would show that the rest is of another file."""
    record = read_record(part)
    etag = str(record.get("etag", ""))
    if not re.fullmatch("[ -~]{0,500}", etag):  # a header cannot carry anything else
        etag = ""
    if not part.is_file() or record.get("url") != source or not (etag or want.sha256):
        return 0, ""
    return part.stat().st_size, etag


@contextmanager
def locked(target: Path, doing: str = "downloading") -> Iterator[None]:
    """One process at a time fills `target`; the others wait here, saying what it is `doing`."""
    lock = target.with_name(f".{target.name}.lock")
    handle = lock_file(lock, lambda handle: _flock(handle, f"{doing} {target.name}"))
    try:
        yield
    finally:
        unlock_file(lock, handle)


def _flock(handle: int, doing: str) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for another process that is {doing}", file=sys.stderr)
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:  # some network file systems have no locks
        note(f"the cache cannot be locked ({error.strerror}): start one program at a time")


CHECKSUMS_MOST = 1 << 24  # bytes of a checksums.tsv


def parse_checksums(content: bytes, place: str) -> dict[str, Sums]:
    """A checksums.tsv (columns path, bytes, sha256). Raises AttemptError naming the bad line."""
    text = content.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    rows = [line.split("\t") for line in text.split("\n") if line]
    if not rows or rows[0] != ["path", "bytes", "sha256"]:
        raise AttemptError(f"{place} line 1: expected the columns path, bytes, sha256, found {str(rows[:1])[:200]}")
    sums: dict[str, Sums] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 3 or not re.fullmatch("[0-9]{1,18}", row[1]) or not re.fullmatch("[0-9a-fA-F]{64}", row[2]):
            raise AttemptError(f"{place} line {number}: expected path, bytes and SHA-256, found {str(row)[:200]}")
        found = Sums(int(row[1]), row[2].lower())
        if sums.setdefault(row[0], found) != found:
            raise AttemptError(f"{place} line {number}: expected each file once, found {row[0]:.200} with other sums")
    return sums
