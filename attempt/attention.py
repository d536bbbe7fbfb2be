"""The attention network G of ATTEMPT (Asai et al. 2022, sec. 3.2): how much of each prompt an instance gets.

Shapes: B batch, S text positions, L prompt length, D model width, R bottleneck, P prompts (sources + target).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VARIANTS = ("sub", "linear", "dot", "token", "constant")
POOLS = ("max", "mean", "centred")
WINDOW = 100  # batches that the running mean looks back on: some thousand texts, so that no single batch moves it much


def maximum(E: Tensor, mask: Tensor) -> Tensor:
    """Text embeddings E (B,S,D), mask (B,S) -> x (B,D), the paper's."""
    # x = max_s E_s, of the text's positions alone
    return E.masked_fill(~mask[:, :, None], -math.inf).amax(1)


def mean(E: Tensor, mask: Tensor) -> Tensor:
    """Text embeddings E (B,S,D), mask (B,S) -> x (B,D), summed in fp32 at least."""
    # x = 1/n sum_s E_s, of the text's n positions alone
    total = E.masked_fill(~mask[:, :, None], 0).sum(1, dtype=torch.promote_types(E.dtype, torch.float32))
    return total / mask.sum(1, keepdim=True)


class PromptAttention(nn.Module):
    """One weight per prompt and instance, from the text and the prompts alone.

    width              D, the backbone's d_model
    variant            how the text's x becomes the h that the prompts are compared with, and what gets a weight:
                         sub       h = LayerNorm(W_up SiLU(W_down x))   the paper's
                         linear    h = LayerNorm(W x)
                         dot       h = x
                         token     h as in sub; one weight per prompt *position*, from that position's row
                         constant  a = 1/P, whatever the text
    bottleneck         R, the width in between (100 in the paper)
    temperature        of the softmax; by default D*e, which is 2087 for D = 768, as in every released configuration
    learn_temperature  train it from there: temperature = D*exp(clamp(tau, 0.005, 5)), so tau = 1 at the start by
                       default. ValueError for a temperature that no tau gives. The released program has this option
                       too, but its tau never moves
    pool_pads          let the embedding of padding take part in the maximum, as in the released program, which pads all
                       texts to one length; see_pads says which. The paper pools the input alone, and so do we.
    train_norm         the paper counts the LayerNorm among the trained parameters; the released program freezes it
    pooling            how a text's embeddings become one vector x:
                         max      the paper's. Of some twenty tokens it is nearly the same for all texts, G's matrices
                                  grow along what they share, and all texts get the same weights
                         mean     of the text's embeddings
                         centred  the maximum less m, its running mean over the training batches: what texts share is
                                  gone. Trainer.observe moves m before a step's forwards; evaluation never does
    """

    centre: Tensor
    seen: Tensor
    pad: Tensor | None

    def __init__(
        self,
        width: int,
        bottleneck: int = 100,
        temperature: float | None = None,
        pool_pads: bool = False,
        train_norm: bool = True,
        variant: str = "sub",
        learn_temperature: bool = False,
        pooling: str = "max",
    ) -> None:
        super().__init__()
        if variant in ("sub", "token"):
            self.down = nn.Linear(width, bottleneck, bias=False)  # W_down (R,D)
            self.up = nn.Linear(bottleneck, width, bias=False)  # W_up (D,R)
        elif variant == "linear":
            self.linear = nn.Linear(width, width, bias=False)  # W (D,D)
        if variant in ("sub", "token", "linear"):
            self.norm = nn.LayerNorm(width, eps=1e-5).requires_grad_(train_norm)
        if pooling == "centred":
            self.register_buffer("centre", torch.zeros(width))  # m (D,)
            self.register_buffer("seen", torch.zeros((), dtype=torch.long))  # t, batches that m has seen
        self.register_buffer("pad", None, persistent=False)
        self.width, self.variant, self.pool_pads, self.train_norm = width, variant, pool_pads, train_norm
        self.pooling = pooling
        self.fixed_temperature = width * math.e if temperature is None else temperature
        if learn_temperature:
            tau = math.log(self.fixed_temperature / width)
            if not 0.005 <= tau <= 5:
                least, most = (width * math.exp(bound) for bound in (0.005, 5))
                raise ValueError(f"temperature {temperature}: expected {least:.4g} to {most:.4g}, to be learned from")
            self.tau = nn.Parameter(torch.tensor(tau))
        self.learn_temperature = learn_temperature

    @property
    def temperature(self) -> Tensor | float:
        if not self.learn_temperature:
            return self.fixed_temperature
        return self.width * self.tau.clamp(0.005, 5).exp()  # temperature = D exp(clamp(tau))

    def settings(self) -> dict[str, Any]:
        """What a checkpoint must hold besides the tensors."""
        names = ("pool_pads", "train_norm", "variant", "learn_temperature", "pooling")
        return {"temperature": self.fixed_temperature, **{name: getattr(self, name) for name in names}}

    def reset(self, generator: torch.Generator) -> "PromptAttention":
        """Draw the matrices from N(0, 0.01^2), as the released program does."""
        for matrix in self.children():
            if isinstance(matrix, nn.Linear):
                nn.init.normal_(matrix.weight, std=0.01, generator=generator)
        return self

    def see_pads(self, pad: Tensor, length: int) -> None:
        """pool_pads: the embedding of padding, (D,), and the tokens up to which the released program pads all texts."""
        self.pad, self.padded_length = pad.detach(), length

    @torch.no_grad()
    def observe(self, total: Tensor, count: Tensor) -> None:
        """Move m by a batch, the sum (D,) of whose pooled texts this is, and their number ()."""
        self.seen += 1
        # m_t = m_(t-1) + (x_t - m_(t-1)) / min(t, WINDOW), where x_t is the batch's mean: the first batch sets m
        self.centre += ((total / count).type_as(self.centre) - self.centre) / self.seen.clamp(1, WINDOW)

    def pool(self, E: Tensor, mask: Tensor | None) -> Tensor:
        """Text embeddings (B,S,D), mask (B,S) or none where nothing is padded -> x (B,D), not yet centred."""
        mask = torch.ones(E.shape[:2], dtype=torch.bool, device=E.device) if mask is None else mask
        x = mean(E, mask) if self.pooling == "mean" else maximum(E, mask)
        if self.pool_pads:
            if self.pad is None:
                raise ValueError("pool_pads: expected the embedding of padding, by see_pads, before the first text")
            # x = max(x, e_pad) where the text would have been padded, whatever its batch
            short = mask.sum(1, keepdim=True) < self.padded_length  # (B,1)
            x = torch.where(short, torch.maximum(x, self.pad.type_as(x)), x)
        return x

    def hidden(self, x: Tensor) -> Tensor:
        """What the prompts are compared with: pooled text (B,D) -> h (B,D)."""
        if self.variant == "dot":
            return x
        # h = LayerNorm(W x), or h = LayerNorm(W_up SiLU(W_down x))
        return self.norm(self.linear(x) if self.variant == "linear" else self.up(F.silu(self.down(x))))

    def forward(self, E: Tensor, mask: Tensor | None, sources: Tensor, Q: Tensor | None) -> Tensor:
        """Text E (B,S,D), mask (B,S), sources (P-1,L,D), target Q (B,L,D) -> weights (B,P,1), the target's the last.

        Without a mask no position is padding. Without Q the P weights are those of P sources. Variant `token`: (B,P,L).
        """
        B, P = E.size(0), sources.size(0) + (Q is not None)
        if self.variant == "constant":
            return sources.new_full((B, P, 1), 1 / P)
        x = self.pool(E, mask).type_as(sources)  # (B,D)
        if self.pooling == "centred":
            x = x - self.centre  # x = max_s E_s - m
        with torch.autocast(x.device.type, enabled=False):  # in fp16 the products of large prompts would overflow
            h = self.hidden(x)  # (B,D)
            # p_j = max_l P_j[l], or each P_j[l] by itself;  a = softmax_j(p_j . h / temperature)
            token = self.variant == "token"
            scores = torch.einsum("jld,bd->bjl", sources if token else sources.amax(1, keepdim=True), h)
            if Q is not None:
                q = Q if token else Q.amax(1, keepdim=True)  # (B,L,D) or (B,1,D)
                scores = torch.cat([scores, torch.einsum("bld,bd->bl", q, h)[:, None]], dim=1)
            return F.softmax(scores / self.temperature, dim=1)


def entropy(weights: Tensor) -> Tensor:
    """Mean entropy in nats of weights (B,P,…); log P when all prompts weigh the same, 0 when one has it all."""
    return torch.special.entr(weights.float()).sum(1).mean()


def deviation(weights: Tensor) -> Tensor:
    """How much weights (N,P) differ from instance to instance, or from task to task: 0 where all get the same."""
    # mean_j sqrt(1/N sum_i (a_ij - mean_i a_ij)^2)
    return weights.float().std(0, correction=0).mean()
