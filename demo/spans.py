"""Span corruption (Raffel et al. 2020, sec. 3.1.4), and the unigram model that its loss is compared with."""

from itertools import pairwise
from random import Random

import numpy as np
from numpy.typing import NDArray

NOISE = 0.15  # share of the tokens that are hidden
MEAN_SPAN = 3.0  # tokens


def corrupt(ids: list[int], vocabulary: int, rng: Random) -> tuple[list[int], list[int]]:
    """(text with a sentinel for each hidden span, the spans after their sentinels and a last sentinel).

    vocabulary: pieces and sentinels; the first sentinel is its last id.
    """
    hidden = min(max(round(len(ids) * NOISE), 1), len(ids) - 1)
    spans = min(max(round(hidden / MEAN_SPAN), 1), len(ids) - hidden)
    noise, kept = _segments(hidden, spans, rng), _segments(len(ids) - hidden, spans, rng)
    source: list[int] = []
    target: list[int] = []
    at = 0
    for i, (keep, hide) in enumerate(zip(kept, noise, strict=True)):
        sentinel = vocabulary - 1 - i
        source += [*ids[at : at + keep], sentinel]
        target += [sentinel, *ids[at + keep : at + keep + hide]]
        at += keep + hide
    return source, [*target, vocabulary - 1 - spans]


def _segments(total: int, count: int, rng: Random) -> list[int]:
    """`total` cut at random into `count` parts of at least 1."""
    cuts = [0, *sorted(rng.sample(range(1, total), count - 1)), total]
    return [b - a for a, b in pairwise(cuts)]


def unigram_loss(train: NDArray[np.int32], held_out: NDArray[np.int32], vocabulary: int) -> float:
    """Nats per token of the frequencies of `train`, one added to each count, on `held_out`."""
    counts = np.bincount(train, minlength=vocabulary) + 1.0
    return float(-np.log(counts / counts.sum())[held_out].mean())
