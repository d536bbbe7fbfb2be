"""docs/exercises: the tests pass with right solutions, fail with wrong ones, and say which exercise is not solved."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from exercise_solutions import RIGHT, WRONG

EXERCISES = REPOSITORY / "docs/exercises"


def run(folder: Path, solutions: str | None) -> tuple[dict[str, set[str]], str]:
    """Each exercise's outcomes, PASSED, FAILED or both, with these solutions; and all that pytest printed.

    solutions: what stands in exercises.py; None for the exercises as a student finds them.
    """
    copy = folder / "docs/exercises"
    shutil.copytree(EXERCISES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "demo").symlink_to(REPOSITORY / "demo")
    if solutions is not None:
        (copy / "exercises.py").write_text(solutions, encoding="utf-8")
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "docs/exercises"]
    # without the plugins, which take longer to import than the exercises to run
    environment = {**os.environ, "PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    outcomes: dict[str, set[str]] = {name: set() for name in RIGHT}
    for outcome, test in re.findall(r"^(PASSED|FAILED|ERROR) \S+::test_(\w+)", done.stdout, flags=re.MULTILINE):
        outcomes[next(name for name in RIGHT if test.startswith(name))].add(outcome)
    assert done.returncode == (0 if all(found == {"PASSED"} for found in outcomes.values()) else 1), done.stdout
    return outcomes, done.stdout


def test_right_solutions_pass(tmp_path: Path) -> None:
    outcomes, printed = run(tmp_path, f"from exercise_solutions import {', '.join(RIGHT)}\n")
    assert outcomes == {name: {"PASSED"} for name in RIGHT}, printed


@pytest.mark.parametrize("number", [0, 1])
def test_wrong_solutions_fail(number: int, tmp_path: Path) -> None:
    wrong = {name: solutions[number].__name__ for name, solutions in WRONG.items()}
    outcomes, printed = run(tmp_path, "".join(f"from exercise_solutions import {w} as {n}\n" for n, w in wrong.items()))
    for name, found in outcomes.items():
        assert "FAILED" in found and "ERROR" not in found, f"{wrong[name]} passed as {name}\n{printed}"


def test_an_unsolved_exercise_says_so_in_a_line(tmp_path: Path) -> None:
    outcomes, printed = run(tmp_path, None)
    assert outcomes == {name: {"FAILED"} for name in RIGHT}
    for number, name in enumerate(RIGHT, start=1):
        line = f"exercise {number}, {name}, is not solved yet: write it in docs/exercises/exercises.py"
        assert line in printed.splitlines()
    assert "Traceback" not in printed and "raise NotImplementedError" not in printed


def test_the_text_has_an_entry_for_each_exercise() -> None:
    text = (REPOSITORY / "docs/exercises.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\d) \| `(\w+)` ", text, flags=re.MULTILINE) == [
        (str(number), name) for number, name in enumerate(RIGHT, start=1)
    ]
