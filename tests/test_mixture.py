"""What the encoder reads, [P_instance; E], against the float64 recomputation; and what one training step changes."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import naive
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from attempt.prompt import SoftPrompt
from attempt.training.optimizer import Adafactor
from model.decoding import generate
from model.t5 import T5

LENGTHS = [5, 2, 7, 3]
TASKS = [2, 0, 1, 2]


def double(K: int = 1, **options: Any) -> tuple[T5, SoftPrompt]:
    model, prompt = naive.tiny_t5().double(), naive.mixture(K, **options).double()
    if prompt.attention is not None and prompt.attention.pool_pads:
        prompt.attention.see_pads(model.embedding.weight[0], max(LENGTHS))
    return model, prompt


def expected_prompt(model: T5, ids: Tensor, prompt: SoftPrompt, tasks: list[int], temperature: float) -> np.ndarray:
    """P_instance (B,L,D), all five steps."""
    table, sources, targets = (naive.float64(t) for t in (model.embedding.weight, prompt.sources, prompt.target))  # type: ignore[arg-type]
    rows = [np.stack([table[i] for i in row[:n].tolist()]) for row, n in zip(ids, LENGTHS, strict=True)]
    x = naive.pooled(rows, table[0] if prompt.attention.pool_pads else None, max(LENGTHS))  # type: ignore[union-attr]
    h = naive.hidden(x, *naive.g_arrays(prompt.attention))  # type: ignore[arg-type]
    Q = np.stack([targets[k] for k in tasks])
    return naive.mixed(naive.weights(h, sources, Q, temperature), sources, Q)


# ---- what the encoder reads ----


@pytest.mark.parametrize("pool_pads", [False, True])
@pytest.mark.parametrize("temperature", [None, 0.5])
def test_encoder_reads_the_instance_prompt_then_the_text(temperature: float | None, pool_pads: bool) -> None:
    model, prompt = double(temperature=temperature, pool_pads=pool_pads)
    ids, mask, _ = naive.batch(LENGTHS)
    found = naive.float64(naive.encoder_input(model, ids, mask, prompt))
    T = 8 * math.e if temperature is None else temperature
    assert np.allclose(found[:, :3], expected_prompt(model, ids, prompt, [0] * 4, T), rtol=0, atol=1e-12)
    assert np.array_equal(found[:, 3:], naive.float64(model.embedding.weight)[ids.numpy()])  # not scaled, not moved


def test_each_example_gets_its_own_tasks_target() -> None:
    model, prompt = double(K=3, temperature=1.0)
    ids, mask, _ = naive.batch(LENGTHS)
    found = naive.float64(naive.encoder_input(model, ids, mask, prompt, torch.tensor(TASKS)))[:, :3]
    assert np.allclose(found, expected_prompt(model, ids, prompt, TASKS, 1.0), rtol=0, atol=1e-12)


def test_target_is_a_candidate_and_is_added_again() -> None:
    # sources of zeros and equal scores: the prompt must be Q/3 + Q
    model, prompt = double(temperature=1e30)
    prompt.sources.zero_()  # type: ignore[union-attr]
    ids, mask, _ = naive.batch(LENGTHS)
    found = naive.encoder_input(model, ids, mask, prompt)[:, :3]
    assert torch.allclose(found, prompt.target.expand_as(found) * (4 / 3), rtol=0, atol=1e-12)


def test_prompt_tuning_reads_the_prompt_itself() -> None:
    model = naive.tiny_t5()
    prompt = SoftPrompt(torch.randn(3, 4, 8))
    ids, mask, _ = naive.batch(LENGTHS)
    found = naive.encoder_input(model, ids, mask, prompt, torch.tensor(TASKS))
    assert torch.equal(found, torch.cat([prompt.target[TASKS], model.embedding(ids)], 1))


def test_without_task_ids_the_first_prompt_is_read() -> None:
    model, prompt = double(K=3)
    ids, mask, _ = naive.batch(LENGTHS)
    first = naive.encoder_input(model, ids, mask, prompt, torch.zeros(4, dtype=torch.long))
    assert torch.equal(naive.encoder_input(model, ids, mask, prompt), first)


@pytest.mark.parametrize("L", [1, 4, 10])
def test_encoder_grows_by_exactly_the_prompts_rows(L: int) -> None:
    # a library that doubled the rows and read half of them made this a test; the decoder attends to all L+S
    model, prompt = naive.tiny_t5(), naive.mixture(L=L)
    ids, mask, labels = naive.batch(LENGTHS)
    states, states_mask = model.encoder(model.embedding(ids), mask, prompt)
    assert states.shape == (4, L + 7, 8)
    assert torch.equal(states_mask, torch.cat([torch.ones(4, L, dtype=torch.bool), mask], 1))
    memories: list[Tensor] = []
    cross: Any = model.decoder.blocks[0].cross_attention
    cross.register_forward_pre_hook(lambda module, inputs: memories.append(inputs[1]))
    model(ids, mask, labels, prompt)
    assert torch.equal(memories[0], states)


def test_relative_positions_cover_the_prompt() -> None:
    # the prompt is positions 0..L-1, not outside of the positions: the bias is asked for L+S
    model, prompt = naive.tiny_t5(), naive.mixture(L=4)
    asked: list[tuple[Tensor, ...]] = []
    model.encoder.relative_bias.register_forward_pre_hook(lambda module, inputs: asked.append(inputs))
    ids, mask, labels = naive.batch(LENGTHS)
    model(ids, mask, labels, prompt)
    ((queries, keys, _),) = asked
    assert queries.tolist() == keys.tolist() == list(range(11))


@pytest.mark.parametrize("pool_pads", [False, True])
def test_padding_never_changes_the_logits(pool_pads: bool) -> None:
    """Pooled or not: what a text is padded with in its batch is the batch's matter."""
    model, prompt = double(temperature=0.1, pool_pads=pool_pads)
    model.embedding.weight[0] += 2  # so that padding, where pooled, reaches the maximum
    if prompt.attention is not None and pool_pads:
        prompt.attention.see_pads(model.embedding.weight[0], max(LENGTHS))
    plain, padded = (
        model(ids, mask, labels, prompt)
        for ids, mask, labels in (naive.batch(LENGTHS), naive.batch(LENGTHS, padding=4))
    )
    assert (plain - padded).abs().max() < 1e-5  # the softmax over positions is computed in fp32


@pytest.mark.parametrize("use_target", [True, False])
def test_nearly_equal_weights_stay_apart_in_lower_precision(use_target: bool) -> None:
    """192 texts, 192 weights that bf16 would make a few: what the encoder reads is the mixture of fp32, bit for bit."""
    model, mixed = naive.tiny_t5(), naive.mixture(temperature=100.0)
    prompt = SoftPrompt(mixed.target, mixed.sources, mixed.attention, use_target)
    ids = torch.randint(2, 40, (192, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids, dtype=torch.bool)
    a = prompt.weights(model.embedding(ids), mask, torch.zeros(192, dtype=torch.long))[:, 0]
    assert len(a.unique()) == 192 and len(a.bfloat16().unique()) < 20
    exact = naive.encoder_input(model, ids, mask, prompt)[:, :3]
    with torch.autocast("cpu", torch.bfloat16):
        found = naive.encoder_input(model, ids, mask, prompt)[:, :3]
        assert torch.equal(prompt.weights(model.embedding(ids), mask, torch.zeros(192, dtype=torch.long))[:, 0], a)
    assert found.dtype == torch.float32 and torch.equal(found, exact)
    assert len(found[:, 0, 0].unique()) > 180  # not exactly 192: the mixture itself is rounded to fp32


def test_generation_follows_task_ids() -> None:
    # the same text under two tasks, in one batch and alone
    model = naive.tiny_t5(seed=1, tie_word_embeddings=False)  # a tied one repeats the start token
    prompt = naive.mixture(K=3, L=6)
    with torch.no_grad():
        prompt.target.mul_(3)
    ids, mask, _ = naive.batch([5])
    answers = [generate(model, ids, mask, 6, prompt, torch.tensor([k])) for k in range(3)]
    assert len({tuple(a[0].tolist()) for a in answers}) == 3  # else nothing is tested
    together = generate(model, ids.expand(3, -1), mask.expand(3, -1), 6, prompt, torch.arange(3))
    for one, row in zip(answers, together, strict=True):
        assert row.tolist()[: one.size(1)] == one[0].tolist()


# ---- gradients ----


class EncoderInput(nn.Module):
    def __init__(self, model: T5, prompt: SoftPrompt) -> None:
        super().__init__()
        self.model, self.prompt = model, prompt

    def forward(self, ids: Tensor, mask: Tensor, tasks: Tensor) -> Tensor:
        return naive.encoder_input(self.model, ids, mask, self.prompt, tasks)[:, : self.prompt.target.size(1)]


def test_gradients_of_the_mixture_are_the_numeric_ones() -> None:
    model = naive.tiny_t5(num_layers=0).double()  # what comes after the mixing is not looked at
    module = EncoderInput(model, naive.mixture(K=2, L=2, temperature=1.0).double())
    ids, mask, _ = naive.batch([3, 2])
    leaves = {f"prompt.{name}": p.detach().clone().requires_grad_() for name, p in module.prompt.named_parameters()}
    assert len(leaves) == 5  # Q, W_down, W_up, the norm's weight and bias

    def run(*values: Tensor) -> Tensor:
        inputs = ids, mask, torch.tensor([1, 0])
        found: Tensor = functional_call(module, dict(zip(leaves, values, strict=True)), inputs)
        return found

    assert torch.autograd.gradcheck(run, tuple(leaves.values()))


# ---- one step ----

Optimizers = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Optimizers] = {
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.3, weight_decay=0.0),
    "adafactor": lambda params: Adafactor(params, lr=0.3, weight_decay=0.0),  # no decay: only gradients move anything
}


def train_once(prompt: SoftPrompt, optimizer: Optimizers, tasks: Tensor | None = None) -> tuple[dict[str, Tensor], T5]:
    """One step in train mode, dropout and all. Returns the prompt's tensors from before; checks the backbone."""
    model = naive.tiny_t5().train()
    backbone = {name: p.clone() for name, p in model.named_parameters()}
    before = {name: t.clone() for name, t in prompt.state_dict().items()}
    ids, mask, labels = naive.batch(LENGTHS)
    model.loss(ids, mask, labels, prompt, tasks).backward()  # type: ignore[no-untyped-call]
    optimizer([p for group in prompt.parameter_groups().values() for p in group]).step()
    for name, p in model.named_parameters():
        assert torch.equal(p, backbone[name]) and p.grad is None, name
    return before, model


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_step_of_prompt_tuning_changes_every_row(optimizer: str) -> None:
    prompt = SoftPrompt(torch.randn(1, 10, 8, generator=torch.Generator().manual_seed(0)))
    before, _ = train_once(prompt, OPTIMIZERS[optimizer])
    assert list(before) == ["target"]
    assert ((prompt.target - before["target"]).abs().amax(2) > 1e-4).all()


@pytest.mark.parametrize("train_norm", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_step_of_attempt_changes_exactly_what_is_trained(optimizer: str, train_norm: bool) -> None:
    prompt = naive.mixture(L=6, train_norm=train_norm)
    before, _ = train_once(prompt, OPTIMIZERS[optimizer])
    after = prompt.state_dict()
    frozen = {"sources"} | (set() if train_norm else {"attention.norm.weight", "attention.norm.bias"})
    trained = {"target", "attention.down.weight", "attention.up.weight"} | (
        {"attention.norm.weight", "attention.norm.bias"} if train_norm else set()
    )
    assert set(before) == frozen | trained
    for name in frozen:
        assert torch.equal(after[name], before[name]), name
    for name in trained:
        moved = (after[name] - before[name]).abs()
        rows = moved.flatten(0, -2).amax(1) if moved.ndim > 1 else moved
        assert (rows > 1e-6).all(), name


def test_a_task_that_is_not_in_the_batch_is_not_touched() -> None:
    prompt = naive.mixture(K=3, L=6)
    before, _ = train_once(prompt, OPTIMIZERS["adamw"], torch.tensor([2, 0, 0, 2]))
    assert prompt.target.grad is not None
    rows = prompt.target.grad.abs().amax(2)  # (K,L)
    assert (rows[1] == 0).all() and (rows[[0, 2]] > 0).all()
    moved = (prompt.target - before["target"]).abs().amax(2)
    assert (moved[1] == 0).all() and (moved[[0, 2]] > 1e-4).all()


def test_sources_are_copies_that_cannot_be_trained() -> None:
    sources = torch.randn(2, 3, 8, requires_grad=True)
    prompt = SoftPrompt(torch.randn(1, 3, 8), sources, naive.mixture().attention)
    assert prompt.sources is not None and not prompt.sources.requires_grad
    with torch.no_grad():
        sources.zero_()
    assert prompt.sources.abs().min() > 0
