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
        capturable: bool = False,
    ) -> None:
        """capturable: count steps on the parameters' device, so that a CUDA graph can hold a step (lr is a tensor)."""
        defaults = {
            "capturable": capturable,
            "lr": lr,
            "weight_decay": weight_decay,
            "decay_exponent": decay_exponent,
            "clip_threshold": clip_threshold,
            "factored_from": factored_from,
        }
        super().__init__(params, defaults)
        self._step_supports_amp_scaling = True  # as PyTorch's fused optimizers: `found_inf` 1 leaves a step out

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update_if_good(p, p.grad.float(), self.state[p], group)
        return loss

    def _update_if_good(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Where `found_inf` is 1, nothing of the step stays; nobody is asked, so a graph can hold it."""
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        if found_inf is None:
            self._update(p, g, state, group)
            return
        bad, old = found_inf > 0, {name: value.clone() for name, value in state.items()} | {"p": p.clone()}
        self._update(p, g, state, group)
        for name, value in (*state.items(), ("p", p)):
            value.copy_(torch.where(bad, old[name] if name in old else torch.zeros_like(value), value))

    def _update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if "step" not in state:
            state["step"] = torch.zeros((), device=p.device if group["capturable"] else "cpu")
        state["step"] += 1
        # beta2_t = 1 - t^-0.8
        new_share = state["step"].double() ** -group["decay_exponent"]  # 1 - beta2
        # v = beta2 v + (1-beta2) (g^2 + 1e-30);  u = g / sqrt(v)
        u = g * self._inverse_root(g.square() + 1e-30, state, new_share, group["factored_from"])
        # u /= max(1, RMS(u) / threshold)
        u /= (u.square().mean().sqrt() / group["clip_threshold"]).clamp(min=1.0)
        # p = (p - lr u) (1 - weight decay)
        p.addcmul_(u, torch.as_tensor(group["lr"], dtype=u.dtype, device=u.device), value=-1)
        p.mul_(1.0 - group["weight_decay"])

    @staticmethod
    def _inverse_root(square: Tensor, state: dict[str, Any], new_share: Tensor, factored_from: int) -> Tensor:
        """1 / sqrt(v); large matrices keep only the means of v's rows and columns."""
        if square.ndim < 2 or min(square.shape[-2:]) < factored_from:
            return _running_mean(state, "v", square, new_share).rsqrt()
        rows = _running_mean(state, "rows", square.mean(-1, keepdim=True), new_share)  # (...,n,1)
        columns = _running_mean(state, "columns", square.mean(-2, keepdim=True), new_share)  # (...,1,m)
        # v_ij = rows_i columns_j / mean(rows); the product itself would underflow where gradients are tiny
        return (rows / rows.mean(-2, keepdim=True)).rsqrt() * columns.rsqrt()


def _running_mean(state: dict[str, Any], name: str, new: Tensor, new_share: Tensor) -> Tensor:
    mean: Tensor = state.setdefault(name, torch.zeros_like(new))  # the first step's share of the new is 1
    return mean.mul_((1.0 - new_share).to(mean)).addcmul_(new, new_share.to(mean))


def settle_steps(optimizer: Optimizer) -> None:
    """Put the counts of steps of a loaded state where this optimizer counts: they may come from another device."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if "step" in (state := optimizer.state.get(p, {})):
                device = p.device if group["capturable"] else "cpu"
                state["step"] = torch.tensor(float(state["step"]), dtype=torch.float32, device=device)


def learning_rate_factor(step: int, steps: int, warmup: int, schedule: str) -> float:
    """What the learning rate is multiplied by at step 0 … steps-1: a linear rise over `warmup` steps, then
    `constant`, or `linear`: down to zero at the end of the run."""
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    return (steps - step) / max(1, steps - warmup)
