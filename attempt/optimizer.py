"""Optimizers and schedules of the papers."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Adafactor(Optimizer):
    """Adafactor as T5X defines it (Shazeer & Stern 2018), Lester et al.'s optimizer for prompts.

    Neither PyTorch's Adafactor nor Hugging Face's follows this rule: here the step is not scaled by the parameter's
    root mean square, beta2 starts at 0, and weight decay is not multiplied by the learning rate.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        weight_decay: float = 1e-5,
        decay_exponent: float = 0.8,
        clip_threshold: float = 1.0,
        factored_from: int = 128,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "decay_exponent": decay_exponent,
            "clip_threshold": clip_threshold,
            "factored_from": factored_from,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad.float(), self.state[p], group)
        return loss

    def _update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        t = state["step"] = state.get("step", 0) + 1
        # beta2_t = 1 - t^-0.8
        beta2 = 1.0 - t ** -group["decay_exponent"]
        # v = beta2 v + (1-beta2) (g^2 + 1e-30);  u = g / sqrt(v)
        u = g * self._inverse_root(g.square() + 1e-30, state, beta2, group["factored_from"])
        # u /= max(1, RMS(u) / threshold)
        u /= (u.square().mean().sqrt() / group["clip_threshold"]).clamp(min=1.0)
        # p = (p - lr u) (1 - weight decay)
        p.sub_(u, alpha=group["lr"])
        p.mul_(1.0 - group["weight_decay"])

    @staticmethod
    def _inverse_root(square: Tensor, state: dict[str, Any], beta2: float, factored_from: int) -> Tensor:
        """1 / sqrt(v); large matrices keep only the means of v's rows and columns."""
        if square.ndim < 2 or min(square.shape[-2:]) < factored_from:
            return _running_mean(state, "v", square, beta2).rsqrt()
        rows = _running_mean(state, "rows", square.mean(-1, keepdim=True), beta2)  # (...,n,1)
        columns = _running_mean(state, "columns", square.mean(-2, keepdim=True), beta2)  # (...,1,m)
        # v_ij = rows_i columns_j / mean(rows); the product itself would underflow where gradients are tiny
        return (rows / rows.mean(-2, keepdim=True)).rsqrt() * columns.rsqrt()


def _running_mean(state: dict[str, Any], name: str, new: Tensor, beta2: float) -> Tensor:
    state[name] = new.clone() if name not in state else state[name].mul_(beta2).add_(new, alpha=1.0 - beta2)
    mean: Tensor = state[name]
    return mean


def learning_rate_factor(step: int, steps: int, warmup: int, schedule: str) -> float:
    """What the learning rate is multiplied by at step 0 … steps-1: a linear rise over `warmup` steps, then
    `constant`, or `linear`: down to zero at the end of the run."""
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    return (steps - step) / max(1, steps - warmup)
