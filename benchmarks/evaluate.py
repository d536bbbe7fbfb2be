"""Answers, ours and Hugging Face's: python -m benchmarks.evaluate --model t5-small --text-tokens 40 256 --dropout 0

A sample answers a batch: greedily with 10 tokens, as the usual recipe does; with as many as a label has, as train.py
does; and, ours alone, by the most probable of two labels. Before anything is timed, the answers must be the same.
"""

import sys
from functools import partial
from typing import Any

import torch

from attempt.errors import AttemptError
from benchmarks.harness import Benchmark, Case, main
from benchmarks.ours import Ours
from benchmarks.shapes import operations
from benchmarks.timing import Work

LONG = 10
# Least shares of equal tokens: with random weights two tokens are at times nearly as probable as each other.
LIMITS = {"fp32": 0.99, "bf16": 0.0}


def prepare(case: Case, names: list[str], device: torch.device) -> tuple[dict[str, Work], dict[str, Any]]:
    programs, batch = case.programs(names, device), case.batch(device)
    labels = batch.labels[:2]  # (2,T)
    works: dict[str, Work] = {}
    for name, program in programs.items():
        for length in sorted({LONG, case.target_tokens}, reverse=True):
            works[f"{name}: {length} tokens"] = partial(program.generate, batch, length)
        if isinstance(program, Ours):
            works[f"{name}: {len(labels)} labels"] = partial(program.label_scores, batch, labels)
    agreement = {}
    (first, base), *others = programs.items()
    if others:
        answers, scores = base.generate(batch, LONG), base.label_scores(batch, labels)
        for name, program in others:
            same = equal_share(program.generate(batch, LONG), answers)
            off = (program.label_scores(batch, labels) - scores).abs().max().item()
            if same < LIMITS[case.precision] or (case.precision == "fp32" and off > 1e-2):
                raise AttemptError(
                    f"{case}: expected the answers of {name} to be those of {first}, found {100 * same:.1f} % of the "
                    f"tokens equal, and labels' log-probabilities that differ by {off:.1e}"
                )
            agreement[name] = (
                f"{100 * same:.1f} % of the tokens are those of {first}, labels' log-probabilities differ by {off:.1e}"
            )
    return works, agreement


def equal_share(a: torch.Tensor, b: torch.Tensor) -> float:
    """Share of equal tokens of two sets of answers (B,T), one of which may have ended earlier."""
    width = max(a.size(1), b.size(1))
    a, b = (torch.nn.functional.pad(x, (0, width - x.size(1))) for x in (a, b))
    return (a == b).float().mean().item()


def flops(case: Case, name: str) -> int:
    """Of an answer of as many tokens as the row's name says; two labels are twice the target's."""
    count = LONG if f": {LONG} tokens" in name else case.target_tokens * (2 if name.endswith("labels") else 1)
    return operations(case.config, case.prompt_length, case.text_tokens, count, backward=False)


EVALUATE = Benchmark("python -m benchmarks.evaluate", "Answers, ours and Hugging Face's.", "batch", prepare, flops)

if __name__ == "__main__":
    sys.exit(main(EVALUATE))
