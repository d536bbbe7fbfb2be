"""Runs of several processes, started by torchrun as a user would: they equal one process, and end and go on together.

Each start takes seconds, so that a test looks at many things at once.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import error_of, metrics_of, ranks, result_of, same_prompt, start

import eval
import train
from attempt.answering.backbone import Backbone
from attempt.checkpoint import load_prompt
from attempt.machine import distributed
from attempt.runs.folder import Run
from attempt.runs.plan import Plan
from data.batches import collate, cut
from data.download import Downloader

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found in /proc")

POOL = ["--pool", "centred", "--pool-pads"]


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


def differences(a: Path, b: Path) -> dict[str, float]:
    """Of each tensor, in relation to its norm. G's matrices begin near 0 and have tiny gradients, whose rounding Adam
    makes steps of: 4e-5 was seen there, 1.2e-7 in the prompt, over two instruction sets, with 1 and 2 threads."""
    first, second = (load_prompt(path)[0].state_dict() for path in (a, b))
    both = {name: (first[name].double(), second[name].double()) for name in first}
    return {name: float((one - other).norm() / other.norm()) for name, (one, other) in both.items()}


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
    assert train.main([*mixture, *steady, *POOL, "--out", str(out)]) == 0
    return out


def assert_like(alone: Path, several: Path) -> None:
    """All but rounding is the run of one process."""
    for name in ("best.safetensors", "last.safetensors"):
        found = differences(alone / name, several / name)
        assert found["target"] <= 1e-6 and max(found.values()) <= 2e-4, found
        assert found["attention.centre"] == found["attention.seen"] == 0  # the running mean is the same to the bit
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
def test_the_parts_of_a_batch_add_up_to_the_whole(
    of: int, attempt_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, where nothing hides behind rounding; 7 examples, so that parts are uneven, or empty."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # the model's softmax and norms too
    job = train.prepare(train.parse([*attempt_flags, "--pool-pads", "--out", str(tmp_path)]).options)
    t5, prompt = job.backbone.t5.double().eval(), job.trainer.trained.prompt
    assert prompt is not None
    prompt.double()
    rows = [0, 31, 5, 40, 17, 66, 2]

    def gradients(parts: list[Any], whole: bool) -> tuple[float, list[torch.Tensor]]:
        losses = [t5.loss(p.ids, p.mask, p.labels, prompt, p.tasks, None if whole else p.tokens) for p in parts]
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
    flags = [*mixture, *steady, *POOL, "--out", str(tmp_path / "run")]
    assert train.main([*flags, "--accumulate", "3"]) == 0
    assert "each batch is computed in 3 parts one after the other" in capsys.readouterr().out
    assert_like(alone, tmp_path / "run")


def test_three_processes_train_what_one_does(
    alone: Path, mixture: list[str], steady: list[str], tmp_path: Path
) -> None:
    """ATTEMPT on two tasks: 70 examples in batches of 7, each in 3 processes and 2 parts; one line is printed once."""
    out = tmp_path / "run"
    printed = completed(3, "train.py", *mixture, *steady, *POOL, "--accumulate", "2", "--out", out)
    assert printed.count("each batch is computed in 3 processes at once and 2 parts one after the other") == 1
    assert printed.count("step 20: loss") == 2 and printed.count("all in ") == 1  # a line for each of two tasks
    assert_like(alone, out)
    assert result_of(out)["processes"] == 3


@pytest.mark.long
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


def end_of(job: "subprocess.Popen[str]") -> str:
    text, _ = job.communicate(timeout=60)
    assert job.returncode not in (0, None), text
    return text


def told(text: str) -> list[str]:
    """The errors that the program told, not torchrun."""
    assert 'Traceback (most recent call last):\n  File "/' not in text.split("torch/distributed", maxsplit=1)[0], text
    return [line for line in text.splitlines() if line.startswith(("train.py: error:", "eval.py: error:"))]


@pytest.mark.long
def test_a_job_of_two_processes_ends_and_goes_on_as_if_nothing_had_happened(
    mixture: list[str], common: list[str], tmp_path: Path
) -> None:
    """With dropout, whose random numbers differ between the ranks: SIGTERM to torchrun, then SIGKILL to a rank.

    kill_runs.py does it more often, and kills all of it too."""
    flags = [*mixture, *common, "--steps", "60", "--eval-every", "5", "--log-every", "1", "--batch-size", "7"]
    flags += ["--pool", "centred"]
    flags += ["--eval-batch-size", "2"]
    whole, out = tmp_path / "whole", tmp_path / "cut"
    completed(2, "train.py", *flags, "--out", whole)

    job = start(2, ["train.py", *flags, "--out", out])
    until(job, "step 10/")
    os.kill(job.pid, signal.SIGTERM)
    text = end_of(job)
    assert text.count("\nfinishing the step and saving") == text.count("\ninterrupted: --resume") == 1, text
    saved = Run(out).load_state()["step"]
    assert 10 <= saved < 40 and not told(text)

    job = start(2, ["train.py", "--resume", out])
    lines = until(job, "step 40/")
    assert f"resumed    {out} at step {saved}\n" in lines
    killed = ranks(job)[1]
    os.kill(killed, signal.SIGKILL)
    text = end_of(job)
    (line,) = told(text)
    assert re.search(r"process 0 of 2 \(.*, pid \d+\): lost another one, which ended or did not answer", line), line
    assert "what was saved last is whole: --resume DIR" in line and f"exitcode  : -9 (pid: {killed})" in text
    saved = Run(out).load_state()["step"]
    assert 35 <= saved <= 45

    printed = completed(2, "train.py", "--resume", out)
    assert f"resumed    {out} at step {saved}\n" in printed and "dropout draws" not in printed
    for name in ("best.safetensors", "last.safetensors"):
        assert same_prompt(whole / name, out / name)
    assert metrics_of(whole) == metrics_of(out) and result_of(whole)["scores"] == result_of(out)["scores"]


@pytest.mark.long
def test_the_t5_can_be_shared_out(
    alone: Path, mixture: list[str], steady: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In three processes, so that no matrix comes out even, and the evaluation's batches neither."""
    out = tmp_path / "run"
    flags = [*mixture, *steady, *POOL, "--eval-batch-size", "3", "--out", out, "--shard"]
    printed = completed(3, "train.py", *flags)
    assert_like(alone, out)
    found = re.search(r"([\d,]+) frozen parameters, ([\d,]+) of them in each process", printed)
    assert found is not None
    whole, kept = (int(number.replace(",", "")) for number in found.groups())
    t5 = Backbone.load(Plan.read(alone / "config.json"), Downloader()).t5
    matrices = [p for name, p in t5.named_parameters() if "blocks" in name and p.ndim == 2]
    assert whole == sum(p.numel() for p in t5.parameters())
    assert kept == whole - sum(p.numel() - len(p.chunk(3)[0]) * p.size(1) for p in matrices)

    assert train.main(["--resume", str(out)]) == 2
    assert "--shard: expected several processes" in error_of(capsys)
    assert train.main(["--resume", str(out), "--no-shard"]) == 0
    assert train.main(["--task", "cola", "--method", "finetune", "--shard", *steady, "--out", str(tmp_path / "x")]) == 2
    assert "--shard: expected a frozen T5 to share out, found --method finetune" in error_of(capsys)


@pytest.mark.long
def test_two_processes_give_the_answers_of_one(alone: Path, tmp_path: Path) -> None:
    """Of a random T5, which answers nearly every text differently; the T5 is shared out before any gradient."""
    one, two, three = (tmp_path / f"{name}.jsonl" for name in ("one", "two", "three"))
    flags = ["--run", str(alone), "--device", "cpu", "--eval-batch-size", "3", "--predictions"]
    assert eval.main([*flags, str(one)]) == 0
    printed = completed(2, "eval.py", *flags, two, "--shard")
    assert printed.count("20 answers in") == 1 and one.read_bytes() == two.read_bytes()
    assert len({json.loads(line)["prediction"] for line in one.read_text().splitlines()}) > 10
    assert eval.main([*flags, str(three), "--shard"]) == 2


@pytest.mark.long
@pytest.mark.parametrize("flags", [[], ["--shard"]])
def test_no_thread_of_a_group_is_left_when_python_goes_down(flags: list[str], prompt_run: Path, tmp_path: Path) -> None:
    """One that still gave back a message's tensors ended its process by SIGABRT, and torchrun the others."""
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, sys, time, eval\n"
        "def threads():\n"
        "    for name in pathlib.Path('/proc/self/task').glob('*/comm'):\n"
        "        try:\n"
        "            yield name.read_text().strip()\n"
        "        except OSError:\n"  # it ended meanwhile
        "            pass\n"
        "assert eval.main(sys.argv[1:]) == 0\n"
        "until = time.monotonic() + 10\n"  # one that has ended is listed for a moment
        "while left := [name for name in threads() if 'gloo' in name]:\n"
        "    assert time.monotonic() < until, left\n"
    )
    completed(2, script, "--run", prompt_run, "--device", "cpu", "--split", "dev", *flags)


@pytest.mark.long
def test_an_error_of_all_processes_is_told_once(common: list[str]) -> None:
    text = completed(2, "train.py", "--task", "nonsense", *common, status=1)
    (line,) = told(text)
    assert "unknown task 'nonsense'" in line


@pytest.mark.parametrize("count", [0, 1, 3, 4, 10])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_shares_are_of_one_length_and_miss_nothing(count: int, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "size", lambda: processes)
    shares = []
    for rank in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(distributed.share_of(list(range(count))))
    assert len({len(share) for share in shares}) == 1 and len(shares[0]) == -(-count // processes)
    assert {i for share in shares for i in share} == set(range(count))
