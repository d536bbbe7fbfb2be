"""Tables, bars and figures for a terminal."""

import math


def table(rows: list[list[str]]) -> str:
    """Columns under each other, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def bars(shares: dict[str, float], width: int = 40) -> str:
    """A line a name, with its share of 1 as a bar of at most `width` characters and as a number."""
    longest = max(map(len, shares))
    return "\n".join(
        f"{name:{longest}}  {share:.3f}  {'█' * round(share * width)}".rstrip() for name, share in shares.items()
    )


def figure(mean: float, deviation: float | None, digits: int = 2) -> str:
    """A mean and, of several values, their deviation; None or NaN is that of a single value."""
    more = "" if deviation is None or math.isnan(deviation) else f" ± {deviation:.{digits}f}"
    return f"{mean:.{digits}f}{more}"
