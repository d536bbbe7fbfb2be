"""One page about a folder of runs, with its tables and pictures: python -m attempt.report_html runs

It stands by itself, and what comes from the runs is escaped in it (page.py). Pictures need the extra [plots];
without it they are text.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attempt.checkpoint import BEST, load_prompt
from attempt.command.flags import Parser
from attempt.command.options import spelled, spoken
from attempt.compare.records import (
    Group,
    Record,
    differing,
    differing_on_a_task,
    group,
    read_all,
    read_summaries,
)
from attempt.plots.pictures import (
    Picture,
    attention_maps,
    learning_curves,
    mixture_curves,
    results,
    several,
    similarity_matrix,
)
from attempt.plots.plots import INSTALL, can_draw
from attempt.report_html.page import heading, inline, page, picture, small_curve, table
from attempt.runs.kept import is_kept
from attempt.runs.report import METHODS, dependence, figure
from attempt.spot import matrix
from attempt.training.series import Summary
from model.errors import AttemptError, exit_status
from model.files import write_whole

MOST_PROMPTS = 40  # in a matrix of similarities
MOST = 12  # settings that are drawn in one picture; of more each has a small one, in a table

Rows = list[list[str]]


def report(folder: Path) -> str:
    """The page. Raises AttemptError where the folder has no runs at all."""
    records, damaged = read_all([folder])
    summaries, groups = read_summaries(folder, damaged), group(records)
    done = sum(record.result is not None for record in records)
    title = f"The runs in {folder.resolve().name}{'/' * folder.is_dir()}"
    sizes = f"{len(records)} runs, {done} of them complete" + (f"; not readable: {len(damaged)}" if damaged else "")
    note = "Scores in percent, ± the sample deviation over the runs (their number). Bold is a column's highest mean."
    found = pictures(groups, damaged)
    parts = [
        heading(title, f"{sizes}. {note}"),
        *(table(one.title, one.rows(), strong=True) for split in ("test", "dev") for one in results(groups, split)),
        *([heading("Pictures", "" if can_draw() else f"As text: {INSTALL} draws them.", 2)] if found else []),
        f'<div class="pictures">{"".join(drawing(one, f"p{i}") for i, one in enumerate(found))}</div>',
        *(small_pictures(groups) if len(groups) > MOST else []),
        table("All runs", run_rows(records, folder)),
        table("Settings that differ", setting_rows(groups), words=True),
        table("Series, as their summary.json has them", series_rows(summaries, folder)),
        table(
            "Not readable",
            [["where", "why"], *([relative(path, folder), why] for path, why in damaged.items())],
            words=True,
        ),
    ]
    return page(title, parts)


def pictures(groups: Sequence[Group], damaged: dict[Path, str]) -> list[Picture]:
    if len(groups) > MOST:
        return [*attention_maps(groups), *similarities(groups, damaged)]
    found: list[Picture] = [*results(groups, "test"), *attention_maps(groups)]
    return [*found, *learning_curves(groups), *mixture_curves(groups), *similarities(groups, damaged)]


def small_pictures(groups: Sequence[Group]) -> list[str]:
    """For each task a table of its settings, each with its curve; all curves of a task have one scale."""
    found = []
    for one in learning_curves(groups):
        panel = one.panels[0]
        reached = [float(value) for curve in panel.lines for value in curve.mean]
        low, high = min([*reached, *panel.constant]), max([*reached, *panel.constant])
        rows = [["settings", "runs", "best", "over the steps", "to step"]]
        for curve in panel.lines:
            drawn = small_curve(curve.steps, curve.mean.tolist(), low, high, panel.constant)
            best, last = (f"{curve.mean.max():.2f}", f"{curve.steps[-1]:,}") if curve.steps else ("-", "-")
            rows.append([curve.label, str(curve.seeds), best, drawn, last])
        constant = f"; dotted: a constant answer, {several(panel.constant)}" if panel.constant else ""
        found.append(table(one.title, rows, f"{panel.unit}, from {low:.2f} to {high:.2f}{constant}."))
    return found


def drawing(one: Picture, mark: str) -> str:
    if not can_draw():
        return picture(one.title, one.text(), None)
    from attempt.plots.draw import COLOURS, GRID, INK, PAPER, rendered  # noqa: PLC0415 - loaded only to draw

    colours = {colour: f"var(--c{i})" for i, colour in enumerate(COLOURS)}
    colours |= {INK: "var(--ink)", GRID: "var(--grid)", PAPER: "var(--paper)"}
    return picture(
        one.title, one.text(), inline(rendered(one, "svg", transparent=True).decode("utf-8"), one.title, mark, colours)
    )


def similarities(groups: Sequence[Group], damaged: dict[Path, str]) -> list[Picture]:
    """How alike the prompts are that were trained by themselves, and the sources that were mixed: of one shape each."""
    shapes: dict[tuple[int, ...], dict[str, Tensor]] = {}
    for one in groups:
        path = one.runs[0].folder / BEST
        if one.plan.method not in ("prompt", "spot", "attempt") or not path.exists():
            continue
        try:
            prompt, config = load_prompt(path)
        except AttemptError as e:
            damaged[path] = str(e)
            continue
        names, tensors = [f"{name} {one.label}" for name in config.names], prompt.target.detach()
        if prompt.sources is not None:
            names, tensors = [f"{name} (source)" for name in config.sources], prompt.sources
        for name, tensor in zip(names, tensors, strict=True):
            shapes.setdefault(tuple(tensor.shape), {}).setdefault(name, tensor)
    found = [dict(list(prompts.items())[:MOST_PROMPTS]) for prompts in shapes.values() if len(prompts) > 2]
    values = [matrix(torch.stack(list(prompts.values())), "average").double().numpy() for prompts in found]
    return [similarity_matrix(list(prompts), value, "average") for prompts, value in zip(found, values, strict=True)]


def relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path != folder else folder.resolve().name


def run_rows(records: Sequence[Record], folder: Path) -> Rows:
    names = [
        "run",
        "tasks",
        "method",
        "model",
        "seed",
        "best step",
        "steps",
        "dev",
        "test",
        "invalid on test",
        "trained",
    ]
    head, *weights = dependence([record.result or {} for record in records])
    rows = [[relative(record.folder, folder), *_run_cells(record)] for record in records]
    heads = [f"weights' deviation {name}" for name in head]
    return [[*names, "seconds", *heads], *([*row, *more] for row, more in zip(rows, weights, strict=True))]


def _run_cells(record: Record) -> list[str]:
    plan, result = record.plan, record.result
    told = [" ".join(plan.task), METHODS[plan.method], plan.model_name, str(plan.seed)]
    if result is None:
        last = record.evaluations[-1].step if record.evaluations else 0
        return [*told, "-", f"{last:,} of {plan.steps:,}", *["-"] * 5]
    invalid = [s["invalid"] for s in result["scores"] if s["split"] == "test" and isinstance(s.get("invalid"), float)]
    shares = [f"{share:.2f}" for share in (result["mean"]["dev"], result["mean"]["test"], *invalid[:1])]
    counts = [counted(result.get(name)) for name in ("best_step", "steps", "trainable_parameters", "seconds")]
    return [*told, *counts[:2], *shares, *["-"] * (3 - len(shares)), *counts[2:]]


def counted(value: Any) -> str:
    return f"{value:,}" if type(value) in (int, float) else "-"


def setting_rows(groups: Sequence[Group]) -> Rows:
    """The options that are not the same everywhere, a row a group of runs."""
    scored = set(differing_on_a_task(groups))  # on how many examples: of other tasks it is another number anyway
    names = differing([one.settings for one in groups])
    names = [n for n in names if n not in ("task", "method") and (n in scored or not n.startswith("scored "))]
    rows = [[one.label, " ".join(one.tasks), *(said(one.settings.get(name)) for name in names)] for one in groups]
    return [["runs", "tasks", *(name if " " in name else spelled(name) for name in names)], *(rows if names else [])]


def said(value: object) -> str:
    return "-" if value is None or value == [] else spoken(value)


def series_rows(summaries: Sequence[Summary], folder: Path) -> Rows:
    rows = [["series", "task", "split", "metric", "mean ± deviation", "seeds", "values"]]
    for one in summaries:
        place, seeds = relative(one.folder, folder), " ".join(map(str, one.seeds))
        for score in one.scores:
            values = " ".join(f"{value:.2f}" for value in score["values"])
            mean = figure(score["mean"], score["deviation"])
            rows.append([place, score["task"], score["split"], score["metric"], mean, seeds, values])
    return rows


def run(argv: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m attempt.report_html", description="One page about a folder of runs.")
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="runs and series, in folders of any depth; or a file of runs"
    )
    parser.add_argument(
        "--to", type=Path, metavar="FILE", help="the page (default: DIR/report.html; of FILE.jsonl FILE.html)"
    )
    given = parser.parse_args(argv)
    path = given.to or (given.folder.with_suffix(".html") if is_kept(given.folder) else given.folder / "report.html")
    write_whole(path, report(given.folder).encode("utf-8"))
    print(f"{path}: open it in a browser")
    if not can_draw():
        print(f"its pictures are text: {INSTALL} draws them", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    return exit_status("python -m attempt.report_html", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
