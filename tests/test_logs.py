"""TensorBoard's files by its own reader; Weights & Biases against a module that notes what it is told."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from runs import error_of, metrics_of, result_of, same_prompt

import train
from attempt.runs.plan import Plan
from attempt.training.logs import WeightsAndBiases, figures_of

PROMPT = ["--task", "cola", "--method", "prompt", "--prompt-length", "4", "--log-every", "2", "--eval-every", "4"]


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve in a run's event files: (step, value) pairs."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def killed_at(steps: int, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    step = train.Trainer.train_step

    def killed(self: train.Trainer, *parts: Any) -> None:
        if self.step == steps:
            raise RuntimeError("killed")
        step(self, *parts)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(train.Trainer, "train_step", killed)
        train.main(words)


def test_tensorboard_has_each_figure_once_also_of_a_resumed_run(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    # steps 5 and 6 are taken twice: state was saved at 4, and step 6 had been logged
    killed_at(7, monkeypatch, [*PROMPT, "--steps", "10", "--tensorboard", "--out", str(run), *common])
    assert [step for step, _ in scalars(run)["train/loss"]] == [2, 4, 6]
    assert train.main(["--resume", str(run)]) == 0
    curves, records = scalars(run), metrics_of(run)
    assert [step for step, _ in curves["train/loss"]] == [2, 4, 6, 8, 10]
    assert curves["dev/cola/matthews"] == [
        (record["step"], pytest.approx(record["scores"][0]["metrics"]["matthews"])) for record in records
    ]
    result = result_of(run)
    assert curves["test/cola/matthews"] == [(result["best_step"], pytest.approx(result["mean"]["test"]))]
    assert {"train/lr", "train/examples per second", "dev/cola/invalid"} <= curves.keys()
    assert train.main([*PROMPT, "--steps", "10", "--out", str(tmp_path / "plain"), *common]) == 0
    assert same_prompt(run, tmp_path / "plain")  # it changes nothing in what is trained


def test_a_record_becomes_named_numbers(attempt_flags: list[str], tmp_path: Path) -> None:
    assert train.main([*attempt_flags, "--steps", "2", "--out", str(tmp_path / "run")]) == 0
    record = metrics_of(tmp_path / "run")[0]
    figures = figures_of(record)
    assert figures["mixture/rte/cola"] == record["mixture"]["rte"]["weights"]["cola"]
    assert figures["mixture entropy/cola"] == record["mixture"]["cola"]["entropy"]
    assert figures["dev/rte/accuracy"] == record["scores"][0]["metrics"]["accuracy"]
    assert all(isinstance(value, float) for value in figures.values())


class Wandb(SimpleNamespace):
    """What the program uses of the module wandb, noted."""

    def __init__(self) -> None:
        super().__init__(inits=[], logged=[], ended=[], problem=None)
        self.run = SimpleNamespace(
            define_metric=lambda *_, **__: None,
            log=self.logged.append,
            finish=self.finished,
        )

    def finished(self, exit_code: int) -> None:
        self.ended.append(exit_code)

    def init(self, **settings: Any) -> Any:
        if self.problem:
            raise self.problem
        self.inits.append(settings)
        return self.run

    def Settings(self, **settings: Any) -> dict[str, Any]:  # noqa: N802 - the module's
        return settings


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    fake = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_weights_and_biases_gets_the_curves_and_no_secret(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb: Wandb, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    killed_at(7, monkeypatch, [*PROMPT, "--steps", "10", "--wandb", "soft", "--out", str(run), *common])
    assert wandb.ended == [1]
    assert train.main(["--resume", str(run)]) == 0
    assert wandb.ended == [1, 0]
    first, second = wandb.inits
    assert first["id"] == second["id"] == (run / "wandb-id.txt").read_text().strip() and first["resume"] == "allow"
    assert first["project"] == "soft" and first["config"]["lr"] == 0.3 and first["dir"] == str(run)
    assert first["settings"] == {"console": "off", "x_disable_meta": True}  # neither printed lines nor the command
    secret = dataclasses.replace(Plan.read(run / "config.json"), mirror="https://me:hunter2@files.org/")
    WeightsAndBiases(run, secret)
    assert wandb.inits[-1]["config"]["mirror"] == "https://files.org/"
    assert "hunter2" not in json.dumps([wandb.inits, wandb.logged]) and "hunter2" not in "".join(capsys.readouterr())
    assert [row["step"] for row in wandb.logged if "train/loss" in row] == [2, 4, 6, 6, 8, 10]
    assert [row["step"] for row in wandb.logged if "dev/cola/matthews" in row] == [4, 8, 10]
    assert sum("test/cola/matthews" in row for row in wandb.logged) == 1


def test_a_refusal_is_told_on_one_line(
    common: list[str], tmp_path: Path, wandb: Wandb, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb.problem = RuntimeError("api_key not configured (no-tty)\ncall wandb.login")
    assert train.main([*PROMPT, "--steps", "2", "--wandb", "soft", "--out", str(tmp_path / "run"), *common]) == 2
    message = error_of(capsys)
    assert "--wandb soft" in message and "api_key not configured" in message and "WANDB_MODE=offline" in message


@pytest.mark.parametrize(
    ("flags", "module"), [(["--tensorboard"], "torch.utils.tensorboard"), (["--wandb", "soft"], "wandb")]
)
def test_a_missing_package_is_told_before_anything_is_loaded(
    flags: list[str], module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # so that its import fails
    words = [*PROMPT, "--model", str(tmp_path), "--out", str(tmp_path / "run"), *flags]
    assert train.main(words) == 2
    message = error_of(capsys)
    assert f"pip install -e '.[{flags[0][2:]}]'" in message and not (tmp_path / "run").exists()


def test_neither_is_imported_without_its_flag(prompt_run: Path) -> None:
    code = f"import sys, train; train.main(['--resume', {str(prompt_run)!r}]); "
    code += "print([m for m in sys.modules if m.split('.')[0] in ('tensorboard', 'wandb', 'matplotlib')])"
    root = Path(train.__file__).parent
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
