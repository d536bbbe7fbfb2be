"""The attention network G of ATTEMPT (Asai et al. 2022, sec. 3.2): how much of each prompt an instance gets.

Shapes: B batch, S text positions, L prompt length, D model width, R bottleneck, P prompts (sources + target).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PromptAttention(nn.Module):
    """One weight per prompt and instance, from the text and the prompts alone.

    width        D, the backbone's d_model
    bottleneck   R, the width in between (100 in the paper)
    temperature  T; by default D*e, which is the 2087 that every released configuration writes for D = 768
    pool_pads    let the embeddings of padding take part in the pooling, as the released program does. The result
                 then depends on whether a row was padded. The paper pools the input alone, and so do we by default.
    train_norm   the paper counts the LayerNorm among the trained parameters; the released program freezes it
    """

    def __init__(
        self,
        width: int,
        bottleneck: int = 100,
        temperature: float | None = None,
        pool_pads: bool = False,
        train_norm: bool = True,
    ) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck, bias=False)  # W_down (R,D)
        self.up = nn.Linear(bottleneck, width, bias=False)  # W_up (D,R)
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.temperature = width * math.e if temperature is None else temperature
        self.pool_pads = pool_pads
        self.norm.requires_grad_(train_norm)

    def settings(self) -> dict[str, Any]:
        """What a checkpoint must hold besides the tensors."""
        train_norm = self.norm.weight.requires_grad
        return {"temperature": self.temperature, "pool_pads": self.pool_pads, "train_norm": train_norm}

    def reset(self, generator: torch.Generator) -> "PromptAttention":
        """Draw W_down and W_up from N(0, 0.01^2), as the released program does."""
        for matrix in (self.down, self.up):
            with torch.no_grad():
                matrix.weight.copy_(torch.randn(matrix.weight.shape, generator=generator) * 0.01)
        return self

    def pool(self, E: Tensor, mask: Tensor) -> Tensor:
        """Text embeddings (B,S,D) -> their element-wise maximum over the text's positions, (B,D)."""
        if not self.pool_pads:
            E = E.masked_fill(~mask[:, :, None], -math.inf)
        return E.amax(1)

    def forward(self, E: Tensor, mask: Tensor, sources: Tensor, Q: Tensor) -> Tensor:
        """E (B,S,D), mask (B,S), sources (P-1,L,D), target Q (B,L,D) -> weights (B,P), the target's the last."""
        # x = max_s E_s
        x = self.pool(E, mask)  # (B,D)
        with torch.autocast(x.device.type, enabled=False):  # in fp16 the products of large prompts would overflow
            # h = LayerNorm(W_up SiLU(W_down x))
            h = self.norm(self.up(F.silu(self.down(x.type_as(sources)))))  # (B,D)
            # p_j = max_l P_j[l];  a = softmax_j(p_j . h / T)
            scores = torch.cat([h @ sources.amax(1).T, (h * Q.amax(1)).sum(1, keepdim=True)], dim=1)  # (B,P)
            return F.softmax(scores / self.temperature, dim=1)


def entropy(weights: Tensor) -> Tensor:
    """Mean entropy in nats of the weights (B,P); log P when all prompts weigh the same, 0 when one has it all."""
    return torch.special.entr(weights.float()).sum(1).mean()
