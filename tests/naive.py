"""ATTEMPT and Adafactor again, in float64, one number at a time: what the fast code is held against.

Written from the papers' formulas with plain loops; shares no code with the project. Below it, the small random
models that both sides are given. Shapes are named as in model/t5.py.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attempt.attention import PromptAttention
from attempt.prompt import SoftPrompt
from model.config import T5Config
from model.t5 import IGNORED, T5

Array = NDArray[np.float64]
Example = tuple[Tensor, Tensor, Tensor]


def float64(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def pooled(texts: list[Array], pad: Array | None = None, length: int = 0) -> Array:
    """Step 1, x (B,D): the maximum over each row's own positions (n,D), and over `pad` (D) in rows below a length."""
    x = np.empty((len(texts), texts[0].shape[1]))
    for b, text in enumerate(texts):
        for d in range(x.shape[1]):
            x[b, d] = -math.inf
            for row in text:
                x[b, d] = max(x[b, d], row[d])
            if pad is not None and len(text) < length:
                x[b, d] = max(x[b, d], pad[d])
    return x


def averaged(texts: list[Array]) -> Array:
    """x (B,D), the mean over each row's own positions (n,D)."""
    x = np.zeros((len(texts), texts[0].shape[1]))
    for b, text in enumerate(texts):
        for row in text:
            for d in range(x.shape[1]):
                x[b, d] += row[d] / len(text)
    return x


def hidden(x: Array, W_down: Array, W_up: Array, weight: Array, bias: Array) -> Array:
    """Step 3, h (B,D) = LayerNorm(W_up SiLU(W_down x))."""
    R, D = W_down.shape
    h = np.empty_like(x)
    for b in range(len(x)):
        z = [sum(W_down[r, d] * x[b, d] for d in range(D)) for r in range(R)]
        z = [value / (1 + math.exp(-value)) for value in z]
        up = [sum(W_up[d, r] * z[r] for r in range(R)) for d in range(D)]
        mean = sum(up) / D
        variance = sum((value - mean) ** 2 for value in up) / D
        for d in range(D):
            h[b, d] = (up[d] - mean) / math.sqrt(variance + 1e-5) * weight[d] + bias[d]
    return h


def weights(h: Array, sources: Array, Q: Array, temperature: float) -> Array:
    """Steps 2 and 4, a (B,P) = softmax_j(p_j . h / temperature), p_j the maximum over P_j's rows; the last is Q's."""
    B, D = h.shape
    a = np.empty((B, len(sources) + 1))
    for b in range(B):
        for j, prompt in enumerate([*sources, Q[b]]):
            score = 0.0
            for d in range(D):
                score += max(row[d] for row in prompt) * h[b, d]
            a[b, j] = math.exp(score / temperature)
        a[b] /= sum(a[b])
    return a


def mixed(a: Array, sources: Array, Q: Array) -> Array:
    """Step 5, (B,L,D): sum_j a_j P_j + Q, where Q is one of the P_j and is added again."""
    P = np.empty_like(Q)
    for b in range(len(Q)):
        for l in range(Q.shape[1]):  # noqa: E741
            for d in range(Q.shape[2]):
                P[b, l, d] = Q[b, l, d]
                for j, prompt in enumerate([*sources, Q[b]]):
                    P[b, l, d] += a[b, j] * prompt[l, d]
    return P


def g_arrays(G: PromptAttention) -> tuple[Array, Array, Array, Array]:
    """W_down, W_up, and the LayerNorm's weight and bias."""
    return tuple(float64(p) for p in (G.down.weight, G.up.weight, G.norm.weight, G.norm.bias))  # type: ignore[return-value]


def adafactor(p: Array, gradients: list[Array], lr: float, decay: float = 1e-5) -> Iterator[Array]:
    """The parameter after each step of the rule in the paper's form, with T5X's constants."""
    factored = p.ndim == 2 and min(p.shape) >= 128
    v, rows, columns = np.zeros(p.shape), np.zeros(p.shape[0]), np.zeros(p.shape[-1])
    for t, g in enumerate(gradients):
        beta2 = 1 - (t + 1) ** -0.8
        square = g**2 + 1e-30
        if factored:
            rows = beta2 * rows + (1 - beta2) * square.mean(axis=1)
            columns = beta2 * columns + (1 - beta2) * square.mean(axis=0)
            # 1/sqrt in two parts: the product of two numbers near 1e-30 would not survive in float32
            u = g / np.sqrt(rows / rows.mean())[:, None] / np.sqrt(columns)[None, :]
        else:
            v = beta2 * v + (1 - beta2) * square
            u = g / np.sqrt(v)
        u = u / max(1.0, math.sqrt((u**2).mean()))
        p = (p - lr * u) * (1 - decay)
        yield p


# ---- small models and prompts to compute with ----


def tiny_t5(seed: int = 0, **changes: Any) -> T5:
    """A frozen random T5 v1.0, 2+1 layers, D=8, 40 pieces."""
    torch.manual_seed(seed)
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2, "vocab_size": 40} | changes
    return T5(T5Config(**sizes, num_decoder_layers=1)).requires_grad_(False).eval()


def mixture(K: int = 1, L: int = 3, D: int = 8, sources: int = 2, seed: int = 0, **options: Any) -> SoftPrompt:
    """An ATTEMPT prompt with R=5 in which no number is a special one, the LayerNorm's included."""
    generator = torch.Generator().manual_seed(seed)
    G = PromptAttention(D, 5, **options)
    with torch.no_grad():
        for p in (G.down.weight, G.up.weight):
            p.copy_(0.5 * torch.randn(p.shape, generator=generator))
        G.norm.weight.copy_(torch.rand(D, generator=generator) + 0.5)
        G.norm.bias.copy_(torch.randn(D, generator=generator) * 0.1)
    prompts = torch.randn(K + sources, L, D, generator=generator)
    return SoftPrompt(prompts[:K], prompts[K:], G)


def batch(lengths: list[int], vocabulary: int = 40, padding: int = 0, seed: int = 0) -> Example:
    """ids and mask (B, longest + padding) of texts that end in EOS, and labels (B,3) of which some are padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(len(lengths), max(lengths) + padding, dtype=torch.long)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(2, vocabulary, (length,), generator=generator)
        row[length - 1] = 1
    labels = torch.randint(2, vocabulary, (len(lengths), 3), generator=generator)
    labels[0, 2] = IGNORED
    return ids, torch.arange(ids.size(1)) < torch.tensor(lengths)[:, None], labels


def encoder_input(
    model: T5, ids: Tensor, mask: Tensor, prompt: SoftPrompt | None, tasks: Tensor | None = None
) -> Tensor:
    """What the encoder really reads, (B,L+S,D): the input of its first dropout."""
    seen: list[Tensor] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])

    handle = model.encoder.dropout.register_forward_pre_hook(note)
    try:
        model.encoder(model.embedding(ids), mask, prompt, tasks)
    finally:
        handle.remove()
    return seen[0]
