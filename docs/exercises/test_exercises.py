"""Checks the solutions in exercises.py: first with numbers small enough to compute on paper, then on the demo's T5."""

from pathlib import Path

import exercises
import pytest
import torch
from torch import Tensor

from attempt.attention import PromptAttention
from attempt.checkpoint import load_sources
from attempt.training.optimizer import Adafactor
from model.checkpoint import load_t5
from model.t5 import T5

DEMO = Path(exercises.__file__).parents[2] / "demo"


@pytest.fixture(scope="module")
def t5() -> T5:
    return load_t5(DEMO / "checkpoint").requires_grad_(False)


@pytest.fixture(scope="module")
def sources() -> Tensor:
    return load_sources(sorted((DEMO / "sources").iterdir()))[0]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def check(found: object, expected: Tensor | list[object], what: str) -> None:
    """One clear sentence where two tensors differ."""
    expected = torch.as_tensor(expected, dtype=torch.float32)
    assert isinstance(found, Tensor), f"{what}: expected a tensor, found {type(found).__name__}"
    assert found.shape == expected.shape, f"{what}: expected shape {tuple(expected.shape)}, found {tuple(found.shape)}"
    # floats: the difference of two infinities would be no number
    good = torch.allclose(found.float(), expected, rtol=1e-3, atol=1e-5)
    assert good, f"{what}: expected\n{expected}\nfound\n{found}"


# ---- 1: rms_norm ----


def test_rms_norm_on_paper() -> None:
    # mean square (9 + 16) / 2 = 12.5
    found = exercises.rms_norm(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0]), 0.0)
    check(found, [3 / 12.5**0.5, 8 / 12.5**0.5], "rms_norm of (3, 4) with weights (1, 2)")


def test_rms_norm_keeps_the_mean_and_adds_eps_inside_the_root() -> None:
    found = exercises.rms_norm(torch.full((1, 4), 2.0), torch.ones(4), 5.0)
    check(found, [[2 / 3] * 4], "rms_norm of (2, 2, 2, 2) with eps 5: 2 / sqrt(4 + 5)")


def test_rms_norm_in_the_t5(t5: T5) -> None:
    x = numbers(2, 5, 128) * 10
    check(exercises.rms_norm(x, t5.encoder.norm.weight, 1e-6), t5.encoder.norm(x), "the encoder's last norm")


# ---- 2: relative_bucket ----


@pytest.mark.parametrize(
    ("distance", "bucket"), [(0, 0), (-1, 1), (-7, 7), (1, 17), (7, 23), (-8, 8), (8, 24), (-128, 15), (9999, 31)]
)
def test_relative_bucket_on_paper(distance: int, bucket: int) -> None:
    assert exercises.relative_bucket(distance) == bucket, f"the bucket of {distance}"


def test_relative_bucket_in_the_t5(t5: T5) -> None:
    # without 16, 32 and 64, where the logarithm's last bit decides
    distances = [d for d in range(-300, 301) if abs(d) not in (16, 32, 64)]
    expected = t5.encoder.relative_bias.buckets(torch.tensor(distances)).tolist()
    found = [exercises.relative_bucket(d) for d in distances]
    wrong = {d: (f, e) for d, f, e in zip(distances, found, expected, strict=True) if f != e}
    assert not wrong, f"distance: (found, expected) {wrong}"


# ---- 3: pool ----


def test_pool_on_paper() -> None:
    E = torch.tensor([[[1.0, 9.0], [5.0, 2.0], [3.0, 4.0]]])
    check(exercises.pool(E, torch.tensor([[True, True, True]])), [[5.0, 9.0]], "pool of (1, 9), (5, 2), (3, 4)")


def test_pool_leaves_padding_out() -> None:
    E = torch.tensor([[[1.0, 2.0], [7.0, 7.0]]])
    check(exercises.pool(E, torch.tensor([[True, False]])), [[1.0, 2.0]], "pool of (1, 2) and a padding of (7, 7)")


def test_pool_of_negative_numbers() -> None:
    E = torch.tensor([[[-3.0, -2.0], [-1.0, -5.0], [-4.0, -4.0]]])
    found = exercises.pool(E, torch.tensor([[True, True, False]]))
    check(found, [[-1.0, -2.0]], "pool of (-3, -2), (-1, -5) and a padding: no number may become 0")


def test_pool_in_the_mixture(t5: T5) -> None:
    ids = torch.tensor([[16, 868, 3, 280, 1], [54, 1, 0, 0, 0]])
    E, mask = t5.embedding(ids), ids != 0
    check(exercises.pool(E, mask), PromptAttention(128).pool(E, mask), "two texts of the demo")


# ---- 4: mixture_weights ----


def test_mixture_weights_on_paper() -> None:
    # p_1 = (1, 2), p_Q = (3, 0); p . h = 1 and 3; temperature 2: softmax(0.5, 1.5)
    sources, Q = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), torch.tensor([[3.0, 0.0], [0.0, -1.0]])
    found = exercises.mixture_weights(torch.tensor([[1.0, 0.0]]), sources, Q, 2.0)
    check(found, torch.softmax(torch.tensor([[0.5, 1.5]]), dim=1), "the weights of P_1 and Q")


def test_mixture_weights_in_the_mixture(sources: Tensor) -> None:
    G = PromptAttention(128).reset(torch.Generator().manual_seed(0))
    E, mask, Q = numbers(3, 6, 128), torch.ones(3, 6, dtype=torch.bool), numbers(16, 128, seed=1)
    with torch.no_grad():
        h, expected = G.hidden(G.pool(E, mask)), G(E, mask, sources, Q.expand(3, -1, -1))[:, :, 0]
        check(exercises.mixture_weights(h, sources, Q, 128 * torch.e), expected, "the demo's sources and a random Q")


# ---- 5: instance_prompt ----


def test_instance_prompt_on_paper() -> None:
    a = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    found = exercises.instance_prompt(a, torch.tensor([[[4.0, 8.0]]]), torch.tensor([[1.0, 2.0]]))
    # 0.25 (4, 8) + 0.75 (1, 2) + (1, 2), and (4, 8) + (1, 2)
    check(found, [[[2.75, 5.5]], [[5.0, 10.0]]], "mixtures of (4, 8) and Q = (1, 2)")


def test_instance_prompt_in_the_encoder(t5: T5, sources: Tensor) -> None:
    a, Q = torch.softmax(numbers(2, 6), dim=1), numbers(16, 128)
    found = exercises.instance_prompt(a, sources, Q)
    expected = (a[:, :5] @ sources.flatten(1)).unflatten(1, (16, 128)) + (a[:, 5:] * Q.flatten()).unflatten(
        1, (16, 128)
    )
    check(found, expected + Q, "the demo's sources and a random Q")


# ---- 6: score_gradient ----


def test_score_gradient_on_paper() -> None:
    # <g, P> = 2 and 6, their mean by weight 5: 0.25 (2 - 5) and 0.75 (6 - 5)
    found = exercises.score_gradient(
        torch.tensor([[0.25, 0.75]]), torch.tensor([[[2.0]]]), torch.tensor([[[1.0]], [[3.0]]])
    )
    check(found, [[-0.75, 0.75]], "the gradient for two scores")


def test_score_gradient_is_autograd_s() -> None:
    scores, prompts, g = numbers(2, 4).requires_grad_(), numbers(4, 3, 5, seed=1), numbers(2, 3, 5, seed=2)
    a = torch.softmax(scores, dim=1)
    (torch.einsum("bj,jld->bld", a, prompts) * g).sum().backward()
    assert scores.grad is not None
    check(exercises.score_gradient(a.detach(), g, prompts), scores.grad, "autograd's gradient")


# ---- 7: token_similarity ----


def test_token_similarity_on_paper() -> None:
    # cosines 1 and 0 with the first row, 0 and 1 with the second
    found = exercises.token_similarity(torch.tensor([[1.0, 0.0], [0.0, 5.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    assert abs(found - 0.5) < 1e-5, f"expected 0.5, found {found}"


def test_token_similarity_of_prompts_of_two_lengths(sources: Tensor) -> None:
    a, b = sources[0], sources[2, :9]
    expected = torch.cosine_similarity(a[:, None], b[None], dim=2).mean().item()
    found = exercises.token_similarity(a, b)
    assert abs(found - expected) < 1e-5, f"expected {expected:.5f}, found {found:.5f}"


# ---- 8: factored ----


def test_factored_of_an_outer_product_is_exact() -> None:
    square = torch.tensor([1.0, 2.0, 3.0])[:, None] * torch.tensor([5.0, 1.0])
    check(exercises.factored(square), square, "the outer product of (1, 2, 3) and (5, 1)")


def test_factored_on_paper() -> None:
    # means of the rows 1 and 1, of the columns 1 and 1, of all 1
    check(exercises.factored(torch.tensor([[2.0, 0.0], [0.0, 2.0]])), [[1.0, 1.0], [1.0, 1.0]], "twice the unit matrix")


def test_factored_in_adafactor() -> None:
    square = numbers(130, 140).square() + 1e-30
    expected = Adafactor._inverse_root(square, {}, torch.ones(()), 128) ** -2
    check(exercises.factored(square), expected, "a random matrix")
