"""The splits of the ATTEMPT papers (Asai et al. 2022, sec. 4.1), cut from the official labelled ones.

GLUE's test labels are not public, so the papers cut dev or train in two, by one permutation with seed 42.
"""

from collections.abc import Callable
from typing import TypeVar

import torch

from data.tasks import Example, Task
from model.errors import AttemptError

T = TypeVar("T")

PAPER_SEED = 42
LARGE_DEV = 1000  # examples taken from train as dev, for tasks with more than 10k training examples


def permutation(n: int, seed: int) -> list[int]:
    """A permutation of 0 ... n-1 that depends on the seed alone. (408, 42) starts 30, 63, 342, 322, 6."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()


def paper_splits(task: Task, official: dict[str, list[Example]], seed: int = PAPER_SEED) -> dict[str, list[Example]]:
    """{"train", "dev", "test"} by the rule `task.split`, from what `load_official` returned.

    small:  the official dev set permuted; the first floor(n/2) are dev, the rest test. MultiRC: passages, not rows.
    large:  the train set permuted; the first 1000 are dev, the rest train; test = the official test set where it
            has labels, else dev. ReCoRD: queries, not rows; in dev each has one row.
    native: dev and test as they are; MNLI: dev = mismatched, test = matched.
    given:  a user's own files, see `given_splits`.
    """
    if task.split == "given":
        return given_splits(official)
    train = official["train"]
    if task.split == "native":
        if "dev_matched" in official:
            return {"train": train, "dev": official["dev_mismatched"], "test": official["dev_matched"]}
        return {"train": train, "dev": official["dev"], "test": official["test"]}
    if task.split == "small":
        passages = _together(official["dev"], lambda example: example.group.partition("/")[0])
        half = len(passages) // 2
        order = permutation(len(passages), seed)
        return {"train": train, "dev": _flat(passages, order[:half]), "test": _flat(passages, order[half:])}
    questions = _together(train, lambda example: example.group)
    if len(questions) <= LARGE_DEV:
        raise AttemptError(
            f"{task.name}: expected more than {LARGE_DEV} training examples to cut dev from, found "
            f"{len(questions)}: use --splits official"
        )
    order = permutation(len(questions), seed)
    dev = [questions[i][0] for i in order[:LARGE_DEV]]
    test = official["test"] if "test" in official else official["dev"]
    return {"train": _flat(questions, order[LARGE_DEV:]), "dev": dev, "test": test}


def official_splits(task: Task, official: dict[str, list[Example]]) -> dict[str, list[Example]]:
    """The official train and dev sets, dev serving as test too (MNLI: the matched one).

    Yelp, IMDb and AG News have no dev set: test serves as both.
    """
    if task.split == "given":
        return given_splits(official)
    dev = next(official[name] for name in ("dev_matched", "dev", "test") if name in official)
    return {"train": official["train"], "dev": dev, "test": dev}


def given_splits(files: dict[str, list[Example]]) -> dict[str, list[Example]]:
    """A user's own files as they are, those that were read; dev serves as test too where there is no test file."""
    return {"test": files["dev"], **files} if "dev" in files else files


def take(examples: list[T], n: int, seed: int = PAPER_SEED) -> list[T]:
    """The first n of the permuted examples; all of them, permuted, where there are fewer."""
    if n < 1:
        raise AttemptError(f"--train-examples: expected at least 1, found {n}")
    return _pick(examples, permutation(len(examples), seed)[:n])


def take_questions(examples: list[Example], n: int, seed: int = PAPER_SEED) -> list[Example]:
    """At most n examples to score: like `take`, but without tearing a question with several answers apart.

    Raises AttemptError where the first question alone has more.
    """
    questions = _together(examples, lambda example: example.group)
    taken: list[Example] = []
    for i in permutation(len(questions), seed):
        if len(taken) + len(questions[i]) > n:
            if not taken:
                raise AttemptError(
                    f"--eval-examples: expected at least {len(questions[i])}, since the first question that is drawn "
                    f"has so many answers, found {n}"
                )
            break
        taken += questions[i]
    return taken


def take_shots(task: Task, examples: list[Example], k: int, seed: int = PAPER_SEED) -> list[Example]:
    """k examples of each label: the first of the permuted ones, in that order."""
    if not task.labels:
        raise AttemptError(
            f"--shots: {task.name} has no set of labels to take {k} examples of each: use --train-examples"
        )
    left = dict.fromkeys(sorted({example.target for example in examples}), k)
    taken = []
    for example in _pick(examples, permutation(len(examples), seed)):
        if left[example.target] > 0:
            left[example.target] -= 1
            taken.append(example)
    short = {label: k - missing for label, missing in left.items() if missing}
    if short or len(left) < len(task.labels):
        found = ", ".join(f"{k - missing} of {label!r}" for label, missing in left.items())
        raise AttemptError(
            f"--shots: expected {k} training examples of {task.name}'s {len(task.labels)} labels, found {found}"
        )
    return taken


def _together(examples: list[Example], key: Callable[[Example], str]) -> list[list[Example]]:
    """Examples of the same key in one list, in order; those without a key ("") alone."""
    groups: dict[str | int, list[Example]] = {}
    for i, example in enumerate(examples):
        groups.setdefault(key(example) or i, []).append(example)
    return list(groups.values())


def _flat(groups: list[list[Example]], order: list[int]) -> list[Example]:
    return [example for i in order for example in groups[i]]


def _pick(examples: list[T], order: list[int]) -> list[T]:
    return [examples[i] for i in order]
