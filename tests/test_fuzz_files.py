"""A few hundred damaged files for each reader of data/; `python tests/fuzz_files.py` makes as many as one likes."""

import random
from pathlib import Path

import pytest
from fuzz_files import MUTATIONS, READERS, Reader, fuzz, mutated

from attempt.errors import AttemptError


@pytest.mark.parametrize("name", READERS)
def test_damage_ends_in_one_line_or_is_read(name: str, tmp_path: Path) -> None:
    outcomes, failures = fuzz(name, 200, 2, tmp_path)
    assert not failures, "\n".join(failures)
    assert outcomes["read"] > 20 and outcomes["refused"] > 20  # else the damage is too much or too little


def test_the_same_seed_makes_the_same_damage() -> None:
    text = b"a\tb\n1\t2\n" * 9
    made = [mutated(text, random.Random(i)) for i in range(200)]
    assert made == [mutated(text, random.Random(i)) for i in range(200)]
    assert len(set(made)) > 150 and all(mutate(b"", random.Random(0)) is not None for mutate in MUTATIONS)


@pytest.mark.parametrize("wrong", [ValueError("x"), KeyError("x"), AttemptError("two\nlines expected"), MemoryError()])
def test_a_wrong_end_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Exception) -> None:
    reads = 0

    def read(self: Reader) -> None:
        nonlocal reads
        reads += 1
        if reads > 1:  # the valid files are read first
            raise wrong

    monkeypatch.setattr(Reader, "read", read)
    assert len(fuzz("cola", 3, 0, tmp_path)[1]) == 3
