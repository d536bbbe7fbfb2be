"""What a run is kept from: steps that break it, another program in its folder, data that are no longer the same."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import REPOSITORY, error_of, metrics_of, result_of, same_prompt, start

import train
from attempt.checkpoint import load_prompt
from attempt.runs.folder import Run
from attempt.runs.plan import Plan, sums_of
from model.files import LOCK, held

FLAGS = ["--task", "cola", "--method", "prompt", "--prompt-length", "4", "--steps", "9", "--eval-every", "4"]
SKIP = [*FLAGS, "--skip-bad-steps"]
Loss = Callable[..., torch.Tensor]
plain_loss = train.Trainer.loss


def bad_at(*steps: int, gradient: bool = False) -> Loss:
    """The loss, with NaN in it, or in its gradient alone, in some steps (from 1)."""

    def loss(self: train.Trainer, batch: Any) -> torch.Tensor:
        value = plain_loss(self, batch)
        if self.step + 1 not in steps:
            return value
        return value + (self.parameters[0] * 0).sum().sqrt() if gradient else value * torch.nan

    return loss


# ---- steps that are left out ----


@pytest.mark.parametrize("more", [[], ["--optimizer", "adafactor"], ["--accumulate", "2"], ["--clip", "0"]])
@pytest.mark.parametrize("gradient", [False, True], ids=["loss", "gradient"])
def test_a_bad_step_changes_nothing(
    gradient: bool, more: list[str], common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompts are those of a run that never computes steps 3 and 6; the rate falls all the same."""
    flags = [*SKIP, *common, *more, "--dropout", "0"]
    step = train.Trainer.train_step

    def absent(self: train.Trainer, *parts: Any) -> None:
        if self.step + 1 in (3, 6):
            self.step += 1
        else:
            step(self, *parts)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "train_step", absent)
        assert train.main([*flags, "--out", str(tmp_path / "absent")]) == 0
    monkeypatch.setattr(train.Trainer, "loss", bad_at(3, 6, gradient=gradient))
    assert train.main([*flags, "--out", str(tmp_path / "run")]) == 0
    for name in ("best.safetensors", "last.safetensors"):
        assert same_prompt(tmp_path / "run" / name, tmp_path / "absent" / name)
    found = result_of(tmp_path / "run")["skipped"]
    what = "norm of the gradient nan" if gradient else "loss nan"
    assert found["count"] == 2 and [(s["step"], s["found"]) for s in found["first"]] == [(3, what), (6, what)]
    assert [record["skipped"]["count"] for record in metrics_of(tmp_path / "run")] == [1, 2, 2]
    assert result_of(tmp_path / "absent")["skipped"] == {"count": 0, "first": []}


def test_skipped_steps_are_told_with_their_examples(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[list[int]] = []
    rows = train.training_rows
    monkeypatch.setattr("attempt.training.job.training_rows", lambda *a: (seen.append(r) or r for r in rows(*a)))
    monkeypatch.setattr(train.Trainer, "loss", bad_at(1))
    assert train.main([*SKIP, *common, "--out", str(tmp_path / "run")]) == 0
    told = f"step 1 (loss nan; {', '.join(f'cola {row}' for row in seen[0])})"
    assert f"skipped 1 steps so far, whose loss or gradient was not finite: {told}" in capsys.readouterr().out
    assert "skipped" not in json.dumps(Plan.read(tmp_path / "run/config.json").asked)


def test_where_every_step_is_bad_the_run_ends(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train.Trainer, "loss", bad_at(5, 6, 7, 8, 9))
    assert train.main([*SKIP, *common, "--out", str(tmp_path / "run")]) == 2
    assert "steps 5 to 8: expected a finite loss and gradient in some, found none" in error_of(capsys)
    assert Run(tmp_path / "run").load_state()["step"] == 4


def test_a_run_with_skipped_steps_goes_on_exactly(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    monkeypatch.setattr(train.Trainer, "loss", bad_at(2, 6, 7))
    assert train.main([*SKIP, *common, "--out", str(whole)]) == 0

    def ending(self: train.Trainer, batch: Any) -> torch.Tensor:
        if self.step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return bad_at(2, 6, 7)(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "loss", ending)
        assert train.main([*SKIP, *common, "--out", str(cut)]) == 143
    assert train.main(["--resume", str(cut)]) == 0
    assert metrics_of(whole) == metrics_of(cut) and result_of(whole)["skipped"] == result_of(cut)["skipped"]
    assert all(same_prompt(whole / name, cut / name) for name in ("best.safetensors", "last.safetensors"))


PROGRAM = """
import sys, torch, train
from attempt.machine import distributed
loss = train.Trainer.loss
def bad(self, batch):
    here = distributed.rank() == distributed.size() - 1 and self.step + 1 in (3, 6)
    return loss(self, batch) * (torch.nan if here else 1)
train.Trainer.loss = bad
sys.exit(train.main())
"""


@pytest.mark.long
def test_processes_leave_out_the_same_steps(common: list[str], tmp_path: Path) -> None:
    """The loss is bad in one of them alone."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    flags = [*SKIP, *common, "--dropout", "0", "--out"]
    for processes in (1, 2):
        job = start(processes, [program, *flags, tmp_path / str(processes)])
        output, _ = job.communicate(timeout=300)
        assert job.returncode == 0, output
        assert result_of(tmp_path / str(processes))["skipped"]["count"] == 2
    (one, _), (two, _) = (load_prompt(tmp_path / name) for name in ("1", "2"))
    assert torch.allclose(one.target, two.target, atol=1e-5)


# ---- one program in a folder ----

HOLDER = """
import sys, time
from pathlib import Path
from model.files import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("more", [[], ["--seeds", "1", "2"]], ids=["a run", "a series"])
def test_a_second_program_is_told_who_has_the_folder(
    more: list[str], common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And once the first is killed, its lock file, which is still there, keeps nobody out."""
    out = tmp_path / "run"
    flags = [*FLAGS, *common, *more, "--steps", "1", "--out", str(out)]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert train.main(flags) == 2
        message = error_of(capsys)
        assert f"{out}: expected a folder that no other program writes to, found process {holder.pid} on " in message
        assert [path.name for path in out.iterdir()] == [LOCK]
    finally:
        holder.kill()
        holder.communicate()
    assert train.main(flags) == 0 and not (out / LOCK).exists()


def test_a_run_keeps_its_folder_until_it_ends(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, ends = tmp_path / "run", []
    step = train.Trainer.train_step

    def meanwhile(self: train.Trainer, *parts: Any) -> None:
        if self.step == 5 and not ends:
            ends.extend(train.main(words) for words in (["--resume", str(out)], [*FLAGS, *common, "--out", str(out)]))
        step(self, *parts)

    monkeypatch.setattr(train.Trainer, "train_step", meanwhile)
    assert train.main([*FLAGS, *common, "--out", str(out)]) == 0
    assert ends == [2, 2] and capsys.readouterr().err.count("found process") == 2
    assert LOCK not in {path.name for path in out.iterdir()}


def test_a_folder_that_was_made_for_nothing_is_removed(tmp_path: Path) -> None:
    with held(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").mkdir()
    with held(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").exists()


def test_without_locks_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(*args: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("model.files.fcntl.flock", refuses)
    with held(tmp_path / "run"):
        assert "cannot be locked (Operation not supported): start one program at a time" in capsys.readouterr().err


# ---- the user's files ----


def test_files_that_have_changed_are_noticed(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "mine.tsv", tmp_path / "run"
    file.write_text("text\tanswer\n" + "good film\tyes\nbad film\tno\n" * 20)
    mine = ["--task", "mine", "--train-file", str(file), "--dev-file", str(file), "--source-field", "text"]
    flags = [*FLAGS[2:], *mine, "--target-field", "answer", *common, "--out", str(out)]
    step = train.Trainer.train_step

    def ending(self: train.Trainer, *parts: Any) -> None:
        if self.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self, *parts)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "train_step", ending)
        assert train.main(flags) == 143
    stamp = file.stat()
    file.write_text(file.read_text().replace("good", "nice"))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # size and time are the same
    assert train.main(["--resume", str(out)]) == 2
    message = error_of(capsys)
    assert "found --train-file with another content, --dev-file with another content; " in message
    assert "--change" in message
    assert train.main(["--resume", str(out), "--change"]) == 0
    assert "changed    --train-file with another content" in capsys.readouterr().out
    assert Plan.read(out / "config.json").changed_files() == []
    nowhere = dataclasses.replace(Plan.read(out / "config.json"), train_file="x" * 300, dev_file="a\0b")
    assert nowhere.changed_files() and not sums_of(nowhere)  # names that no file can have: a stranger's config.json
