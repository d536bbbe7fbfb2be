"""A training step, ours and Hugging Face's: python -m benchmarks.step --model t5-small --text-tokens 40 256

A step is what the optimizer's loop does with a batch: forward, backward, clipping, AdamW. Before anything is timed,
all programs of a method must find the same loss and the same gradient of what it trains, without dropout.
"""

import sys
from functools import partial

import torch
from torch import Tensor

from attempt.baselines import METHODS as BASELINES
from benchmarks.harness import Benchmark, Case, main, parts_of
from benchmarks.ours import Ours
from benchmarks.peers import Peer
from benchmarks.shapes import operations
from benchmarks.timing import Work
from model.errors import AttemptError

# Largest relative differences of loss and gradient: rounding in other orders, through random weights.
LIMITS = {"fp32": (1e-4, 5e-3), "bf16": (5e-2, 3e-1)}


def prepare(
    case: Case, names: list[str], device: torch.device, compares: bool
) -> tuple[dict[str, Work], dict[str, str]]:
    programs, works = case.programs(names, device), dict[str, Work]()
    agreement = compare(case, programs, device) if compares and len(programs) > 1 else {}
    for name, program in programs.items():
        program.set_dropout(case.dropout)
        works[name] = partial(program.step, case.batch(device, name))
    return works, agreement


def compare(case: Case, programs: dict[str, Ours | Peer], device: torch.device) -> dict[str, str]:
    """How far each program is from the first of its method. Raises AttemptError where that is too far."""
    firsts: dict[str, tuple[str, Tensor, Tensor]] = {}
    agreement = {}
    for name, program in programs.items():
        loss = program.loss(case.batch(device, name))
        torch.autograd.backward(loss)
        gradient, loss = program.gradient(), loss.detach().float()
        first, base_loss, base = firsts.setdefault(parts_of(name)[1], (name, loss, gradient))
        if first == name:
            continue
        off = abs(loss / base_loss - 1).item(), ((gradient - base).norm() / base.norm()).item()
        if not all(value <= limit for value, limit in zip(off, LIMITS[case.precision], strict=True)):
            raise AttemptError(f"{case}: expected {name} to agree with {first}, found differences of {off}")
        agreement[name] = f"differs from {first} by {off[0]:.1e} of the loss, {off[1]:.1e} of the gradient"
    return agreement


def flops(case: Case, name: str) -> int:
    trained = parts_of(name)[1] == "finetune"
    length = 0 if parts_of(name)[1] in BASELINES else case.prompt_length
    return operations(case.config, length, case.text_tokens, case.target_tokens, backward=True, trained=trained)


STEP = Benchmark(
    "python -m benchmarks.step",
    "A training step, ours and Hugging Face's.",
    "step",
    ("hugging face", "hugging face, compiled"),
    prepare,
    flops,
)

if __name__ == "__main__":
    sys.exit(main(STEP))
