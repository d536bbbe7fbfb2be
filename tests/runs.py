"""What tests look at in the folder of a run, and in what the program printed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from attempt.checkpoint import load_prompt


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
