"""What flags are made of: kinds of values, fields that are flags, and a parser that complains on one line."""

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import MISSING, field
from typing import Any, NoReturn

from attempt.command.source import ShowVersion
from model.errors import meant, nearest, one_line


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
    """argparse, with errors on one line, whatever a file of options holds, which name what was meant."""

    other_names: Mapping[str, str] = {}
    """What flags of other programs are called here."""
    hands_on = False
    """Unknown flags are another program's."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.add_argument("--version", action=ShowVersion, help="print version, commit and a sum of the sources")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Before anything is missed, a word that is no flag is told: it may be the missing one."""
        words = sys.argv[1:] if args is None else list(args)
        flags = [word.partition("=")[0] for word in words[: words.index("--") if "--" in words else None]]
        own = self._subparsers is None and not self.hands_on  # a command's flags are told by its own parser
        for word in flags if own else ():
            if word.startswith("--") and self._unknown(word):
                self.error(f"unrecognized arguments: {word}")
        return super().parse_known_args(words, namespace)

    def _unknown(self, word: str) -> bool:
        known = self._option_string_actions
        return word not in known and not (self.allow_abbrev and any(other.startswith(word) for other in known))

    def _meant_flag(self, word: str) -> str:
        near = nearest(word.replace("_", "-"), [*self._option_string_actions, *self.other_names])
        return f" (did you mean {self.other_names.get(near, near)}?)" if near and word.startswith("--") else ""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            near = meant(str(value), names)
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{near}: expected {', '.join(names)}")

    def error(self, message: str) -> NoReturn:
        before, unknown, words = message.partition("unrecognized arguments: ")
        if unknown:
            message = before + unknown + " ".join(word + self._meant_flag(word) for word in words.split())
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see {self.prog} --help)\n")
