"""Pieces of a page that stands by itself: no script, nothing to fetch, light or dark as the reader's system is."""

import html
import re
from collections.abc import Iterable, Sequence

from model.errors import one_line

NARROW = 480  # pixels, a column's; wider pictures take two where there are two

# Under the content security policy a browser would refuse to load or run anything, should some text slip through.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""

# The colours of attempt/plots/draw.py are c0 … c6; each has at least 3:1 to its background.
STYLE = """
:root { --paper: #ffffff; --ink: #1c2024; --soft: #5a626b; --grid: #c8cdd3; --stripe: #f5f7f9;
  --c0: #0072b2; --c1: #d55e00; --c2: #00835f; --c3: #b85a8e; --c4: #b07900; --c5: #2f8fc4; --c6: #757575; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #15181c; --ink: #e6e9ec; --soft: #a3acb5; --grid: #3d444c; --stripe: #1d2126;
    --c0: #4ba6e0; --c1: #f08444; --c2: #2fbf92; --c3: #e29bc2; --c4: #f0b429; --c5: #8fd0f5; --c6: #a6a6a6; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 80rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; }
p { max-width: 45rem; }
.box { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.7rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--grid);
  overflow-wrap: normal; }
th { font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; vertical-align: top; }
td { white-space: nowrap; }
tbody th { overflow-wrap: break-word; min-width: 6rem; max-width: min(24rem, 40vw); }
th:first-child, .words th, .words td { text-align: left; }
.words td, .words tbody th { white-space: normal; overflow-wrap: anywhere; min-width: 6rem; max-width: 30rem; }
tbody tr:nth-child(odd) { background: var(--stripe); }
.pictures { display: grid; gap: 1.5rem; grid-auto-flow: dense;
  grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); }
@media (min-width: 52rem) { .pictures > .wide { grid-column: span 2; } }
.pictures > figure { margin: 0; min-width: 0; }
svg { display: block; height: auto; color: var(--ink); }
svg.small { display: inline-block; width: 120px; height: 28px; }
svg.small path { fill: none; stroke: var(--c0); stroke-width: 1.5; } svg.small circle { fill: var(--c0); }
svg.small path.level { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 1 2; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
pre { overflow-x: auto; font-size: 0.8rem; line-height: 1.35; }
summary { cursor: pointer; color: var(--soft); font-size: 0.875rem; }
:focus-visible { outline: 2px solid var(--c0); }
@media print {
  body { max-width: none; padding: 0; } .box { overflow: visible; } details { display: none; }
  table { font-size: 7pt; } th, td { padding: 1pt 3pt; } figure, tr { break-inside: avoid; }
}
"""


def escaped(text: str) -> str:
    """Text of a stranger as text of the page: on one line, nothing in it a tag or the end of an attribute."""
    return html.escape(one_line(text, 300))


def page(title: str, parts: Iterable[str]) -> str:
    return PAGE.format(title=escaped(title), style=STYLE, body="\n".join(part for part in parts if part))


def heading(title: str, note: str = "", level: int = 1) -> str:
    return f"<h{level}>{escaped(title)}</h{level}>{f'<p>{escaped(note)}</p>' if note else ''}"


class Markup(str):
    """A cell that is no text: made here, with no stranger's text in it."""


def cell_of(text: str) -> str:
    return text if isinstance(text, Markup) else escaped(text)


def small_curve(steps: Sequence[int], values: Sequence[float], low: float, high: float, levels: Sequence[float]) -> str:
    """A curve over training steps as a small picture for a cell, its last point a dot; levels: lines across it."""
    width, height, last = 120, 28, max([*steps, 1])
    scale = (height - 6) / (high - low or 1.0)
    points = [(3 + s * (width - 6) / last, height - 3 - (v - low) * scale) for s, v in zip(steps, values, strict=True)]
    lines = [f'<path d="M0 {height - 3 - (v - low) * scale:.1f}h{width}" class="level"/>' for v in levels]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dot = f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="2"/>' if points else ""
    said = f"{values[0]:.2f} to {values[-1]:.2f}" if points else "no evaluation"
    drawn = f'{"".join(lines)}<path d="M{path}"/>{dot}' if points else ""
    return Markup(f'<svg class="small" viewBox="0 0 {width} {height}" role="img" aria-label="{said}">{drawn}</svg>')


def table(title: str, rows: Sequence[Sequence[str]], note: str = "", words: bool = False, strong: bool = False) -> str:
    """A heading and a table that scrolls in a box of its own; "" without rows under the first, the columns' names.

    words: cells to the left. strong: the highest number of each column is bold.
    """
    head, *body = rows
    if not body:
        return ""
    bold = _highest(body) if strong else set()
    cells = "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in head)
    lines = []
    for i, (first, *others) in enumerate(body):
        texts = [f"<b>{escaped(c)}</b>" if (i, j) in bold else cell_of(c) for j, c in enumerate(others)]
        lines.append(f'<tr><th scope="row">{escaped(first)}</th>{"".join(f"<td>{text}</td>" for text in texts)}</tr>')
    return (
        f"{heading(title, note, 2)}"
        f'<div class="box" tabindex="0" role="region" aria-label="{escaped(title)}">'
        f"<table{' class=words' if words else ''}><thead><tr>{cells}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _highest(body: Sequence[Sequence[str]]) -> set[tuple[int, int]]:
    """The places (row, column after the first) of each column's highest first numbers; none of a single number."""
    found = set()
    for j in range(len(body[0]) - 1):
        numbers = {i: float(m[0]) for i, row in enumerate(body) if (m := re.match(r"-?\d+(\.\d+)?", row[j + 1]))}
        if len(numbers) > 1:
            found |= {(i, j) for i, number in numbers.items() if number == max(numbers.values())}
    return found


def picture(title: str, text: str, svg: str | None) -> str:
    """A picture in a box of its own, with its figures as text below; without one the text alone."""
    figures = f"<pre>{html.escape(text)}</pre>"
    if svg is None:
        return f"<figure>{figures}</figure>"
    box = f'<div class="box" tabindex="0" role="region" aria-label="{escaped(title)}">{svg}</div>'
    wide = " class=wide" if svg.startswith('<svg class="wide"') else ""
    return f"<figure{wide}>{box}<details><summary>its figures</summary>{figures}</details></figure>"


def inline(svg: str, title: str, mark: str, colours: dict[str, str]) -> str:
    """A file of matplotlib's as part of the page: its ids begin with `mark`, its colours are the page's."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{mark}-", svg)
    svg = re.sub(r'\bfill="(#[0-9a-f]{6})"', r'style="fill: \1"', svg)  # an attribute could not be a variable
    svg = re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda match: colours.get(match[0], match[0]), svg)
    width = float(re.findall(r'viewBox="0 0 ([\d.]+)', svg)[0]) * 96 / 72  # points to pixels
    kind, least = "wide" if width > NARROW else "narrow", max(300.0, 0.75 * width)
    size = f"width: {width:.0f}px; max-width: 100%; min-width: {least:.0f}px"
    box, rest = re.findall(r'viewBox="([^"]*)"', svg)[0], svg.partition(">")[2]
    return f'<svg class="{kind}" viewBox="{box}" role="img" aria-label="{escaped(title)}" style="{size}">{rest}'
