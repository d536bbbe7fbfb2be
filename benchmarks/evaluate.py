"""Answers, ours and Hugging Face's: python -m benchmarks.evaluate --model t5-small --text-tokens 40 256 --dropout 0

A sample answers a batch: greedily with 10 tokens, as the usual recipe does; with as many as a label has, as train.py
does; and, ours alone, by the most probable of two labels. The peer has, besides its usual cache, a static one, and then
compiled steps too. Before anything is timed, the answers of all programs of a method must be the same.
"""

import sys
from functools import partial

import torch
from torch import Tensor

from benchmarks.harness import Benchmark, Case, main, parts_of
from benchmarks.ours import Ours
from benchmarks.peers import Peer
from benchmarks.shapes import operations
from benchmarks.timing import Work
from model.errors import AttemptError

LONG = 10
# Least shares of equal tokens: with random weights two tokens are at times nearly as probable as each other.
LIMITS = {"fp32": 0.99, "bf16": 0.0}


def prepare(
    case: Case, names: list[str], device: torch.device, compares: bool
) -> tuple[dict[str, Work], dict[str, str]]:
    programs, works = case.programs(names, device), dict[str, Work]()
    for name, program in programs.items():
        batch = case.batch(device, name)
        labels = batch.labels[:2]  # (2,T)
        for length in sorted({LONG, case.target_tokens}, reverse=True):
            works[f"{name}: {length} tokens"] = partial(program.generate, batch, length)
        if isinstance(program, Ours):
            works[f"{name}: {len(labels)} labels"] = partial(program.label_scores, batch, labels)
    return works, compare(case, programs, device) if compares and len(programs) > 1 else {}


def compare(case: Case, programs: dict[str, Ours | Peer], device: torch.device) -> dict[str, str]:
    """How far the answers of each are from the first one's of its method. Raises AttemptError where that is too far."""
    firsts: dict[str, tuple[str, Tensor, Tensor]] = {}
    agreement = {}
    for name, program in programs.items():
        batch = case.batch(device, name)
        answers, scores = program.generate(batch, LONG), program.label_scores(batch, batch.labels[:2])
        first, base, base_scores = firsts.setdefault(parts_of(name)[1], (name, answers, scores))
        if first == name:
            continue
        same, off = equal_share(answers, base), (scores - base_scores).abs().max().item()
        if same < LIMITS[case.precision] or (case.precision == "fp32" and off > 1e-2):
            raise AttemptError(
                f"{case}: expected the answers of {name} to be those of {first}, found {100 * same:.1f} % of the "
                f"tokens equal, and labels' log-probabilities that differ by {off:.1e}"
            )
        agreement[name] = (
            f"{100 * same:.1f} % of the tokens are those of {first}, labels' log-probabilities differ by {off:.1e}"
        )
    return agreement


def equal_share(a: Tensor, b: Tensor) -> float:
    """Share of equal tokens of two sets of answers (B,T), one of which may have ended earlier."""
    width = max(a.size(1), b.size(1))
    a, b = (torch.nn.functional.pad(x, (0, width - x.size(1))) for x in (a, b))
    return (a == b).float().mean().item()


def flops(case: Case, name: str) -> int:
    """Of an answer of as many tokens as the row's name says; two labels are twice the target's."""
    count = LONG if f": {LONG} tokens" in name else case.target_tokens * (2 if name.endswith("labels") else 1)
    return operations(case.config, case.prompt_length, case.text_tokens, count, backward=False)


EVALUATE = Benchmark(
    "python -m benchmarks.evaluate",
    "Answers, ours and Hugging Face's.",
    "batch",
    ("hugging face", "hugging face, static", "hugging face, static, compiled"),
    prepare,
    flops,
)

if __name__ == "__main__":
    sys.exit(main(EVALUATE))
