"""The splits of the papers."""

import pytest
import torch
from glue_files import real_mirror

from attempt.errors import AttemptError
from data.download import Downloader
from data.splits import official_splits, paper_splits, permutation, take
from data.tasks import TASKS, Example, load_official


def examples(n: int, name: str) -> list[Example]:
    return [Example(f"{name} {i}", "0") for i in range(n)]


def test_permutation_is_known_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    order = permutation(408, 42)
    assert order[:5] == [30, 63, 342, 322, 6]
    assert sorted(order) == list(range(408))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    assert permutation(408, 42) == order
    assert permutation(408, 43) != order


@pytest.mark.parametrize(
    ("name", "n", "dev", "test"),
    [
        ("cola", 1043, 521, 522),
        ("rte", 277, 138, 139),
        ("mrpc", 408, 204, 204),
        ("stsb", 1500, 750, 750),
        ("wnli", 71, 35, 36),
    ],
)
def test_small_cuts_the_official_dev_set(name: str, n: int, dev: int, test: int) -> None:
    official = {"train": examples(30, "train"), "dev": examples(n, "dev")}
    splits = paper_splits(TASKS[name], official)
    assert list(splits) == ["train", "dev", "test"]
    assert splits["train"] == official["train"]
    assert (len(splits["dev"]), len(splits["test"])) == (dev, test)
    assert {*splits["dev"], *splits["test"]} == set(official["dev"])  # disjoint: the sizes add up


def test_mrpc_order() -> None:
    splits = paper_splits(TASKS["mrpc"], {"train": [], "dev": examples(408, "dev")})
    assert [e.source for e in splits["dev"][:5]] == ["dev 30", "dev 63", "dev 342", "dev 322", "dev 6"]


@pytest.mark.parametrize("name", ["qqp", "qnli", "sst2"])
def test_large_cuts_the_train_set(name: str) -> None:
    official = {"train": examples(3000, "train"), "dev": examples(50, "dev")}
    splits = paper_splits(TASKS[name], official)
    assert splits["test"] == official["dev"]
    assert (len(splits["dev"]), len(splits["train"])) == (1000, 2000)
    assert {*splits["dev"], *splits["train"]} == set(official["train"])
    assert [e.source for e in splits["dev"]] == [f"train {i}" for i in permutation(3000, 42)[:1000]]


def test_large_needs_more_than_its_dev_set() -> None:
    with pytest.raises(AttemptError, match=r"sst2: expected more than 1000 training examples .* found 1000"):
        paper_splits(TASKS["sst2"], {"train": examples(1000, "train"), "dev": []})


def test_mnli_has_both_of_its_own() -> None:
    official = {
        "train": examples(3, "train"),
        "dev_matched": examples(4, "matched"),
        "dev_mismatched": examples(5, "mismatched"),
    }
    splits = paper_splits(TASKS["mnli"], official)
    assert splits == {"train": official["train"], "dev": official["dev_mismatched"], "test": official["dev_matched"]}
    whole = official_splits(TASKS["mnli"], official)
    assert whole["dev"] == whole["test"] == official["dev_matched"]


def test_official_splits() -> None:
    official = {"train": examples(3, "train"), "dev": examples(4, "dev")}
    assert official_splits(TASKS["rte"], official) == {**official, "test": official["dev"]}


def test_take_is_a_prefix_of_one_permutation() -> None:
    all_of_them = examples(50, "train")
    ten, twenty = take(all_of_them, 10, 42), take(all_of_them, 20, 42)
    assert twenty[:10] == ten and len(set(twenty)) == 20
    assert take(all_of_them, 10, 43) != ten
    assert sorted(take(all_of_them, 99, 42), key=all_of_them.index) == all_of_them
    with pytest.raises(AttemptError, match="--train-examples"):
        take(all_of_them, 0, 42)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("cola", (8551, 521, 522)),
        ("rte", (2490, 138, 139)),
        ("mrpc", (3668, 204, 204)),
        ("stsb", (5749, 750, 750)),
        ("sst2", (66349, 1000, 872)),
    ],
)
def test_real_sizes(name: str, sizes: tuple[int, int, int]) -> None:
    splits = paper_splits(TASKS[name], load_official(TASKS[name], Downloader(data_dir=real_mirror()).fetch))
    assert tuple(len(splits[split]) for split in ("train", "dev", "test")) == sizes
