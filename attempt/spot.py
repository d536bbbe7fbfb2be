"""SPoT's retrieval (Vu et al. 2022, sec. 3): which task's prompt is near to another's, and so worth starting from.

    python -m attempt.spot runs/*-prompt-t5-base --target runs/rte-prompt-t5-base --save ranking.tsv

ranks the other prompts by their similarity to the target's; without --target it prints every prompt's similarity to
every other. Vu et al. compare prompts after 10,000 steps each and start from the sources' best ones; here the prompts
that are given are both compared and started from.
Shapes: L prompt length, D model width, N prompts.
"""

import json
import re
import runpy
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from attempt.checkpoint import unique
from model.errors import AttemptError
from model.files import write_whole

TRANSFERS = ("best", "average", "mixture")
SIMILARITIES = ("average", "tokens")


def similarity(a: Tensor, b: Tensor, measure: str) -> float:
    """How alike two prompts (L,D) are, from -1 to 1; their lengths may differ.

    average  cos(mean_i a_i, mean_j b_j)       "cosine similarity of average tokens"
    tokens   1/L^2 sum_ij cos(a_i, b_j)        "per-token average cosine similarity"
    """
    a, b = a.double(), b.double()
    if measure == "average":
        return F.cosine_similarity(a.mean(0), b.mean(0), dim=0).item()
    # the mean of all products of unit rows is the product of their means
    return (F.normalize(a, dim=1).mean(0) @ F.normalize(b, dim=1).mean(0)).item()


def rank(target: Tensor, sources: Tensor, measure: str) -> list[tuple[int, float]]:
    """The sources (N,L,D) by their similarity to the target (L,D), the nearest first: (position, similarity)."""
    pairs = [(i, similarity(target, source, measure)) for i, source in enumerate(sources)]
    return sorted(pairs, key=lambda pair: -pair[1])


def matrix(prompts: Tensor, measure: str) -> Tensor:
    """Every prompt's similarity to every other: (N,L,D) -> (N,N)."""
    return torch.tensor([[similarity(a, b, measure) for b in prompts] for a in prompts])


def weighted_average(sources: Tensor, similarities: list[float]) -> Tensor:
    """sum_i s_i P_i / sum_i s_i, of sources P (N,L,D): one prompt (L,D). A source with s_i below 0 is left out."""
    weights = torch.tensor(similarities, dtype=sources.dtype).clamp(min=0)
    if weights.sum() == 0:
        raise AttemptError(
            "--transfer average: expected a source that is similar to the target, found similarities "
            f"{', '.join(f'{s:.3f}' for s in similarities)}; use --transfer best, or other sources"
        )
    return torch.einsum("n,nld->ld", weights / weights.sum(), sources)


def file_names(names: list[str]) -> list[str]:
    """The names, each once, and fit for files and tables."""
    return unique([re.sub(r"[^\w.+-]+", "_", name).lstrip(".") or "prompt" for name in names])


def compare(prompts: Tensor, names: list[str], target: Tensor | None, measure: str) -> list[list[str]]:
    """The table that the command prints and saves, its first row the columns' names."""
    if target is None:
        rows = [[name, *(f"{s:.4f}" for s in row)] for name, row in zip(names, matrix(prompts, measure), strict=True)]
        return [[measure, *names], *rows]
    both = [dict(rank(target, prompts, kind)) for kind in SIMILARITIES]
    order = [i for i, _ in rank(target, prompts, measure)]
    return [["source", *SIMILARITIES], *([names[i], *(f"{kind[i]:.4f}" for kind in both)] for i in order)]


def save(path: Path, rows: list[list[str]]) -> None:
    """As JSON, one object a row, for a name in .json; else as a table with tabs."""
    if path.suffix == ".json":
        records = [{rows[0][0]: row[0], **dict(zip(rows[0][1:], map(float, row[1:]), strict=True))} for row in rows[1:]]
        text = json.dumps(records, indent=2, ensure_ascii=False) + "\n"
    else:
        text = "".join("\t".join(row) + "\n" for row in rows)
    write_whole(path, text.encode("utf-8"))


if __name__ == "__main__":  # the program stands on a higher floor
    runpy.run_module("attempt.compare.similarity", run_name="__main__")
