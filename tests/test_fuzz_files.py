"""A few hundred damaged files for each reader of data/; `python tests/fuzz_files.py` makes as many as one likes."""

import mmap
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import fuzzing
import pytest
from fuzz_files import MUTATIONS, READERS, Reader, mutated
from fuzzing import fuzz

from model.errors import AttemptError


@pytest.mark.parametrize("name", READERS)
def test_damage_ends_in_one_line_or_is_read(name: str, tmp_path: Path) -> None:
    outcome = fuzz(Reader(name, tmp_path), 200, 2)
    assert not outcome.failures, "\n".join(outcome.failures)
    assert outcome.counts["read"] > 20 and outcome.counts["refused"] > 20  # else the damage is too much or too little


def test_the_same_seed_makes_the_same_damage() -> None:
    text = b"a\tb\n1\t2\n" * 9
    made = [mutated(text, random.Random(i)) for i in range(200)]
    assert made == [mutated(text, random.Random(i)) for i in range(200)]
    assert len(set(made)) > 150 and all(mutate(b"", random.Random(0)) is not None for mutate in MUTATIONS)


def raising(error: Exception) -> Callable[[], None]:
    def read() -> None:
        raise error

    return read


def endless(*, deaf: bool) -> Callable[[], None]:
    """A loop that the timer ends; or, deaf, one like C's, which only the parent can."""

    def read() -> None:
        if deaf:
            signal.signal(signal.SIGPROF, signal.SIG_IGN)
        while True:
            pass

    return read


HELD: list[mmap.mmap] = []


def hold(size: int) -> None:
    """Of new memory: a bytearray might be given what an earlier test has freed, and the C library kept."""
    HELD.append(mmap.mmap(-1, size))
    HELD[-1].write(b"x" * size)


ENDS = {
    "ValueError: x": raising(ValueError("x")),
    "MemoryError": raising(MemoryError()),
    "without what was expected": raising(AttemptError("wrong")),
    "ended by signal 6": os.abort,
    "ended by status 1": lambda: os._exit(1),
    "TimeoutError": endless(deaf=False),
    "no end in": endless(deaf=True),
    "MB more memory": lambda: hold(100_000_000),
}


@pytest.mark.parametrize("problem", ENDS)
def test_a_wrong_end_is_noticed(problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the inputs after it are read all the same."""
    monkeypatch.setattr(fuzzing, "SECONDS", 0.3)
    monkeypatch.setattr(fuzzing, "MEGABYTES", 20)
    subject, reads = Reader("checksums", tmp_path), 0

    def read() -> None:
        nonlocal reads
        reads += 1
        if reads > 1:  # the valid files are read first
            ENDS[problem]()

    monkeypatch.setattr(subject, "read", read)
    outcome = fuzz(subject, 2, 0)
    assert [f"input {i}: " in failure and problem in failure for i, failure in enumerate(outcome.failures)] == [
        True
    ] * 2


def test_a_message_is_one_line_of_visible_characters() -> None:
    text = str(AttemptError("expected\na \x1b[31m \0 \ud800 é"))
    assert text == r"expected a \x1b[31m \x00 \ud800 é"
    assert len(str(AttemptError("\0" * 10**6))) < 2100
    long = str(AttemptError(f"begin {'x' * 10**6} end"))
    assert len(long) < 2100 and long.startswith("begin x") and long.endswith("x end")
