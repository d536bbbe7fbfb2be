"""The splits of the papers."""

import pytest
import torch
from glue_files import real_mirror

from data.download import Downloader
from data.splits import official_splits, paper_splits, permutation, take, take_questions, take_shots
from data.tasks import TASKS, Example, load_official
from model.errors import AttemptError


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


def asked(rows: list[tuple[str, int]]) -> list[Example]:
    """Examples of groups, given as (group, how many)."""
    return [Example(f"{group} {i}", str(i % 2), (), group) for group, n in rows for i in range(n)]


def test_multirc_is_cut_by_passage() -> None:
    dev = asked([(f"{passage}/{question}", 3) for passage in range(11) for question in range(4)])
    splits = paper_splits(TASKS["multirc"], {"train": dev[:2], "dev": dev})
    passages = {split: {e.group.partition("/")[0] for e in splits[split]} for split in ("dev", "test")}
    assert (len(passages["dev"]), len(passages["test"])) == (5, 6)
    assert not passages["dev"] & passages["test"]
    assert sorted(splits["dev"] + splits["test"], key=dev.index) == dev
    assert passages["dev"] == {str(i) for i in permutation(11, 42)[:5]}


def test_record_is_cut_by_query() -> None:
    train = asked([(f"{i // 2}/{i % 2}", 1 + i % 3) for i in range(1500)])
    splits = paper_splits(TASKS["record"], {"train": train, "dev": []})
    assert len(splits["dev"]) == len({e.group for e in splits["dev"]}) == 1000
    assert len({e.group for e in splits["train"]}) == 500
    assert not {e.group for e in splits["dev"]} & {e.group for e in splits["train"]}
    assert all(e.source.endswith(" 0") for e in splits["dev"])  # one row for each query: its first answer


@pytest.mark.parametrize("name", ["yelp", "snli"])
def test_large_takes_the_official_test_set_where_it_has_labels(name: str) -> None:
    official = {"train": examples(1500, "train"), "test": examples(7, "test")}
    if name == "snli":
        official["dev"] = examples(5, "dev")
    splits = paper_splits(TASKS[name], official)
    assert splits["test"] == official["test"]
    assert {*splits["dev"], *splits["train"]} == set(official["train"]) and len(splits["dev"]) == 1000
    whole = official_splits(TASKS[name], official)
    assert whole["dev"] == whole["test"] == official.get("dev", official["test"])


@pytest.mark.parametrize("name", ["scitail", "paws"])
def test_native_takes_the_official_dev_and_test_sets(name: str) -> None:
    official = {split: examples(n, split) for split, n in (("train", 9), ("dev", 4), ("test", 5))}
    assert paper_splits(TASKS[name], official) == official
    assert official_splits(TASKS[name], official) == {**official, "test": official["dev"]}


def test_questions_to_score_are_whole() -> None:
    dev = asked([(f"0/{question}", 3) for question in range(20)])
    taken = take_questions(dev, 10, 42)
    assert [len([e for e in taken if e.group == group]) for group in dict.fromkeys(e.group for e in taken)] == [3, 3, 3]
    assert sorted(take_questions(dev, 99, 42), key=dev.index) == dev
    with pytest.raises(AttemptError, match=r"--eval-examples: expected at least 3, since .*, found 2"):
        take_questions(dev, 2, 42)
    alone = examples(50, "dev")
    assert take_questions(alone, 10, 42) == take(alone, 10, 42)


def test_shots_are_as_many_of_each_label() -> None:
    train = [Example(f"{i}", "0" if i % 10 else "1") for i in range(200)]
    few, more = take_shots(TASKS["rte"], train, 4, 42), take_shots(TASKS["rte"], train, 8, 42)
    assert sorted(e.target for e in few) == ["0"] * 4 + ["1"] * 4
    assert set(few) < set(more) and len(set(more)) == 16
    assert take_shots(TASKS["rte"], train, 4, 43) != few
    for label in "01":  # the first of the permuted training set
        first = [e for e in take(train, 200, 42) if e.target == label][:4]
        assert [e for e in few if e.target == label] == first
    with pytest.raises(AttemptError, match=r"--shots: expected 21 .* rte's 2 labels, found 21 of '0', 20 of '1'"):
        take_shots(TASKS["rte"], train, 21, 42)
    with pytest.raises(AttemptError, match=r"expected 3 .* found 3 of '0'"):
        take_shots(TASKS["rte"], [e for e in train if e.target == "0"], 3, 42)
    for name in ("stsb", "squad"):
        with pytest.raises(AttemptError, match=rf"--shots: {name} has no set of labels"):
            take_shots(TASKS[name], train, 2, 42)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("cb", (250, 28, 28)),
        ("copa", (400, 50, 50)),
        ("wic", (5428, 319, 319)),
        ("wsc", (554, 52, 52)),
        ("super_rte", (2490, 138, 139)),
        ("winogrande_xs", (160, 633, 634)),
        ("winogrande_l", (9234, 1000, 1267)),
        ("scitail", (23596, 1304, 2126)),
        ("squad", (86599, 1000, 10570)),
    ],
)
def test_more_real_sizes(name: str, sizes: tuple[int, int, int]) -> None:
    splits = paper_splits(TASKS[name], load_official(TASKS[name], Downloader(data_dir=real_mirror()).fetch))
    assert tuple(len(splits[split]) for split in ("train", "dev", "test")) == sizes


def test_real_boolq_and_multirc() -> None:
    fetch = Downloader(data_dir=real_mirror()).fetch
    boolq = paper_splits(TASKS["boolq"], load_official(TASKS["boolq"], fetch))
    assert (len(boolq["dev"]), len(boolq["test"])) == (1635, 1635)  # train is incomplete among the fixtures
    multirc = paper_splits(TASKS["multirc"], load_official(TASKS["multirc"], fetch))
    assert len(multirc["train"]) == 27243 and len(multirc["dev"]) + len(multirc["test"]) == 4848
    paragraphs = [{e.source.partition(" paragraph: ")[2] for e in multirc[split]} for split in ("dev", "test")]
    assert [len(p) for p in paragraphs] == [41, 42] and not paragraphs[0] & paragraphs[1]
