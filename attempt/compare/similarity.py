"""Similarities of prompts in a table: python -m attempt.spot (attempt/spot.py has the measures)."""

import sys
from collections.abc import Sequence
from pathlib import Path

from attempt.checkpoint import BEST, LAST, load_sources, warn_of_mixed
from attempt.command.flags import Parser
from attempt.foreign import ADAPTER_FILES
from attempt.runs.report import table
from attempt.spot import SIMILARITIES, compare, file_names, save
from model.errors import AttemptError, exit_status


def place_of(path: Path) -> Path:
    """The run's or adapter's folder, be it named by itself or by a checkpoint in it; of another file itself."""
    path = path.resolve()
    inside = path.name in (BEST, LAST, *ADAPTER_FILES)
    return path.parent if inside and path.is_file() else path


def run(argv: Sequence[str] | None) -> None:
    parser = Parser(
        prog="python -m attempt.spot", description="Similarities of prompts, SPoT's guide to which one to start from."
    )
    add = parser.add_argument
    add("prompts", nargs="+", type=Path, metavar="PATH", help="run folders or prompt files")
    add("--target", type=Path, metavar="PATH", help="rank the others by their similarity to this run's or file's")
    add(
        "--similarity",
        choices=SIMILARITIES,
        default="average",
        help="average: of the mean rows; tokens: the mean over all pairs of rows (default: %(default)s)",
    )
    add("--save", type=Path, metavar="FILE", help="write the table too, as .json or else with tabs")
    given = parser.parse_args(argv)

    paths = given.prompts
    if given.target is not None:  # it is as similar to itself as can be
        paths = [path for path in paths if place_of(path) != place_of(given.target)]
        if not paths:
            raise AttemptError(f"{given.target}: expected prompts besides the target, found it alone; name some")
    prompts, names = load_sources(paths)
    warn_of_mixed([*paths, *([given.target] if given.target else [])])
    target = None
    if given.target is not None:
        targets, own = load_sources([given.target])
        if len(own) != 1:
            raise AttemptError(f"{given.target}: expected one prompt as the target, found {', '.join(own)}")
        if targets.size(2) != prompts.size(2):
            raise AttemptError(
                f"{given.target}: expected a prompt of width {prompts.size(2)} like {paths[0]}, "
                f"found width {targets.size(2)}; similar prompts are prompts of one model"
            )
        target = targets[0]
    rows = compare(prompts, file_names(names), target, given.similarity)
    print(table(rows))
    if given.save:
        save(given.save, rows)
        print(f"saved in {given.save}")


def main(argv: Sequence[str] | None = None) -> int:
    return exit_status("python -m attempt.spot", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
