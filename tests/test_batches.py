"""Token sets, the order of batches, and padding."""

import random
from collections import Counter

import numpy as np
import pytest
import torch

from data.batches import CHUNK, TokenSet, batches, bucketed, collate, epoch_rows
from data.tasks import Example
from model.errors import AttemptError


def encode(texts: list[str]) -> list[list[int]]:
    """A token per character."""
    return [[ord(c) for c in text] for text in texts]


def make(lengths: list[int], max_source: int = 64, max_target: int | None = None, task: int = 0) -> TokenSet:
    """Sources of so many characters; the target of example i is the text of i."""
    examples = [Example(chr(97 + i % 26) * n, str(i)) for i, n in enumerate(lengths)]
    return TokenSet.build(examples, encode, max_source, max_target, task)


def random_lengths(n: int) -> list[int]:
    rng = random.Random(0)
    return [rng.randint(1, 60) for _ in range(n)]


def test_ids_end_with_eos_also_when_cut() -> None:
    data = make([3, 9, 10, 0], max_source=10, max_target=1)
    assert data.source(0).tolist() == [97] * 3 + [1]
    assert data.source(1).tolist() == [98] * 9 + [1]  # exactly at the limit: not cut
    assert data.source(2).tolist() == [99] * 9 + [1]
    assert data.source(3).tolist() == [1]
    assert [data.target(i).tolist() for i in range(4)] == [[1]] * 4
    assert (data.cut_sources, data.cut_targets) == (1, 4)
    assert data.lengths.tolist() == [4, 10, 10, 1]
    assert (data.sources.dtype, data.source_offsets.dtype) == (np.uint16, np.int64)


def test_ids_take_two_bytes_where_all_of_them_fit() -> None:
    for widest, kind in ((65535, np.uint16), (65536, np.int32)):  # in the second chunk of three alone
        texts = ["a"] * CHUNK + [chr(widest)] + ["b"] * (2 * CHUNK - 1)
        data = TokenSet.build([Example(text, "0") for text in texts], encode, 8)
        assert data.sources.dtype == kind and data.targets.dtype == np.uint16
        assert data.sources.tolist() == [i for text in texts for i in (ord(text), 1)]
        assert collate(data, [CHUNK]).ids[0].tolist() == [widest, 1] + [0] * 6
    joined = TokenSet.join([make([3]), data])
    assert joined.source(0).tolist() == [97] * 3 + [1] and joined.source(1 + CHUNK).tolist() == [65536, 1]


def test_lists_of_ids_never_hold_the_whole_set() -> None:
    sizes: list[int] = []

    def counting(texts: list[str]) -> list[list[int]]:
        sizes.append(len(texts))
        return encode(texts)

    TokenSet.build([Example("a", "0")] * (2 * CHUNK + 5), counting, 8)
    assert sizes == [CHUNK, CHUNK, 5] * 2


def test_targets_are_never_cut_without_a_limit() -> None:
    data = TokenSet.build([Example("a", "x" * 500)], encode, 8, None)
    assert len(data.target(0)) == 501 and data.cut_targets == 0


def test_build_over_many_chunks_and_of_nothing() -> None:
    lengths = [i % 7 for i in range(10000)]
    data = make(lengths)
    assert len(data) == 10000 and data.lengths.tolist() == [n + 1 for n in lengths]
    assert data.target(9999).tolist() == [*map(ord, "9999"), 1]
    empty = make([])
    assert len(empty) == 0 and list(batches(empty, 4, 0)) == []
    with pytest.raises(AttemptError):
        make([3], max_source=0)


@pytest.mark.parametrize("seed", [None, 0, 42, -1])
@pytest.mark.parametrize(("n", "batch_size", "window"), [(1000, 7, 5), (1000, 8, 50), (5, 8, 50), (1, 1, 1), (0, 4, 3)])
def test_every_example_once(n: int, batch_size: int, window: int, seed: int | None) -> None:
    lengths = random_lengths(n)
    got = bucketed(lengths, batch_size, seed, 3, window)
    assert sorted(i for batch in got for i in batch) == list(range(n))
    assert len(got) == -(-n // batch_size)
    assert sum(len(batch) < batch_size for batch in got) == (n % batch_size > 0)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = random_lengths(500)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first = bucketed(lengths, 8, 42, 0)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    torch.manual_seed(99)
    np.random.seed(99)
    assert bucketed(np.array(lengths), 8, 42, 0) == first
    assert bucketed(lengths, 8, 42, 1) != first
    assert bucketed(lengths, 8, 43, 0) != first
    assert bucketed(lengths, 8, 43, 0) != bucketed(lengths, 8, 42, 1)


def test_order_is_pinned() -> None:
    """A resumed run on another machine must meet the same batches."""
    assert bucketed([5, 3, 9, 1, 7, 2, 8, 4, 6, 10], 3, 42, 1, 2) == [[3, 1, 7], [0, 8, 4], [5, 6, 2], [9]]


def test_batches_hold_examples_of_like_length_in_random_order() -> None:
    lengths = np.array(random_lengths(4000))
    got = bucketed(lengths, 8, 42, 0, 50)
    padded = sum(len(batch) * lengths[batch].max() for batch in got)
    assert padded < 1.05 * lengths.sum()
    longest = [lengths[batch].max() for batch in got]
    assert longest != sorted(longest) and longest[:50] != sorted(longest[:50])
    # Every window is a random sample of the set: it has short and long examples.
    assert all(lengths[np.concatenate(got[w : w + 50])].std() > 10 for w in range(0, 500, 50))


def test_equal_lengths_are_still_shuffled() -> None:
    flat = [i for batch in bucketed([4] * 200, 8, 42, 0) for i in batch]
    assert flat != list(range(200))
    assert max(flat[:8]) - min(flat[:8]) > 8  # not a run of neighbours


def test_evaluation_is_sorted_and_fixed() -> None:
    assert bucketed([2, 5, 5, 1, 9], 2, None) == [[4, 1], [2, 0], [3]]


def test_bad_batch_size() -> None:
    with pytest.raises(AttemptError, match="batch size"):
        bucketed([1, 2], 0, 1)


def test_collate_pads_and_masks() -> None:
    data = make([3, 9, 5], task=2)
    batch = collate(data, [1, 0], multiple=8)
    assert batch.ids.shape == batch.mask.shape == (2, 16)
    assert batch.ids.dtype == batch.labels.dtype == batch.tasks.dtype == batch.index.dtype == torch.int64
    assert batch.mask.dtype == torch.bool
    assert batch.ids[0].tolist() == [98] * 9 + [1] + [0] * 6
    assert batch.mask.sum(1).tolist() == [10, 4]
    assert bool((batch.ids[~batch.mask] == 0).all()) and bool((batch.ids[batch.mask] != 0).all())
    assert batch.labels.tolist() == [[ord("1"), 1], [ord("0"), 1]]
    assert batch.tasks.tolist() == [2, 2] and batch.index.tolist() == [1, 0]


def test_labels_are_padded_with_minus_100() -> None:
    data = TokenSet.build([Example("a", "yes"), Example("b", "n")], encode, 8)
    assert collate(data, [0, 1]).labels.tolist() == [[121, 101, 115, 1], [110, 1, -100, -100]]


@pytest.mark.parametrize(("multiple", "width"), [(1, 10), (4, 12), (8, 16), (16, 16), (64, 20)])
def test_padding_stays_within_the_limit(multiple: int, width: int) -> None:
    assert collate(make([9], max_source=20), [0], multiple).ids.shape[1] == width


def test_a_token_with_the_pad_id_is_not_masked() -> None:
    data = TokenSet.build([Example("a\0", "0")], encode, 8)
    assert collate(data, [0]).mask.tolist() == [[True] * 3 + [False] * 5]


def test_joined_sets_keep_their_texts_and_tasks() -> None:
    a, b, c = make([3, 20], task=0, max_source=8), make([4], task=1), make([], task=2)
    both = TokenSet.join([a, c, b])
    assert len(both) == 3 and both.tasks.tolist() == [0, 0, 1]
    assert [both.source(i).tolist() for i in range(3)] == [a.source(0).tolist(), a.source(1).tolist(), [97] * 4 + [1]]
    assert [both.target(i).tolist() for i in range(3)] == [[48, 1], [49, 1], [48, 1]]
    assert (both.cut_sources, both.max_source) == (1, 64)
    batch = collate(both, [2, 0])
    assert batch.tasks.tolist() == [1, 0] and batch.index.tolist() == [2, 0]


def test_an_epoch_of_batches_gives_back_every_text() -> None:
    data = make(random_lengths(100))
    seen: dict[int, list[int]] = {}
    for batch in batches(data, 8, 42, epoch=1, window=3):
        assert batch.ids.shape[1] % 8 == 0 and batch.ids.shape[1] - batch.mask.sum(1).max() < 8
        for row, mask, i in zip(batch.ids, batch.mask, batch.index.tolist(), strict=True):
            assert i not in seen
            seen[i] = row[mask].tolist()
    assert seen == {i: data.source(i).tolist() for i in range(100)}


def test_to_moves_every_tensor() -> None:
    batch = collate(make([3]), [0]).to("meta")
    assert {t.device.type for t in vars(batch).values() if isinstance(t, torch.Tensor)} == {"meta"}


MIXED = np.array([1] * 7 + [0] * 50 + [2] * 20 + [0] * 10)  # sizes 60, 7, 20, and not in order


def test_without_a_cap_an_epoch_is_the_whole_set_in_order() -> None:
    assert epoch_rows(MIXED, None, 42, 3).tolist() == list(range(87))
    assert epoch_rows(MIXED, 60, 42, 3).tolist() != list(range(87))  # grouped by task
    assert sorted(epoch_rows(MIXED, 60, 42, 3).tolist()) == list(range(87))
    assert epoch_rows(np.array([], np.int64), 5, 42, 0).tolist() == []


@pytest.mark.parametrize("cap", [1, 7, 15, 20, 59, 60, 1000])
def test_each_task_gives_its_capped_share_of_every_epoch(cap: int) -> None:
    for epoch in range(5):
        rows = epoch_rows(MIXED, cap, 42, epoch)
        assert len(set(rows.tolist())) == len(rows)
        assert Counter(MIXED[rows].tolist()) == {0: min(60, cap), 1: min(7, cap), 2: min(20, cap)}


def test_a_capped_task_shows_all_its_examples_alike_over_the_epochs() -> None:
    seen = Counter(i for epoch in range(600) for i in epoch_rows(MIXED, 15, 42, epoch).tolist())
    assert set(seen) == set(range(87))
    assert all(seen[i] == 600 for i in range(7))  # the small task: every example in every epoch
    expected = {i: 600 * 15 / size for task, size in ((0, 60), (2, 20)) for i in np.flatnonzero(task == MIXED).tolist()}
    for i, n in expected.items():
        share = n / 600
        assert abs(seen[i] - n) < 5 * (600 * share * (1 - share)) ** 0.5  # five standard deviations


def test_the_draw_depends_on_seed_epoch_and_task_alone() -> None:
    state = np.random.get_state()[1].tolist()
    first = epoch_rows(MIXED, 15, 42, 2).tolist()
    assert np.random.get_state()[1].tolist() == state
    assert epoch_rows(MIXED, 15, 42, 2).tolist() == first
    assert epoch_rows(MIXED, 15, 42, 3).tolist() != first and epoch_rows(MIXED, 15, 43, 2).tolist() != first
    # tasks of one size draw differently, and a task's draw does not depend on the others
    twins = np.array([0] * 60 + [1] * 60)
    rows = epoch_rows(twins, 15, 42, 2)
    assert rows[:15].tolist() != (rows[15:] - 60).tolist()
    assert epoch_rows(twins[:60], 15, 42, 2).tolist() == rows[:15].tolist()
    assert epoch_rows(MIXED, 15, -1, 0).tolist() != first
    # pinned: a resumed run on another machine must meet the same examples
    assert epoch_rows(np.zeros(10, np.int64), 4, 42, 1).tolist() == [1, 4, 5, 9]
