"""The replication: its plans, its runner on a tiny checkpoint, and the document, which is what its files give."""

import contextlib
import json
import shlex
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, ClassVar

import numpy as np
import pytest
from runs import error_of
from scipy import stats

import train
from attempt.command.options import MACHINE_FLAGS
from attempt.runs.folder import Run
from attempt.runs.parsing import parse
from attempt.runs.plan import NEWER
from benchmarks.replication import __main__ as program
from benchmarks.replication import plan_base, plan_cpu, plan_gpu, pooling, runner, tables_gpu
from benchmarks.replication.cells import Cell, cell, in_order
from benchmarks.replication.chance import constant
from benchmarks.replication.documents import GPU_SCRIPT, MARK, Document, documents, filled
from benchmarks.replication.pace import Pace
from benchmarks.replication.results import Kept, balanced, figure
from benchmarks.replication.store import append_cell, kept_cells, packed, unpacked
from benchmarks.replication.tables import TABLES
from benchmarks.shapes import SHAPES, operations
from data.download import Downloader
from data.tasks import TASKS, expand
from model.errors import AttemptError

PLANS = {
    runner.KEPT: plan_cpu.plan(),
    runner.KEPT / "gpu": plan_gpu.GpuPlan().cells(),
    runner.KEPT / "demo": plan_gpu.GpuPlan(plan_gpu.DEMO).cells(),
}


@pytest.mark.parametrize("document", documents(runner.KEPT), ids=lambda document: document.path.name)
def test_a_document_is_what_the_kept_results_give(document: Document) -> None:
    text = document.path.read_text(encoding="utf-8")
    assert document.filled() == text
    assert {match[2] for match in MARK.finditer(text)} == set(document.tables)


@pytest.mark.parametrize("folder", PLANS, ids=lambda folder: folder.name)
def test_kept_files_name_no_place_of_a_machine(folder: Path) -> None:
    for path in (path for path in (folder / "prompts").rglob("*") if path.is_file()):
        assert not [place for place in (b"/tmp", b"/work", b"/home", b"/root") if place + b"/" in path.read_bytes()], (
            path
        )
    for name, line in kept_cells(folder).items():
        text = json.dumps(line) + unpacked(line["log"])
        assert "/tmp" not in text and "/work" not in text and "/home" not in text, name
        found = line["config"]
        places = [found[name] for name in ("out", "model", "data_dir", "init")] + found["source_prompts"]
        assert not [place for place in places if place and place.startswith("/")], name


@pytest.mark.parametrize("folder", PLANS, ids=lambda folder: folder.name)
def test_what_is_kept_was_run_with_the_plan_s_options(folder: Path) -> None:
    kept = kept_cells(folder)
    assert kept.keys() <= {one.name for one in PLANS[folder]}
    for one in PLANS[folder]:
        if one.name in kept:
            asked, found = parse(one.command()).options.stored(), kept[one.name]["config"]
            elsewhere = {"model", "precision", *MACHINE_FLAGS} - {"out"}  # a cell may be made on another machine
            given = {name: value for name, value in asked.items() if value is not None and name not in elsewhere}
            assert {name: found.get(name, NEWER.get(name)) for name in given} == given, one.name
            assert kept[one.name]["command"] == one.shown()


def test_the_plan_for_a_cpu_has_every_cell_once_each_with_a_command_of_its_own() -> None:
    cells = plan_cpu.plan()
    commands = {tuple(one.words) for one in cells}
    assert len({one.name for one in cells}) == len(cells) == len(commands)
    for one in cells:
        assert not parse(one.command()).several and set(parse(one.command()).options.task) <= set(TASKS)
    with pytest.raises(ValueError, match="a before it"):
        in_order([cell("b", "x", "--init runs/a"), cell("a", "x", "--seed 1")])
    with pytest.raises(ValueError, match="once"):
        in_order([cell("a", "x", "--seed 1"), cell("a", "x", "--seed 2")])


def test_of_a_flag_that_is_there_twice_the_last_counts() -> None:
    one = cell("a", "x", "--task rte cola --steps 3 --init 'text:a b'", "--steps 4", "--task mrpc")
    assert one.words == ("--task", "mrpc", "--steps", "4", "--init", "text:a b")
    assert one.shown().startswith("python train.py --task mrpc --steps 4 --init 'text:a b' --model MODEL")


def test_every_command_for_a_gpu_makes_sense_and_has_a_time() -> None:
    found = plan_base.commands()
    folders = [parse(shlex.split(words), expand=expand).options.out for _, words in found]
    given = [folder for folder in folders if folder]
    assert len(given) == len(set(given))  # no command takes another's folder
    for text, words in found:
        runs, hours = plan_base.hours(words)
        assert runs >= 1 and 0 < hours < 30, text
    script = (runner.KEPT / GPU_SCRIPT).read_text(encoding="utf-8")
    assert script == plan_base.script()
    assert [line for line in script.splitlines() if not line.startswith("#")][1::2] == [
        f"python train.py {words}" for _, words in found
    ]


def test_the_predicted_time_is_the_formula_s() -> None:
    words = "--task cb --method prompt --model t5-large --epochs 2 --batch-size 32"
    steps = 16  # two epochs of 250 examples
    one = operations(SHAPES["t5-large"], 100, 96, 3, backward=False)
    seconds = 20 + steps * 0.0066 + (steps * 2 * 32 + (2 + 1) * 28) * one / 1e12  # dev after both epochs, test once
    assert plan_base.hours(words, 1e12) == (1, pytest.approx(seconds / 3600, rel=1e-4))


def test_the_predicted_steps_are_the_measured_ones() -> None:
    for batch, seconds in plan_base.MEASURED.items():
        found = plan_base.STEP + plan_base.OPERATIONS[batch] / plan_base.RATE
        assert found == pytest.approx(seconds) and 200e12 < plan_base.RATE < 240e12


SHAPES_OF_COMMANDS = ("source-prompts", "finetune-small", "spot-mnli-small", "attempt-single-small", "multi-others")
SHAPES_OF_COMMANDS += ("shots-4", "ablation-no-target", "spot-retrieval", "squad-adamw")


@pytest.mark.parametrize("name", SHAPES_OF_COMMANDS)
def test_a_command_for_a_gpu_runs_dry(
    name: str, every_task: Path, tiny_checkpoint: Path, prompts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = next(shlex.split(w) for _, w in plan_base.commands() if name in w)
    command = parse(words, expand=expand)
    flags = ["--model", str(tiny_checkpoint), "--data-dir", str(every_task), "--device", "cpu", "--splits", "official"]
    if command.options.init and command.options.init.startswith("runs/"):
        flags += ["--init", prompts[0]]
    elif command.options.method in ("attempt", "spot"):
        flags += ["--source-prompts", *prompts]
    if command.options.load_attention:
        words = [word for word in words if word not in ("--load-attention", command.options.load_attention)]
    if command.options.shots:  # of the few-shot tasks only scitail's small files have an example of each label
        flags += ["--shots", "1", "--task", "scitail"]
    elif command.separately:
        flags += ["--task", command.options.task[-1]]
    assert train.main([*words, *flags, "--dry-run"]) == 0
    assert "dry run: nothing was trained" in capsys.readouterr().out


@pytest.fixture
def prompts(prompt_run: Path, tmp_path: Path) -> list[str]:
    """Source prompts of 100 rows, which is what the recipes ask for."""
    import torch  # noqa: PLC0415

    torch.save(torch.randn(100, 32), tmp_path / "mnli_prompt.pt")
    return [str(tmp_path / "mnli_prompt.pt")]


TINY = "--batch-size 8 --device cpu --steps 4 --eval-every 2"
CELLS = [
    cell("source-cola", "sources", f"--task cola --method prompt --prompt-length 5 {TINY}"),
    cell("rte-prompt-42", "targets", f"--task rte --method prompt --prompt-length 5 {TINY}"),
    cell("rte-attempt-42", "targets", f"--task rte --method attempt --source-prompts runs/source-cola {TINY}"),
    cell("failing", "targets", f"--task cola --method prompt --shots 1000 {TINY}"),
    cell("after-it", "targets", f"--task rte --method spot --init runs/failing --prompt-length 5 {TINY}"),
]


class InThisProcess:
    """What Popen does with train.py, without the seconds that a new Python needs."""

    def __init__(self, command: list[str], cwd: Path, stdout: IO[str], **_: Any) -> None:
        words = command[command.index(str(runner.REPOSITORY / "train.py")) + 1 :]
        with pytest.MonkeyPatch.context() as at, contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stdout):
            at.chdir(cwd)
            self.returncode = train.main(words)

    def poll(self) -> int:
        return self.returncode

    wait = poll


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "subprocess", SimpleNamespace(Popen=InThisProcess))


@pytest.fixture(scope="module")
def place(glue: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> runner.Place:
    out = tmp_path_factory.mktemp("replication")
    made = runner.Place(tiny_checkpoint, glue, out, out / "kept")
    runner.run_cells(CELLS[:1], made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "subprocess", SimpleNamespace(Popen=InThisProcess))
        runner.run_cells(CELLS, made)
    return made


def test_the_runner_keeps_what_is_small_and_hides_where_it_was(place: runner.Place) -> None:
    assert {path.name for path in place.kept.iterdir()} == {"sources.jsonl", "targets.jsonl"}
    kept = kept_cells(place.kept)
    parts = {"run", "command", "config", "curve", "result", "log"}
    assert kept["source-cola"].keys() == kept["rte-attempt-42"].keys() == parts
    assert kept["rte-prompt-42"].keys() == parts | {"similarities"}
    assert kept["failing"].keys() == {"run", "command", "failed", "log"} and "after-it" not in kept
    assert "1000 training examples" in kept["failing"]["failed"]
    log = unpacked(kept["rte-attempt-42"]["log"])
    assert "best (step" in log and not any(str(folder) in log for folder in (place.model, place.data, place.out))
    run, config = place.out / "runs" / "rte-attempt-42", kept["rte-attempt-42"]["config"]
    assert kept["rte-attempt-42"]["curve"] == Run(run).read_metrics() != []
    assert kept["rte-attempt-42"]["result"]["scores"] == json.loads((run / "result.json").read_text())["scores"]
    assert config["source_prompts"] == ["runs/source-cola"] and config["out"] == "runs/rte-attempt-42"
    assert config["data_dir"] == "DATA" and config["model"] == place.model.name
    similar = kept["rte-prompt-42"]["similarities"]
    assert set(similar) == {"source-cola"} and -1 <= similar["source-cola"]["average"] <= 1


class Counted:
    """A process that ends with the third look at it; how many there were at once."""

    at_once: ClassVar[list[int]] = []
    running = 0

    def __init__(self, command: list[str], cwd: Path, **_: Any) -> None:
        self.out, self.looks = cwd / command[command.index("--out") + 1], 0
        Counted.running += 1
        Counted.at_once.append(Counted.running)

    def poll(self) -> int | None:
        self.looks += 1
        if self.looks < 3:
            return None
        Counted.running -= 1
        self.out.mkdir(parents=True)
        for name in ("result.json", "config.json", "metrics.jsonl"):
            (self.out / name).write_text("{}")
        return 0

    @property
    def returncode(self) -> int:
        return 0


def test_so_many_runs_at_a_time_each_after_those_that_it_needs(
    place: runner.Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "subprocess", SimpleNamespace(Popen=Counted))
    here = runner.Place(place.model, place.data, tmp_path, tmp_path / "kept")
    cells = [cell("a", "x", "--seed 1"), cell("b", "x", "--init runs/a"), cell("c", "x", "--init runs/b")]
    cells += [cell(name, "x", f"--seed {seed}") for seed, name in enumerate("defg")]
    runner.run_cells(cells, here, pace=Pace(2))
    order = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert order == ["a", "d", "b", "e", "c", "f", "g"] and max(Counted.at_once) == 2


@pytest.mark.usefixtures("quick")
def test_a_kept_cell_is_not_run_again_and_a_cut_one_goes_on(
    place: runner.Place, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runner.run_cells(CELLS, place)
    assert capsys.readouterr().out == "5/5 after-it: left out, it needs the runs of failing\n"
    run = place.out / "runs" / "source-cola"
    copy = runner.Place(place.model, place.data, tmp_path, tmp_path / "kept")
    cut = tmp_path / "runs" / "source-cola"
    cut.mkdir(parents=True)
    for name in ("config.json", "state.pt", "last.safetensors", "best.safetensors", "metrics.jsonl"):
        (cut / name).write_bytes((run / name).read_bytes())  # all but result.json: stopped before the last score
    assert runner.make(CELLS[0], copy) == ""
    results = [json.loads((folder / "result.json").read_text())["scores"] for folder in (run, cut)]
    assert results[0] == results[1]
    assert "resumed" in (tmp_path / "source-cola.log").read_text()


def test_a_run_that_another_program_is_at_has_not_failed(place: runner.Place) -> None:
    busy = cell("busy", "x", f"--task cola --method prompt {TINY}")
    with Run(place.out / "runs" / "busy").held(), pytest.raises(AttemptError, match="no other program writes to"):
        runner.run_cells([busy], place)
    assert "busy" not in kept_cells(place.kept)


def test_no_cell_is_begun_when_the_minutes_are_over(place: runner.Place, capsys: pytest.CaptureFixture[str]) -> None:
    runner.run_cells([cell("new", "x", f"--task cola --method prompt {TINY}")], place, -1)
    assert capsys.readouterr().out == "-1 minutes are over: new is next\n" and "new" not in kept_cells(place.kept)


@pytest.mark.usefixtures("quick")
def test_a_cell_made_again_has_the_stored_scores(place: runner.Place, capsys: pytest.CaptureFixture[str]) -> None:
    again = runner.chosen("rte-attempt-42", CELLS, place)
    assert runner.check(again, place)
    stored = place.kept / "targets.jsonl"
    whole = stored.read_text()
    lines = [json.loads(line) for line in whole.splitlines()]
    lines[1]["result"]["scores"][1]["metrics"]["accuracy"] += 1
    assert lines[1]["run"] == again.name
    stored.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert not runner.check(again, place)
    stored.write_text(whole)
    assert runner.chosen("random", CELLS, place).name in {"source-cola", "rte-prompt-42", "rte-attempt-42"}
    with pytest.raises(AttemptError, match="--cell failing: expected random or a kept cell"):
        runner.chosen("failing", CELLS, place)


def test_a_place_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", str(tmp_path / "none"), "--data-dir", str(tmp_path), "--runs", str(tmp_path)]
    assert program.main(["run", *flags]) == 2
    assert "--model: expected a folder, found none" in error_of(capsys)


def test_the_best_constant_answer(glue: Path) -> None:
    options = parse(shlex.split("--task rte --labels words --eval-examples 6")).options
    found = constant("rte", options, Downloader(data_dir=glue))
    assert found["metric"] == "accuracy" and found["dev"]["examples"] == found["test"]["examples"] == 6
    assert found["dev"]["constant"] >= 50  # of two labels one has at least half
    assert max(found["dev"]["labels"].values()) == found["dev"]["constant"] / 100 * 6
    assert constant("cola", options, Downloader(data_dir=glue))["dev"]["constant"] == 0  # Matthews of a constant


def test_the_t5_alone_is_bitfit_at_a_rate_of_0() -> None:
    for one in plan_cpu.zero_shot():
        options = parse(one.command()).options
        assert (options.method, options.lr, options.weight_decay) == ("bitfit", 0.0, None)


def test_a_figure_names_mean_deviation_and_number() -> None:
    values = [61.5, 64.0, 70.5]
    expected = f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f} (3)"
    assert figure(values) == expected and figure([61.25]) == "61.2"


def write(
    place: Path,
    one: Cell,
    dev: float,
    test: float,
    similar: dict[str, float] | None = None,
    data_seed: int = 42,
    answers: dict[str, int] | None = None,
    log: str = "",
) -> None:
    """A kept cell with these scores."""
    task = parse(one.command()).options.task
    scores = [
        {"task": name, "split": split, "metrics": {"accuracy": value}, "invalid": 0.0}
        for split, value in (("dev", dev), ("test", test))
        for name in task
    ]
    result = {
        "scores": scores,
        "mean": {"dev": dev, "test": test},
        "trainable_parameters": 7,
        "seconds": 9.0,
        "best_step": 5,
    }
    for score in scores:
        score["answers"] = answers
    curve = [{"step": 5, "loss": 1.0, "scores": scores[: len(task)]}]
    line = {"run": one.name, "config": {"data_seed": data_seed}, "result": result, "curve": curve, "log": packed(log)}
    if similar is not None:
        line["similarities"] = {f"source-{name}": {"average": v, "tokens": v} for name, v in similar.items()}
    append_cell(place, one.part, line)


def test_spot_s_choices_and_correlation_come_from_the_cells_of_all_sources(tmp_path: Path) -> None:
    scipy = pytest.importorskip("scipy.stats")
    similar = {"mnli": 0.9, "qnli": 0.5, "qqp": 0.4, "sst2": 0.3, "squad": 0.1}
    gains = {"mnli": 2.0, "qnli": 6.0, "qqp": 1.0, "sst2": 0.0, "squad": -3.0}
    write(tmp_path, plan_cpu.target("rte", "prompt", 42), 50, 60, similar)
    for source, gain in list(gains.items())[:-1]:
        write(tmp_path, plan_cpu.target("rte", f"from-{source}", 42), 50 + gain, 60 + gain)

    def row(table: str, first: str) -> list[str]:
        return next(cells for cells in TABLES[table](Kept(tmp_path)) if cells[0] == first)

    place = row("targets", "prompt"), plan_cpu.FULL.index("rte") + 1
    assert place[0][place[1]] == "60.0" and place[0][1] == "not run"
    firsts = [cells[0] for cells in TABLES["targets"](Kept(tmp_path))]  # without the rows that have no run
    assert firsts == ["test", "prompt", *(f"from-{name}" for name in list(gains)[:-1])]  # a source is missing: no SPoT
    write(tmp_path, plan_cpu.target("rte", "from-squad", 42), 50 - 3, 60 - 3)
    assert row("targets", "SPoT: nearest source")[place[1]] == "62.0, mnli"
    assert row("targets", "SPoT: best on dev")[place[1]] == "66.0, qnli"
    assert row("transfer", "rte")[2] == "0.50 / +6.0"
    expected = scipy.pearsonr(list(similar.values()), list(gains.values())).statistic
    ranked = scipy.spearmanr(list(similar.values()), list(gains.values())).statistic
    assert row("correlation", "average, seed 42")[1:] == ["1", "5", "3", f"{expected:.2f}", f"{ranked:.2f}"]


def test_correlation_is_of_what_differs_within_a_target_s_run(tmp_path: Path) -> None:
    scipy = pytest.importorskip("scipy.stats")
    similar = {"mnli": 0.9, "qnli": 0.5, "qqp": 0.4, "sst2": 0.3, "squad": 0.1}
    gains = {"rte": [2.0, 6.0, 1.0, 0.0, -3.0], "cb": [1.0, 5.0, 4.0, -2.0, 0.0]}
    for task, level in (("rte", 0.0), ("cb", -0.6)):  # another level of similarity, as another seed has it
        shifted = {source: value + level for source, value in similar.items()}
        write(tmp_path, plan_cpu.target(task, "prompt", 43), 50, 60, shifted)
        for source, gain in zip(similar, gains[task], strict=True):
            write(tmp_path, plan_cpu.target(task, f"from-{source}", 43), 50, 60 + gain)
    rows = TABLES["correlation"](Kept(tmp_path))
    both = np.concatenate([np.array(values) - np.mean(values) for values in gains.values()])
    x = np.tile(np.array(list(similar.values())) - np.mean(list(similar.values())), 2)
    assert rows[1][:4] == ["average, all seeds", "2", "10", "7"]
    assert rows[1][4] == f"{scipy.pearsonr(x, both).statistic:.2f}"
    assert TABLES["transfer"](Kept(tmp_path)) == [["similarity / gain", *plan_cpu.SOURCES]]  # seed 42 alone


def test_balanced_accuracy_from_what_a_run_keeps() -> None:
    oracle = pytest.importorskip("sklearn.metrics")
    numbers = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.9):
        right, said = (numbers.random(200) < share).tolist(), (numbers.random(200) < 0.6).tolist()
        found = balanced(
            100 * oracle.accuracy_score(right, said),
            {"yes": sum(said), "no": 200 - sum(said)},
            {"no": 200 - sum(right), "yes": sum(right)},
        )
        assert found == pytest.approx(100 * oracle.balanced_accuracy_score(right, said))
    assert balanced(64, {"neutral": 200}, {"neutral": 128, "entails": 72}) == 50  # one answer for all


def test_a_target_s_accuracy_is_balanced_by_the_labels_of_the_examples_it_was_scored_on(tmp_path: Path) -> None:
    labels = {"dev": {"a": 100, "b": 100}, "test": {"a": 150, "b": 50}}
    chance = {"metric": "accuracy", **{split: {"constant": 75, "labels": right} for split, right in labels.items()}}
    other = {"metric": "accuracy", **{split: {"labels": {"a": 10, "b": 190}} for split in labels}}
    (tmp_path / "chance.json").write_text(json.dumps({"scitail": chance, "scitail-43": other, "sst2": chance}))
    one, of_others = (plan_cpu.target("scitail", "prompt", seed) for seed in (42, 43))
    write(tmp_path, one, 50, 75, answers={"a": 200})
    write(tmp_path, of_others, 50, 75, answers={"a": 200}, data_seed=43)
    kept = Kept(tmp_path)
    assert kept.score([one.name], "test") == kept.constant("scitail", "test") == "50.0"
    assert kept.measure("scitail") == "balanced accuracy" and kept.measure("sst2") == "accuracy"
    assert kept.score([of_others.name], "test") != "50.0"


def test_every_table_stands_without_a_single_result(tmp_path: Path) -> None:
    for rows in (table(Kept(tmp_path)) for table in (*TABLES.values(), *tables_gpu.TABLES.values())):
        assert len({len(row) for row in rows}) == 1 and len(rows[0]) > 1


def test_an_unknown_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(AttemptError, match="found nonsense"):
        filled("<!-- table: nonsense -->\n<!-- end -->", Kept(tmp_path), TABLES)


def test_the_gpu_s_tables_compare_by_seed_and_over_the_tasks(tmp_path: Path) -> None:
    plan = {one.name: one for one in plan_gpu.GpuPlan().cells()}
    tests = {"prompt": {42: 60.0, 43: 64.0, 44: 50.0}, "attempt-max": {42: 63.0, 43: 66.0}}
    for task, level in (("rte", 0.0), ("cb", 10.0)):
        for method, values in tests.items():
            for seed, value in values.items():
                more = level if method == "attempt-max" else 0.0
                write(tmp_path, plan[f"{task}-{method}-{seed}"], 50 + more, value + more)
    made = {name: table(Kept(tmp_path)) for name, table in tables_gpu.TABLES.items()}
    rows = {row[0]: row[1:] for row in made["gpu-compared"]}
    p = stats.ttest_rel([63, 66], [60, 64]).pvalue
    assert rows["attempt-max - prompt"][0] == f"+2.5 (2), p = {p:.3f}"
    over = stats.ttest_1samp([2.5, 12.5], 0).pvalue
    assert rows["attempt-max - prompt"][-1] == f"+7.5 (2), p = {over:.3f}" and "from-mnli - prompt" not in rows
    assert made["gpu-targets"][0] == ["test", *(f"{task}: " for task in plan_gpu.FIRST)]
    assert dict(row[:2] for row in made["gpu-curves"])["prompt"] == "50.0 (3)"


def test_a_cell_that_was_run_on_a_cpu_is_marked(tmp_path: Path) -> None:
    plan = {one.name: one for one in plan_gpu.GpuPlan().cells()}
    for name, device in (("rte-prompt-42", "cuda (NVIDIA H200), bf16"), ("rte-attempt-max-42", "cpu (CPU), fp32")):
        write(tmp_path, plan[name], 50, 60, log=f"run  a\ndevice     {device}\n")
    made = {name: tables_gpu.TABLES[f"gpu-{name}"](Kept(tmp_path)) for name in ("targets", "progress")}
    rows = {row[0]: row[1:] for row in made["targets"]}
    assert (rows["prompt"][0], rows["attempt-max"][0]) == ("60.0", "60.0, CPU")
    assert made["progress"][2] == ["targets", "180", "2", "1", "0"]


def test_the_pooling_tables_count_and_compare_as_numpy_and_scipy_do(tmp_path: Path) -> None:
    tests = {"max": [77.0, 78.5, 76.0], "centred": [81.0, 80.5, 82.5]}
    kinds = {kind: [0.1] * 5 for kind in pooling.KINDS}
    lines = []
    for pool, values in tests.items():
        for seed, value in enumerate(values):
            weights = {**kinds, "qqp": [0.1, 0.1, 0.5 + seed / 10, 0.1, 0.1]} if pool == "centred" else kinds
            run = {"model": "demo", "task": "stream", "pool": pool, "target": False, "rate": "0.3", "seed": seed}
            run |= {"test": value, "deviation": {"stream": 0.01 * seed}, "kinds": weights}
            lines.append(json.dumps({**run, "prompts": ["mnli", "qnli", "qqp", "squad", "sst2"]}) + "\n")
    (tmp_path / pooling.FIGURES).write_text("".join(lines[::-1]))
    rows = {row[0]: row for row in pooling.routing("demo", tmp_path)}
    assert rows["centred, without a target"][1:] == ["0.10 ± 0.00 (3)"] * 2 + [
        "0.60 ± 0.10 (3)",
        "0.10 ± 0.00 (3)",
        "1 1 1",
        "0.0100 ± 0.0100 (3)",
    ]
    assert rows["max, without a target"][5] == "0 0 0" and "mean, without a target" not in rows
    p = stats.ttest_rel(tests["centred"], tests["max"]).pvalue
    difference = np.mean(tests["centred"]) - np.mean(tests["max"])
    rows = {row[0]: row for row in pooling.compared("demo", ["stream"], tmp_path)}
    found = rows["centred, without a target - max, without a target"][1]
    assert found == f"{difference:+.1f} p = {p:.3f}"


def test_the_pooling_tables_take_mixtures_by_the_rate_of_g_which_prompt_tuning_has_not(tmp_path: Path) -> None:
    kinds = {kind: [0.25] * 4 for kind in pooling.KINDS}
    every = {"model": "real", "task": "stream", "seed": 1, "prompts": [*pooling.KINDS], "kinds": kinds}
    runs = [{**every, "pool": "prompt", "target": True, "rate": "0.3", "test": 50.0}]
    for rate, test, deviation in (("0.3", 22.5, 0.0), ("0.01", 30.0, 0.125)):
        mixed = {"pool": "max", "target": False, "rate": rate, "test": test, "deviation": {"stream": deviation}}
        runs.append({**every, **mixed})
    (tmp_path / pooling.FIGURES).write_text("".join(json.dumps(run) + "\n" for run in runs))
    assert pooling.scores("real", ["stream"], tmp_path, "0.01")[1:] == [
        ["prompt tuning", "50.0 (1)"],
        ["max, without a target", "30.0 (1)"],
    ]
    rows = pooling.routing_at_rates("real", ("0.3", "0.01"), tmp_path)
    assert [(row[0], row[-1]) for row in rows[1:]] == [
        ("max, without a target, G's rate 0.3", "0.0000 (1)"),
        ("max, without a target, G's rate 0.01", "0.1250 (1)"),
    ]
