"""A GPU that is rented for minutes: python -m benchmarks.gpu run --out DIR [--minutes 9] [--tiny]

Parts, each a program of its own with its own time limit: correctness first, side by side; then the tables, in order of
importance, one after the other; then what needs compilers; last what a step runs, for which time is kept. A part that
fails or hangs leaves what it has written, and the next one begins. The exit status is 1 where a part of correctness did
not end well.

In DIR, written every few seconds: results.json (all that the parts have found, and how they ended), log.txt (what they
have printed), tables.md. `python -m benchmarks.gpu tables DIR` makes the tables again.
"""

import argparse
import contextlib
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from subprocess import DEVNULL, STDOUT
from typing import Any

import torch

from attempt.command.flags import Parser, above_zero
from benchmarks.gpu_parts import KEPT, Part, plan
from benchmarks.gpu_tables import read, tables
from benchmarks.machine import REPOSITORY, facts, save
from model.errors import AttemptError, exit_status
from model.files import write_whole

LEAST = 15  # seconds; a part that has less is not begun
LOGGED = 200_000  # last characters that are kept of what a part printed
OFTEN = 3.0  # seconds between two writings


class Running:
    """A part at work, in a process group of its own, so that its own processes end with it."""

    def __init__(self, part: Part, folder: Path, limit: float) -> None:
        self.part, self.limit, self.status, self.seconds = part, limit, "running", 0.0
        self.found, self.printed = (folder / f"{part.name}.{kind}" for kind in ("json", "log"))
        words = [*part.words, *(["--out", str(self.found)] if part.writes else [])]
        words += ["--first-limit", f"{max(5, limit - part.after_first):.0f}"] if part.after_first else []
        self.command, self.started = [sys.executable, "-W", "ignore", "-m", *words], time.monotonic()
        with open(self.printed, "wb") as log:
            self.process = subprocess.Popen(
                self.command, stdin=DEVNULL, stdout=log, stderr=STDOUT, cwd=REPOSITORY, start_new_session=True
            )

    def is_over(self) -> bool:
        """Whether it has ended; it is ended here once its time is over."""
        self.seconds, code = time.monotonic() - self.started, self.process.poll()
        if code is None and self.seconds < self.limit:
            return False
        self.status = "cut" if code is None else "failed" if code else "done"
        self.kill()
        return True

    def record(self) -> dict[str, Any]:
        """How it stands, and what it has found so far."""
        found = {"status": self.status, "seconds": round(self.seconds, 1), "limit": round(self.limit)}
        error = "" if self.status in ("done", "running") else self.text().strip()[-2000:]
        return {**self.part.record(), **found, "error": error, "result": self.result()}

    def text(self) -> str:
        return self.printed.read_text(encoding="utf-8", errors="replace")[-LOGGED:]

    def result(self) -> Any:
        with contextlib.suppress(OSError, ValueError):  # it has written nothing yet
            return json.loads(self.found.read_text(encoding="utf-8"))
        return None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Session:
    """All parts, and the folder that they are written to."""

    def __init__(self, folder: Path, about: dict[str, Any], deadline: float) -> None:
        self.folder, self.about, self.deadline = folder, about, deadline
        self.records: list[dict[str, Any]] = []
        self.log, self.written = "", -math.inf

    def run(self, parts: Sequence[Part], temporary: Path) -> None:
        """Neighbours of one side at the same time, all others alone."""
        for stage in [list(group) for _, group in groupby(parts, lambda part: part.side or part.name)]:
            last = any(part.last for part in stage)
            left = self.deadline - time.monotonic() - (0 if last else sum(KEPT for part in parts if part.last))
            if left < LEAST:
                ended = {"status": "left out", "seconds": 0.0, "error": "no time was left", "result": None}
                self.records += [{**part.record(), **ended} for part in stage]
                self.keep([])
                continue
            running = [Running(part, temporary, min(part.limit, left)) for part in stage]
            try:
                self.wait(running)
            finally:
                for one in running:
                    one.kill()

    def wait(self, running: list[Running]) -> None:
        while running:
            time.sleep(0.2)
            for one in [one for one in running if one.is_over()]:
                running.remove(one)
                self.records.append(one.record())
                self.log += f"\n--- {one.part.name}: {one.status}: {shlex.join(one.command)}\n{one.text()}"
                self.written = -math.inf
                print(f"{one.part.name}: {one.status}, {one.seconds:.0f} s", flush=True)
            if time.monotonic() > self.written + OFTEN:
                self.keep(running)

    def keep(self, running: list[Running]) -> None:
        results = {**self.about, "parts": [*self.records, *(one.record() for one in running)]}
        save(self.folder / "results.json", results)
        write_whole(self.folder / "tables.md", tables(results).encode("utf-8"))
        write_whole(self.folder / "log.txt", (self.log + "".join(one.text() for one in running)).encode("utf-8"))
        self.written = time.monotonic()


def run(given: argparse.Namespace) -> int:
    device = torch.device(given.device or ("cpu" if given.tiny else "cuda"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise AttemptError("expected a CUDA GPU, found none; --tiny goes through it all on a CPU")
    folder, deadline = Path(given.out).resolve(), time.monotonic() + 60 * given.minutes
    if (folder / "results.json").exists():
        raise AttemptError(f"{folder}: expected a folder without results, found some; name another one")
    folder.mkdir(parents=True, exist_ok=True)
    parts = plan(device.type, given.tiny)
    names = [part.name for part in parts]
    if given.parts and (odd := set(given.parts) - set(names)):
        raise AttemptError(f"--parts: expected some of {', '.join(names)}; found {', '.join(sorted(odd))}")
    machine = facts(device)
    machine["commit"] = given.commit or machine["commit"]
    about = {"command": shlex.join(["benchmarks/gpu.sh", *sys.argv[2:]]), "machine": machine}
    chosen = [part for part in parts if not given.parts or part.name in given.parts]
    session = Session(folder, about, deadline)
    with tempfile.TemporaryDirectory() as temporary:
        session.run(chosen, Path(temporary))
    bad = [record["name"] for record in session.records if record["correctness"] and record["status"] != "done"]
    print(f"all in {folder}" + f"; not correct, or not known to be: {', '.join(bad)}" * bool(bad))
    return int(bool(bad))


def new_parser() -> Parser:
    top = Parser(prog="python -m benchmarks.gpu", description="A GPU that is rented for minutes.")
    commands = top.add_subparsers(dest="what", required=True)
    one = commands.add_parser("run", help="measure everything")
    add = one.add_argument
    add("--out", required=True, metavar="DIR", help="a new folder for the results")
    add("--minutes", type=above_zero, default=9.0, metavar="M", help="for all parts together (default: 9)")
    add("--parts", nargs="+", metavar="NAME", help="only these")
    add("--tiny", action="store_true", help="tiny shapes: go through it all, on a CPU too")
    add("--device", metavar="NAME", help="default: cuda; with --tiny cpu")
    add("--commit", metavar="NAME", help="what to write as the commit (default: what git says)")
    other = commands.add_parser("tables", help="print the tables of such a folder")
    other.add_argument("folder", metavar="DIR", type=Path)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    given, status = new_parser().parse_args(argv), list[int]()
    if given.what == "tables":
        return exit_status("python -m benchmarks.gpu", lambda: print(tables(read(given.folder)), end=""))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the parts end with it
    failed = exit_status("python -m benchmarks.gpu", lambda: status.append(run(given)))
    return failed or status[0]


if __name__ == "__main__":
    sys.exit(main())
