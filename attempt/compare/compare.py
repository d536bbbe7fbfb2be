"""Several runs in a table, and whether their scores differ by more than chance: python -m attempt.compare RUN RUN …

A RUN is a run's folder or any folder above runs: a series of seeds, of tasks, or runs/; or a file of runs, FILE.jsonl,
or some of its runs, 'FILE.jsonl/NAME*'. Of a run config.json and result.json are read. Runs that differ in nothing but
the seed are one row, with mean and sample standard deviation; the same seeds in another folder are another row, of
before and after an edit of the code, say.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from attempt.command.flags import Parser
from attempt.command.options import spelled, spoken
from attempt.compare.records import common_folder, differing, find_runs, pooled, settings
from attempt.compare.significance import mcnemar, paired_t
from attempt.runs.folder import Run
from attempt.runs.kept import found_runs, is_there
from attempt.runs.plan import Plan
from attempt.runs.report import FORMATS, METHODS, dependence, figure, table
from attempt.training.series import read_scores, spread
from model.errors import AttemptError, briefly, exit_status, meant_path

FEW = 5  # pairs: below, a t-test finds large differences alone


@dataclass(frozen=True)
class Finished:
    """A complete run: its options, and its result.json."""

    folder: Path
    plan: Plan
    result: dict[str, Any]
    told: dict[str, Any]
    """What decides its result, see attempt/compare/records.py."""
    name: str = ""
    """What --names calls it."""

    @property
    def task(self) -> str:
        return "+".join(self.plan.task)

    @property
    def settings(self) -> dict[str, str]:
        """What may set it apart from other runs of its task, by name, as it would be given."""
        return {name: spoken(value) for name, value in self.told.items() if name != "task"}


def complete(paths: Sequence[Path], names: Sequence[str] = ()) -> list[Finished]:
    """The complete runs in these folders, each once; of a run nothing below it, such as SPoT's candidates.

    names: one for each folder, for its runs.
    """
    found: dict[Path, tuple[Path, Plan, dict[str, Any]]] = {}
    called: list[str] = []
    for path, name in zip(paths, names or [""] * len(paths), strict=True):
        if not path.is_dir() and not any(found_runs(path)):
            raise AttemptError(f"{path}: expected the folder of a run or of several, found none{meant_path(path)}")
        runs = [run for run in map(Run, find_runs(path)) if is_there(run.result)]
        if not runs:
            raise AttemptError(f"{path}: expected a complete run (a result.json) in it, found none")
        for run in runs:
            found.setdefault(run.folder.resolve(), (run.folder, Plan.read(run.config), read_scores(run.result)))
        called += [name] * (len(found) - len(called))
    told = settings([*found.values()])
    return [Finished(*run, told=one, name=name) for run, one, name in zip(found.values(), told, called, strict=True)]


def grouped(runs: Sequence[Finished]) -> list[list[Finished]]:
    """The seeds of one another together (attempt/compare/records.py), but none of another name."""
    told = [run.told | {"name": run.name} for run in runs]
    groups = pooled([(run.folder, run.plan, run.result) for run in runs], told)
    return sorted(([runs[i] for i in group] for group in groups), key=lambda group: group[0].task)


def run_rows(runs: Sequence[Finished]) -> list[list[str]]:
    head, *spreads = dependence([run.result for run in runs])
    rows = [["run", "task", "method", "seed", "dev", "test", "trainable", "minutes", *head]]
    for run, weights in zip(runs, spreads, strict=True):
        plan, result = run.plan, run.result
        scores = (f"{result['mean'][split]:.2f}" for split in ("dev", "test"))
        size, minutes = result.get("trainable_parameters", 0), result.get("seconds", 0.0) / 60
        told = [str(run.folder), run.task, METHODS[plan.method], str(plan.seed), *scores, f"{size:,}", f"{minutes:.1f}"]
        rows.append([*told, *weights])
    return rows


def score_rows(groups: Sequence[Sequence[Finished]], names: Sequence[str]) -> list[list[str]]:
    """The same as group_rows, a cell a number; "" for the deviation of a single run."""
    rows = [["settings", "task", "seeds", "dev", "dev deviation", "test", "test deviation"]]
    for name, group in zip(names, groups, strict=True):
        found = [spread([run.result["mean"][split] for run in group]) for split in ("dev", "test")]
        figures = [one[kind] for one in found for kind in ("mean", "deviation")]
        cells = ("" if figure is None else f"{figure:.2f}" for figure in figures)
        rows.append([name, group[0].task, str(len(group)), *cells])
    return rows


def group_rows(groups: Sequence[Sequence[Finished]], names: Sequence[str]) -> list[list[str]]:
    rows = [["settings", "task", "seeds", "dev", "test"]]
    for name, group in zip(names, groups, strict=True):
        found = [spread([run.result["mean"][split] for run in group]) for split in ("dev", "test")]
        figures = (figure(scores["mean"], scores["deviation"]) for scores in found)
        rows.append([name, group[0].task, str(len(group)), *figures])
    return rows


def named(groups: Sequence[Sequence[Finished]]) -> list[str]:
    """A short name for each group: its method, or what --names calls it, with a letter where others have it too."""
    pairs = [(group[0].name or METHODS[group[0].plan.method], group[0].task) for group in groups]
    letters = [sum(other == pair for other in pairs[:i]) for i, pair in enumerate(pairs)]
    return [
        f"{pair[0]} {chr(ord('A') + letter) if letter < 26 else letter}" if pairs.count(pair) > 1 else pair[0]
        for pair, letter in zip(pairs, letters, strict=True)
    ]


def setting_lines(groups: Sequence[Sequence[Finished]], names: Sequence[str]) -> list[str]:
    """Of each task's groups the settings that differ, and whose value is which."""
    lines = []
    for task in dict.fromkeys(group[0].task for group in groups):
        own = {name: group[0].settings for name, group in zip(names, groups, strict=True) if group[0].task == task}
        for name in differing(list(own.values())):
            whose: dict[str, list[str]] = {}
            for who, found in own.items():
                if name in found:
                    whose.setdefault(found[name], []).append(who)
            shown = "; ".join(f"{value[:60] or 'none'} ({', '.join(those)})" for value, those in whose.items())
            lines.append(f"{task}  {name if ' ' in name else spelled(name)}: {shown}")
        alike: dict[str, list[str]] = {}
        for name, group in zip(names, groups, strict=True):
            if group[0].task == task:
                place = f"{common_folder([run.folder for run in group])} ({name})"
                alike.setdefault(repr(group[0].settings), []).append(place)
        lines += [f"{task}  only the folder: {'; '.join(places)}" for places in alike.values() if len(places) > 1]
    return lines


def seed_tests(groups: Sequence[Sequence[Finished]], names: Sequence[str]) -> list[list[str]]:
    """A paired t-test on test for every two groups of a task that have at least two seeds in common."""
    rows = [["task: first - second", "pairs", "mean", "deviation", "t", "p"]]
    for (a, first), (b, second) in combinations(zip(names, groups, strict=True), 2):
        scores = [{run.plan.seed: run.result["mean"]["test"] for run in group} for group in (first, second)]
        common = sorted(scores[0].keys() & scores[1].keys())
        if first[0].task != second[0].task or len(common) < 2:
            continue
        differences = [scores[0][seed] - scores[1][seed] for seed in common]
        found = spread(differences)
        row = [f"{first[0].task}: {a} - {b}", str(len(common)), f"{found['mean']:+.2f}", f"{found['deviation']:.2f}"]
        t, p = paired_t(differences) or (None, None)
        chance = "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
        rows.append([*row, "-" if t is None else f"{t:.2f}", chance])
    return rows


def read_answers(path: Path) -> list[dict[str, Any]]:
    """The lines that eval.py --predictions wrote."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").removesuffix("\n").split("\n")]
        for row in rows:
            row["key"] = row["task"], row["split"], row["index"], row["source"], row["target"]
            right = row.get("references") or [row["target"]]
            row["right"] = row["prediction"].strip() in [text.strip() for text in right]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        problem = f"{type(e).__name__}: {briefly(e)}{'' if path.exists() else meant_path(path)}"
        raise AttemptError(f"{path}: expected the answers that eval.py --predictions wrote, found {problem}") from None
    return rows


def answer_test(paths: Sequence[Path]) -> str:
    """McNemar's exact test of two files of answers to the same examples."""
    first, second = (read_answers(path) for path in paths)
    if [row["key"] for row in first] != [row["key"] for row in second]:
        raise AttemptError(
            f"{paths[1]}: expected answers to the examples of {paths[0]}, found others; both need the same data, "
            "--split, --labels and task name"
        )
    pairs = [(a["right"], b["right"]) for a, b in zip(first, second, strict=True)]
    only = [sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)]
    right = [sum(pair[i] for pair in pairs) for i in (0, 1)]
    lines = [f"{path}: {count} of {len(pairs)} answers are right" for path, count in zip(paths, right, strict=True)]
    return "\n".join(
        [
            *lines,
            f"only the first is right {only[0]} times, only the second {only[1]} times: p = {mcnemar(*only):.3g}",
            "McNemar's exact test, two-sided: of these two checkpoints on these examples. It tells nothing of other",
            "seeds, and counts answers that equal a right one exactly, whatever the task's own metric is.",
        ]
    )


T_TEST = """paired t-test over the seeds, two-sided, of the first metric (of several tasks their mean) on test. It takes
the differences for draws from a normal distribution, and sees the noise of the seeds, not that of the test set."""


SPREAD = """over texts: how a mixture's weights deviate from text to text on dev, a mean over the prompts (and tasks);
between tasks: how these tasks' mean weights do. 0: the same mixture for all."""


def report(groups: Sequence[Sequence[Finished]], names: Sequence[str]) -> str:
    parts = [table(run_rows([run for group in groups for run in group])), table(group_rows(groups, names))]
    if any(run.result.get("mixture") for group in groups for run in group):
        parts[0] += f"\n{SPREAD}"
    if lines := setting_lines(groups, names):
        parts.append("settings that differ, and so may explain a difference:\n" + "\n".join(lines))
    rows = seed_tests(groups, names)
    if len(rows) > 1:
        notes = [T_TEST]
        fewest = min(int(row[1]) for row in rows[1:])
        if fewest < FEW:
            notes.append(
                f"With {fewest} pairs it finds only large differences: a large p does not mean that two are equal."
            )
        if any(row[-1] == "-" for row in rows):
            notes.append("- where all differences are the same: there is no noise to compare them with.")
        if len(rows) > 2:
            notes.append(
                f"These are {len(rows) - 1} tests: by chance one in twenty has a p below 0.05 (none is corrected)."
            )
        parts.append("\n".join([table(rows), *notes]))
    elif len({group[0].task for group in groups}) < len(groups):
        parts.append("no paired test: it needs two settings of one task with at least two seeds in common")
    return "\n\n".join(parts)


def run(argv: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m attempt.compare", description="Several runs in a table, with paired tests.")
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs, or of series of runs; files of runs")
    add(
        "--predictions",
        nargs=2,
        type=Path,
        metavar="FILE",
        help="answers of two runs to the same examples, by eval.py --predictions: McNemar's test",
    )
    add("--names", nargs="+", default=[], metavar="NAME", help="what to call the runs of each RUN, one NAME for each")
    add("--format", choices=list(FORMATS), help="only the table of settings: means, deviations, numbers of seeds")
    given = parser.parse_args(argv)
    if given.names and len(given.names) != len(given.runs):
        parser.error(f"--names: expected one for each RUN, {len(given.runs)}, found {len(given.names)}")
    if given.format and given.predictions:
        parser.error("expected --format, for the table of settings, or --predictions, found both")
    groups = grouped(complete(given.runs, given.names))
    names = named(groups)
    if given.format:
        print(FORMATS[given.format](score_rows(groups, names)))
        return
    print(report(groups, names))
    if given.predictions:
        print(f"\n{answer_test(given.predictions)}")


def main(argv: Sequence[str] | None = None) -> int:
    return exit_status("python -m attempt.compare", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
