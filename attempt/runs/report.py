"""Tables, bars, figures and scores for a terminal."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

METHODS = {  # as the papers call them
    "prompt": "prompt tuning",
    "spot": "SPoT",
    "attempt": "ATTEMPT",
    "finetune": "fine-tuning",
    "adapter": "adapter",
    "bitfit": "BitFit",
}
FLAT = 0.001  # a deviation of the weights over texts, below which they are the same for all of them


def table(rows: list[list[str]]) -> str:
    """Columns under each other, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def csv_table(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().removesuffix("\n")


def markdown_table(rows: list[list[str]]) -> str:
    head, *body = [[cell.replace("|", r"\|") for cell in row] for row in with_deviations(rows)]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])


LATEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
                      | {"^": r"\textasciicircum{}", "±": r"$\pm$"})  # fmt: skip


def latex_table(rows: list[list[str]]) -> str:
    """A tabular that needs no package."""
    head, *body = [" & ".join(cell.translate(LATEX) for cell in row) + r" \\" for row in with_deviations(rows)]
    columns = "l" + "r" * (len(with_deviations(rows)[0]) - 1)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\hline", head, r"\hline", *body, r"\hline", r"\end{tabular}"]
    )


def with_deviations(rows: list[list[str]]) -> list[list[str]]:
    """Each column "x deviation" becomes part of the column before it: "80.00 ± 1.20"."""
    own = [i for i, name in enumerate(rows[0]) if not name.endswith(" deviation")]
    joined = [
        [f"{row[i]} ± {row[i + 1]}" if i + 1 < len(row) and i + 1 not in own and row[i + 1] else row[i] for i in own]
        for row in rows[1:]
    ]
    return [[rows[0][i] for i in own], *joined]


FORMATS = {"csv": csv_table, "latex": latex_table, "markdown": markdown_table}


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


def describe(record: Mapping[str, Any]) -> str:
    """The scores of a split, as metrics.jsonl and result.json hold them, on a line; all figures are percentages."""
    metrics = ", ".join(f"{name} {value:.2f}" for name, value in record["metrics"].items())
    note = ""
    if len(record["answers"]) == 1 and record["examples"] > 1:
        note = f"; every answer is {next(iter(record['answers']))!r}: look at --lr, --init and --steps"
    elif record["invalid"] > 50:
        note = "; most answers are no label: has it learned the labels yet? look at --lr, --init and --steps"
    invalid = f"invalid {record['invalid']:.2f}"
    chosen = ", chosen among the labels" if record.get("decoding") == "labels" else ""
    return f"{record['task']} {record['split']}: {metrics}, {invalid} ({record['examples']} examples{chosen}){note}"


def evaluation_lines(record: Mapping[str, Any]) -> list[str]:
    """An evaluation, from its record in metrics.jsonl: the scores, and what is mixed; * marks the best one so far."""
    start, star = f"step {record['step']}: loss {record['loss']:.4f} nats/token", " *" * record["best"]
    lines = [f"{start}; {describe(score)}{star}" for score in record["scores"]]
    for name, mixture in record.get("mixture", {}).items():
        weights = ", ".join(f"{source} {weight:.3f}" for source, weight in mixture["weights"].items())
        spread = f"entropy {mixture['entropy']:.3f} nats, deviation over texts {mixture['deviation']:.4f}"
        lines.append(f"    {name} mixes {weights} ({spread})")
    if "mixture_between_tasks" in record:
        lines.append(f"    between tasks the weights deviate by {record['mixture_between_tasks']:.4f}")
    return lines


def mixture_of(records: Sequence[Mapping[str, Any]], step: int) -> dict[str, Any]:
    """What the evaluation at a step has found of the mixture, if there is one."""
    found = next((record for record in records if record["step"] == step), {})
    return {name: found[name] for name in ("mixture", "mixture_between_tasks") if name in found}


def dependence(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row of names, and one a result: how its weights deviate over texts (mean of the tasks), and between tasks."""
    rows = [["over texts", "between tasks"]]
    for result in results:
        texts = [mixture["deviation"] for mixture in result.get("mixture", {}).values()]
        found = [sum(texts) / len(texts) if texts else None, result.get("mixture_between_tasks")]
        rows.append(["-" if value is None else f"{value:.4f}" for value in found])
    kept = [i for i in range(2) if any(row[i] != "-" for row in rows[1:])]
    return [[row[i] for i in kept] for row in rows]


def flat_line(result: Mapping[str, Any], pool: str, use_target: bool) -> str:
    """A line where a mixture gives all texts of a task the same weights; else an empty one."""
    mixtures = result.get("mixture", {}).items()
    flat = [f"{task} ({mixed['deviation']:.5f})" for task, mixed in mixtures if mixed["deviation"] < FLAT]
    tries = [f"--pool {name}" for name in ("centred", "mean") if name != pool] + ["--no-target"] * use_target
    told = f"note: G gives all texts the same weights, deviation below {FLAT}: {', '.join(flat)}"
    return f"{told}; {' or '.join(tries)} may give different weights" if flat else ""


def first_metrics(scores: Sequence[Mapping[str, Any]]) -> float:
    """The mean of the tasks' first metrics: the score of a group of tasks, and what decides which step is the best."""
    firsts: list[float] = [next(iter(score["metrics"].values())) for score in scores]
    return sum(firsts) / len(firsts)
