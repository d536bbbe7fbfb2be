"""A run's folder: its options, what it measured, its prompts, and the state to go on from.

config.json        the options
metrics.jsonl      a line an evaluation
best.safetensors   what was trained (prompts, or a baseline's weights) when dev's score was best
last.safetensors   what was trained when it was saved last: at the start, an evaluation or a signal
state.pt           what --resume goes on from: optimizer, random numbers, position in the data, best scores
state-before.pt    the one before it, should it be damaged
result.json        written when the run is complete
"""

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from attempt.checkpoint import BEST, LAST
from attempt.command.options import Options
from attempt.machine import distributed
from attempt.runs.kept import is_there, text_of
from model.checkpoint import read_torch
from model.errors import AttemptError
from model.files import LOCK, held, sync_folder, write_whole


class Run:
    """Of several processes rank 0 alone writes; the others read what lies in the folder at the start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.json"
        self.metrics = folder / "metrics.jsonl"
        self.best = folder / BEST
        self.last = folder / LAST
        self.state = folder / "state.pt"
        self.state_before = folder / "state-before.pt"
        self.result = folder / "result.json"

    @property
    def begun(self) -> bool:
        """Whether there is a state to go on from: a kill between two renames leaves the one before alone."""
        return self.state.exists() or self.state_before.exists()

    def check_empty(self) -> None:
        """A run begins in an empty folder, so that every checkpoint in it is its own.

        What a run leaves that was stopped before its first state was saved is no obstacle: nothing was trained yet.
        """
        self.check_place()
        found = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        halves = {name for name in found if name.startswith(".") and name.endswith(".tmp")}  # see write_whole
        if not found - halves <= {self.config.name, self.last.name, "state-new.pt", LOCK}:
            raise AttemptError(
                f"{self.folder}: expected an empty or new folder for the run, found files; "
                f"go on with that run by --resume {self.folder}, or give another --out"
            )

    def check_place(self) -> None:
        for place in (self.folder, *self.folder.parents):
            if place.exists() and not place.is_dir():
                raise AttemptError(f"{place}: expected a folder for the run, found a file; give another --out")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder for this program while it writes there; of several processes rank 0 does so for all."""
        with ExitStack() as stack:

            def hold() -> None:
                self.check_place()
                stack.enter_context(held(self.folder))

            distributed.decided(hold)
            yield

    def create(self, options: Options) -> None:
        self.write_json(self.config, options.stored())

    def write_json(self, path: Path, content: dict[str, Any]) -> None:
        if distributed.is_main():
            write_whole(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add a line, synced: the state that is saved next says that this evaluation was made."""
        if not distributed.is_main():
            return
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read_metrics(self) -> list[dict[str, Any]]:
        """The complete lines; one that a killed process left half-written is passed over, and so is any other text."""
        return [record for _, record in self._lines()]

    def _lines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(line, record)"""
        for line in (text_of(self.metrics, "replace") if is_there(self.metrics) else "").split("\n"):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and type(record.get("step")) is int:
                yield line, record

    def save_state(self, state: dict[str, Any]) -> None:
        """The state before stays until this one is whole, and beside it then."""
        if not distributed.is_main():
            return
        buffer = io.BytesIO()
        torch.save(state, buffer)
        new = self.state.with_name("state-new.pt")
        write_whole(new, buffer.getvalue())
        if self.state.exists():
            os.replace(self.state, self.state_before)
        os.replace(new, self.state)
        sync_folder(self.folder)

    def load_state(self) -> dict[str, Any]:
        """The state to go on from, or the one before where it is damaged.

        Evaluations that came after it was saved are taken out of metrics.jsonl: they will be made again.
        """
        try:
            state = self._read_state(self.state)
        except AttemptError as e:
            if not self.state_before.exists():
                raise
            print(f"warning: {e}; going on from the one before, {self.state_before.name}", file=sys.stderr)
            state = self._read_state(self.state_before)
        kept = [line for line, record in self._lines() if record["step"] <= state["evaluated"]]
        if distributed.is_main():
            write_whole(self.metrics, "".join(f"{line}\n" for line in kept).encode("utf-8"))
        return state

    @staticmethod
    def _read_state(path: Path) -> dict[str, Any]:
        if not path.exists():
            raise AttemptError(
                f"{path}: expected the state of an interrupted run, found none; of several runs give the same "
                "command again, an imported run has nothing to go on with"
            )
        state = read_torch(path)
        if not isinstance(state, dict) or not all(type(state.get(name)) is int for name in ("step", "evaluated")):
            raise AttemptError(f"{path}: expected the state of a run, found {type(state).__name__}")
        return state
