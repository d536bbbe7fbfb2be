"""The order in which a matrix of similarities shows its groups (as in Vu et al. 2022, fig. 3)."""

import numpy as np
from numpy.typing import NDArray


def leaf_order(similarity: NDArray[np.float64]) -> list[int]:
    """The rows of a symmetric matrix (N,N) of similarities, like ones next to each other.

    Again and again the two clusters A, B with the largest mean similarity

        s(A, B) = 1/(|A||B|) sum_{i in A, j in B} s_ij

    become one (UPGMA); of the two, the one that is older stands to the left.
    """
    clusters = [[i] for i in range(len(similarity))]  # in the order in which they came to be
    while len(clusters) > 1:
        pairs = [(a, b) for b in range(len(clusters)) for a in range(b)]
        a, b = max(pairs, key=lambda pair: similarity[np.ix_(clusters[pair[0]], clusters[pair[1]])].mean())
        joined = clusters[a] + clusters[b]
        clusters = [cluster for i, cluster in enumerate(clusters) if i not in (a, b)] + [joined]
    return clusters[0] if clusters else []
