"""Makes the cells' runs and keeps what is small of them.

A run's folder is OUT/runs/NAME; its result.json, config.json, metrics.jsonl and the log become a line of
KEPT/PART.jsonl, where the tables find them. A cell that is kept is not run again, and one that was cut goes on.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from attempt.checkpoint import load_prompts
from attempt.runs.folder import Run
from attempt.spot import SIMILARITIES, similarity
from benchmarks.replication.cells import DATA, RUNS, Cell, folder
from benchmarks.replication.pace import Pace
from benchmarks.replication.store import Line, append_cell, kept_cells, packed
from benchmarks.replication.workers import Workers
from model.errors import AttemptError
from model.files import held, write_whole
from model.safetensors import read_safetensors, safetensors_bytes

REPOSITORY = Path(__file__).resolve().parents[2]
KEPT = REPOSITORY / "docs" / "replication"


@dataclass(frozen=True)
class Place:
    """Where the runs are made, from what, and where their small files are kept."""

    model: Path
    data: Path
    out: Path
    kept: Path = KEPT
    prompts: Path | None = None
    """Where runs that others need are copied to, for a machine that goes on with nothing else; None: nowhere."""

    def __post_init__(self) -> None:
        for path, what in ((self.model, "--model"), (self.data, "--data-dir")):
            if not path.is_dir():
                raise AttemptError(f"{what}: expected a folder, found none at {path}")

    def scrubbed(self, text: str) -> str:
        """A text without the names of this machine's folders."""
        text = text.replace(f"{self.out}/", "").replace(f"{REPOSITORY}/", "").replace(str(self.data), DATA)
        return text.replace(str(self.out), ".").replace(str(self.model), self.model.name)


class Process(Protocol):
    """A run at work: what is asked of subprocess.Popen."""

    def poll(self) -> int | None: ...

    @property
    def returncode(self) -> int | Any: ...


def run_cells(
    cells: list[Cell],
    place: Place,
    minutes: float | None = None,
    pace: Pace | None = None,
    workers: Workers | None = None,
) -> None:
    """Run every cell that is not kept yet, so many at a time, each after those that it needs.

    None is begun after that many minutes, or where it is expected to end after them. One may fail; the others are run.
    """
    with held(place.kept):
        bring_prompts(place)
        _run_cells(cells, place, minutes, pace or Pace(), workers)


def _run_cells(cells: list[Cell], place: Place, minutes: float | None, pace: Pace, workers: Workers | None) -> None:
    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    names = {cell: f"{number}/{len(cells)} {cell.name}" for number, cell in enumerate(cells, 1)}
    needed = {name for cell in cells for name in cell.needs}
    waiting = [cell for cell in cells if not is_kept(cell, place)]
    for cell in [cell for cell in waiting if is_made(cell.name, place)]:  # cut between its end and its keeping
        keep(cell, place, needed=cell.name in needed)
        waiting.remove(cell)
    running: dict[Cell, tuple[Process, float]] = {}
    while True:
        while len(running) < pace.width([*running]) and (ready := first_ready(waiting, place, pace, end)):
            waiting.remove(ready)
            running[ready] = begin(ready, place, workers), time.monotonic()
        if not running:
            break
        ended = [cell for cell, (process, _) in running.items() if process.poll() is not None]
        for cell in ended:
            process, started = running.pop(cell)
            seconds = time.monotonic() - started
            error = outcome(cell, place, process.returncode)
            keep(cell, place, error, cell.name in needed)
            pace.ended(cell, seconds)
            print(f"{names[cell]} {error or 'done'} ({seconds:.0f} s)", flush=True)
        if not ended:
            time.sleep(0.1)
    if left := first_ready(waiting, place):
        print(f"{minutes:g} minutes are over: {left.name} is next", flush=True)
        return
    for cell in waiting:
        needs = ", ".join(missing(cell, place))
        print(f"{names[cell]}: left out, it needs the runs of {needs}", flush=True)


def bring_prompts(place: Place) -> None:
    """The copied runs, to where they would have been made."""
    for copy in sorted(place.prompts.iterdir()) if place.prompts is not None and place.prompts.is_dir() else []:
        run = Run(folder(place.out, copy.name))
        if Run(copy).result.exists() and not run.folder.exists():  # result.json was copied last
            shutil.copytree(copy, run.folder)


def first_ready(cells: list[Cell], place: Place, pace: Pace | None = None, end: float = float("inf")) -> Cell | None:
    """The first that has what it needs, and time."""
    now, pace = time.monotonic(), pace or Pace()
    return next((cell for cell in cells if not missing(cell, place) and now + pace.seconds(cell) <= end), None)


def missing(cell: Cell, place: Place) -> list[str]:
    """The cells that must be run before this one."""
    return [name for name in cell.needs if not is_made(name, place)]


def is_kept(cell: Cell, place: Place) -> bool:
    return cell.name in kept_cells(place.kept)


def is_made(name: str, place: Place) -> bool:
    return Run(folder(place.out, name)).result.exists()


def make(cell: Cell, place: Place) -> str:
    """Run train.py, or let it go on; "" or, where it failed, the last line that it wrote."""
    if is_made(cell.name, place):
        return ""
    process = begin(cell, place)
    while process.poll() is None:
        time.sleep(0.1)
    return outcome(cell, place, process.returncode)


def begin(cell: Cell, place: Place, workers: Workers | None = None) -> Process:
    """train.py at work on a cell. It has one thread, so that its sums are the same wherever and beside whatever."""
    run = Run(folder(place.out, cell.name))
    with run.held():  # a run that goes on by itself, because this program alone was ended, is no failure
        pass
    words = cell.command(str(place.model), str(place.data))
    if run.begun:
        words = ["--resume", f"{RUNS}/{cell.name}", "--data-dir", str(place.data)]
    place.out.mkdir(parents=True, exist_ok=True)
    log, mode = log_of(cell, place), "a" if run.begun else "w"
    if workers is not None:
        return workers.begin(words, log, mode)
    with open(log, mode, encoding="utf-8") as file:
        program = [sys.executable, "-u", str(REPOSITORY / "train.py"), *words]  # which finds its packages beside it
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(program, cwd=place.out, stdout=file, stderr=file, env=alone)


def outcome(cell: Cell, place: Place, status: int) -> str:
    """What became of a run that ended with this status: "", or the line that it failed with."""
    log = log_of(cell, place)
    if status > 2 or status < 0:  # cut, by a signal: it goes on the next time
        raise AttemptError(f"{cell.name}: expected the run to end, found status {status}; see {log}")
    return "" if status == 0 else log.read_text(encoding="utf-8").strip().split("\n")[-1]


def log_of(cell: Cell, place: Place) -> Path:
    return place.out / f"{cell.name}.log"


def keep(cell: Cell, place: Place, error: str = "", needed: bool = False) -> None:
    """Add a line of what is small. Where other cells need the run, it is copied first, if the place has room for it."""
    run = Run(folder(place.out, cell.name))
    line: Line = {"run": cell.name, "command": cell.shown()}

    def read(path: Path) -> str:
        return place.scrubbed(path.read_text(encoding="utf-8"))

    if error:
        line["failed"] = place.scrubbed(error)
    else:
        if needed and place.prompts is not None:
            tensors, about = read_safetensors(run.best)
            whole = safetensors_bytes(tensors, {key: place.scrubbed(value) for key, value in about.items()})
            write_whole(place.prompts / cell.name / run.best.name, whole)
            for path in (run.config, run.metrics, run.result):
                write_whole(place.prompts / cell.name / path.name, read(path).encode())
        line |= {"config": json.loads(read(run.config)), "result": json.loads(read(run.result))}
        kept = f"from-{line['result'].get('start')}"  # of a search of SPoT the run that it kept has the curve
        line["curve"] = (run if run.metrics.exists() else Run(run.folder / kept)).read_metrics()
        if "prompt" in cell.words and cell.part == "targets":
            sources = sorted((place.out / RUNS).glob("source-*"))
            line["similarities"] = similarities(run.folder, [p for p in sources if Run(p).result.exists()])
    if log_of(cell, place).exists():  # not of a run that was made by hand
        line["log"] = packed(read(log_of(cell, place)))
    append_cell(place.kept, cell.part, line)


def similarities(prompt: Path, sources: list[Path]) -> dict[str, dict[str, float]]:
    """Of a run's prompt to each of the sources' (of its length), which are not kept, by SPoT's two measures."""
    own = load_prompts(prompt)[0][0]
    found = {}
    for source in sources:
        other = load_prompts(source)[0][0]
        if other.shape == own.shape:
            found[source.name] = {measure: similarity(own, other, measure) for measure in SIMILARITIES}
    return found


def check(cell: Cell, place: Place) -> bool:
    """Run a kept cell again, elsewhere, and compare its scores and curve with the stored ones, bit for bit."""
    stored = kept_cells(place.kept)[cell.name]
    with tempfile.TemporaryDirectory() as elsewhere:
        again = Place(place.model, place.data, Path(elsewhere), Path(elsewhere) / "kept")
        for name in cell.needs:
            folder(again.out, name).parent.mkdir(exist_ok=True)
            folder(again.out, name).symlink_to(folder(place.out, name).resolve())
        if error := make(cell, again):
            raise AttemptError(f"{cell.name}: {error}")
        found = json.loads((folder(again.out, cell.name) / "result.json").read_text(encoding="utf-8"))
        curves = [curve(stored["curve"]), curve(Run(folder(again.out, cell.name)).read_metrics())]
    print(f"{cell.name}: stored {said(stored['result'])}, again {said(found)}")
    return bool(stored["result"]["scores"] == found["scores"] and curves[0] == curves[1])


def curve(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, but for the time they took."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def said(result: dict[str, Any]) -> str:
    """The means of the first metrics."""
    return ", ".join(f"{split} {value:.2f}" for split, value in result["mean"].items())


def chosen(name: str, cells: list[Cell], place: Place) -> Cell:
    """The cell of that name; for "random" one of those that are kept and whose sources are there."""
    kept = kept_cells(place.kept)
    able = [cell for cell in cells if "result" in kept.get(cell.name, {})]
    able = [cell for cell in able if not missing(cell, place)]
    if name == "random" and able:
        return random.SystemRandom().choice(able)
    for cell in able:
        if cell.name == name:
            return cell
    raise AttemptError(f"--cell {name}: expected random or a kept cell whose sources are in {place.out}, found none")
