"""Which T5 something was trained with: a prompt means nothing to another one, though it may be of the same width.

A name does not tell: a folder and a name of the hub may be one T5, and the files in a folder change. So checkpoints
keep some numbers of its embedding.
"""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoint import open_t5
from model.errors import AttemptError

ENTRIES = 16
PIECES = 32_000  # T5's; the rows above are sentinels, spare, or added later
NEAR = 2**-7  # of two numbers of one T5, kept in fp32, fp16 or bf16: bf16 rounds to 8 bits
TINY = 1e-6  # which fp16 rounds more coarsely


def fingerprint(embedding: Tensor) -> list[float]:
    """Numbers from all over a T5's embedding (V,D)."""
    i = torch.arange(ENTRIES, device=embedding.device)
    rows, columns = (i * min(embedding.size(0), PIECES)) // ENTRIES, (i * embedding.size(1)) // ENTRIES
    # seven digits are enough for fp32, and short
    return [float(f"{number:.7g}") for number in embedding[rows, columns].tolist()]


def is_fingerprint(value: object) -> bool:
    return isinstance(value, list) and len(value) == ENTRIES and all(type(n) in (int, float) for n in value)


@dataclass(frozen=True)
class Origin:
    """A T5: its name or folder, and its embedding's fingerprint; None where that is not known."""

    model: str
    embedding: list[float] | None = None

    def differs(self, other: "Origin") -> str:
        """Whether the other is another T5: "is", "may be" where names alone can tell, or "" where it seems the same."""
        if self.embedding is None or other.embedding is None:
            return "may be" if Path(self.model).name.lower() != Path(other.model).name.lower() else ""
        pairs = zip(self.embedding, other.embedding, strict=True)
        return "" if all(math.isclose(a, b, rel_tol=NEAR, abs_tol=TINY) for a, b in pairs) else "is"


def origin_of_model(name: str) -> Origin:
    """Of a checkpoint's folder, from its files; of a name, or a folder without weights, the name alone."""
    try:
        return Origin(name, fingerprint(open_t5(Path(name))[1]["embedding.weight"]))
    except AttemptError:
        return Origin(name)


def warn_of_others(found: Iterable[tuple[object, Origin | None]], used: Origin) -> None:
    """A line for each (place, origin) of another T5 than the one that is used; None: nobody knows."""
    for place, origin in found:
        if origin is not None and (verb := origin.differs(used)):
            print(
                f"warning: {place}: trained with {origin.model}, used with {used.model}, which {verb} another T5"
                f"{'' if verb == 'is' else ' (known only from the names)'}; a prompt of one does not work with another",
                file=sys.stderr,
            )


def check_origin(folder: Path, began: Origin, used: Origin) -> None:
    """Raises AttemptError where a run is to go on with other weights than it began with."""
    if began.differs(used) == "is":
        raise AttemptError(
            f"{folder}: expected the T5 that the run began with, {began.model}, found other weights in {used.model}; "
            "put the former ones back, or start another run with another --out"
        )
