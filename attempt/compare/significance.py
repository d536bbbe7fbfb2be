"""Two paired tests, written out."""

import math
from collections.abc import Sequence


def paired_t(differences: Sequence[float]) -> tuple[float, float] | None:
    """t and its two-sided p-value, for the differences of n >= 2 pairs; None where they are all the same.

    t = mean(d) / (s / sqrt(n)), with s the sample standard deviation, has Student's distribution of n - 1 degrees.
    """
    n = len(differences)
    mean = math.fsum(differences) / n
    s = math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (n - 1))
    if s <= 1e-12 * max(map(abs, differences)):  # rounding aside
        return None
    t = mean / (s / math.sqrt(n))
    return t, two_sided(t, n - 1)


def two_sided(t: float, degrees: int) -> float:
    """P(|T| > |t|) for Student's distribution of a whole number of degrees of freedom.

    The finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4, with theta = atan(|t| / sqrt(degrees)):
        odd   P(|T| < t) = 2/pi (theta + sin(theta) (cos + 2/3 cos^3 + 2*4/(3*5) cos^5 + …))
        even  P(|T| < t) = sin(theta) (1 + 1/2 cos^2 + 1*3/(2*4) cos^4 + …)
    """
    theta = math.atan(abs(t) / math.sqrt(degrees))
    odd = degrees % 2
    term, total = math.cos(theta) if odd else 1.0, 0.0
    for k in range(1 + odd, degrees, 2):  # the powers of cos(theta) up to degrees - 2
        total += term
        term *= math.cos(theta) ** 2 * k / (k + 1)
    inside = math.sin(theta) * total
    return 1 - (2 / math.pi * (theta + inside) if odd else inside)


def mcnemar(first: int, second: int) -> float:
    """Two-sided exact p-value, where the first alone was right `first` times and the second alone `second` times.

    Were they equally good, each of the n = first + second would be a fair coin's: p = 2 sum_{i <= min} C(n,i) / 2^n.
    """
    n = first + second
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(min(first, second) + 1)) / 2**n)
