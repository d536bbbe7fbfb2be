"""The attention network G of ATTEMPT (Asai et al. 2022, sec. 3.2): how much of each prompt an instance gets.

Shapes: B batch, S text positions, L prompt length, D model width, R bottleneck, P prompts (sources + target).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VARIANTS = ("sub", "linear", "dot", "token", "constant")


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
    temperature        T; by default D*e, which is the 2087 that every released configuration writes for D = 768
    learn_temperature  train it, from that T on: T = D*exp(clamp(tau, 0.005, 5)), so tau = 1 at the start by default.
                       ValueError for a T that no tau gives. The released program has this option too, but its tau
                       never moves
    pool_pads          let the embeddings of padding take part in the pooling, as the released program does. The result
                       then depends on whether a row was padded. The paper pools the input alone, and so do we.
    train_norm         the paper counts the LayerNorm among the trained parameters; the released program freezes it
    """

    def __init__(
        self,
        width: int,
        bottleneck: int = 100,
        temperature: float | None = None,
        pool_pads: bool = False,
        train_norm: bool = True,
        variant: str = "sub",
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        if variant in ("sub", "token"):
            self.down = nn.Linear(width, bottleneck, bias=False)  # W_down (R,D)
            self.up = nn.Linear(bottleneck, width, bias=False)  # W_up (D,R)
        elif variant == "linear":
            self.linear = nn.Linear(width, width, bias=False)  # W (D,D)
        if variant in ("sub", "token", "linear"):
            self.norm = nn.LayerNorm(width, eps=1e-5).requires_grad_(train_norm)
        self.width, self.variant, self.pool_pads, self.train_norm = width, variant, pool_pads, train_norm
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
        return self.width * self.tau.clamp(0.005, 5).exp()  # T = D exp(clamp(tau))

    def settings(self) -> dict[str, Any]:
        """What a checkpoint must hold besides the tensors."""
        names = ("pool_pads", "train_norm", "variant", "learn_temperature")
        return {"temperature": self.fixed_temperature, **{name: getattr(self, name) for name in names}}

    def reset(self, generator: torch.Generator) -> "PromptAttention":
        """Draw the matrices from N(0, 0.01^2), as the released program does."""
        for matrix in self.children():
            if isinstance(matrix, nn.Linear):
                nn.init.normal_(matrix.weight, std=0.01, generator=generator)
        return self

    def pool(self, E: Tensor, mask: Tensor | None) -> Tensor:
        """Text embeddings (B,S,D) -> their element-wise maximum over the text's positions, (B,D)."""
        if mask is not None and not self.pool_pads:
            E = E.masked_fill(~mask[:, :, None], -math.inf)
        return E.amax(1)

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
        # x = max_s E_s
        x = self.pool(E, mask).type_as(sources)  # (B,D)
        with torch.autocast(x.device.type, enabled=False):  # in fp16 the products of large prompts would overflow
            h = self.hidden(x)  # (B,D)
            # p_j = max_l P_j[l], or each P_j[l] by itself;  a = softmax_j(p_j . h / T)
            token = self.variant == "token"
            scores = torch.einsum("jld,bd->bjl", sources if token else sources.amax(1, keepdim=True), h)
            if Q is not None:
                q = Q if token else Q.amax(1, keepdim=True)  # (B,L,D) or (B,1,D)
                scores = torch.cat([scores, torch.einsum("bld,bd->bl", q, h)[:, None]], dim=1)
            return F.softmax(scores / self.temperature, dim=1)


def entropy(weights: Tensor) -> Tensor:
    """Mean entropy in nats of weights (B,P,…); log P when all prompts weigh the same, 0 when one has it all."""
    return torch.special.entr(weights.float()).sum(1).mean()
