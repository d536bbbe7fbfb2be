"""Programs in processes of their own; what tests look at in the folder of a run, and in what was printed."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from attempt.checkpoint import load_prompt

REPOSITORY = Path(__file__).parent.parent


def start(processes: int, words: Sequence[str | Path]) -> "subprocess.Popen[str]":
    """A program of the repository with its flags; of more than one process under torchrun, as a user would start it."""
    command = [sys.executable, "-u"]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "--"]
    return subprocess.Popen(
        [*command, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
    )


def ranks(job: "subprocess.Popen[str]") -> dict[int, int]:
    """Rank -> process id, of torchrun's children."""
    found = {}
    for child in Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split():
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        number = [v for v in variables if v.startswith(b"RANK=")]
        found.update({int(n.removeprefix(b"RANK=")): int(child) for n in number})
    return found


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without their times."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def same_prompt(a: Path, b: Path) -> bool:
    (first, _), (second, _) = load_prompt(a), load_prompt(b)
    return all(
        torch.equal(x, y) for x, y in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """What the program complained of: one line, without a traceback."""
    text = capsys.readouterr().err
    lines = [line for line in text.splitlines() if "error:" in line]
    assert len(lines) == 1 and "Traceback" not in text, text
    return lines[0]
