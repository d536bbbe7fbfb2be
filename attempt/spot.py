"""SPoT's retrieval (Vu et al. 2022, sec. 3): which task's prompt is near to another's, and so worth starting from.

    python -m attempt.spot runs/*-prompt-t5-base --target runs/rte-prompt-t5-base --save ranking.tsv

ranks the other prompts by their similarity to the target's; without --target it prints every prompt's similarity to
every other. Vu et al. compare prompts after 10,000 steps each and start from the sources' best ones; here the prompts
that are given are both compared and started from.
Shapes: L prompt length, D model width, N prompts.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from attempt.checkpoint import BEST, LAST, load_sources, unique
from attempt.errors import AttemptError, exit_status
from attempt.files import write_whole
from attempt.flags import Parser
from attempt.foreign import ADAPTER_FILES
from attempt.report import table

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


def place_of(path: Path) -> Path:
    """The run's or adapter's folder, be it named by itself or by a checkpoint in it; of another file itself."""
    path = path.resolve()
    inside = path.name in (BEST, LAST, *ADAPTER_FILES)
    return path.parent if inside and path.is_file() else path


def run(argv: Sequence[str] | None) -> None:
    parser = Parser(
        prog="python -m attempt.spot", description="Similarities of prompts, SPoT's guide to which one to start from."
    )
    add = parser.add_argument
    add("prompts", nargs="+", type=Path, metavar="PATH", help="run folders or prompt files")
    add("--target", type=Path, metavar="PATH", help="rank the others by their similarity to this run's or file's")
    add(
        "--similarity",
        choices=SIMILARITIES,
        default="average",
        help="average: of the mean rows; tokens: the mean over all pairs of rows (default: %(default)s)",
    )
    add("--save", type=Path, metavar="FILE", help="write the table too, as .json or else with tabs")
    given = parser.parse_args(argv)

    paths = given.prompts
    if given.target is not None:  # it is as similar to itself as can be
        paths = [path for path in paths if place_of(path) != place_of(given.target)]
        if not paths:
            raise AttemptError(f"{given.target}: expected prompts besides the target, found it alone; name some")
    prompts, names = load_sources(paths)
    target = None
    if given.target is not None:
        targets, own = load_sources([given.target])
        if len(own) != 1:
            raise AttemptError(f"{given.target}: expected one prompt as the target, found {', '.join(own)}")
        if targets.size(2) != prompts.size(2):
            raise AttemptError(
                f"{given.target}: expected a prompt of width {prompts.size(2)} like {paths[0]}, "
                f"found width {targets.size(2)}; similar prompts are prompts of one model"
            )
        target = targets[0]
    rows = compare(prompts, file_names(names), target, given.similarity)
    print(table(rows))
    if given.save:
        save(given.save, rows)
        print(f"saved in {given.save}")


def main(argv: Sequence[str] | None = None) -> int:
    return exit_status("python -m attempt.spot", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
