"""What flags are made of: kinds of values, fields that are flags, and a parser that complains on one line."""

import argparse
import math
from dataclasses import MISSING, field
from typing import Any, NoReturn

from attempt.errors import one_line


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return int(text)


def natural(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, found {text!r}")
    return int(text)


def number(text: str) -> float:
    """A finite number from 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"expected a number from 0, found {text!r}")
    return value


def seed_number(text: str) -> int:
    """A whole number from 0 that every generator of random numbers takes."""
    value = natural(text)
    if value >= 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number below 2^63, found {text!r}")
    return value


def above_zero(text: str) -> float:
    """A finite number above 0."""
    value = number(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return value


def share(text: str) -> float:
    """A number from 0 up to, but not including, 1."""
    value = number(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to less than 1, found {text!r}")
    return value


def flag(group: str, text: str, default: Any = MISSING, **argparse_settings: Any) -> Any:
    metadata = {"group": group, "help": text, **argparse_settings}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


class Parser(argparse.ArgumentParser):
    """argparse, with errors on one line, whatever a file of options holds."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see {self.prog} --help)\n")
