"""Runs that are kept small: a JSON line each in FILE.jsonl, where FILE.jsonl/NAME stands for the folder of one.

    {"run": NAME, "command": …, "config": …, "curve": [the lines of metrics.jsonl], "result": …, "log": …}

What reads a run's files reads them here, whether they lie in a folder or in a line.
"""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from model.errors import AttemptError, briefly

START = b'{"run": "'  # of each line; no other .jsonl begins so
PARTS = {"config.json": "config", "metrics.jsonl": "curve", "result.json": "result"}


class KeptRuns:
    """The runs of a file by their names; a last line that was cut is passed over: its run is made again."""

    def __init__(self, path: Path) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
            try:
                run = json.loads(line)
                if not isinstance(run["run"], str) or run["run"] in self.runs:
                    raise ValueError(f"run {run['run']!r} twice, or no name")
            except (ValueError, KeyError, TypeError, RecursionError) as e:
                problem = f"{type(e).__name__}: {briefly(e)}"
                raise AttemptError(
                    f"{path}: expected a run in line {number}, found {problem}; delete the line"
                ) from None
            self.runs[run["run"]] = run

    def text(self, name: str, file: str) -> str | None:
        """A file of a run, as the run would have written it but for the spaces; None where it has none."""
        found = self.runs.get(name, {}).get(PARTS.get(file, ""))
        if found is None:
            return None
        lines = found if file == "metrics.jsonl" and isinstance(found, list) else [found]
        return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


def is_kept(path: Path) -> bool:
    """Whether it is a file of runs."""
    if path.suffix != ".jsonl" or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(START)) == START


def kept_runs(path: Path) -> KeptRuns:
    stamp = path.stat()
    return _read(path, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=32)
def _read(path: Path, *stamp: int) -> KeptRuns:
    return KeptRuns(path)


def found_runs(path: Path) -> Iterator[Path]:
    """Of FILE.jsonl each FILE.jsonl/NAME; of FILE.jsonl/PATTERN, such as FILE.jsonl/sst2-*, those that fit it."""
    if is_kept(path):
        yield from (path / name for name in kept_runs(path).runs)
    elif is_kept(path.parent):
        names = kept_runs(path.parent).runs
        yield from (path.parent / name for name in names if fnmatchcase(name, path.name))


def text_of(path: Path, errors: str = "strict") -> str:
    """A run's file, in UTF-8. Raises OSError where there is none; `errors` as of bytes.decode."""
    if is_kept(path.parent.parent):
        if (text := kept_runs(path.parent.parent).text(path.parent.name, path.name)) is None:
            raise FileNotFoundError(path)
        return text
    return path.read_bytes().decode("utf-8", errors)


def is_there(path: Path) -> bool:
    """Whether a run has this file."""
    if is_kept(path.parent.parent):
        return kept_runs(path.parent.parent).text(path.parent.name, path.name) is not None
    return path.exists()
