"""A cell of the replication's tables: one run of train.py, named, with all that decides its result."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

RUNS = "runs"  # the run folders, in the folder that the runs are made in
MODEL, DATA = "MODEL", "DATA"  # what stands for the checkpoint and the data sets where a command is printed


@dataclass(frozen=True)
class Cell:
    """A run, by its name and train.py's words; other cells' runs stand there as runs/NAME."""

    name: str
    part: str
    """The question that it belongs to."""
    words: tuple[str, ...]
    """Without --model, --data-dir and --out."""

    @property
    def needs(self) -> list[str]:
        """The cells whose runs it reads."""
        return [word.removeprefix(f"{RUNS}/") for word in self.words if word.startswith(f"{RUNS}/")]

    def command(self, model: str = MODEL, data: str = DATA) -> list[str]:
        """train.py's words, for a working directory that has the runs of the others."""
        return [*self.words, "--model", model, "--data-dir", data, "--out", f"{RUNS}/{self.name}"]

    def shown(self) -> str:
        """The command as a reader would type it."""
        return f"python train.py {shlex.join(self.command())}"


def cell(name: str, part: str, *flags: str) -> Cell:
    """A cell from flags as they are typed; of a flag that is there twice the last counts."""
    return Cell(name, part, tuple(word for flag in merged(flags).values() for word in flag))


def merged(flags: Iterable[str]) -> dict[str, list[str]]:
    """The words of each flag, by its name, in the order in which they come first."""
    found: dict[str, list[str]] = {}
    for word in shlex.split(" ".join(flags)):
        if word.startswith("--"):
            name = word
            found[name] = [word]
        else:
            found[name].append(word)
    return found


def in_order(cells: list[Cell]) -> list[Cell]:
    """The cells as they are. Raises ValueError where a name is there twice, or a run is read before it is made."""
    made: set[str] = set()
    for one in cells:
        if one.name in made:
            raise ValueError(f"{one.name}: expected each cell once")
        if late := [name for name in one.needs if name not in made]:
            raise ValueError(f"{one.name}: expected {', '.join(late)} before it")
        made.add(one.name)
    return cells


def folder(out: Path, name: str) -> Path:
    return out / RUNS / name
