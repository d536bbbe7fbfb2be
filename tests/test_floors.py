"""The rule of the house (CONTRIBUTING.md): imports lead down, from floor to floor, and never in a circle."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from runs import REPOSITORY

# From the ground up. A file imports from its own floor and from those below it.
FLOORS = (
    "model",
    "data",
    "attempt",
    "attempt/command",
    "attempt/machine",
    "attempt/runs",
    "attempt/answering",
    "attempt/training",
    "attempt/compare",
    "attempt/plots",
    "attempt/report_html",
    "attempt/exchange",
    "demo",
    "",  # train.py, eval.py, and attempt/__init__.py, the front door
)
PACKAGES = ("model", "data", "attempt", "demo")
FILES = [file for package in PACKAGES for file in sorted((REPOSITORY / package).rglob("*.py"))]
FILES = [file.relative_to(REPOSITORY) for file in FILES] + [Path("train.py"), Path("eval.py")]


def floor_of(file: Path) -> int:
    door = file == Path("attempt/__init__.py")
    return FLOORS.index("" if door or file.parent == Path() else file.parent.as_posix())


def names_in(node: ast.AST) -> Iterator[str]:
    """The modules that are imported anywhere below a node, as `import a.b`, or `from a import b`, written a.b."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from names_in(child)


def imported(file: Path) -> set[Path]:
    """The project's own files that a file imports, wherever in it."""
    found = set()
    for name in names_in(ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))):
        parts = name.split(".")
        if parts[0] in (*PACKAGES, "train", "eval"):
            places = [Path(*parts[:n]) for n in range(len(parts), 0, -1)]  # a.b.c, else a.b with c in it
            ways = [way for place in places for way in (place.with_suffix(".py"), place / "__init__.py")]
            found.add(next(way for way in ways if way in FILES))
    return found - {Path(package, "__init__.py") for package in PACKAGES}


def test_every_floor_is_named() -> None:
    rooms = {file.parent.as_posix() for file in FILES if file.parent != Path()}
    assert rooms == set(FLOORS) - {""}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_lead_down(file: Path) -> None:
    """Only train.py and the demo know the demo: train.py imports it for its flag."""
    others, knows_demo = imported(file), file.parts[0] in ("demo", "train.py")
    assert not [str(o) for o in others if floor_of(o) > floor_of(file) or (o.parts[0] == "demo" and not knows_demo)]


def test_imports_make_no_circle() -> None:
    order = list(TopologicalSorter({file: imported(file) for file in FILES}).static_order())
    assert set(order) == set(FILES)


def test_a_wrong_import_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path("model/errors.py")
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    (tmp_path / "model").mkdir()
    (tmp_path / file).write_text(
        f"{text}\ndef late():\n    from attempt import spot\n    from data.tasks import Task\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "REPOSITORY", tmp_path)
    assert imported(file) == {Path("attempt/spot.py"), Path("data/tasks.py")}


def test_the_demo_is_imported_for_its_flag_alone() -> None:
    late = "import sys, train; assert not [name for name in sys.modules if name.startswith('demo')]"
    subprocess.run([sys.executable, "-c", late], cwd=REPOSITORY, check=True)
    assert importlib.util.find_spec("demo.show") is not None
