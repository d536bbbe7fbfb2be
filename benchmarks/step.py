"""A step of prompt tuning, ours and Hugging Face's: python -m benchmarks.step --model t5-small --text-tokens 40 256

A step is what the optimizer's loop does with a batch: forward, backward, clipping, AdamW. Before anything is timed,
all programs must find the same loss and the same gradient of the prompt, without dropout.
"""

import sys
from functools import partial
from typing import Any

import torch

from attempt.errors import AttemptError
from benchmarks.harness import Benchmark, Case, main
from benchmarks.ours import Ours
from benchmarks.peers import Peer
from benchmarks.shapes import operations
from benchmarks.timing import Work
from data.batches import Batch

# Largest relative differences of loss and gradient: rounding in other orders, through random weights.
LIMITS = {"fp32": (1e-4, 5e-3), "bf16": (5e-2, 3e-1)}


def prepare(case: Case, names: list[str], device: torch.device) -> tuple[dict[str, Work], dict[str, Any]]:
    programs, batch = case.programs(names, device), case.batch(device)
    agreement = compare(case, programs, batch) if len(programs) > 1 else {}
    for program in programs.values():
        program.set_dropout(case.dropout)
    return {name: partial(program.step, batch) for name, program in programs.items()}, agreement


def compare(case: Case, programs: dict[str, Ours | Peer], batch: Batch) -> dict[str, str]:
    """How far each program is from the first. Raises AttemptError where that is too far."""
    found = {}
    for name, program in programs.items():
        loss = program.loss(batch)
        torch.autograd.backward(loss)
        found[name] = loss.detach().float(), program.gradient().float()
    (first, (loss, gradient)), *others = found.items()
    agreement = {}
    for name, (its_loss, its_gradient) in others:
        off = abs(its_loss / loss - 1).item(), ((its_gradient - gradient).norm() / gradient.norm()).item()
        if not all(value <= limit for value, limit in zip(off, LIMITS[case.precision], strict=True)):
            raise AttemptError(f"{case}: expected {name} to agree with {first}, found differences of {off}")
        agreement[name] = f"differs from {first} by {off[0]:.1e} of the loss, {off[1]:.1e} of the gradient"
    return agreement


def flops(case: Case, name: str) -> int:
    return operations(case.config, case.prompt_length, case.text_tokens, case.target_tokens, backward=True)


STEP = Benchmark("python -m benchmarks.step", "A training step, ours and Hugging Face's.", "step", prepare, flops)

if __name__ == "__main__":
    sys.exit(main(STEP))
