"""The plan for nine minutes of one GPU: its cells, its times, and a small part of it run on the CPU."""

import shutil
from pathlib import Path

import pytest

from attempt.runs.folder import Run
from attempt.runs.kept import kept_runs
from attempt.runs.parsing import parse
from benchmarks.replication import __main__ as program
from benchmarks.replication import plan_gpu, runner
from benchmarks.replication.cells import Cell, cell
from benchmarks.replication.pace import WINDOW, Measured
from benchmarks.replication.plan_gpu import GpuPlan, Setting, predicted, steps_of
from benchmarks.replication.store import kept_cells, unpacked
from benchmarks.replication.workers import Workers
from benchmarks.shapes import SHAPES, operations
from demo.data import CORPORA
from model.errors import AttemptError

DEMO = Path(runner.REPOSITORY, "demo", "checkpoint")
SMALL = Setting(2, 2, 2, 5, 2, 4, 32, "--device cpu --log-every 1 --splits official")


def test_the_plan_has_every_cell_once_and_asks_the_first_question_first() -> None:
    cells = GpuPlan().cells()
    assert len({one.name for one in cells}) == len({one.words for one in cells}) == len(cells)
    for one in cells:
        options = parse(one.command()).options
        short = "finetune" in one.name or one.part == "few-shot"
        assert (options.steps or 0) >= (300 if one.name.startswith("cut-") else 500 if short else 1000)
        assert options.device == "auto" and options.eval_examples == 400
    at = {one.name: i for i, one in enumerate(cells)}
    first = [
        f"{task}-{m}-{seed}" for task in plan_gpu.FIRST for m in ("prompt", "attempt-max") for seed in (42, 43, 44)
    ]
    assert max(at[name] for name in first) < 60
    assert next(one.name for one in cells if one.part != "sources") == "rte-attempt-max-42"
    assert sum(predicted(one) for one in cells if at[one.name] < 60) / 4 < 240  # four at a time, if that is as fast


def test_the_demo_s_plan_asks_the_same_of_its_own_tasks_with_a_thousand_steps() -> None:
    cells = GpuPlan(plan_gpu.DEMO).cells()
    assert {one.part for one in cells} == {one.part for one in GpuPlan().cells()}
    for one in cells:
        options = parse(one.command()).options
        assert options.device == "cpu" and {*options.task} <= CORPORA.keys()
        assert options.steps == 100 if one.name.startswith("cut-") else (options.steps or 0) >= 1000


def test_a_predicted_time_is_the_formula_s() -> None:
    t5 = SHAPES["t5-small"]
    spot = next(one for one in GpuPlan().cells() if one.name == "rte-spot-42")
    one = 0.005 / (32 * operations(t5, 100, 40, 2, backward=True))  # seconds an operation
    steps = 1000 + 200
    backward, forward = (operations(t5, 100, 88, 3, backward) for backward in (True, False))
    expected = 3 + steps * 32 * backward * one + (steps / 250 + 1) * 400 * forward * one
    assert steps_of(spot) == steps and predicted(spot) == pytest.approx(expected)
    tuned = next(one for one in GpuPlan().cells() if one.name == "cb-finetune-42")
    step = 1.5 * 32 * operations(t5, 0, 96, 3, backward=True) * one
    assert plan_gpu.step_seconds(tuned) == pytest.approx(step)


def some(*names: str) -> list[Cell]:
    wanted = {*(f"source-{task}" for task in plan_gpu.SOURCES), *names}
    return [one for one in GpuPlan(SMALL).cells() if one.name in wanted]


@pytest.fixture(scope="module")
def place(every_task: Path, tmp_path_factory: pytest.TempPathFactory) -> runner.Place:
    """Where one worker made some cells, one after another."""
    out = tmp_path_factory.mktemp("gpu")
    made = runner.Place(DEMO, every_task, out / "runs", out / "kept", out / "kept" / "prompts")
    bad = cell("bad", "targets", "--task rte --method prompt --shots 1000 --splits official")
    with Workers(1, made.out) as workers:
        names = ("rte-attempt-centred-42", "rte-spot-42", "rte-finetune-42", "stream-no-target-max-42")
        runner.run_cells([*some(*names), bad], made, workers=workers)
    return made


@pytest.mark.long
def test_a_worker_s_runs_are_those_of_processes_of_their_own(place: runner.Place) -> None:
    kept = kept_cells(place.kept)
    assert "result" not in kept["bad"] and "1000 training examples" in kept["bad"]["failed"]
    assert sum("result" in line for line in kept.values()) == len(kept) - 1 == 9
    mine = runner.chosen("rte-attempt-centred-42", GpuPlan(SMALL).cells(), place)
    assert runner.check(mine, place)  # a new process, scores and curve bit for bit
    assert "step 2/2" in unpacked(kept[mine.name]["log"])


def test_a_search_of_spot_keeps_the_curve_of_the_run_that_it_chose(place: runner.Place) -> None:
    line = kept_runs(place.kept / "targets.jsonl").runs["rte-spot-42"]
    folder = place.out / "runs" / "rte-spot-42" / f"from-{line['result']['start']}"
    assert line["curve"] == Run(folder).read_metrics() != []


@pytest.mark.long
def test_another_machine_goes_on_with_what_is_kept_alone(place: runner.Place, tmp_path: Path) -> None:
    shutil.copytree(place.kept, tmp_path / "kept")
    there = runner.Place(place.model, place.data, tmp_path / "runs", tmp_path / "kept", tmp_path / "kept" / "prompts")
    size = sum(path.stat().st_size for path in there.kept.rglob("*") if path.is_file())
    assert size < 2**20 and not list(there.kept.rglob("state*.pt"))
    for path in (path for path in there.kept.rglob("*") if path.is_file()):
        assert not [where for where in (place.data, DEMO, place.out) if str(where).encode() in path.read_bytes()], path
    made = kept_cells(there.kept).keys()
    with Workers(1, there.out) as workers:
        runner.run_cells(some("rte-attempt-centred-42", "rte-attempt-max-42"), there, workers=workers)
    new = kept_cells(there.kept)
    assert new.keys() - made == {"rte-attempt-max-42"} and "result" in new["rte-attempt-max-42"]
    assert [path.name for path in (there.out / "runs").iterdir() if (path / "state.pt").exists()] == [
        "rte-attempt-max-42"
    ]


def test_the_plan_for_a_gpu_keeps_to_its_folders(
    place: runner.Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(DEMO), "--data-dir", str(place.data), "--runs", str(tmp_path / "runs")]
    words = ["run", "--plan", "gpu", "--tiny", "--minutes", "0", *flags, "--out", str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "chance.json").write_text("{}")  # not asked for here: it reads every task
    assert program.main(words) == 0
    said = capsys.readouterr().out
    assert "predicted, s" in said and "0 minutes are over: source-squad is next" in said
    assert program.main(["list", "--plan", "gpu"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(GpuPlan().cells())


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_runs_too_short_to_be_at_their_steps_together_are_measured_too(tmp_path: Path) -> None:
    clock, cells = Clock(), [cell(name, "x", f"--seed {i}") for i, name in enumerate("ab")]
    pace = Measured([1, 2], lambda one: 10, lambda one, n: n, lambda one: tmp_path / one.name, clock)
    for i in range(200):
        clock.time += 1
        pace.width(cells[: pace.jobs])
        new = cell(f"c{i}", "x", f"--seed {i + 2}")  # one of them has always just begun
        cells = [*cells[1:], new]
        for one in cells[:-1]:
            (tmp_path / one.name).write_text("step 100/100: loss 1\n")
    assert len(pace.rates) > 2


def test_runs_that_are_all_starting_are_not_measured(tmp_path: Path) -> None:
    """However long they take for it: a rate of 0 would make any other look faster."""
    clock, cells = Clock(), [cell(name, "x", f"--seed {i}") for i, name in enumerate("ab")]
    pace = Measured([1, 2], lambda one: 10, lambda one, n: n, lambda one: tmp_path / one.name, clock)
    for _ in range(100):
        clock.time += 5
        assert pace.width(cells[:1]) == 1
    assert pace.rates == [0.0]


@pytest.mark.parametrize(
    ("speeds", "chosen"), [({1: 1, 2: 1.2, 4: 9}, 1), ({1: 1, 2: 2, 4: 2.1}, 2), ({1: 1, 2: 2, 4: 3}, 4)]
)
def test_as_many_at_a_time_as_are_found_faster(speeds: dict[int, float], chosen: int, tmp_path: Path) -> None:
    """speeds: steps a second of all runs together, by their number."""
    clock, cells = Clock(), [cell(name, "x", f"--seed {i}") for i, name in enumerate("abcd")]
    pace = Measured([1, 2, 4], lambda one: 10, lambda one, n: n, lambda one: tmp_path / one.name, clock)
    steps = dict.fromkeys(cells, 1000.0)
    for _ in range(60):
        running = cells[: pace.width(cells[: pace.jobs])]
        clock.time += WINDOW / 5
        for one in running:
            steps[one] += WINDOW / 5 * speeds[len(running)] * 100 / len(running)
            text = "".join(f"step {n:,}/9,000: loss 1\n" for n in (100, int(steps[one])))
            (tmp_path / one.name).write_text(f"run\n{text}")
    assert pace.jobs == chosen


def test_a_run_that_would_end_too_late_is_not_begun(place: runner.Place, tmp_path: Path) -> None:
    pace = Measured([1], lambda one: 60 if one.name == "long" else 5, lambda one, n: n, lambda one: tmp_path / "log")
    cells = [cell("long", "x", "--seed 1"), cell("short", "x", "--seed 2"), cell("later", "x", "--init runs/long")]
    now = runner.time.monotonic()
    assert runner.first_ready(cells, place, pace, now + 30) == cells[1]
    assert runner.first_ready(cells, place, pace, now + 90) == cells[0]
    pace.ended(cells[1], 10)  # twice as long as was predicted
    assert pace.seconds(cells[0]) == 120 and runner.first_ready(cells, place, pace, now + 90) == cells[1]


@pytest.mark.long
def test_a_worker_that_is_gone_is_told(tmp_path: Path) -> None:
    with Workers(1, tmp_path) as workers:
        started = workers.begin(["--help"], tmp_path / "log", "w")
        while started.poll() is None:
            pass
        assert started.returncode == 0 and "usage" in (tmp_path / "log").read_text()
        for process in workers.pool._processes.values():
            process.kill()
        gone = workers.begin(["--help"], tmp_path / "log", "w")
        with pytest.raises(AttemptError, match="expected a worker to go on"):
            while gone.poll() is None:
                pass
