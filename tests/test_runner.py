"""The front door: attempt.load, and eval.py --answer, against eval.py's own answers, scores and weights."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import REPOSITORY, error_of

import attempt
import eval
import train
from attempt.answering.answers import instance_weights
from attempt.answering.splits import load_splits
from attempt.runs.plan import Plan
from data.download import Downloader
from model.errors import AttemptError


@pytest.fixture(scope="module")
def mixture_run(attempt_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mixture") / "run"
    assert train.main([*attempt_flags, "--out", str(out)]) == 0
    return out


def scored(run: Path, file: Path, *more: str) -> list[dict[str, Any]]:
    """The rows that eval.py writes."""
    assert eval.main(["--run", str(run), "--split", "dev", "--predictions", str(file), "--device", "cpu", *more]) == 0
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def fields_of(row: dict[str, Any]) -> tuple[str, ...]:
    """The fields of a text that begins with the task's name."""
    if row["task"] == "cola":
        return (row["source"].removeprefix("cola sentence: "),)
    first, second = row["source"].removeprefix("rte sentence1: ").split(" sentence2: ")
    return first, second


@pytest.mark.parametrize("answer_by", ["generate", "labels"])
def test_answers_of_two_tasks_in_one_list_are_those_that_eval_scores(
    answer_by: str, mixture_run: Path, tmp_path: Path
) -> None:
    rows = scored(mixture_run, tmp_path / "p.jsonl", "--answer-by", answer_by)
    rows = rows[::2] + rows[1::2]  # the tasks' rows one among the other's
    assert {row["task"] for row in rows} == {"rte", "cola"}
    runner = attempt.load(mixture_run, device="cpu", answer_by=answer_by)
    texts, tasks = [fields_of(row) for row in rows], [row["task"] for row in rows]
    meanings = {name: question.labels for name, question in runner.questions.items()}
    expected = [meanings[r["task"]].get(r["prediction"].strip(), r["prediction"]) for r in rows]
    assert runner.answer(texts, tasks) == expected
    named = [
        dict(zip(runner.questions[t].task.fields, values, strict=True)) for t, values in zip(tasks, texts, strict=True)
    ]
    assert runner.answer(named, tasks) == expected
    both = runner.answer(texts, tasks, probabilities=True)
    for answer, task, right in zip(both, tasks, expected, strict=True):
        assert list(answer.probabilities) == list(meanings[task].values())
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert answer.text == right and (
            answer_by == "generate" or answer.text == max(answer.probabilities, key=lambda t: answer.probabilities[t])
        )


def test_the_weights_are_those_of_the_mixture(mixture_run: Path) -> None:
    plan = Plan.read(mixture_run / "config.json")
    runner = attempt.load(str(mixture_run), device="cpu")
    downloader = Downloader(data_dir=Path(plan.data_dir or ""))
    number = runner.questions["rte"].number
    split = load_splits("rte", number, ["dev"], plan, downloader, runner.backbone.tokenizer)["dev"]
    whole = instance_weights(runner.backbone, runner.prompt, split.tokens)
    texts = [fields_of({"task": "rte", "source": example.source}) for example in split.examples]
    found = runner.weights(["A dog .", *texts], ["cola"] + ["rte"] * len(texts))
    assert found.names == [*runner.config.sources, "target"]
    torch.testing.assert_close(found.values[1:], whole)
    torch.testing.assert_close(found.values.sum(1), torch.ones(len(texts) + 1))


def test_what_cannot_be_asked(mixture_run: Path, prompt_run: Path) -> None:
    runner = attempt.load(mixture_run, device="cpu")
    for texts, task, expected in (
        (["a"], None, "expected a task, one of rte, cola"),
        ("a", "cola", "expected a list of texts"),
        (["a"], ["cola", "rte"], "expected a list of texts"),
        (["a"], "colla", r"task colla: .*did you mean cola"),
        (["a"], "rte", "rte: expected texts for sentence1, sentence2, found 'a'"),
        ([{"sentence1": "a"}], "rte", "expected texts for sentence1, sentence2, found 'a'"),
        ([("a", 1)], "rte", "expected texts for sentence1, sentence2, found 'a', 1"),
    ):
        with pytest.raises(AttemptError, match=expected):
            runner.answer(texts, task)  # type: ignore[arg-type]
    plain = attempt.load(prompt_run, device="cpu")
    assert plain.answer([]) == []
    with pytest.raises(AttemptError, match="expected a mixture"):
        plain.weights(["a"])
    with pytest.raises(AttemptError, match=r"expected some of model, .*found modle"):
        attempt.load(prompt_run, modle="x")


@pytest.fixture(scope="module")
def own_run(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(folder of the files, run) of a user's task, started in a folder of its own with relative names."""
    root = tmp_path_factory.mktemp("own")
    rows = [f"{'good' if i % 2 else 'bad'} dog {i}\t{'yes' if i % 2 else 'no'}\n" for i in range(60)]
    for name, part in (("train", rows[:40]), ("dev", rows[40:])):
        (root / f"{name}.tsv").write_text("text\tmark\n" + "".join(part))
    words = ["--task", "mine", "--method", "prompt", "--train-file", "train.tsv", "--dev-file", "dev.tsv"]
    words += ["--source-field", "text", "--target-field", "mark", "--prompt-length", "4", "--steps", "4", *common]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert train.main([*words, "--out", "run"]) == 0
    return root, root / "run"


def test_a_run_can_be_moved_and_works_without_its_training_file(
    own_run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = own_run
    before = scored(run, tmp_path / "before.jsonl")
    monkeypatch.chdir(tmp_path)
    assert scored(run, tmp_path / "elsewhere.jsonl") == before  # its files are found where it was started
    shutil.move(root / "train.tsv", root / "gone.tsv")
    try:
        assert scored(run, tmp_path / "without.jsonl") == before
        moved = tmp_path / "moved"
        shutil.copytree(run, moved)
        shutil.move(root, tmp_path / "hidden")
        texts = [row["source"].removeprefix("mine text: ") for row in before]
        assert attempt.load(moved, device="cpu").answer(texts) == [row["prediction"] for row in before]
        shutil.copy(tmp_path / "hidden/dev.tsv", tmp_path / "new.tsv")
        assert scored(moved, tmp_path / "new.jsonl", "--dev-file", "new.tsv") == before
        capsys.readouterr()
        assert eval.main(["--run", str(moved), "--split", "train", "--dev-file", "new.tsv", "--device", "cpu"]) == 2
        assert "--split train: expected the run's train file, found none; name it by --train-file" in error_of(capsys)
        assert eval.main(["--run", str(moved), "--device", "cpu"]) == 2
        assert "dev.tsv: expected a file of examples, found none there" in error_of(capsys)
    finally:
        shutil.move(tmp_path / "hidden", root)
        shutil.move(root / "gone.tsv", root / "train.tsv")


def test_no_test_file_is_no_dev_file(own_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """A test file that is named and gone is not replaced by dev."""
    root, run = own_run
    words = ["--run", str(run), "--device", "cpu", "--test-file", str(root / "none.tsv")]
    assert eval.main(words) == 2
    assert "none.tsv: expected a file of examples" in error_of(capsys)


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl", "txt", "-"])
@pytest.mark.parametrize("choose", [False, True])
def test_rows_without_labels_are_answered_as_they_are_read(
    kind: str, choose: bool, own_run: tuple[Path, Path], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ["--answer-by", "labels"] * choose
    rows = scored(own_run[1], tmp_path / "p.jsonl", *more)
    texts = [row["source"].removeprefix("mine text: ") for row in rows]
    lines = {
        "tsv": ["text\tother", *(f"{text}\tx" for text in texts)],
        "csv": ["other,text", *(f'x,"{text}"' for text in texts)],
        "jsonl": [json.dumps({"text": text}) for text in texts],
    }.get(kind, [*texts, ""])
    file = tmp_path / f"rows.{kind}"
    file.write_text("\n".join(lines) + "\n")
    name = str(file)
    if kind == "-":
        name, read = "-", os.open(file, os.O_RDONLY)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.FileIO(read)))
    capsys.readouterr()
    words = ["--run", str(own_run[1]), "--answer", name, "--eval-batch-size", "7", "--device", "cpu"]
    assert eval.main([*words, *more]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prediction"] for row in found] == [row["prediction"] for row in rows]
    assert [row["source"] for row in found] == [row["source"] for row in rows]
    assert [row["index"] for row in found] == list(range(len(rows))) and {row["task"] for row in found} == {"mine"}
    assert all(("probabilities" in row) == choose for row in found)


def test_answers_stream(own_run: tuple[Path, Path]) -> None:
    """A batch of lines is answered before the next one is written."""
    words = [sys.executable, "eval.py", "--run", str(own_run[1]), "--answer", "-", "--eval-batch-size", "2"]
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    program = subprocess.Popen([*words, "--device", "cpu"], cwd=REPOSITORY, text=True, bufsize=1, **pipe)  # type: ignore[call-overload]
    for number in range(2):
        program.stdin.write("a dog\nanother\n")
        program.stdin.flush()
        found = [json.loads(program.stdout.readline()) for _ in range(2)]
        assert [row["index"] for row in found] == [2 * number, 2 * number + 1]
    program.stdin.close()
    assert program.wait() == 0


def test_rows_that_cannot_be_answered(
    mixture_run: Path, own_run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.tsv"
    rows.write_text("sentence1\tsentence2\na\tb\n")
    for run, words, expected in (
        (mixture_run, [str(rows)], "expected one task, found rte, cola; choose by --task"),
        (own_run[1], [str(rows)], "expected one column 'text', found"),
        (own_run[1], [str(tmp_path / "rowz.txt")], "expected a file, or -, found none there"),
    ):
        assert eval.main(["--run", str(run), "--device", "cpu", "--answer", *words]) == 2
        assert expected in error_of(capsys)
    assert eval.main(["--run", str(mixture_run), "--device", "cpu", "--answer", str(rows), "--task", "rte"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == "rte sentence1: a sentence2: b"
    with pytest.raises(SystemExit):
        eval.main(["--run", str(mixture_run), "--answer", "-", "--interactive"])


def test_the_front_door_is_light_and_whole() -> None:
    """`import attempt` loads none of its parts; each is there when it is asked for."""
    code = "import sys, attempt; assert 'torch' not in sys.modules; attempt.load, attempt.T5, attempt.SoftPrompt; "
    code += "attempt.PromptAttention, attempt.Runner; assert 'torch.distributed.fsdp' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    assert set(attempt.__all__) == {name for names in attempt.PLACES.values() for name in names}
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        attempt.lode  # noqa: B018
