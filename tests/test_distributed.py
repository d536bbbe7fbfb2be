"""Runs of several processes, started by torchrun as a user would: they equal one process, and end and go on together.

Each start takes seconds, so that a test looks at many things at once.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_glue, make_tiny_checkpoint
from hugging_face import COMMON, V11, random_state, save
from runs import error_of, metrics_of, result_of, same_prompt

import eval
import train
from attempt import distributed
from attempt.checkpoint import load_prompt
from attempt.run import Run
from data.batches import TokenSet, collate, cut
from model.t5 import T5

REPOSITORY = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found in /proc")


def start(processes: int, words: Sequence[str | Path]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [*command, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=REPOSITORY,
        start_new_session=True,
    )


def completed(processes: int, *words: str | Path, status: int = 0) -> str:
    """What such a program printed, torchrun's own report included."""
    job = start(processes, words)
    text, _ = job.communicate(timeout=120)
    assert job.returncode == status, text
    return text


def until(job: "subprocess.Popen[str]", words: str) -> list[str]:
    """The lines that it prints until one begins with these words."""
    assert job.stdout is not None
    lines: list[str] = []
    for line in job.stdout:
        lines.append(line)
        if line.startswith(words):
            return lines
    raise AssertionError("".join(lines))


def ranks(job: "subprocess.Popen[str]") -> dict[int, int]:
    """Rank -> process id, of torchrun's children."""
    found = {}
    for child in Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split():
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        number = [v for v in variables if v.startswith(b"RANK=")]
        found.update({int(n.removeprefix(b"RANK=")): int(child) for n in number})
    return found


def differences(a: Path, b: Path) -> dict[str, float]:
    first, second = (load_prompt(path)[0].state_dict() for path in (a, b))
    return {name: float((first[name] - second[name]).abs().max()) for name in first}


@pytest.fixture(scope="module")
def steady(common: list[str]) -> list[str]:
    """Flags under which rounding alone can differ. The rate is small: Adam makes each gradient's rounding a step."""
    return [*common, "--batch-size", "7", "--dropout", "0", "--steps", "20", "--lr", "0.01", "--eval-every", "8"]


@pytest.fixture(scope="module")
def mixture(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """ATTEMPT's flags for two tasks, with two sources that differ."""
    flags, sources = ["--method", "prompt", "--prompt-length", "4", "--steps", "3", "--init", "uniform"], []
    for task in ("cola", "rte"):
        sources.append(str(tmp_path_factory.mktemp("sources") / task))
        assert train.main(["--task", task, *flags, *common, "--out", sources[-1]]) == 0
    return ["--task", "rte", "cola", "--source-prompts", *sources]


@pytest.fixture(scope="module")
def alone(mixture: list[str], steady: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ATTEMPT run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert train.main([*mixture, *steady, "--pool-pads", "--out", str(out)]) == 0
    return out


def assert_like(alone: Path, several: Path) -> None:
    """All but rounding is the run of one process."""
    for name in ("best.safetensors", "last.safetensors"):
        found = differences(alone / name, several / name)
        assert found["target"] <= 1e-6 and max(found.values()) <= 1e-5, found
    first, second = metrics_of(alone), metrics_of(several)
    assert len(first) == len(second) == 3
    for one, other in zip(first, second, strict=True):
        assert one["scores"] == other["scores"] and one["best"] == other["best"] and one["step"] == other["step"]
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert one.get("mixture", {}).keys() == other.get("mixture", {}).keys()
        for task, mixed in one.get("mixture", {}).items():
            assert mixed["weights"] == pytest.approx(other["mixture"][task]["weights"], abs=1e-5)
            assert mixed["entropy"] == pytest.approx(other["mixture"][task]["entropy"], abs=1e-5)
    assert result_of(alone)["scores"] == result_of(several)["scores"]
    assert result_of(alone)["mean"] == result_of(several)["mean"]


@pytest.mark.parametrize("of", [1, 2, 3, 7, 9])
def test_the_parts_of_a_batch_add_up_to_the_whole(of: int, attempt_flags: list[str], tmp_path: Path) -> None:
    """In float64, where nothing hides behind rounding; 7 examples, so that parts are uneven, or empty."""
    job = train.prepare(train.parse([*attempt_flags, "--pool-pads", "--out", str(tmp_path)]).options)
    t5, prompt = job.backbone.t5.double().eval(), job.trainer.trained.prompt
    assert prompt is not None
    prompt.double()
    rows = [0, 31, 5, 40, 17, 66, 2]

    def gradients(parts: list[Any], whole: bool) -> tuple[float, list[torch.Tensor]]:
        losses = [
            t5.loss(p.ids, p.mask, p.labels, prompt, p.tasks, None if whole else p.tokens) for p in parts
        ]
        total = torch.stack(losses).sum()
        return total.item(), list(torch.autograd.grad(total, job.trainer.parameters))

    loss, expected = gradients([collate(job.tokens, rows)], whole=True)
    parts = cut(job.tokens, rows, range(of), of)
    assert len(parts) == of and len({part.ids.shape[1:] + part.labels.shape[1:] for part in parts}) == 1
    found, gradient = gradients(parts, whole=False)
    assert found == pytest.approx(loss, rel=1e-12)
    for ours, theirs in zip(gradient, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_a_batch_in_parts_trains_the_same_prompt(
    alone: Path, mixture: list[str], steady: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*mixture, *steady, "--pool-pads", "--out", str(tmp_path / "run")]
    assert train.main([*flags, "--accumulate", "3"]) == 0
    assert "each batch is computed in 3 parts one after the other" in capsys.readouterr().out
    assert_like(alone, tmp_path / "run")


def test_three_processes_train_what_one_does(
    alone: Path, mixture: list[str], steady: list[str], tmp_path: Path
) -> None:
    """ATTEMPT on two tasks: 70 examples in batches of 7, each in 3 processes and 2 parts; one line is printed once."""
    out = tmp_path / "run"
    printed = completed(3, "train.py", *mixture, *steady, "--pool-pads", "--accumulate", "2", "--out", out)
    assert printed.count("each batch is computed in 3 processes at once and 2 parts one after the other") == 1
    assert printed.count("step 20: loss") == 2 and printed.count("all in ") == 1  # a line for each of two tasks
    assert_like(alone, out)
    assert result_of(out)["processes"] == 3


def test_two_processes_search_as_one_does(steady: list[str], mixture: list[str], tmp_path: Path) -> None:
    """A series of runs, in which each decision hangs on files that rank 0 writes: SPoT, and prompt tuning in it."""
    flags = ["--task", "cola", "--method", "spot", "--source-prompts", mixture[-1], *steady, "--early-steps", "2"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert train.main([*flags, "--out", str(one)]) == 0
    completed(2, "train.py", *flags, "--out", two)
    for name in ("early", "from-rte", "."):
        assert max(differences(one / name / "last.safetensors", two / name / "last.safetensors").values()) <= 1e-6
    assert result_of(one)["scores"] == result_of(two)["scores"]
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in two.iterdir())


def end_of(job: "subprocess.Popen[str]", seconds: float = 60) -> str:
    text, _ = job.communicate(timeout=seconds)
    assert job.returncode not in (0, None), text
    return text


def told(text: str) -> list[str]:
    """The errors that the program told, not torchrun."""
    assert "Traceback (most recent call last):\n  File \"/" not in text.split("torch/distributed")[0], text
    return [line for line in text.splitlines() if line.startswith(("train.py: error:", "eval.py: error:"))]


def test_a_job_of_two_processes_ends_and_goes_on_as_if_nothing_had_happened(
    mixture: list[str], common: list[str], tmp_path: Path
) -> None:
    """With dropout, whose random numbers differ between the ranks: SIGTERM to torchrun, SIGKILL to a rank, SIGKILL to
    all of it, one after the other."""
    flags = [*mixture, *common, "--steps", "60", "--eval-every", "25", "--log-every", "1", "--batch-size", "7"]
    whole, out = tmp_path / "whole", tmp_path / "cut"
    completed(2, "train.py", *flags, "--out", whole)

    job = start(2, ["train.py", *flags, "--out", out])
    until(job, "step 10/")
    os.kill(job.pid, signal.SIGTERM)
    text = end_of(job)
    assert text.count("\nfinishing the step and saving") == text.count("\ninterrupted: --resume") == 1, text
    saved = Run(out).load_state()["step"]
    assert 10 <= saved < 25 and not told(text)

    job = start(2, ["train.py", "--resume", out])
    lines = until(job, "step 40/")
    assert f"resumed    {out} at step {saved}\n" in lines
    killed = ranks(job)[1]
    os.kill(killed, signal.SIGKILL)
    text = end_of(job)
    (line,) = told(text)
    assert re.search(r"process 0 of 2 \(.*, pid \d+\): lost another one, which ended or did not answer", line), line
    assert "what was saved last is whole: --resume DIR" in line and f"exitcode  : -9 (pid: {killed})" in text
    assert Run(out).load_state()["step"] == 25

    job = start(2, ["train.py", "--resume", out])
    until(job, "step 45/")
    for process in [job.pid, *ranks(job).values()]:
        os.kill(process, signal.SIGKILL)
    job.wait(60)
    assert Run(out).load_state()["step"] == 25

    printed = completed(2, "train.py", "--resume", out)
    assert f"resumed    {out} at step 25\n" in printed and "dropout draws" not in printed
    for name in ("best.safetensors", "last.safetensors"):
        assert same_prompt(whole / name, out / name)
    assert metrics_of(whole) == metrics_of(out) and result_of(whole)["scores"] == result_of(out)["scores"]
