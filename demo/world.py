"""A stream of statements and sentences for one side of the split, the training side or the held-out one."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, NamedTuple, TypeVar

from demo.grammar import SLOTS, Speaker
from demo.meaning import Drawer, Statement, Thing, can_swap, swapped

T = TypeVar("T")

HELD_OUT = 3
"""Tenths of all sentences that no training set and no pre-training sees."""
TRIES = 8


class Made(NamedTuple):
    """An example of a task: its texts, its label as the files spell it, and what the texts mean."""

    fields: tuple[str, ...]
    label: str
    meaning: tuple[object, ...] = ()


def is_held_out(sentence: str) -> bool:
    """Which side a sentence belongs to: a fixed function of its letters, so the sides can never meet."""
    return zlib.crc32(sentence.encode()) % 10 < HELD_OUT


class World:
    """held_out: which side to draw sentences from; None: both."""

    def __init__(self, seed: str, held_out: bool | None = False) -> None:
        self.rng = Random(seed)
        self.draw, self.speaker, self.held_out = Drawer(self.rng), Speaker(self.rng), held_out

    def fits(self, sentence: str) -> bool:
        return self.held_out is None or is_held_out(sentence) == self.held_out

    def keep(self, make: Callable[[], str], unlike: str | None = None) -> str | None:
        """The first of a few tries that lies on this side, and is not `unlike`; None where there is none."""
        for _ in range(TRIES):
            sentence = make()
            if self.fits(sentence) and sentence != unlike:
                return sentence
        return None

    def say(self, statement: Statement, unlike: str | None = None) -> str | None:
        return self.keep(lambda: self.speaker.say(statement), unlike)

    def ask(self, statement: Statement, slot: str, unlike: str | None = None) -> str | None:
        return self.keep(lambda: self.speaker.ask(statement, slot), unlike)

    def say_pair(self, first: Statement, second: Statement) -> tuple[str, str] | None:
        """Two different sentences."""
        said = self.say(first)
        other = self.say(second, unlike=said) if said else None
        return (said, other) if said and other else None

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def either_way(self, first: T, second: T) -> tuple[T, T]:
        """The two in a random order, so that an edit's words are as likely in the first text as in the second."""
        return (first, second) if self.chance(0.5) else (second, first)

    def slot(self, s: Statement) -> str:
        """A part of the statement to ask for."""
        return self.rng.choice([slot for slot in SLOTS if getattr(s, slot) is not None])

    def neighbour(self, s: Statement, slot: str | None, kinds: tuple[str, ...]) -> Statement | None:
        """The statement with one edit, of one of these kinds, outside the part that is asked for; "swap" is a kind."""
        for _ in range(TRIES):
            kind = self.rng.choice(kinds)
            if kind == "swap":
                edited = swapped(s) if can_swap(s) else None
            else:
                edited = self.draw.edit(s, kind)
            if edited is None or edited.subject.quantifier not in ("name", "a"):
                continue
            if slot is None or (getattr(edited, slot) is not None and without(edited, slot) != without(s, slot)):
                return edited
        return None


def without(s: Statement, slot: str) -> Statement:
    """What a question for that part takes for granted."""
    blank = Thing("name", "?")
    changes: dict[str, Any] = {slot: blank if slot in ("subject", "object") else None}
    return replace(s, **changes)
