"""Every recipe is parsed, names its source, and trains two steps on a tiny model and small files of its own tasks."""

import json
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY

import train
from data.tasks import GROUPS, SOURCES, expand
from model.checkpoint import NAMES

RECIPES = sorted((REPOSITORY / "recipes").glob("*.args"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Source prompts of the tiny model's width, under the names of the six sources."""
    folder, draw = tmp_path_factory.mktemp("prompts"), torch.Generator().manual_seed(0)
    for name in SOURCES:
        torch.save(torch.randn(100, 32, generator=draw), folder / f"{name}_prompt.pt")
    return [str(folder / f"{name}_prompt.pt") for name in SOURCES]


def test_there_is_a_recipe_for_every_row_of_the_tables() -> None:
    methods = {train.parse([f"@{path}"]).options.method for path in RECIPES}
    assert methods == {"prompt", "spot", "attempt", "finetune", "adapter", "bitfit"}
    several = {tuple(sorted(train.parse([f"@{path}"]).options.task)) for path in RECIPES}
    for tasks in (GROUPS["others"], ("nq", "hotpotqa", "searchqa", "newsqa"), ("boolq", "cb", "multirc", "wic", "wsc")):
        assert tuple(sorted(tasks)) in several
    assert ("sources",) in several and tuple(sorted(set(GROUPS["GLUE"]) - {"wnli"})) in several


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_says_where_it_comes_from_and_where_it_departs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert any(line.startswith("# Source: ") for line in comments)
    assert any(line.startswith("# Departs: ") for line in comments)
    assert any(line.startswith(f"#   python train.py @recipes/{path.name}") for line in comments)
    assert max(map(len, text.splitlines())) <= 120
    assert train.parse([f"@{path}"]).options.model in NAMES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_trains(path: Path, every_task: Path, prompts: list[str], tiny_checkpoint: Path, tmp_path: Path) -> None:
    command = train.parse([f"@{path}"])
    tasks, method = expand(command.options.task), command.options.method
    flags = ["--model", str(tiny_checkpoint), "--data-dir", str(every_task), "--device", "cpu", "--splits", "official"]
    flags += ["--steps", "2", "--batch-size", "2", "--eval-examples", "2", "--out", str(tmp_path / "run")]
    if command.options.init == "runs/mnli-prompt-t5-base":
        flags += ["--init", prompts[0]]
    elif method in ("attempt", "spot"):
        flags += ["--source-prompts", *prompts]
    if command.options.early_steps:
        flags += ["--early-steps", "1"]
    if command.options.shots:  # of the few-shot tasks only scitail's small files have an example of each label
        tasks = ["scitail"]
        flags += ["--shots", "1", "--task", *tasks]
    assert train.main([f"@{path}", *flags]) == 0
    results = sorted((tmp_path / "run").rglob("result.json"))
    assert results
    for file in results:
        result = json.loads(file.read_text(encoding="utf-8"))
        assert result["steps"] in (1, 2) and {score["task"] for score in result["scores"]} <= set(tasks)
    trained = {task for file in results for task in json.loads(file.read_text(encoding="utf-8"))["task"]}
    assert trained == set(tasks)
