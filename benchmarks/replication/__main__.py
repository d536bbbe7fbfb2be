"""python -m benchmarks.replication list | run | tables | check"""

import sys
from collections.abc import Sequence
from pathlib import Path

from attempt.errors import AttemptError, exit_status
from attempt.flags import Parser, number, positive
from benchmarks.replication import plan_cpu, plan_gpu
from benchmarks.replication.chance import keep_chance
from benchmarks.replication.runner import KEPT, Place, check, chosen, run_cells
from benchmarks.replication.tables import write_tables

DOCUMENT = KEPT.with_suffix(".md")


def new_parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.replication", description="The papers' claims, tried: docs/replication.md."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("list", help="print a plan's commands; of the GPU's with the time that is expected")
    show.add_argument("--plan", choices=["cpu", "gpu"], default="cpu", help="default: %(default)s")
    for name, text in (("run", "make the runs that are not kept yet"), ("check", "make one of the kept runs again")):
        action = actions.add_parser(name, help=text)
        add = action.add_argument
        add("--model", type=Path, required=True, metavar="FOLDER", help="the checkpoint")
        add("--data-dir", type=Path, required=True, metavar="DIR", help="folder of the data sets, at DIR/HOST/PATH")
        add("--out", type=Path, required=True, metavar="DIR", help="where the run folders are, and their logs")
        add(
            "--kept",
            type=Path,
            default=KEPT,
            metavar="DIR",
            help="where what is small is kept, a line a run (default: docs/replication)",
        )
        if name == "run":
            add("--minutes", type=number, metavar="N", help="begin no run after N minutes (default: run all)")
            add("--jobs", type=positive, default=1, metavar="N", help="runs at a time, of one thread each (default: 1)")
        else:
            add("--cell", default="random", metavar="NAME", help="which one (default: %(default)s)")
    actions.add_parser("tables", help="put the kept results into the tables of docs/replication.md")
    return parser


def run(argv: Sequence[str] | None) -> None:
    given = new_parser().parse_args(argv)
    cells = plan_cpu.plan()
    if given.action == "list":
        print(plan_gpu.script() if given.plan == "gpu" else "\n".join(cell.shown() for cell in cells))
        return
    if given.action == "tables":
        write_tables(DOCUMENT, KEPT)
        return
    place = Place(given.model.resolve(), given.data_dir.resolve(), given.out.resolve(), given.kept)
    if given.action == "run":
        keep_chance(cells, place.data, place.kept)
        run_cells(cells, place, given.minutes, given.jobs)
    elif not check(chosen(given.cell, cells, place), place):
        raise AttemptError("expected the stored scores, found others")


def main(argv: Sequence[str] | None = None) -> int:
    return exit_status("python -m benchmarks.replication", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
