"""Samples of programs that take turns, and tables of them."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

Work = Callable[[], object]
Sampler = Callable[[], float]  # does something once, and says in how many seconds


def alternate(samplers: Mapping[str, Sampler], rounds: int, warmup: int) -> dict[str, list[float]]:
    """The samples, in seconds, of all rounds."""
    *_, found = in_turns(samplers, rounds, warmup)
    return found


def in_turns(samplers: Mapping[str, Sampler], rounds: int, warmup: int) -> Iterator[dict[str, list[float]]]:
    """After each round, the samples so far.

    All take turns in every round, each round beginning with another, so that a drift of the machine meets all alike.
    """
    for _ in range(warmup):
        for sampler in samplers.values():
            sampler()
    found: dict[str, list[float]] = {name: [] for name in samplers}
    names = list(samplers)
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(samplers[name]())
        yield found


def seconds(work: Work, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def sampled(name: str, samples: list[float], base: list[float]) -> dict[str, Any]:
    """A row: the samples in seconds, their median, and how often it fits into the base's."""
    median = statistics.median(samples)
    return {"name": name, "seconds": samples, "median": median, "speedup": statistics.median(base) / median}


def span(samples: list[float]) -> str:
    """Median and extremes, in seconds."""
    return f"{figure(statistics.median(samples))} ({figure(min(samples))} to {figure(max(samples))})"


def figure(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def markdown(rows: list[list[str]]) -> str:
    """A table, the first row its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])
