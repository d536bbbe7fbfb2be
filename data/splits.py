"""The splits of the ATTEMPT papers (Asai et al. 2022, sec. 3.1), cut from the official labelled ones.

GLUE's test labels are not public, so the papers cut dev or train in two, by one permutation with seed 42.
"""

from typing import TypeVar

import torch

from attempt.errors import AttemptError
from data.tasks import Example, Task

T = TypeVar("T")

PAPER_SEED = 42
LARGE_DEV = 1000  # examples taken from train as dev, for tasks with more than 10k training examples


def permutation(n: int, seed: int) -> list[int]:
    """A permutation of 0 ... n-1 that depends on the seed alone. (408, 42) starts 30, 63, 342, 322, 6."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()


def paper_splits(task: Task, official: dict[str, list[Example]], seed: int = PAPER_SEED) -> dict[str, list[Example]]:
    """{"train", "dev", "test"} by the rule `task.split`, from what `load_official` returned.

    small:  the official dev set permuted; the first floor(n/2) are dev, the rest test.
    large:  the train set permuted; the first 1000 are dev, the rest train; test = the official dev set.
    native: MNLI: dev = mismatched, test = matched.
    """
    if task.split == "native":
        return {"train": official["train"], "dev": official["dev_mismatched"], "test": official["dev_matched"]}
    train, dev = official["train"], official["dev"]
    if task.split == "small":
        order = permutation(len(dev), seed)
        half = len(dev) // 2
        return {"train": train, "dev": _pick(dev, order[:half]), "test": _pick(dev, order[half:])}
    if len(train) <= LARGE_DEV:
        raise AttemptError(
            f"{task.name}: expected more than {LARGE_DEV} training examples to cut dev from, found "
            f"{len(train)}: use --splits official"
        )
    order = permutation(len(train), seed)
    return {"train": _pick(train, order[LARGE_DEV:]), "dev": _pick(train, order[:LARGE_DEV]), "test": dev}


def official_splits(task: Task, official: dict[str, list[Example]]) -> dict[str, list[Example]]:
    """The official train and dev sets, dev serving as test too (MNLI: the matched one)."""
    dev = official["dev_matched"] if task.split == "native" else official["dev"]
    return {"train": official["train"], "dev": dev, "test": dev}


def take(examples: list[T], n: int, seed: int = PAPER_SEED) -> list[T]:
    """The first n of the permuted examples; all of them, permuted, where there are fewer."""
    if n < 1:
        raise AttemptError(f"--train-examples: expected at least 1, found {n}")
    return _pick(examples, permutation(len(examples), seed)[:n])


def _pick(examples: list[T], order: list[int]) -> list[T]:
    return [examples[i] for i in order]
