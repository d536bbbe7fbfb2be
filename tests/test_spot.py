"""SPoT's similarities against plain loops, and the command that shows them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from attempt import spot
from attempt.checkpoint import PromptConfig, save_prompt
from attempt.compare import similarity
from attempt.prompt import SoftPrompt
from model.errors import AttemptError

GENERATOR = torch.Generator().manual_seed(0)
A, B = torch.randn(5, 8, generator=GENERATOR), torch.randn(3, 8, generator=GENERATOR) + 0.5
SOURCES = torch.randn(4, 5, 8, generator=GENERATOR)


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(sum(a * b for a, b in zip(x, y, strict=True)) / math.sqrt(sum(x * x)) / math.sqrt(sum(y * y)))


def naive(measure: str, a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    if measure == "average":
        return cosine(a.mean(axis=0), b.mean(axis=0))
    return sum(cosine(x, y) for x in a for y in b) / (len(a) * len(b))


@pytest.mark.parametrize("measure", spot.SIMILARITIES)
def test_similarities_follow_the_formulas(measure: str) -> None:
    for a, b in ((A, B), (B, A), (A, A), (A, -A)):
        assert spot.similarity(a, b, measure) == pytest.approx(naive(measure, a.numpy(), b.numpy()), abs=1e-12)
    assert spot.similarity(7 * A, B, measure) == pytest.approx(spot.similarity(A, B, measure))


def test_the_two_measures_differ() -> None:
    assert spot.similarity(A, A, "average") == pytest.approx(1)
    assert spot.similarity(A, A, "tokens") < 0.9  # a prompt's rows are not alike


@pytest.mark.parametrize("measure", spot.SIMILARITIES)
def test_the_ranking_begins_with_the_nearest(measure: str) -> None:
    expected = sorted(range(4), key=lambda i: -naive(measure, A.numpy(), SOURCES[i].numpy()))
    assert [i for i, _ in spot.rank(A, SOURCES, measure)] == expected
    found = spot.matrix(SOURCES, measure).numpy()
    for i in range(4):
        for j in range(4):
            assert found[i, j] == pytest.approx(naive(measure, SOURCES[i].numpy(), SOURCES[j].numpy()), abs=1e-6)


def test_the_weighted_average_divides_by_the_sum_and_leaves_opposites_out() -> None:
    expected = (0.6 * SOURCES[0] + 0.2 * SOURCES[1]) / 0.8
    torch.testing.assert_close(spot.weighted_average(SOURCES[:2], [0.6, 0.2]), expected)
    torch.testing.assert_close(spot.weighted_average(SOURCES[:3], [0.6, 0.2, -0.5]), expected)
    with pytest.raises(AttemptError, match=r"found similarities -0\.500, -0\.100; use --transfer best"):
        spot.weighted_average(SOURCES[:2], [-0.5, -0.1])


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for i, name in enumerate(("mnli", "sst2", "qqp", "mnli")):
        config = PromptConfig("prompt", "t5-base", [name], [], "digits")
        save_prompt(tmp_path / f"{i}.safetensors", SoftPrompt(SOURCES[i][None]), config)
    return [str(tmp_path / f"{i}.safetensors") for i in range(4)]


def test_the_command_prints_and_saves_the_ranking(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in ("tsv", "json"):
        out = tmp_path / f"r.{ending}"
        arguments = [*files[1:], "--target", files[0], "--similarity", "tokens", "--save", str(out)]
        assert similarity.main(arguments) == 0
    rows = [line.split("\t") for line in (tmp_path / "r.tsv").read_text().splitlines()]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split() for line in printed[:4]] == rows and rows[0] == ["source", "average", "tokens"]
    order = [i for i, _ in spot.rank(SOURCES[0], SOURCES[1:], "tokens")]
    assert [row[0] for row in rows[1:]] == [["sst2", "qqp", "mnli"][i] for i in order]
    for row, record in zip(rows[1:], json.loads((tmp_path / "r.json").read_text()), strict=True):
        assert record == {"source": row[0], "average": float(row[1]), "tokens": float(row[2])}
        place = {"sst2": 1, "qqp": 2, "mnli": 3}[row[0]]
        assert record["average"] == pytest.approx(
            naive("average", SOURCES[0].numpy(), SOURCES[place].numpy()), abs=1e-4
        )


def test_the_target_is_not_ranked_among_the_others(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """runs/*-prompt-* has it too, under a path that may be written otherwise."""
    again = str(Path(files[0]).parent / "." / ".." / Path(files[0]).parent.name / Path(files[0]).name)
    assert similarity.main([*files, "--target", again]) == 0
    printed = capsys.readouterr().out
    assert sorted(line.split()[0] for line in printed.splitlines()[1:]) == ["mnli", "qqp", "sst2"]
    assert "1.0000" not in printed
    assert similarity.main([files[0], "--target", again]) == 2
    assert "expected prompts besides the target, found none" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["rte/best.safetensors", "rte/last.safetensors", "rte", "adapter/adapter_model.bin"])
def test_the_targets_own_run_is_not_ranked_under_another_name(
    target: str, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its folder or by a checkpoint in it, it is the same run."""
    config = PromptConfig("prompt", "t5-base", ["rte"], [], "digits")
    for name in ("best", "last"):
        save_prompt(tmp_path / f"rte/{name}.safetensors", SoftPrompt(SOURCES[1][None]), config)
    (tmp_path / "adapter").mkdir()
    settings = {"peft_type": "PROMPT_TUNING", "task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 5, "token_dim": 8}
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(settings | {"num_transformer_submodules": 1}))
    torch.save({"prompt_embeddings": SOURCES[1].clone()}, tmp_path / "adapter/adapter_model.bin")
    for own in (tmp_path / target, (tmp_path / target).parent if "." in target else tmp_path / "rte/best.safetensors"):
        assert similarity.main([str(own), files[0], files[2], "--target", str(tmp_path / target)]) == 0
        rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
        assert sorted(rows[1:]) == ["mnli", "qqp"], own


def test_the_command_prints_every_pair(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert similarity.main(files) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["average", "mnli", "sst2", "qqp", "mnli-2"] and [row[0] for row in rows[1:]] == rows[0][1:]
    assert [float(row[i]) for i, row in enumerate(rows) if i] == [1.0] * 4
    assert float(rows[1][2]) == pytest.approx(naive("average", SOURCES[0].numpy(), SOURCES[1].numpy()), abs=1e-4)


def test_prompts_of_another_model_are_refused(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = str(tmp_path / "wide.safetensors")
    save_prompt(Path(wide), SoftPrompt(torch.ones(1, 5, 9)), PromptConfig("prompt", "x", ["rte"], [], "digits"))
    assert similarity.main([*files, "--target", wide]) == 2
    assert "expected a prompt of width 8" in capsys.readouterr().err
    assert similarity.main([*files, wide]) == 2
    assert "expected a source prompt of shape (5, 8)" in capsys.readouterr().err
    two = str(tmp_path / "two.safetensors")
    config = PromptConfig("prompt", "x", ["rte", "cola"], [], "digits")
    save_prompt(Path(two), SoftPrompt(torch.ones(2, 5, 8)), config)
    assert similarity.main([*files, "--target", two]) == 2
    assert "expected one prompt as the target, found rte, cola" in capsys.readouterr().err
