"""The kept cells: a JSON line each (attempt/runs/kept.py), in one file for each part of the plan.

A cell has its command, and config, curve, result and log of its run, of some runs `similarities`; where the run failed,
`failed` has the line that it ended with, and there is no result.
"""

import base64
import json
import os
import zlib
from pathlib import Path
from typing import Any

from attempt.runs.kept import is_kept, kept_runs
from model.errors import AttemptError

Line = dict[str, Any]


def kept_cells(place: Path) -> dict[str, Line]:
    """All cells in a folder, by name. Raises AttemptError where a name is there twice."""
    found: dict[str, Line] = {}
    for path in sorted(place.glob("*.jsonl")):
        runs = kept_runs(path).runs if is_kept(path) else {}
        if twice := sorted(found.keys() & runs.keys()):
            raise AttemptError(f"{path}: expected cells of no other file, found {', '.join(twice)}; delete their lines")
        found |= runs
    return found


def append_cell(place: Path, part: str, line: Line) -> None:
    """Add a cell to the file of its part, as a whole line and synced; what is left of a line that was cut goes."""
    path = place / f"{part}.jsonl"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as e:
        raise AttemptError(f"{path}: cannot be written ({e.strerror}); free some space, and run it again") from None


def packed(log: str) -> str:
    return base64.b64encode(zlib.compress(log.encode(), 9)).decode()


def unpacked(log: str) -> str:
    return zlib.decompress(base64.b64decode(log)).decode()
