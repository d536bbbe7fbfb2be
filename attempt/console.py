"""The console scripts attempt-train and attempt-eval, from any folder: they run train.py and eval.py.

A clone or an editable install has the two beside this package; a plain install keeps them inside it (setup.cfg), so
that no module of its environment is called train or eval.
"""

import runpy
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def find(program: str) -> Path:
    """Where a program lies. Another project's train.py beside an installed package is never looked at."""
    programs = PACKAGE / "programs"
    return (programs if programs.is_dir() else PACKAGE.parent) / program


def run(program: str) -> None:
    path = find(program)
    if not path.is_file():
        print(f"{program}: error: expected the program at {path}, found none; install attempt again", file=sys.stderr)
        sys.exit(2)
    runpy.run_path(str(path), run_name="__main__")


def train() -> None:
    run("train.py")


def evaluate() -> None:
    run("eval.py")
