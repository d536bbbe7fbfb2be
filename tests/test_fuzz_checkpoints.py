"""Some hundred damaged files for each reader of checkpoints, prompts and runs; fuzz_checkpoints.py makes more."""

import random

import pytest
from damage_torch import for_file
from fuzz_checkpoints import READERS, subject
from fuzzing import fuzz

NEVER_REFUSED = ("metrics", "records", "snapshot")  # what is damaged in them is passed over

SLOW = ("safetensors", "shards", "torch", "torch-old", "torch-shards", "state", "options", "weights")


@pytest.mark.parametrize("name", READERS)
def test_damage_ends_in_one_line_or_is_read(name: str) -> None:
    with subject(name) as files:
        outcome = fuzz(files, 60 if name in SLOW else 200, 2)
    assert not outcome.failures, "\n".join(outcome.failures)
    assert outcome.counts["read"] > 2  # else the damage is too much; a weight that became NaN is refused too
    assert outcome.counts["refused"] > 9 or name in NEVER_REFUSED


# Of 10,000 inputs each, these ended in something else once: a name of hundreds of characters, in an index of shards and
# for a user's file; losses of 8 bits; a tensor whose hooks are no hooks; half a surrogate pair in metrics.jsonl; a file
# of 200 kB of options.
FOUND = [("shards", 911), ("torch-shards", 1487), ("plan", 337), ("state", 4641), ("state", 1369), ("metrics", 524)]
FOUND += [("options", 142)]


@pytest.mark.parametrize(("name", "number"), FOUND)
def test_what_was_found_once(name: str, number: int) -> None:
    with subject(name) as files:
        outcome = fuzz(files, 1, 0, first=number)
    assert not outcome.failures and outcome.counts["refused"] + outcome.counts["read"] == 1


@pytest.mark.parametrize("name", READERS)
def test_the_same_seed_makes_the_same_damage(name: str) -> None:
    with subject(name) as files:
        for path, content in files.valid.items():
            if path not in files.chosen:
                continue
            damage = files.special or for_file(path)
            made = [damage(content, random.Random(i)) for i in range(6)]
            if path.suffix not in (".pt", ".bin"):  # whose zips hold the time
                assert made == [damage(content, random.Random(i)) for i in range(6)]
            assert len(set(made)) > 1
