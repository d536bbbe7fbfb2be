"""Which state of the program something is of: the version, a sum over the sources, the commit where there is one."""

import argparse
import subprocess
from functools import cache
from typing import Any

from attempt import __version__
from model.files import ROOT, sum_of

PACKAGES = ("attempt", "data", "demo", "model")
# What only looks at finished runs: an edit of it changes no result. A new room counts until it is named here.
LOOKING = ("compare", "plots", "report_html")  # rooms of attempt/


@cache  # of the code that runs, whatever is edited while it does
def code_sum() -> str:
    """The sum over all that a result can depend on: the packages, but for LOOKING, train.py and eval.py."""
    files = [file for name in PACKAGES for file in sorted((ROOT / name).rglob("*.py"))]
    inside = ROOT / "attempt" / "programs"
    programs = inside if inside.is_dir() else ROOT  # a plain install has them in the package (attempt/console.py)
    left_out = {programs, *(ROOT / "attempt" / room for room in LOOKING)}
    named = {file.relative_to(ROOT).as_posix(): file for file in files if file.parent not in left_out}
    return sum_of({**named, **{name: programs / name for name in ("train.py", "eval.py")}})


@cache
def commit() -> str | None:
    """The commit of the working tree that the program lies in, with -dirty where files of it were edited; else None."""
    if _git("rev-parse", "--show-toplevel") != str(ROOT):  # not there, or installed below another project's tree
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(*words: str) -> str | None:
    try:
        found = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=10, check=True, encoding="utf-8"
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return found.stdout.strip() or None


def described() -> dict[str, str]:
    """The version and, where there is one, the commit."""
    found = commit()
    return {"version": __version__, **({"commit": found} if found else {})}


class ShowVersion(argparse.Action):
    """--version: asks git for the commit only where it is given."""

    def __init__(self, option_strings: Any, dest: str, **settings: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, **{**settings, "nargs": 0, "default": argparse.SUPPRESS})

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        told = "".join(f", {name} {value}" for name, value in described().items() if name != "version")
        print(f"attempt {__version__}{told}, sum of the sources {code_sum()}")
        parser.exit()
