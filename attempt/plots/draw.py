"""Draw the pictures of attempt/plots/pictures.py with matplotlib, the extra [plots]; nothing else here needs it.

Every quantity differs in more than its colour (marker, dash, hatch, a number), so that a print in grey can be read too.
The colours are those of Okabe and Ito (2008), which the colour-blind tell apart.
"""

import io
import math
import textwrap
import warnings
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator

from attempt.plots.pictures import AttentionMap, Curves, Numbers, Panel, Picture, Results, Similarity
from attempt.runs.report import METHODS
from model.errors import one_line

# In the order of METHODS (attempt/runs/report.py): a method keeps its colour.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++", "oo")
INK, GRID, PAPER = "#1c2024", "#c8cdd3", "#fefefe"
CONSTANT: dict[str, Any] = {"color": COLOURS[6], "linestyle": (0, (1, 1.5)), "linewidth": 1.6, "zorder": 1.5}
SCALE = LinearSegmentedColormap.from_list("blues", ["#f3f7fb", "#9ecae1", "#3182bd", "#08305e"])
NARROW = 4.2  # inches: still legible on a phone
POINTS = 200  # examples drawn one by one
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.labelsize": 9,
    "figure.titlesize": 9.5,
    "legend.fontsize": 8,
    "text.parse_math": False,  # a task may be called $x$
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "lines.markersize": 4,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "attempt",  # the same picture is the same file
}


def rendered(picture: Picture, kind: str, transparent: bool = False) -> bytes:
    """The picture as a file, on white unless it is to be a part of a page: kind is png, svg or pdf."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")  # a stranger's script is drawn as boxes
        buffer = io.BytesIO()
        dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
        drawn(picture).savefig(buffer, format=kind, dpi=200, metadata=dates.get(kind), transparent=transparent)
        return buffer.getvalue()


def drawn(picture: Picture) -> Figure:
    with mpl.rc_context(STYLE):
        if isinstance(picture, AttentionMap):
            return _attention_map(picture)
        if isinstance(picture, Similarity):
            return _similarity(picture)
        return _curves(picture) if isinstance(picture, Curves) else _results(picture)


def looks(methods: Sequence[str]) -> list[tuple[int, int]]:
    """For each curve or row of bars its colour, and what tells it from others of that colour: a number.

    Where there are several methods the colour is the method's; else those of one method have a colour each.
    """
    known = [list(METHODS).index(method) if method in METHODS else 0 for method in methods]
    if len(set(methods)) > 1:
        return [(colour, known[:i].count(colour)) for i, colour in enumerate(known)]
    return [((first + i) % 7, i // 7) for i, first in enumerate(known)]


def _figure(title: str, width: float, height: float) -> Figure:
    fig = Figure((width, height), layout="constrained")
    fig.suptitle(textwrap.fill(one_line(title, 300), round(width * 14)))
    return fig


def short(name: str, most: int = 24) -> str:
    """Without its middle, if it is too long: labels of runs begin alike."""
    name = one_line(name, 200)
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"


def _attention_map(picture: AttentionMap) -> Figure:
    """The means as a map; below, for each target with known instances, a box and points for every prompt."""
    T, P = picture.weights.shape
    boxes = [name for name in picture.targets if name in picture.instances]
    turned = _turned(picture.prompts)
    heights = [0.5 + turned + 0.34 * T, *(1.7 + turned for _ in boxes)]
    names = 0.065 * min(24, max(map(len, picture.targets)))  # inches
    fig = _figure(picture.title, max(NARROW, 1.0 + names + 0.52 * P), sum(heights) + 1.0)
    axes = fig.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _map(axes[0], picture.weights, picture.targets, picture.prompts, 0.0, 1.0)
    axes[0].set_ylabel("target task")
    for ax, target in zip(axes[1:], boxes, strict=True):
        _boxes(ax, picture.instances[target], picture.prompts)
        ax.set_ylabel(textwrap.fill(f"weight, each of {short(target)}'s examples", 24))
    axes[-1].set_xlabel("prompt (target: its own)")
    return fig


def _map(ax: Axes, values: Numbers, rows: Sequence[str], columns: Sequence[str], low: float, high: float) -> None:
    """A number in every cell, on its colour."""
    ax.pcolormesh(np.ma.masked_invalid(values), cmap=SCALE, vmin=low, vmax=high, edgecolors=PAPER, linewidth=1)
    ax.set_xticks(np.arange(len(columns)) + 0.5, [short(name) for name in columns])
    ax.set_yticks(np.arange(len(rows)) + 0.5, [textwrap.fill(short(name, 44), 24) for name in rows])
    _turn(ax, columns)
    ax.invert_yaxis()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    for (i, j), value in np.ndenumerate(values):
        text, colour = (
            ("-", INK)
            if math.isnan(value)
            else (f"{round(value, 2) + 0.0:.2f}", _legible((value - low) / (high - low)))
        )
        ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=8, color=colour)


def _legible(share: float) -> str:
    """Black or white, whichever has the greater contrast with the colour of SCALE."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in SCALE(share)[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]  # WCAG 2.2, relative luminance
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def _turned(names: Sequence[str]) -> float:
    """The inches that the turned names of columns take; 0 for short ones, which stand upright."""
    longest = max(len(short(name)) for name in names)
    return 0.055 * longest if longest > 6 else 0.0


def _turn(ax: Axes, names: Sequence[str]) -> None:
    """Names that are too wide to stand beside each other are turned."""
    if _turned(names):
        ax.tick_params("x", rotation=45)
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def _boxes(ax: Axes, weights: Numbers, prompts: Sequence[str]) -> None:
    """(N,P): quartiles as boxes, whiskers from 5 to 95 %, and up to POINTS examples, evenly taken, as points."""
    places = np.arange(len(prompts)) + 0.5
    line = {"color": INK, "linewidth": 0.9}
    ax.boxplot(weights, positions=places, whis=(5, 95), widths=0.55, showfliers=False, patch_artist=True,
               manage_ticks=False, boxprops={"facecolor": COLOURS[5], "alpha": 0.55, "edgecolor": INK},
               medianprops={**line, "linewidth": 1.6}, whiskerprops=line, capprops=line)  # fmt: skip
    some = weights[:: math.ceil(len(weights) / POINTS)]
    jitter = np.random.default_rng(0).uniform(-0.2, 0.2, some.shape)
    ax.plot((places + jitter).ravel(), some.ravel(), ".", color=COLOURS[0], markersize=2, alpha=0.5)
    for place, deviation in zip(places, weights.std(0), strict=True):
        ax.text(place, 1.04, f"sd {deviation:.2g}", ha="center", va="bottom", fontsize=7)
    ax.set_xticks(places, [short(name) for name in prompts])
    _turn(ax, prompts)
    ax.set_xlim(0, len(prompts))
    ax.set_ylim(-0.03, 1.03)
    ax.grid(axis="y")


def _similarity(picture: Similarity) -> Figure:
    size = max(NARROW, 1.6 + 0.42 * len(picture.names))
    fig = _figure(picture.title, size, size + 0.2 + _turned(picture.names) - 0.3)
    ax = fig.subplots()
    _map(ax, picture.values, picture.names, picture.names, min(0.0, float(picture.values.min())), 1.0)
    ax.set_xlabel("prompt, in the order of average-linkage clustering")
    ax.set_ylabel("prompt")
    return fig


def _curves(picture: Curves) -> Figure:
    labels = [line.label for line in picture.panels[0].lines]
    fig = _figure(picture.title, NARROW, 0.9 + 1.8 * len(picture.panels) + 0.16 * len(labels))
    axes = fig.subplots(len(picture.panels), 1, squeeze=False, sharex=True)[:, 0]
    for ax, panel in zip(axes, picture.panels, strict=True):
        _panel(ax, panel)
    axes[-1].set_xlabel("training step")
    runs = {line.seeds for panel in picture.panels for line in panel.lines}
    handles, names = axes[0].get_legend_handles_labels()
    if len(runs) > 1:
        counts = [f" ({line.seeds})" for line in picture.panels[0].lines]
        names = [f"{name}{count}" for name, count in zip_longest(names, counts, fillvalue="")]  # a constant has none
    count = f"{max(runs)} runs" if len(runs) == 1 else "(n) runs"
    title = f"band: mean ± deviation over {count}" if max(runs) > 1 else None
    _legend(fig, handles, names, title)
    return fig


def _legend(fig: Figure, handles: Sequence[Any], names: Sequence[str], title: str | None = None) -> None:
    """Below the picture, in as many columns as there is room for."""
    columns = max(1, min(3, 42 // max(map(len, names), default=1)))
    fig.legend(handles, names, loc="outside lower center", ncols=columns, title=title, title_fontsize=8)


def _panel(ax: Axes, panel: Panel) -> None:
    for (colour, n), line in zip(looks([line.method for line in panel.lines]), panel.lines, strict=True):
        # two of one colour have another marker, or, seven curves further, another dash
        marker, dash = MARKERS[(colour + n) % 7], DASHES[(colour + n % 7 + n // 7) % 4]
        style = {"color": COLOURS[colour], "marker": marker, "linestyle": dash}
        name = textwrap.fill(one_line(line.label, 200), 60)  # whole: its end may be what tells it from others
        ax.plot(line.steps, line.mean, label=name, linewidth=1.4, **style)  # type: ignore[arg-type]
        if np.isfinite(line.deviation).any():
            low, high = line.mean - line.deviation, line.mean + line.deviation
            ax.fill_between(line.steps, low, high, color=COLOURS[colour], alpha=0.18, linewidth=0)
    for i, value in enumerate(panel.constant):
        ax.axhline(value, label="constant answer" if i == 0 else None, **CONSTANT)
    ax.set_ylabel(panel.unit)
    if panel.from_zero:
        ax.set_ylim(bottom=0)
    steps = sorted({step for line in panel.lines for step in line.steps})
    ax.xaxis.set_major_locator(FixedLocator(steps, nbins=6))  # at evaluations, at most seven of them
    ax.grid()


def _results(picture: Results) -> Figure:
    """Bars from 0 with a whisker of one deviation up and down, and a ring for every run."""
    T, G = len(picture.tasks), len(picture.groups)
    present = [[one for one in picture.groups if picture.values.get((one, task))] for task in picture.tasks]
    most = max(map(len, present))  # bars of a task
    halo = [withStroke(linewidth=2.4, foreground=PAPER)]
    whisker = {"ecolor": INK, "capsize": 3, "linewidth": 1, "path_effects": halo}
    fig = _figure(picture.title, max(NARROW, 0.8 + T * (0.24 * most + 0.3)), 2.9 + 0.17 * G)
    ax = fig.subplots()
    for (colour, n), group in zip(looks(picture.methods), picture.groups, strict=True):
        having = [t for t, groups in enumerate(present) if group in groups]
        values = [picture.values[group, picture.tasks[t]] for t in having]
        places = np.array([t + (present[t].index(group) - (len(present[t]) - 1) / 2) * 0.8 / most for t in having])
        heights = [float(np.mean(v)) for v in values]
        errors = [float(np.std(v, ddof=1)) if len(v) > 1 else math.nan for v in values]
        look: dict[str, Any] = {
            "color": COLOURS[colour],
            "hatch": HATCHES[(colour + n) % 7],
            "edgecolor": "#ffffff",
            "linewidth": 0,
        }
        ax.bar(places, heights, 0.74 / most, yerr=errors, error_kw=whisker, label=short(group, 40), **look)
        for place, several in zip(places, values, strict=True):
            if len(several) > 1:
                ax.plot([place] * len(several), several, "o", markersize=3.5, color=PAPER, markeredgecolor=INK)
    levels = [(t, value) for t, task in enumerate(picture.tasks) for value in picture.constants.get(task, [])]
    if levels:
        where, high = np.array(levels).T
        ax.hlines(high, where - 0.45, where + 0.45, label="constant answer", **CONSTANT)
    notes = [note.replace(", ", "\nn = ").removesuffix(" examples") for note in picture.notes]
    ax.set_xticks(range(T), [f"{short(task, 16)}\n{note}" for task, note in zip(picture.tasks, notes, strict=True)])
    lowest = min((value for values in picture.values.values() for value in values), default=0.0)
    ax.set_ylim(min(0.0, lowest * 1.05), 100)
    ax.set_ylabel("score (%)")
    ax.grid(axis="y")
    _legend(fig, *ax.get_legend_handles_labels())
    return fig
