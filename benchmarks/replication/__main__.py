"""python -m benchmarks.replication list | run | tables | check"""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from attempt.command.flags import Parser, number, positive
from attempt.runs.report import table
from benchmarks.replication import plan_base, plan_cpu, plan_gpu
from benchmarks.replication.cells import Cell
from benchmarks.replication.chance import keep_chance
from benchmarks.replication.documents import write_tables
from benchmarks.replication.pace import Measured, Pace
from benchmarks.replication.runner import KEPT, Place, check, chosen, log_of, run_cells
from benchmarks.replication.workers import Workers
from demo.data import demo_folder
from model.errors import AttemptError, exit_status
from model.files import ROOT

PLANS = ("cpu", "gpu", "demo", "base")


def new_parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.replication", description="The papers' claims, tried: docs/replication.md."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("list", help="print a plan's commands, with the time that is expected on a GPU")
    add_plan(show, PLANS)
    for name, text in (("run", "make the runs that are not kept yet"), ("check", "make one of the kept runs again")):
        action = actions.add_parser(name, help=text)
        add = action.add_argument
        add_plan(action, PLANS[:3])
        add("--model", type=Path, metavar="FOLDER", help="the checkpoint (default: the demo's, for its plan)")
        add("--data-dir", type=Path, metavar="DIR", help="folder of the data sets, at DIR/HOST/PATH (likewise)")
        add("--runs", type=Path, required=True, metavar="DIR", help="where the run folders are, and their logs")
        add(
            "--out",
            type=Path,
            metavar="DIR",
            help="where what is small is kept, a line a run (default: docs/replication, and gpu/ or demo/ in it)",
        )
        if name == "run":
            add("--minutes", type=number, metavar="N", help="begin no run after N minutes (default: run all)")
            add(
                "--jobs",
                type=positive,
                metavar="N",
                help="runs at a time, of one thread each (default: 1; of the GPU's plan as many as are found faster)",
            )
        else:
            add("--cell", default="random", metavar="NAME", help="which one (default: %(default)s)")
    actions.add_parser(
        "tables", help="put the kept results into the tables of docs/replication.md and replication-short.md"
    )
    return parser


def add_plan(parser: ArgumentParser, plans: Sequence[str]) -> None:
    names = "cpu, small; gpu, for nine minutes of one; demo, the same questions in the demo's world, on a CPU"
    names += "; base, the published tables' commands" * ("base" in plans)
    parser.add_argument("--plan", choices=plans, default="cpu", help=f"{names} (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="of the GPU's plan: two steps each, on the CPU")


def run(argv: Sequence[str] | None) -> None:
    parser = new_parser()
    given = parser.parse_args(argv)
    if given.action == "tables":
        write_tables(KEPT)
        return
    setting = plan_gpu.DEMO if given.plan == "demo" else plan_gpu.TINY if given.tiny else plan_gpu.Setting()
    cells = plan_cpu.plan() if given.plan == "cpu" else plan_gpu.GpuPlan(setting).cells()
    if given.action == "list":
        print(plan_base.script() if given.plan == "base" else "\n".join(map(listed, cells)))
        return
    if given.plan == "demo":
        given.model, given.data_dir = given.model or ROOT / "demo" / "checkpoint", given.data_dir or demo_folder()
    if given.model is None or given.data_dir is None:
        parser.error(f"expected --model and --data-dir for the plan {given.plan}")
    kept = given.out or (KEPT if given.plan == "cpu" else KEPT / given.plan)
    prompts = kept / "prompts" if given.plan == "gpu" else None
    place = Place(given.model.resolve(), given.data_dir.resolve(), given.runs.resolve(), kept, prompts)
    if given.action == "check":
        if not check(chosen(given.cell, cells, place), place):
            raise AttemptError("expected the stored scores, found others")
    elif given.plan == "gpu":
        run_on_gpu(cells, place, given.minutes, given.jobs)
    else:
        keep_chance(cells, place.data, place.kept)
        run_cells(cells, place, given.minutes, Pace(given.jobs or 1))


def listed(cell: Cell) -> str:
    """Its command, and the time it takes on a GPU, if it is for one."""
    return cell.shown() + (f"  # {plan_gpu.predicted(cell):.0f} s" if "--device cpu" not in cell.shown() else "")


def run_on_gpu(cells: list[Cell], place: Place, minutes: float | None, jobs: int | None) -> None:
    """In workers, as many as are found faster; what a constant answer scores comes last, as it needs no GPU."""
    print(table(plan_gpu.parts(cells)), flush=True)
    cores = os.cpu_count() or 1
    widths = [jobs] if jobs else sorted({-(-cores // part) for part in (8, 4, 2)})

    def work(cell: Cell, steps: int) -> float:
        return steps * plan_gpu.step_seconds(cell)

    pace = Measured(widths, plan_gpu.predicted, work, partial(log_of, place=place))
    with Workers(widths[-1], place.out) as workers:
        run_cells(cells, place, minutes, pace, workers)
    keep_chance(cells, place.data, place.kept)


def main(argv: Sequence[str] | None = None) -> int:
    return exit_status("python -m benchmarks.replication", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
