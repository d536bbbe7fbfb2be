"""The model card of an exported prompt: Hugging Face's own reader, the text that is really trained on, real scores."""

import contextlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hugging_face import COMMON, V10, random_state, save
from runs import result_of

import train
from attempt.checkpoint import BEST, PromptConfig, save_prompt
from attempt.exchange import exchange
from attempt.exchange.card import Known
from attempt.exchange.exchange import export_peft
from attempt.prompt import SoftPrompt
from attempt.runs.plan import Plan
from data.tasks import TASKS, source_text
from demo.show import HERE
from model.errors import AttemptError


def card_of(path: Path, folder: Path) -> str:
    export_peft(path, folder)
    return (folder / "README.md").read_text(encoding="utf-8")


def literal(card: str) -> list[str]:
    """The indented lines."""
    return re.findall(r"^    (.*)$", card, re.MULTILINE)


def loose(folder: Path, tasks: list[str], model: str = "google/flan-t5-small", **more: Any) -> Path:
    """A checkpoint without a run."""
    config = PromptConfig("prompt", model, tasks, [], **{"labels": "words", **more})
    save_prompt(folder / BEST, SoftPrompt(torch.ones(1 if config.shared else len(tasks), 3, 8)), config)
    return folder / BEST


@pytest.mark.parametrize("model", ["google/flan-t5-small", "C:\\a: #b 'ü' \"c\""])
def test_hugging_face_reads_what_it_is_of(model: str, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(card_of(loose(tmp_path / "run", ["rte"], model), tmp_path / "adapter")).data
    assert (data.base_model, data.library_name) == (model, "peft")
    assert data.tags == ["soft-prompt", "prompt-tuning", "t5"]


def test_a_run_is_described_by_its_own_files(prompt_run: Path, tmp_path: Path) -> None:
    card = card_of(prompt_run, tmp_path / "adapter")
    task = TASKS["cola"]
    format_, example, *labels = literal(card)
    assert format_ == source_text(task, ("{sentence}",))
    assert example == source_text(task, (example.removeprefix("cola sentence: "),)) and len(example) > 20
    assert labels == ["0  unacceptable", "1  acceptable"]
    assert "more than 256 tokens" in card and "One prompt of 6 x 32 numbers" in card and "12 steps" in card
    rows = [tuple(cell.strip() for cell in row.split("|")[1:-1]) for row in re.findall(r"^\| `.*$", card, re.MULTILINE)]
    expected = set()
    for score in result_of(prompt_run)["scores"]:
        for metric, value in {**score["metrics"], "invalid answers": score["invalid"]}.items():
            way = (str(score["examples"]), "written greedily")
            expected.add(("`cola`", score["split"], metric, f"{value:.2f}", *way))
    assert set(rows) == expected and len(rows) == len(expected) == 4
    assert card_of(prompt_run / BEST, tmp_path / "of file") == card
    last = card_of(prompt_run / "last.safetensors", tmp_path / "of last")
    assert "12 steps" in last and "## Scores" not in last  # they are those of the best one
    cut = tmp_path / "cut"
    shutil.copytree(prompt_run, cut)
    result = json.loads((cut / "result.json").read_text())
    (cut / "result.json").write_text(json.dumps({**result, "steps": 8}))  # as --patience leaves it
    assert "Training: 8 steps" in card_of(cut, tmp_path / "of cut") and "not ended" not in last
    (cut / "result.json").unlink()
    assert "seed 42; the run has not ended yet." in card_of(cut, tmp_path / "of half")


def test_users_files_are_described_as_they_were_read(common: list[str], tmp_path: Path) -> None:
    labels = ["no | `way`", "*yes*"]
    rows = "".join(f"text {i}\tmore {i}\t{labels[i % 2]}\n" for i in range(12))
    (tmp_path / "all.tsv").write_text(f"a `field`\tother\tanswer\n{rows}")
    files = ["--train-file", str(tmp_path / "all.tsv"), "--dev-file", str(tmp_path / "all.tsv")]
    columns = ["--source-field", "other", "a `field`", "--target-field", "answer", "--no-task-name"]
    more = ["--max-source-length", "99", "--answer-by", "labels", "--prompt-length", "3", "--steps", "1"]
    flags = ["--task", "mine", "--method", "prompt", *files, *columns, *more, *common, "--out", str(tmp_path / "run")]
    assert train.main(flags) == 0
    (tmp_path / "all.tsv").unlink()
    card = card_of(tmp_path / "run", tmp_path / "adapter")
    format_, example, *answers = literal(card)
    assert format_ == "other: {other} a `field`: {a `field`}"
    assert re.fullmatch(r"other: .+ a `field`: .+", example)
    assert answers == sorted(labels) and "before its meaning" not in card
    assert (
        "more than 99 tokens" in card and "the most probable label" in card and "files that the run was given" in card
    )


def test_what_is_not_known_is_not_said(tmp_path: Path) -> None:
    card = card_of(loose(tmp_path / "run", ["squad", "stsb", "mine"]), tmp_path / "adapter")
    assert "# `squad`, `stsb`, `mine`: soft prompts" in card and "## `stsb` (`task_ids` 1)" in card
    assert "in words of its own" in card and "from 0.0 to 5.0, in steps of 0.2" in card
    assert "is not known here" in card.partition("## `mine`")[2]
    assert "## Scores" not in card and "max_new_tokens" not in card and "Training:" not in card
    shared = card_of(loose(tmp_path / "shared", ["rte", "cola"], shared=True), tmp_path / "adapter of both")
    assert "task_ids" not in shared and "One prompt of 3 x 8" in shared


def test_the_configuration_is_written_last_and_nothing_beside_a_damaged_run(
    prompt_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(exchange, "write_whole", lambda path, _: written.append(path.name))
    export_peft(prompt_run, tmp_path / "adapter")
    assert written == ["adapter_model.safetensors", "README.md", "adapter_config.json"]
    run = loose(tmp_path / "run", ["rte"]).parent
    (run / "config.json").write_text("{")
    with pytest.raises(AttemptError, match=r"config\.json of a run"):
        export_peft(run, tmp_path / "other")
    assert len(written) == 3


@pytest.mark.parametrize("tasks", [["rte"], ["rte", "cola"]])
def test_its_lines_run(tasks: list[str], tmp_path: Path) -> None:
    """With a T5 of Hugging Face's form that has the demo's tokenizer."""
    for package in ("peft", "transformers"):
        pytest.importorskip(package)
    fields = COMMON | V10 | {"vocab_size": 1024, "d_model": 8}
    model = save(tmp_path / "model", fields, random_state(fields), "safetensors")
    (model / "spiece.model").write_bytes((HERE / "checkpoint/spiece.model").read_bytes())
    card = card_of(loose(tmp_path / "run", tasks, str(model)), tmp_path / "it's")
    assert "is a folder of the machine" in card
    (lines,) = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(lines.replace('"FOLDER"', repr(str(tmp_path / "it's"))), {})
    assert re.fullmatch(r"\[.*\]\n", said.getvalue())


def test_a_built_in_task_beside_a_users_own_keeps_its_labels_meanings() -> None:
    plan = Plan(task=["mrpc", "mine"], train_file="x.tsv")
    assert Known(plan, None).task("mrpc") is TASKS["mrpc"]
