"""Signals to a run in a process of its own: it saves, says how to go on, and goes on as if nothing had happened."""

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from kill_runs import complete
from runs import error_of, metrics_of, result_of, same_prompt

import train
from attempt.command.options import Options
from attempt.runs.folder import Run
from attempt.runs.parsing import resumed
from attempt.runs.plan import Plan
from attempt.training import job

FLAGS = ["--task", "cola", "--method", "prompt", "--prompt-length", "4", "--steps", "9", "--eval-every", "4"]


def send(number: int, at: int, monkeypatch: pytest.MonkeyPatch, during: str = "train_step") -> None:
    """Send this very process a signal at the at-th training step, or the at-th answer of an evaluation."""
    count = 0
    owner: Any = train.Trainer if during == "train_step" else job
    whole = getattr(owner, during)

    def step(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), number)
        return whole(*arguments)

    monkeypatch.setattr(owner, during, step)


@pytest.fixture(scope="module")
def whole(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train.main([*FLAGS, *common, "--out", str(out)]) == 0
    return out


def assert_same(whole: Path, cut: Path) -> None:
    for name in ("best.safetensors", "last.safetensors"):
        assert same_prompt(whole / name, cut / name)
    assert metrics_of(whole) == metrics_of(cut)
    assert result_of(whole)["scores"] == result_of(cut)["scores"]


def test_two_runs_are_the_same_with_several_threads(common: list[str], tmp_path: Path) -> None:
    """A batch's prompts of 16 x 80 x 32 numbers: from 32,768 on, PyTorch may add up a gradient in several threads."""
    flags = ["--method", "prompt", "--prompt-length", "80", "--steps", "6", "--batch-size", "16"]
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for name in ("one", "other"):
            assert (
                train.main(["--task", "cola", "rte", *flags, *common, *flags[-2:], "--out", str(tmp_path / name)]) == 0
            )
    finally:
        torch.set_num_threads(before)
    assert_same(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("during", "at", "step"), [("train_step", 3, 3), ("train_step", 8, 8), ("score_split", 1, 4), ("score_split", 4, 9)]
)
def test_a_signal_ends_the_run_between_two_steps(
    number: int,
    status: int,
    during: str,
    at: int,
    step: int,
    whole: Path,
    common: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At step 3 and 8 of 9, in the first evaluation (at step 4), and while the best checkpoint is tested."""
    out, before = tmp_path / "run", signal.getsignal(number)
    with monkeypatch.context() as patch:
        send(number, at, patch, during)
        assert train.main([*FLAGS, *common, "--out", str(out)]) == status
    assert "--resume" in capsys.readouterr().err and signal.getsignal(number) is before
    assert Run(out).load_state()["step"] == step and not (out / "result.json").exists()
    assert train.main(["--resume", str(out)]) == 0
    assert_same(whole, out)


def test_a_signal_to_save_does_not_end_the_run(
    whole: Path, common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, steps = tmp_path / "run", []
    save = train.Job.save
    monkeypatch.setattr(train.Job, "save", lambda job: (steps.append(job.trainer.step), save(job)))
    send(signal.SIGUSR1, 6, monkeypatch)
    assert train.main([*FLAGS, *common, "--out", str(out)]) == 0
    assert steps == [0, 4, 6, 8, 9]
    assert_same(whole, out)


def test_a_second_signal_ends_the_run_at_once(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(self: train.Trainer, batch: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the step went on")

    monkeypatch.setattr(train.Trainer, "train_step", twice)
    assert train.main([*FLAGS, *common, "--out", str(tmp_path / "run")]) == 130


def interrupted(common: list[str], out: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    with monkeypatch.context() as patch:
        send(signal.SIGTERM, at, patch)
        assert train.main([*FLAGS, *common, "--out", str(out)]) == 143


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04half", None])
def test_a_damaged_state_falls_back_to_the_one_before(
    damage: bytes | None,
    whole: Path,
    common: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    interrupted(common, out, monkeypatch, 6)  # saved at steps 0, 4 and 6
    if damage is None:
        (out / "state.pt").unlink()
    else:
        (out / "state.pt").write_bytes(damage)
    assert train.main(["--resume", str(out)]) == 0
    text = capsys.readouterr()
    assert "warning: " in text.err and "going on from the one before, state-before.pt" in text.err
    assert "resumed    " in text.out and "at step 4" in text.out
    assert_same(whole, out)


def test_a_damaged_last_checkpoint_is_made_up_for(
    whole: Path,
    common: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    interrupted(common, out, monkeypatch, 6)
    (out / "last.safetensors").write_bytes((out / "last.safetensors").read_bytes()[:-9])
    assert train.main(["--resume", str(out)]) == 0
    assert "taking best.safetensors and the state in its place" in capsys.readouterr().err
    assert_same(whole, out)


def test_an_evaluation_is_on_the_disk_before_the_state_that_counts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, synced, sync = Run(tmp_path), [], os.fsync

    def noted(handle: int) -> None:
        synced.append(os.fstat(handle).st_size)
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    run.append_metrics({"step": 4, "scores": []})
    assert synced == [run.metrics.stat().st_size]


def test_a_run_that_diverged_is_not_saved_at_a_signal(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loss = train.Trainer.loss
    monkeypatch.setattr(
        train.Trainer, "loss", lambda self, batch: loss(self, batch) * (torch.nan if self.step == 5 else 1)
    )
    send(signal.SIGTERM, 6, monkeypatch)
    assert train.main([*FLAGS, *common, "--out", str(tmp_path / "run")]) == 2
    assert "step 6: expected a finite loss" in error_of(capsys)
    assert Run(tmp_path / "run").load_state()["step"] == 4


@pytest.mark.long
def test_killed_without_warning_it_goes_on_all_the_same(common: list[str], tmp_path: Path) -> None:
    """SIGKILL to a process of its own, at moments that differ from time to time; kill_runs.py does it more often.

    The undisturbed run, too, is a process of its own: with another number of threads sums are rounded differently.
    """
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "run"
    assert complete([*FLAGS, *common, "--out", str(undisturbed)], undisturbed, kills=0, seed=0) == 0
    assert complete([*FLAGS, *common, "--out", str(out)], out, kills=2, seed=1) <= 2
    assert_same(undisturbed, out)


def test_options_are_changed_on_resume_when_asked_for(
    whole: Path, common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, rates = tmp_path / "run", []
    interrupted(common, out, monkeypatch, 6)
    assert train.main(["--resume", str(out), "--lr", "0.01", "--steps", "11"]) == 2
    assert "--lr 0.01 (was 0.3), --steps 11 (was 9)" in (text := error_of(capsys)) and "--change" in text
    step = train.Trainer.train_step
    monkeypatch.setattr(
        train.Trainer, "train_step", lambda self, b: (step(self, b), rates.append((self.step, self.lr)))
    )
    assert train.main(["--resume", str(out), "--lr", "0.01", "--steps", "11", "--change"]) == 0
    assert "changed    --lr 0.01 (was 0.3), --steps 11 (was 9)" in capsys.readouterr().out
    assert [number for number, _ in rates] == [7, 8, 9, 10, 11]
    assert all(rate == pytest.approx(0.01 * (12 - number) / 11) for number, rate in rates)
    assert result_of(out)["steps"] == 11 and Plan.read(out / "config.json").lr == 0.01


@pytest.mark.parametrize(
    "flags",
    [
        *("--method attempt", "--model x/other", "--init uniform", "--prompt-length 7", "--shared-prompt"),
        *("--source-prompts x", "--top-k 1", "--bottleneck 7 --pool-pads", "--attention-lr 1", "--task rte"),
        *("--test-file x", "--labels words", "--shots 2", "--eval-examples 5 --data-seed 1", "--answer-by labels"),
        *("--optimizer adafactor", "--seed 1"),
    ],
)
def test_what_a_state_has_decided_is_not_changed(flags: str, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (whole / "config.json").read_bytes()
    assert train.main(["--resume", str(whole), "--change", "--lr", "0.01", *flags.split()]) == 2
    text = error_of(capsys)
    assert "of options that the remaining steps can follow" in text and all(word in text for word in flags.split())
    assert "--lr" not in text and text.endswith("; start another run with another --out")
    assert (whole / "config.json").read_bytes() == before


def test_a_length_in_epochs_is_not_changed(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--resume", str(whole), "--change", "--epochs", "10", "--max-steps", "100"]) == 2
    text = error_of(capsys)
    assert "--epochs 10 (was None), --max-steps 100 (was None)" in text and text.endswith(
        "; give --steps for its length"
    )


@pytest.mark.parametrize("flags", ["--lr 0.01", "--lr 0.01 --steps 8"])
def test_no_step_of_a_complete_run_follows_a_change(
    flags: str, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (whole / "config.json").read_bytes()
    assert train.main(["--resume", str(whole), "--change", *flags.split()]) == 2
    assert "found a complete run; give --steps of more than 9" in error_of(capsys)
    assert (whole / "config.json").read_bytes() == before


def test_what_follows_from_a_changed_option_is_changed_too(tmp_path: Path) -> None:
    def run(**options: Any) -> Path:
        plan = Plan.complete(Options(["cola"], steps=9, model="x/t5", out=str(tmp_path), **options), 40, 4)
        Run(tmp_path).create(plan)
        return tmp_path

    plan = resumed(run(), {"lr": 0.01, "model": "y/t5", "clip": 2.0}, change=True)
    assert (plan.lr, plan.attention_lr, plan.model, plan.clip, plan.init) == (0.01, 0.01, "y/t5", 2.0, "source")
    # a series with the options of before has another run, one with these has the same
    before = Options(["cola"], steps=9, model="y/t5")
    assert plan.differences(before) == ["--lr left out (was 0.01)", "--clip left out (was 2.0)"]
    assert not plan.differences(dataclasses.replace(before, lr=0.01, clip=2.0))
    assert resumed(run(attention_lr=0.1), {"lr": 0.01}, change=True).attention_lr == 0.1
    assert resumed(run(), {"lr": 0.01, "attention_lr": 0.3}, change=True).attention_lr == 0.3


def test_out_of_memory_says_what_was_tried(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: train.Trainer, batch: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(train.Trainer, "train_step", full)
    assert train.main([*FLAGS, *common, "--out", str(tmp_path / "run")]) == 2
    message = error_of(capsys)
    assert "out of memory with --batch-size 8, --eval-batch-size 64 and texts of up to" in message


def test_what_may_go_wrong_is_told_before(common: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*FLAGS, *common, "--warmup", "18", "--train-examples", "1", "--dry-run"]
    assert train.main(flags) == 0
    printed = capsys.readouterr().out
    assert "the warm-up is longer than the run: the rate rises to 0.15, not to 0.3" in printed
    assert "no training example has the label" in printed
    assert train.main([*FLAGS, *common, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "no training example" not in printed and "longer than the run" not in printed
