"""ATTEMPT's variants and ablations against plain float64 loops, and what each of them trains."""

import math
from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
import torch
from torch import Tensor

from attempt.attention import VARIANTS, PromptAttention
from attempt.checkpoint import PromptConfig, load_prompt, save_prompt
from attempt.prompt import SoftPrompt
from attempt.runs.parsing import parse
from attempt.runs.plan import Plan
from attempt.training.build import new_prompt
from model.errors import AttemptError

LENGTHS, D, L = [5, 2, 7, 3], 8, 3


def variant(name: str, use_target: bool = True, **options: Any) -> SoftPrompt:
    """A mixture of two sources in which no parameter is 0 or 1, in float64."""
    generator = torch.Generator().manual_seed(5)
    G = PromptAttention(D, 5, variant=name, **options)
    with torch.no_grad():
        for p in G.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.5 + 0.3)
    prompts = torch.randn(3, L, D, generator=generator)
    return SoftPrompt(prompts[:1], prompts[1:], G, use_target).double()


def hidden(name: str, x: np.ndarray, G: PromptAttention) -> np.ndarray:
    if name == "dot":
        return x
    if name == "linear":  # the same steps as sub's, with W x in the place of W_up SiLU(W_down x)
        y = x @ naive.float64(G.linear.weight).T
        centred = y - y.mean(axis=1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
        return normed * naive.float64(G.norm.weight) + naive.float64(G.norm.bias)
    return naive.hidden(x, *naive.g_arrays(G))


def instance_prompt(name: str, x: np.ndarray, prompt: SoftPrompt, T: float) -> np.ndarray:
    """P_instance (B,L,D): a softmax over the prompts for every position, each from that position's own score."""
    G, Q = prompt.attention, naive.float64(prompt.target)[0]
    candidates = [*naive.float64(prompt.sources)] + ([Q] if prompt.use_target else [])  # type: ignore[arg-type]
    h = None if name == "constant" else hidden(name, x, G)  # type: ignore[arg-type]
    result = np.zeros((len(x), L, D))
    for b in range(len(x)):
        for l in range(L):  # noqa: E741
            if h is None:
                scores = [0.0] * len(candidates)
            elif name == "token":
                scores = [float(P[l] @ h[b]) / T for P in candidates]
            else:
                scores = [float(P.max(axis=0) @ h[b]) / T for P in candidates]
            a = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
            result[b, l] = sum(weight * P[l] for weight, P in zip(a, candidates, strict=True))
            if prompt.use_target:
                result[b, l] += Q[l]
    return result


def read_by_encoder(prompt: SoftPrompt) -> tuple[np.ndarray, np.ndarray]:
    """The prompt that the encoder reads (B,L,D), and the pooled text x (B,D)."""
    model, (ids, mask, _) = naive.tiny_t5().double(), naive.batch(LENGTHS)
    table = naive.float64(model.embedding.weight)
    x = naive.pooled([table[row[:n].numpy()] for row, n in zip(ids, LENGTHS, strict=True)])
    return naive.float64(naive.encoder_input(model, ids, mask, prompt))[:, :L], x


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("use_target", [True, False])
def test_the_encoder_reads_the_naive_mixture(name: str, use_target: bool) -> None:
    prompt = variant(name, use_target, temperature=2.0)
    found, x = read_by_encoder(prompt)
    assert np.allclose(found, instance_prompt(name, x, prompt, 2.0), rtol=0, atol=1e-12)


def test_the_variants_differ() -> None:
    found = [read_by_encoder(variant(name, temperature=2.0))[0] for name in VARIANTS]
    assert all(not np.allclose(a, b) for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize(("tau", "clamped"), [(0.7, 0.7), (-3.0, 0.005), (9.0, 5.0)])
def test_a_learned_temperature_is_the_clamped_exponential(tau: float, clamped: float) -> None:
    prompt = variant("sub", learn_temperature=True)
    prompt.attention.tau.data.fill_(tau)  # type: ignore[union-attr]
    found, x = read_by_encoder(prompt)
    assert np.allclose(found, instance_prompt("sub", x, prompt, D * math.exp(clamped)), rtol=0, atol=1e-12)


def test_a_learned_temperature_starts_where_the_fixed_one_is() -> None:
    learned, fixed = PromptAttention(D, learn_temperature=True), PromptAttention(D)
    assert learned.temperature.item() == pytest.approx(fixed.temperature, rel=1e-6) and learned.tau.item() == 1.0
    for temperature in (1.01 * D, 20.0, 148 * D):  # from exp(0.005) D to exp(5) D
        assert PromptAttention(D, temperature=temperature, learn_temperature=True).temperature.item() == pytest.approx(
            temperature, rel=1e-5
        )
    for temperature in (5.0, 150.0 * D):
        with pytest.raises(ValueError, match=r"expected 8\.04 to 1187, to be learned from"):
            PromptAttention(D, temperature=temperature, learn_temperature=True)


COUNTS = {  # at D = 8, R = 100, one target of L = 3
    (): 24 + 2 * 800 + 16,
    ("--freeze-norm",): 24 + 2 * 800,
    ("--attention", "linear"): 24 + 64 + 16,
    ("--attention", "dot"): 24,
    ("--attention", "constant"): 24,
    ("--attention", "token", "--bottleneck", "5"): 24 + 80 + 16,
    ("--learn-temperature",): 24 + 2 * 800 + 16 + 1,
    ("--fix-attention",): 24,
    ("--no-target",): 2 * 800 + 16,
}


def built(*flags: str) -> SoftPrompt:
    options = parse(["--task", "cola", "--prompt-length", "3", *flags]).options
    plan = Plan.complete(options, 10, 3)
    sources = torch.randn(2, L, D, generator=torch.Generator().manual_seed(0))
    return new_prompt(plan, torch.randn(40, D), lambda texts: [[3] for _ in texts], [["0", "1"]], sources, None)


@pytest.mark.parametrize("flags", COUNTS)
def test_a_step_changes_what_the_flags_say_and_nothing_else(flags: tuple[str, ...]) -> None:
    prompt, model, (ids, mask, labels) = built(*flags), naive.tiny_t5(), naive.batch(LENGTHS)
    trained = [p for group in prompt.parameter_groups().values() for p in group]
    assert sum(p.numel() for p in trained) == COUNTS[flags]
    if prompt.attention is not None and hasattr(prompt.attention, "up"):
        prompt.attention.up.weight.data.mul_(100)  # so small at first that its input's gradient would vanish
    before = {name: tensor.clone() for name, tensor in prompt.state_dict().items()}
    optimizer = torch.optim.AdamW(trained, lr=0.1, weight_decay=0)
    model.loss(ids, mask, labels, prompt).backward()
    optimizer.step()
    names = {name for name, p in prompt.named_parameters() if any(p is q for q in trained)}
    changed = {name for name, tensor in prompt.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == names


def test_nothing_to_train_is_told() -> None:
    with pytest.raises(AttemptError, match="nothing to train"):
        built("--attention", "constant", "--no-target")


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("use_target", [True, False])
def test_saved_and_loaded_it_mixes_the_same(name: str, use_target: bool, tmp_path: Path) -> None:
    prompt = variant(name, use_target, learn_temperature=True, pool_pads=True, temperature=20.0).float()
    config = PromptConfig("attempt", "t5-base", ["cola"], ["mnli", "sst2"], "digits")
    save_prompt(tmp_path / "p.safetensors", prompt, config)
    loaded, settings = load_prompt(tmp_path / "p.safetensors")
    assert settings.variant == name and settings.use_target == use_target
    model, (ids, mask, labels) = naive.tiny_t5(), naive.batch(LENGTHS)
    for one in (prompt, loaded):  # the backbone has it, not the file
        one.attention.see_pads(model.embedding.weight[0], 9)  # type: ignore[union-attr]
    assert torch.equal(model(ids, mask, labels, prompt), model(ids, mask, labels, loaded))


def test_gradients_of_a_weight_per_position() -> None:
    prompt = variant("token", temperature=2.0)
    G = prompt.attention
    assert G is not None and prompt.sources is not None
    E = torch.randn(2, 4, D, dtype=torch.float64)
    mask = torch.ones(2, 4, dtype=torch.bool)

    def weights(Q: Tensor) -> Tensor:
        return G(E, mask, prompt.sources, Q)

    assert torch.autograd.gradcheck(weights, (torch.randn(2, L, D, dtype=torch.float64, requires_grad=True),))
