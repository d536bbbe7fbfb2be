"""Soft prompts: how many numbers are trained, in which group, and their initial values."""

import pytest
import torch
from torch import Generator, Tensor

from attempt import prompt as initial
from attempt.attention import PromptAttention
from attempt.prompt import SoftPrompt
from model.errors import AttemptError


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def embedding(rows: int = 6000, width: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, width, generator=seeded(99)).to(dtype)


def t5_base(K: int = 1, mixture: bool = True, train_norm: bool = True) -> SoftPrompt:
    """Prompts of the paper's shapes: 100 rows of 768, six sources."""
    target = torch.zeros(K, 100, 768)
    if not mixture:
        return SoftPrompt(target)
    return SoftPrompt(target, torch.zeros(6, 100, 768), PromptAttention(768, train_norm=train_norm))


# ---- counts and groups ----


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        (t5_base(mixture=False), 76_800),
        (t5_base(), 231_936),
        (t5_base(train_norm=False), 230_400),
        (t5_base(K=8), 769_536),
    ],
    ids=["prompt tuning", "attempt", "norm frozen", "8 tasks share G"],
)
def test_trained_parameters_at_t5_base_are_as_many_as_in_the_papers(prompt: SoftPrompt, count: int) -> None:
    assert sum(p.numel() for p in prompt.parameters() if p.requires_grad) == count
    assert sum(p.numel() for group in prompt.parameter_groups().values() for p in group) == count


@pytest.mark.parametrize(("train_norm", "count"), [(True, 155_136), (False, 153_600)])
def test_groups_are_disjoint_and_cover_all_that_is_trained(train_norm: bool, count: int) -> None:
    # a group with its own learning rate that matched no parameter went unnoticed in the released program
    prompt = t5_base(train_norm=train_norm)
    groups = prompt.parameter_groups()
    assert {name: sum(p.numel() for p in group) for name, group in groups.items()} == {
        "prompt": 76_800,
        "attention": count,
    }
    ids = [id(p) for group in groups.values() for p in group]
    assert len(set(ids)) == len(ids)
    assert set(ids) == {id(p) for p in prompt.parameters() if p.requires_grad}


def test_prompt_tuning_has_one_group() -> None:
    prompt = t5_base(mixture=False)
    assert [(name, len(group)) for name, group in prompt.parameter_groups().items()] == [("prompt", 1)]


def test_sources_without_attention_or_the_reverse_are_refused() -> None:
    with pytest.raises(ValueError, match="both"):
        SoftPrompt(torch.zeros(1, 3, 8), sources=torch.zeros(2, 3, 8))
    with pytest.raises(ValueError, match="both"):
        SoftPrompt(torch.zeros(1, 3, 8), attention=PromptAttention(8))


@pytest.mark.parametrize("shape", [(2, 4, 8), (2, 3, 7)])
def test_sources_of_another_shape_are_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(AttemptError) as caught:
        SoftPrompt(torch.zeros(1, 3, 8), torch.zeros(shape), PromptAttention(8))
    assert "(3, 8)" in str(caught.value) and str(shape[1:]) in str(caught.value)


def test_prompts_are_float32_copies() -> None:
    # trained in fp32 whatever the backbone's dtype is; training must not write into the caller's tensor
    given = torch.ones(1, 3, 8, dtype=torch.bfloat16)
    assert SoftPrompt(given).target.dtype == torch.float32
    given = torch.ones(1, 3, 8)
    with torch.no_grad():
        SoftPrompt(given).target.zero_()
    assert (given == 1).all()


# ---- uniform ----


def test_uniform_fills_the_range_of_half_around_zero() -> None:
    rows = initial.uniform(100, 768, seeded())
    assert rows.shape == (100, 768)
    assert rows.min() >= -0.5 and rows.max() <= 0.5
    assert rows.min() < -0.499 and rows.max() > 0.499
    assert abs(rows.mean()) < 0.006  # five standard errors
    assert rows.std().item() == pytest.approx(12**-0.5, abs=0.003)


def test_uniform_is_seeded() -> None:
    first, again, other = (initial.uniform(4, 8, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


# ---- sampled vocabulary ----


def found_ids(rows: Tensor, table: Tensor) -> list[int]:
    """Which row of the table each prompt row is, bit for bit."""
    ids = []
    for row in rows:
        same = (table == row).all(1).nonzero().flatten().tolist()
        assert len(same) == 1
        ids.append(same[0])
    return ids


def test_vocabulary_rows_are_rows_of_the_embedding_of_common_pieces() -> None:
    # rows of noise, drawn before the checkpoint was loaded, went unnoticed in the released program
    table = embedding()
    ids = found_ids(initial.sampled_vocabulary(table, 100, seeded()), table)
    assert len(set(ids)) == 100
    assert max(ids) < 5000
    assert max(ids) > 4500 and min(ids) < 500  # from all of the 5,000
    assert ids != sorted(ids)


def test_vocabulary_is_drawn_without_replacement() -> None:
    # 5,000 of 5,000: each exactly once
    table = torch.arange(6000.0)[:, None].expand(-1, 2)
    rows = initial.sampled_vocabulary(table, 5000, seeded())
    assert rows[:, 0].sort().values.tolist() == list(range(5000))


def test_vocabulary_is_seeded() -> None:
    table = embedding()
    first, again, other = (initial.sampled_vocabulary(table, 10, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_vocabulary_too_small_for_the_prompt_is_refused() -> None:
    with pytest.raises(AttemptError, match=r"5000.*found 5001"):
        initial.sampled_vocabulary(embedding(), 5001, seeded())
    assert len(initial.sampled_vocabulary(embedding(rows=30), 30, seeded())) == 30
    with pytest.raises(AttemptError, match=r"30.*found 31"):
        initial.sampled_vocabulary(embedding(rows=30), 31, seeded())


# ---- class labels ----


def test_label_rows_are_means_of_their_pieces_and_the_rest_is_vocabulary() -> None:
    table = embedding()
    rows = initial.class_labels(table, [[5900], [5901, 5902, 5903]], 6, seeded())
    assert torch.equal(rows[0], table[5900])
    assert torch.allclose(rows[1], (table[5901] + table[5902] + table[5903]) / 3, rtol=0, atol=1e-6)
    assert all(i < 5000 for i in found_ids(rows[2:], table))


def test_more_labels_than_rows_take_the_first_labels() -> None:
    table = embedding()
    assert torch.equal(initial.class_labels(table, [[7], [8], [9]], 2, seeded()), table[[7, 8]])


def test_label_means_of_a_half_precision_backbone_are_taken_in_fp32() -> None:
    table = embedding(dtype=torch.bfloat16)
    rows = initial.class_labels(table, [[1, 2, 3]], 2, seeded())
    assert rows.dtype == torch.float32
    assert torch.allclose(rows[0], table[1:4].float().mean(0), rtol=0, atol=1e-6)


def test_class_labels_too_long_a_prompt_is_refused() -> None:
    with pytest.raises(AttemptError, match="found 31"):
        initial.class_labels(embedding(rows=30), [[1]], 31, seeded())


# ---- text ----


def test_text_repeats_until_the_prompt_is_full() -> None:
    table = embedding()
    assert torch.equal(initial.text(table, [11, 12, 13], 8), table[[11, 12, 13, 11, 12, 13, 11, 12]])


def test_text_longer_than_the_prompt_is_cut_at_its_end() -> None:
    table = embedding()
    assert torch.equal(initial.text(table, [11, 12, 13], 2), table[[11, 12]])


def test_empty_text_is_refused() -> None:
    with pytest.raises(AttemptError, match="found none"):
        initial.text(embedding(), [], 5)


# ---- all that copy the embedding ----


@pytest.mark.parametrize(
    "draw",
    [
        lambda table: initial.sampled_vocabulary(table, 4, seeded()),
        lambda table: initial.class_labels(table, [[1, 2]], 4, seeded()),
        lambda table: initial.text(table, [1, 2], 4),
    ],
    ids=["vocabulary", "labels", "text"],
)
def test_rows_are_float32_copies_apart_from_the_backbone(draw: object) -> None:
    table = embedding().half().requires_grad_()
    rows = draw(table)  # type: ignore[operator]
    assert rows.dtype == torch.float32 and not rows.requires_grad
    kept = table.detach().clone()
    rows.zero_()
    assert torch.equal(table, kept)
