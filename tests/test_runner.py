"""The front door: attempt.load, and eval.py --answer, against eval.py's own answers, scores and weights."""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
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
from attempt.compare import compare
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
    expected = [meanings[r["task"]].get(r["prediction"].strip()) for r in rows]  # None of no label
    assert runner.answer(texts, tasks) == expected and (None in expected) == (answer_by == "generate")
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
    assert [one.written for one in both] == [r["prediction"] * (answer_by == "generate") for r in rows]


def test_what_is_no_label_as_it_is_written_is_none(own_run: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is what a label means, which scores as invalid too."""
    runner = attempt.load(own_run[1], device="cpu")
    question = replace(runner.questions["mine"], labels={"0": "no", "1": "yes"})
    runner.questions["mine"] = question
    for written, expected in (("1", "yes"), (" 0 ", "no"), ("yes", None), ("", None)):
        monkeypatch.setattr(runner.backbone.tokenizer, "decode", lambda ids, text=written: text)
        assert runner.answer(["a"]) == [expected]
        assert runner.answers(["a"]) == [(expected, {}, written)]
    free = replace(question, labels={})
    runner.questions["mine"] = free
    assert runner.answer(["a", "b"]) == ["", ""]
    first, second = runner.answers(["a", "b"], probabilities=True)
    assert first.probabilities is not second.probabilities


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


def test_what_cannot_be_asked(mixture_run: Path, prompt_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = attempt.load(mixture_run, device="cpu")
    for texts, task, expected in (
        (["a"], None, "expected a task, one of rte, cola"),
        (["a"], "", "task : expected one of the run's"),
        ("a", "cola", "expected a list of texts, found str"),
        ((text for text in "ab"), "cola", "expected a list of texts, found generator"),
        (["a"], ["cola", "rte"], "or one for each of 1 texts, found 2"),
        ([None], "cola", "expected texts for sentence, found None"),
        (["\udce4"], "cola", r"expected texts for sentence, found '.udce4'"),
        (["a"], "colla", r"task colla: .*did you mean cola"),
        (["a"], "rte", "rte: expected texts for sentence1, sentence2, found 'a'; give a tuple of 2, or a dict"),
        ([{"sentence1": "a", "sentnce2": "b"}], "rte", "sentence1, sentence2, found the keys 'sentence1', 'sentnce2'"),
        ([("a", 1)], "rte", "expected texts for sentence1, sentence2, found 'a', 1"),
        (["a"], 5, "expected a task, or one for each of 1 texts, found 5"),
        (["a"], [None], "task None: expected one of the run's"),
    ):
        with pytest.raises(AttemptError, match=expected):
            runner.answer(texts, task)  # type: ignore[arg-type]
    plain = attempt.load(prompt_run, device="cpu")
    assert plain.answer([]) == [] and repr(plain).startswith("<prompt of cola on ")
    with pytest.raises(AttemptError, match="task zzz: expected one of the run's, cola"):
        plain.answer([], task="zzz")
    with pytest.raises(AttemptError, match=r"expected texts for sentence, found the keys none"):
        plain.answer([{}])
    with pytest.raises(AttemptError, match=r"best\.safetensors/config\.json: .*found none; name the run's folder"):
        attempt.load(prompt_run / "best.safetensors")
    with pytest.raises(AttemptError, match="expected a mixture"):
        plain.weights(["a"])
    assert plain.answer([], probabilities=True) == [] and runner.weights([], "rte").values.shape == (0, 3)
    for changes, expected in (
        ({"modle": "x"}, r"expected some of model, .*found modle \(did you mean model"),
        ({"answer_by": "label"}, "found answer_by: 'label', none of generate, labels"),
        ({"eval_batch_size": "8"}, "found eval_batch_size: '8'"),
        ({"model": Path("none")}, "none"),
    ):
        with pytest.raises(AttemptError, match=expected):
            attempt.load(prompt_run, **changes)
    monkeypatch.setattr("attempt.machine.distributed.size", lambda: 2)
    with pytest.raises(AttemptError, match="expected one process to answer texts, found 2"):
        runner.answer(["a"], "cola")


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
        answers = attempt.load(moved, device="cpu").answers(texts)
        assert [one.written for one in answers] == [row["prediction"] for row in before]
        shutil.copy(tmp_path / "hidden/dev.tsv", tmp_path / "new.tsv")
        assert scored(moved, tmp_path / "new.jsonl", "--dev-file", "new.tsv") == before
        capsys.readouterr()
        assert eval.main(["--run", str(moved), "--split", "train", "--dev-file", "new.tsv", "--device", "cpu"]) == 2
        assert (
            "train.tsv: expected the train file, found none there (did you mean new.tsv?); name it by --train-file"
            in (error_of(capsys))
        )
        assert eval.main(["--run", str(moved), "--device", "cpu"]) == 2
        assert "dev.tsv: expected the dev file, found none there" in error_of(capsys)
    finally:
        shutil.move(tmp_path / "hidden", root)
        shutil.move(root / "gone.tsv", root / "train.tsv")


def test_no_test_file_is_no_dev_file(own_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """A test file that is named and gone is not replaced by dev."""
    root, run = own_run
    words = ["--run", str(run), "--device", "cpu", "--test-file", str(root / "none.tsv")]
    assert eval.main(words) == 2
    assert "none.tsv: expected the test file" in error_of(capsys)


def test_another_file_in_the_place_of_the_runs_is_noted(
    own_run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = own_run
    shutil.copytree(run, tmp_path / "run")
    lines = (root / "dev.tsv").read_text().splitlines()
    (tmp_path / "dev.tsv").write_text("\n".join(lines[:8]) + "\n")
    monkeypatch.chdir(tmp_path)
    words = ["--run", "run", "--device", "cpu"]
    assert eval.main(words) == 0
    found = capsys.readouterr()
    assert "7 examples" in found.out and "dev.tsv: not the content that the run was started with" in found.err
    assert f"dev.tsv: read from this folder; the run was started in {root}, which has another" in found.err
    assert eval.main([*words, "--dev-file", "dev.tsv"]) == 0
    assert "not the content" not in capsys.readouterr().err  # asked for
    (tmp_path / "dev.tsv").unlink()
    assert eval.main(words) == 0
    assert "20 examples" in (found := capsys.readouterr()).out and "note:" not in found.err  # the run's own


def test_a_resumed_run_knows_where_its_new_files_are(
    own_run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Gone on with from another folder, where another file of the first one's name lies."""
    root, run = own_run
    shutil.copytree(run, tmp_path / "run")
    lines = (root / "dev.tsv").read_text().splitlines()
    (root / "other.tsv").write_text("\n".join(lines[:4]) + "\n")
    (tmp_path / "other.tsv").write_text("\n".join(lines[:6]) + "\n")
    monkeypatch.chdir(tmp_path)
    assert train.main(["--resume", "run", "--change", "--test-file", "other.tsv", "--steps", "6"]) == 0
    monkeypatch.chdir("/")
    capsys.readouterr()
    assert eval.main(["--run", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert "mine test: " in (out := capsys.readouterr().out) and "5 examples" in out
    (root / "other.tsv").unlink()


def test_a_run_is_gone_on_with_from_anywhere_by_its_first_command(
    own_run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = own_run
    shutil.copytree(run, root / "again")
    monkeypatch.chdir(tmp_path)
    assert train.main(["--resume", str(root / "again"), "--change", "--steps", "6"]) == 0
    monkeypatch.chdir(root)
    words = ["--task", "mine", "--method", "prompt", "--train-file", "train.tsv", "--dev-file", "dev.tsv"]
    assert train.main(["--resume", "again", *words, "--prompt-length", "4", "--steps", "6"]) == 0
    capsys.readouterr()
    (root / "other.tsv").write_text((root / "train.tsv").read_text())
    assert train.main(["--resume", "again", *words, "--train-file", "other.tsv"]) == 2
    assert "--train-file other.tsv (was " in error_of(capsys)
    (root / "other.tsv").unlink()
    shutil.rmtree(root / "again")


def test_a_run_of_before_is_found_with_its_files_from_anywhere(
    own_run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its config.json does not say where it was started; its --out does, as long as it was not moved."""
    root, _ = own_run
    shutil.copytree(root, tmp_path / "project")
    run = tmp_path / "project" / "run"
    config = json.loads((run / "config.json").read_text())
    del config["where"], config["formats"]
    (run / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir("/")
    assert eval.main(["--run", str(run), "--device", "cpu"]) == 0
    assert attempt.load(run, device="cpu").plan.train_file == str(tmp_path / "project" / "train.tsv")
    capsys.readouterr()
    (tmp_path / "project" / "train.tsv").unlink()
    assert train.main(["--resume", str(run)]) == 2
    assert "found --train-file train.tsv missing" in error_of(capsys)
    shutil.move(run, tmp_path / "moved")
    assert Plan.read(tmp_path / "moved" / "config.json").where == ""


def test_seeds_started_in_several_folders_are_one_group(
    own_run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As are those of before, whose config.json does not say where they were started."""
    for seed in (1, 2, 3):
        copy = tmp_path / f"seed-{seed}"
        shutil.copytree(own_run[1], copy)
        config = json.loads((copy / "config.json").read_text())
        config |= {"seed": seed, "where": f"/folder/{seed}"}
        if seed == 3:
            del config["where"], config["formats"]
        (copy / "config.json").write_text(json.dumps(config))
    compare.run([str(tmp_path)])
    out = capsys.readouterr().out
    assert out.count("prompt tuning  mine      3 ") == 1 and "settings that differ" not in out


def test_a_finished_run_reads_only_what_it_scores(
    own_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = own_run
    words = ["--run", str(run), "--device", "cpu"]
    before = (root / "train.tsv").read_text()
    try:
        (root / "train.tsv").write_text(f"{before}a cat\tperhaps\n")
        assert eval.main(words) == 0
        capsys.readouterr()
        assert eval.main([*words, "--split", "train"]) == 2
        assert "line 42: expected one of the labels of the run (no, yes), found 'perhaps'; mend" in error_of(capsys)
    finally:
        (root / "train.tsv").write_text(before)


def test_a_run_that_is_not_complete_is_noted(
    own_run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(own_run[1], tmp_path / "run")
    (copy / "result.json").unlink()
    attempt.load(copy, device="cpu")
    assert "the run is not complete; best.safetensors is what it has saved so far" in capsys.readouterr().err
    assert eval.main(["--run", str(copy), "--device", "cpu", "--checkpoint", "last"]) == 0
    assert "the run is not complete; last.safetensors" in capsys.readouterr().err


def test_a_mirror_takes_the_place_of_a_folder_of_data(mixture_run: Path) -> None:
    assert Plan.read(mixture_run / "config.json").data_dir is not None
    runner = attempt.load(mixture_run, device="cpu", mirror="http://localhost:1")
    assert (runner.plan.mirror, runner.plan.data_dir) == ("http://localhost:1", None)
    assert attempt.load(mixture_run, device="cpu", data_dir=None).plan.data_dir is None


def test_a_folder_that_may_not_be_entered_is_as_one_that_is_gone(
    own_run: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan.read(own_run[1] / "config.json")
    monkeypatch.chdir("/")

    def refuse(path: Any, **_: Any) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        found = plan.located()
    assert found.train_file == "train.tsv"


def test_formats_follow_a_change(common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the column of the answers: another one has other labels, and longer texts."""
    rows = [f"dog {i}\t{'a' if i % 2 else 'b'}\t{'x' if i % 3 else 'y'}\n" for i in range(60)]
    (tmp_path / "x.tsv").write_text("text\tfirst\tsecond\n" + "".join(rows))
    files = [f"--{split}-file={tmp_path / 'x.tsv'}" for split in ("train", "dev")]
    words = ["--task", "mine", "--method", "prompt", "--source-field", "text", "--target-field", "first", *files]
    run, few = tmp_path / "run", ["--prompt-length", "4", "--steps", "2", *common]
    assert train.main([*words, *few, "--out", str(run)]) == 0
    assert Plan.read(run / "config.json").formats["mine"]["labels"] == ["a", "b"]
    assert train.main(["--resume", str(run), "--change", "--target-field", "second", "--steps", "3"]) == 0
    assert Plan.read(run / "config.json").formats["mine"]["labels"] == ["x", "y"]
    runner = attempt.load(run, device="cpu", answer_by="labels")
    assert set(runner.answer(["dog 1"])) <= {"x", "y"}
    (tmp_path / "z.tsv").write_text("text\tsecond\n" + "".join(f"dog {i}\t{'p' if i % 2 else 'q'}\n" for i in range(9)))
    other = [f"--{split}-file={tmp_path / 'z.tsv'}" for split in ("train", "dev")]
    assert eval.main(["--run", str(run), "--device", "cpu", *other, "--answer-by", "labels"]) == 0  # its own labels
    capsys.readouterr()


def test_a_run_that_has_no_formats_keeps_its_limits(
    every_task: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--task", "squad", "--method", "prompt", "--splits", "official", "--model", str(tiny_checkpoint)]
    flags += ["--data-dir", str(every_task), "--device", "cpu", "--steps", "1", "--prompt-length", "4"]
    run = tmp_path / "run"
    assert train.main([*flags, "--max-target-length", "100", "--out", str(run)]) == 0
    config = json.loads((run / "config.json").read_text())
    assert attempt.load(run, device="cpu").questions["squad"].answer_length == 100
    del config["formats"], config["where"]
    (run / "config.json").write_text(json.dumps(config))
    assert attempt.load(run, device="cpu").questions["squad"].answer_length == 100
    (run / "config.json").write_text(json.dumps({**config, "max_target_length": None, "data_dir": "/gone"}))
    assert attempt.load(run, device="cpu").questions["squad"].answer_length == 64
    (tmp_path / "rows.txt").write_text("Who ?\tA man .\n")
    capsys.readouterr()
    assert eval.main(["--run", str(run), "--device", "cpu", "--answer", str(tmp_path / "rows.txt")]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == "squad question: Who ? context: A man ."
    assert eval.main(["--run", str(run), "--device", "cpu"]) == 2  # scores need the data that the run had
    assert "--data-dir: expected a folder" in error_of(capsys)


def test_a_column_says_which_task_a_row_is_of(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"dog {i}\t{'yes' if i % 4 > 1 else 'no'}\t{'a' if i % 2 else 'b'}\n" for i in range(80)]
    (tmp_path / "x.tsv").write_text("text\tmark\tkind\n" + "".join(rows))
    files = [f"--{split}-file={tmp_path / 'x.tsv'}" for split in ("train", "dev")]
    words = ["--task", "a", "b", "cola", "--task-field", "kind", "--source-field", "text", "--target-field", "mark"]
    words += [
        "--method",
        "prompt",
        "--prompt-length",
        "4",
        "--steps",
        "2",
        *files,
        *common,
        "--out",
        str(tmp_path / "run"),
    ]
    assert train.main(words) == 0
    capsys.readouterr()
    asked = ["--run", str(tmp_path / "run"), "--device", "cpu", "--answer", str(tmp_path / "x.tsv")]
    assert eval.main(asked) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["task"] for row in found] == ["b", "a"] * 40 and found[3]["source"] == "a text: dog 3"
    (tmp_path / "x.tsv").write_text("text\tmark\tkind\n" + "".join(rows[:40]))
    assert eval.main([*asked, "--task", "a"]) == 0
    told = capsys.readouterr()
    assert [json.loads(line)["source"] for line in told.out.splitlines()] == [
        f"a text: dog {i}" for i in range(1, 40, 2)
    ]
    assert "x.tsv: left out 20 rows of other tasks" in told.err
    (tmp_path / "x.tsv").write_text("text\tmark\tkind\n" + "".join(rows[:40]) + "dog\tyes\tc\n")
    assert eval.main([*asked, "--task", "a"]) == 2
    assert "x.tsv line 42: expected one of a, b, cola in 'kind', found 'c'" in error_of(capsys)


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
    known = ("yes", "no")
    assert [row["prediction"] for row in found] == [p if (p := row["prediction"]) in known else None for row in rows]
    assert [row.get("written", row["prediction"]) for row in found] == [row["prediction"] for row in rows]
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
    bad, latin = tmp_path / "bad.txt", tmp_path / "latin.txt"
    bad.write_text("\ta\n\nonly one\n")
    latin.write_bytes(b"caf\xe9\n")
    named, packed = tmp_path / "named.txt", tmp_path / "packed.txt"
    named.write_text("text\na dog\n")
    packed.write_text('{"text": "a dog"}\n')
    for run, words, expected in (
        (mixture_run, [str(rows)], "expected one task, found rte, cola; choose by --task"),
        (own_run[1], [str(rows)], "expected one column 'text', found"),
        (own_run[1], [str(tmp_path / "rowz.txt")], "expected a file, or -, found none there"),
        (own_run[1], [""], "expected a file, or -, found none there"),
        (own_run[1], [str(tmp_path)], "expected a file, or -, found none there"),
        (
            mixture_run,
            [str(bad), "--task", "rte"],
            "bad.txt line 3: expected 2 fields (sentence1, sentence2)",
        ),
        (own_run[1], [str(latin)], "latin.txt line 1: expected UTF-8 text"),
        (own_run[1], [str(named)], "named.txt line 1: expected a text on each line, found names of columns"),
        (own_run[1], [str(packed)], "packed.txt line 1: expected a text on each line, found a JSON object"),
    ):
        capsys.readouterr()
        assert eval.main(["--run", str(run), "--device", "cpu", "--answer", *words]) == 2
        assert expected in error_of(capsys)
    assert eval.main(["--run", str(mixture_run), "--device", "cpu", "--answer", str(rows), "--task", "rte"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == "rte sentence1: a sentence2: b"
    for more, others in ((["--interactive"], "--answer"), (["--predictions", "x"], "--interactive")):
        with pytest.raises(SystemExit):
            eval.main(["--run", str(mixture_run), "--answer", "-", *more])
        assert f"in one process, without {others}, --predictions and --attention-map" in error_of(capsys)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs files of open pipes")
@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"a .\rb .\n", ["a .\rb ."]),
        (b"\xef\xbb\xbfa\tb\r\n\nb", ["a\tb", "b"]),
        ("a\u2028b\x85c\n".encode(), ["a\u2028b\x85c"]),
        (b"a\nb\xff\n", None),
        (b"\xff\xfea\0", None),
    ],
)
def test_a_file_a_pipe_and_the_standard_input_are_read_alike(
    content: bytes,
    texts: list[str] | None,
    own_run: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes(content)
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    for name in (str(file), "-", f"/dev/fd/{read}"):
        monkeypatch.setattr(sys, "stdin", file.open(encoding="utf-8"))
        capsys.readouterr()
        status = eval.main(["--run", str(own_run[1]), "--device", "cpu", "--answer", name])
        if texts is None:
            assert status == 2 and "expected UTF-8 text, found" in error_of(capsys)
        else:
            rows = [json.loads(line) for line in capsys.readouterr().out.split("\n")[:-1]]
            assert status == 0 and [row["source"] for row in rows] == [f"mine text: {text}" for text in texts]
    os.close(read)


def test_what_a_reader_would_not_expect_is_told_with_its_count(
    own_run: tuple[Path, Path], mixture_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Empty fields and lines, and texts that lose their end, each by one note; a name may be in capitals."""
    long = "word " * 1000
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("", "a", long, "", long)))
    (tmp_path / "x.txt").write_text(f"a\t\n\n{long}\tb\na\tb\n\n\n")
    (tmp_path / "X.CSV.GZ").write_bytes(gzip.compress(b"text\na\n"))
    for run, name, more, count, notes in (
        (own_run[1], "x.jsonl", ["--eval-batch-size", "2"], 5, ["cut 2 texts", "answered 2 rows with an empty field"]),
        (own_run[1], "x.jsonl", ["--answer-by", "labels"], 5, []),  # told already
        (mixture_run, "x.txt", ["--task", "rte"], 3, ["answered 1 rows", "cut 1 texts", "left out 3 empty lines"]),
        (own_run[1], "X.CSV.GZ", [], 1, []),
    ):
        capsys.readouterr()
        words = ["--run", str(run), "--device", "cpu", "--answer", str(tmp_path / name), *more]
        assert eval.main(words) == 0
        found = capsys.readouterr()
        told = [line.partition(f"{name}: ")[2] for line in found.err.splitlines() if "note: --answer" in line]
        assert len(found.out.splitlines()) == count and len(told) == len(notes)
        assert all(line.startswith(expected) for line, expected in zip(sorted(told), sorted(notes), strict=True))


def test_lines_are_read_as_files_and_texts_are(
    own_run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a mark of the byte order, packed, the whole text that the model reads, and none at all."""
    words = ["--run", str(own_run[1]), "--device", "cpu", "--answer"]
    text = "a café\n\n mine text: a dog\n"
    (tmp_path / "x.txt").write_text(text, encoding="utf-8-sig")
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("x.txt", "x.txt.gz"):
        capsys.readouterr()
        assert eval.main([*words, str(tmp_path / name)]) == 0
        found = [json.loads(line)["source"] for line in capsys.readouterr().out.splitlines()]
        assert found == ["mine text: a café", "mine text: a dog"]
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", narrow)
        assert eval.main([*words, str(tmp_path / "x.txt")]) == 0
    assert json.loads(narrow.buffer.getvalue().splitlines()[0])["source"] == "mine text: a café"  # type: ignore[attr-defined]
    (tmp_path / "none.tsv").write_text("text\n")
    assert eval.main([*words, str(tmp_path / "none.tsv")]) == 0
    assert "none.tsv: found no row" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)
    assert eval.main([*words, "-"]) == 2
    assert "expected lines on the standard input, found it closed" in error_of(capsys)


def test_the_front_door_is_light_and_whole() -> None:
    """`import attempt` loads none of its parts; each is there when it is asked for."""
    code = "import sys, attempt; assert 'torch' not in sys.modules; attempt.load, attempt.T5, attempt.SoftPrompt; "
    code += "attempt.PromptAttention, attempt.Runner; assert 'torch.distributed.fsdp' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    assert set(attempt.__all__) == set(attempt.PLACES) <= set(dir(attempt))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        attempt.lode  # type: ignore[attr-defined]  # noqa: B018


def test_a_module_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text("rows = 3\n")
    at = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    code = [sys.executable, "-c", "import attempt; attempt.load('none')"]
    found = subprocess.run(code, cwd=tmp_path, env=at, capture_output=True, text=True, check=False)
    assert (
        f"ImportError: expected attempt's own package data, found {tmp_path / 'data.py'} in its place" in found.stderr
    )
