"""The two documents whose tables come from kept cells: docs/replication.md and replication-short.md."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.replication import plan_base, tables, tables_gpu
from benchmarks.replication.results import Kept
from benchmarks.timing import markdown
from model.errors import AttemptError
from model.files import write_whole

GPU_SCRIPT = "gpu.sh"
MARK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
Tables = dict[str, Callable[[Kept], list[list[str]]]]


@dataclass(frozen=True)
class Document:
    path: Path
    kept: Path
    """The folder of its cells."""
    tables: Tables

    def filled(self) -> str:
        return filled(self.path.read_text(encoding="utf-8"), Kept(self.kept), self.tables)


def documents(place: Path) -> list[Document]:
    """Beside the kept cells: of the plan for a GPU, and of the short study on a CPU."""
    short = place.with_name(f"{place.name}-short.md")
    gpu = Document(place.with_suffix(".md"), place / "gpu", tables_gpu.TABLES)
    return [gpu, Document(short, place, tables.TABLES)]


def filled(text: str, kept: Kept, made: Tables) -> str:
    """The text with its tables made anew, each between its two marks."""
    if unknown := [match[2] for match in MARK.finditer(text) if match[2] not in made]:
        raise AttemptError(f"expected tables of {', '.join(made)}, found {', '.join(unknown)}")
    return MARK.sub(lambda match: f"{match[1]}{markdown(made[match[2]](kept))}\n{match[3]}", text)


def write_tables(place: Path) -> None:
    """The documents, and in the folder the script for a GPU."""
    for document in documents(place):
        write_whole(document.path, document.filled().encode())
    write_whole(place / GPU_SCRIPT, plan_base.script().encode())
