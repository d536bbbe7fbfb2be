"""Each method learns something real within seconds: on the demo's tiny T5 and its small world, through train.py.

A broken gradient, mask or mixture fails here, with neither network nor large weights. What was measured when these
tests were written stands in brackets; the bounds leave room for another machine's rounding.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY
from runs import metrics_of, result_of

import eval
import train
from attempt.checkpoint import load_prompt
from attempt.plots.plots import can_draw
from attempt.runs.plan import Plan
from demo.data import STREAM
from demo.show import demo_words

LONG = pytest.mark.long
SOURCE = "demo/sources/{}/best.safetensors"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def trained(out: Path, *flags: str) -> dict[str, Any]:
    """The result of one run with the demo's settings, 40 steps unless said otherwise."""
    words = [*flags, "--eval-examples", "200", "--device", "cpu", "--out", str(out)]
    train.train_run(train.parse([*demo_words(words), "--demo"]).options)
    return result_of(out)


def fell(out: Path) -> float:
    """The last loss in relation to the first."""
    records = metrics_of(out)
    return records[-1]["loss"] / records[0]["loss"]


def test_prompt_tuning_learns_to_compare_two_questions(tmp_path: Path) -> None:
    result = trained(tmp_path, "--task", "qqp", "--method", "prompt", "--steps", "60", "--eval-every", "20")
    assert result["mean"]["test"] > 75 and fell(tmp_path) < 0.75


def test_a_prompt_of_a_related_task_helps_at_once(tmp_path: Path) -> None:
    """mrpc after ten steps: from scratch, and from qqp's prompt."""
    flags = ["--task", "mrpc", "--steps", "10", "--eval-every", "10"]
    alone = trained(tmp_path / "prompt", *flags, "--method", "prompt")["mean"]["test"]
    helped = trained(tmp_path / "spot", *flags, "--method", "spot", "--init", SOURCE.format("qqp"))["mean"]["test"]
    assert helped > 75 and helped > alone + 10


@pytest.mark.parametrize("attention", ["sub", *(pytest.param(form, marks=LONG) for form in ("linear", "dot", "token"))])
def test_a_mixture_learns(attention: str, tmp_path: Path) -> None:
    """mrpc is qqp's relative, and Q begins as mnli's prompt: G finds the source that helps."""
    result = trained(tmp_path, "--task", "mrpc", "--method", "attempt", "--attention", attention)
    weights = metrics_of(tmp_path)[-1]["mixture"]["mrpc"]["weights"]
    assert result["mean"]["test"] > 70 and fell(tmp_path) < 0.8
    if attention == "sub":
        assert max(weights, key=weights.__getitem__) == "qqp" and weights["qqp"] > 0.3, weights


@pytest.mark.long
def test_constant_weights_learn_too(tmp_path: Path) -> None:
    result = trained(tmp_path, "--task", "mrpc", "--method", "attempt", "--attention", "constant")
    weights = metrics_of(tmp_path)[-1]["mixture"]["mrpc"]["weights"]
    assert all(weight == pytest.approx(1 / 6) for weight in weights.values())
    assert fell(tmp_path) < 0.9 and result["steps"] == 40


@pytest.mark.long
def test_several_tasks_learn_side_by_side(tmp_path: Path) -> None:
    """Each with its own prompt: with the prompts exchanged, the answers are those of the other task."""
    result = trained(tmp_path, "--task", "mrpc", "mnli", "--method", "attempt", "--steps", "60", "--eval-every", "30")
    scores = {score["task"]: score["metrics"]["accuracy"] for score in result["scores"] if score["split"] == "test"}
    assert scores["mrpc"] > 65 and scores["mnli"] > 50
    prompt, config = load_prompt(tmp_path)
    assert config.tasks == ["mrpc", "mnli"] and not torch.allclose(prompt.target[0], prompt.target[1])


@pytest.mark.parametrize(
    "method", ["finetune", *(pytest.param(method, marks=LONG) for method in ("adapter", "bitfit"))]
)
def test_the_baselines_learn(method: str, tmp_path: Path) -> None:
    rate = {"finetune": "1e-3", "adapter": "1e-2", "bitfit": "1e-2"}[method]
    result = trained(tmp_path, "--task", "qqp", "--method", method, "--steps", "60", "--eval-every", "20")
    assert Plan.read(tmp_path / "config.json").lr == float(rate)
    assert result["mean"]["test"] > 65 and fell(tmp_path) < 0.8


@pytest.mark.long
def test_free_text_answers_are_learned(tmp_path: Path) -> None:
    result = trained(tmp_path, "--task", "squad", "--method", "prompt", "--steps", "40", "--eval-every", "4")
    assert result["mean"]["test"] > 30 and fell(tmp_path) < 0.9  # [48 to 51; 0.74 to 0.77]


def test_the_demo_prints_its_table_and_bars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--task", "mrpc", "--method", "attempt", "--demo", "--steps", "4", "--eval-every", "2"]
    flags += ["--eval-examples", "40", "--device", "cpu", "--seeds", "1", "2", "--out", str(tmp_path)]
    assert train.main(flags) == 0
    printed = capsys.readouterr().out
    table = printed[printed.index("mrpc: accuracy, in percent; 2 seeds") :].splitlines()
    assert [line.split("  ")[0] for line in table[1:6]] == [
        "method",
        "majority answer",
        "prompt tuning",
        "SPoT",
        "ATTEMPT",
    ]
    values = [result_of(tmp_path / f"mrpc/attempt/seed-{seed}")["mean"]["test"] for seed in (1, 2)]
    mean, deviation = sum(values) / 2, abs(values[0] - values[1]) / 2**0.5
    assert table[5].endswith(f"{mean:.2f} ± {deviation:.2f}")
    bars = table[table.index("what ATTEMPT mixes for mrpc: mean weights on dev") + 1 :][:6]
    assert [bar.split()[0] for bar in bars] == ["mnli", "qnli", "qqp", "squad", "sst2", "target"]
    assert sum(float(bar.split()[1]) for bar in bars) == pytest.approx(1, abs=0.01)
    # the runs are runs like any other
    assert eval.main(["--run", str(tmp_path / "mrpc/spot/seed-1"), "--device", "cpu"]) == 0


def test_a_sources_own_prompt_is_not_among_its_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--task", "qqp", "--method", "attempt", "--demo", "--steps", "1", "--eval-examples", "10"]
    assert train.main([*flags, "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert "sources    mnli, qnli, squad, sst2\n" in capsys.readouterr().out


def test_the_demo_writes_a_summary_of_each_method(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And tells a note once, however many runs come upon it."""
    flags = [
        "--task",
        "mrpc",
        "--demo",
        "--steps",
        "2",
        "--eval-every",
        "2",
        "--eval-examples",
        "10",
        "--device",
        "cpu",
    ]
    assert train.main([*flags, "--seeds", "4", "7", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert told.err.count("may be others than the official ones") == 1
    for method in ("prompt", "spot", "attempt"):
        summary = json.loads((tmp_path / f"mrpc/{method}/summary.json").read_text())
        values = [result_of(tmp_path / f"mrpc/{method}/seed-{seed}")["mean"]["test"] for seed in (4, 7)]
        assert summary["seeds"] == [4, 7] and summary["scores"][-1]["values"] == values


def test_a_dry_run_of_the_demo_shows_its_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--demo", "--task", "mrpc", "qqp", "--device", "cpu", "--out", str(tmp_path / "x"), "--dry-run"]
    assert train.main(flags) == 0
    text = capsys.readouterr().out
    folders = [line.split()[1] for line in text.splitlines() if line.startswith("run  ")]
    methods = ("prompt", "spot", "attempt")
    assert folders == [str(tmp_path / "x" / task / method) for task in ("mrpc", "qqp") for method in methods]
    assert text.count("runs       3, with the seeds 1, 2, 3") == 6
    assert "of mnli, qnli, qqp, squad, sst2; here" in text and "of mnli, qnli, squad, sst2; here" in text
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("method", ["finetune", "adapter", "bitfit"])
def test_the_demo_takes_every_method(method: str, tmp_path: Path) -> None:
    words = ["--method", method] if method == "bitfit" else [f"--method={method}", "--seeds", "1"]
    flags = ["--demo", "--task", "mrpc", "--steps", "2", "--eval-every", "2", "--eval-examples", "10"]
    assert train.main([*flags, *words, "--device", "cpu", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "seed-1" if "--seeds" in words else tmp_path
    assert result_of(folder)["method"] == Plan.read(folder / "config.json").method == method


def test_the_demo_computes_on_one_thread_and_has_three_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        command = train.parse(demo_words(["--demo"]))
        assert torch.get_num_threads() == 1 and command.seeds == (1, 2, 3) and command.options.task == ["mrpc"]
    finally:
        torch.set_num_threads(threads)
    assert train.parse(demo_words(["--demo", "--task", "rte", "--seeds=5"])).seeds == (5,)
    assert train.parse(demo_words(["--demo", "--task", "rte", "cola"])).options.task == ["rte", "cola"]
    command = train.parse(demo_words(["--demo", "--task", "mrpc", "--seed=5"]))
    assert command.seeds == () and command.options.seed == 5


@pytest.mark.long
def test_a_stream_of_tasks_is_mixed_anew_for_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows without a task's name: centred, G gives each kind its own source's prompt; with the maximum it cannot."""
    flags = ["--demo", "--task", "stream", "--method", "attempt", "--no-target", "--device", "cpu"]
    flags += ["--steps", "120", "--eval-every", "120", "--eval-examples", "300"]
    assert train.main([*flags, "--pool", "centred", "--out", str(tmp_path / "centred")]) == 0
    printed = capsys.readouterr().out
    start = printed.index("what each kind of row gets")
    head, *rows = (line.replace("±", " ").split() for line in printed[start:].splitlines()[1:6])
    assert head == ["rows", "of", "mnli", "qnli", "qqp", "squad", "sst2"] and [row[0] for row in rows] == list(STREAM)
    own = {kind: float(row[1::2][head[2:].index(kind)]) for kind, row in zip(STREAM, rows, strict=True)}
    assert sum(weight > 0.4 for weight in own.values()) >= 3, own
    run = tmp_path / "centred/stream/attempt/seed-42"
    assert result_of(run)["mixture"]["stream"]["deviation"] > 0.05 and "note: G gives" not in printed
    assert (run.with_suffix(".svg")).exists() == can_draw()
    # the run is a run like any other
    assert eval.main(["--run", str(run), "--device", "cpu", "--attention-map", str(tmp_path / "map.svg")]) == (
        0 if can_draw() else 2
    )

    capsys.readouterr()
    few = ["--steps", "20", "--eval-every", "20", "--out", str(tmp_path / "max")]
    assert train.main([*flags, *few]) == 0
    assert "note: G gives all texts the same weights" in capsys.readouterr().out
    assert train.main([*flags, "--task", "stream", "mrpc", "--out", str(tmp_path / "both")]) == 2
    assert "--demo: expected only --task stream" in capsys.readouterr().err
