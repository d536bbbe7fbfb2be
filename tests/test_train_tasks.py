"""train.py and eval.py on tasks with extra fields and free-text answers, with a tiny random T5."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from glue_files import ROWS, write_checksums
from task_files import FIRST, SUPER, Files, both, lines, passage, squad

import eval
import train
from attempt.answering.backbone import Backbone
from attempt.answering.splits import load_splits
from data.download import Downloader
from data.tasks import GROUPS, TASKS
from model.checkpoint import NAMES
from model.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A --data-dir of the self-made files, and the checksums.tsv that vouches for them."""
    files = Files(tmp_path_factory.mktemp("files"))
    answers = [f"the bridge {i}" for i in range(1003)] + ["the long report of John Smith in Warsaw, in 1984, " * 3]
    files.write("rajpurkar.github.io/SQuAD-explorer/dataset/train-v1.1.json", squad(*[("Who?", [a]) for a in answers]))
    files.write(f"{SUPER}/MultiRC.zip", both("MultiRC", lines(*[passage(("Who?", [("A", 1), ("B", 0)]))] * 4)))
    write_checksums(files.root)
    return files.root


def test_a_mixed_run(root: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, answers = tmp_path / "run", tmp_path / "answers.jsonl"
    tasks = ["squad", "multirc", "wsc", "copa"]
    arguments = ["--task", *tasks, "--method", "prompt", "--splits", "official", "--train-examples", "8"]
    arguments += ["--eval-examples", "6", "--prompt-length", "4", "--steps", "4", "--batch-size", "4"]
    arguments += ["--model", str(tiny_checkpoint), "--data-dir", str(root), "--device", "cpu"]
    assert train.main([*arguments, "--out", str(out)]) == 0
    result = json.loads((out / "result.json").read_text())
    metrics = {score["task"]: list(score["metrics"]) for score in result["scores"] if score["split"] == "test"}
    assert metrics == {
        "squad": ["f1", "em"],
        "multirc": ["f1", "question_em"],
        "wsc": ["accuracy"],
        "copa": ["accuracy"],
    }
    assert json.loads((out / "config.json").read_text())["splits"] == "official"
    assert eval.main(["--run", str(out), "--task", "squad", "--device", "cpu", "--predictions", str(answers)]) == 0
    row = json.loads(answers.read_text())
    assert (row["target"], row["references"]) == ("Ann", ["Ann", "Ann Lee"])
    assert "squad test: f1 " in capsys.readouterr().out


def test_free_text_answers_may_be_as_long_as_the_longest_training_answer(root: Path, tiny_checkpoint: Path) -> None:
    common = ["--model", str(tiny_checkpoint), "--device", "cpu", "--data-dir", str(root)]
    for more in ([], ["--train-examples", "1"], ["--max-target-length", "7"]):
        options = train.parse(["--task", "squad", "--splits", "official", *common, *more]).options
        tokenizer = Backbone.load(options, Downloader(data_dir=root)).tokenizer
        splits = load_splits("squad", 0, ["train", "dev"], options, Downloader(data_dir=root), tokenizer)
        text = ("the long report of John Smith in Warsaw, in 1984, " * 3).strip()
        longest = 7 if "--max-target-length" in more else 1 + len(tokenizer.encode_batch([text])[0])
        assert {split.answer_length for split in splits.values()} == {longest}
        assert longest == 7 or longest > 20
        assert max(len(splits["train"].tokens.target(i)) for i in range(len(splits["train"].tokens))) <= longest


def test_shots(root: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--task", "multirc", "--method", "prompt", "--prompt-length", "4", "--model", str(tiny_checkpoint)]
    arguments += ["--data-dir", str(root), "--device", "cpu", "--dry-run"]
    assert train.main([*arguments, "--shots", "2"]) == 0
    assert "multirc: train 4, dev 4, test 4 examples" in capsys.readouterr().out
    assert train.main([*arguments, "--shots", "5"]) == 2
    assert "--shots: expected 5 training examples of multirc's 2 labels" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train.main([*arguments, "--shots", "2", "--train-examples", "3"])
    assert "expected --shots or --train-examples, found both" in capsys.readouterr().err


def test_free_text_has_no_labels_to_start_from(
    root: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--task", "wsc", "squad", "--method", "prompt", "--init", "labels", "--splits", "official"]
    assert (
        train.main(
            [*arguments, "--model", str(tiny_checkpoint), "--data-dir", str(root), "--device", "cpu", "--dry-run"]
        )
        == 2
    )
    assert "--init labels: squad has free-text answers" in capsys.readouterr().err


def test_a_task_named_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--task", "squad", "wsc", "squad", "--method", "prompt"]) == 2
    assert "--task: expected each task once, found squad again" in capsys.readouterr().err


def test_a_set_too_small_to_cut_names_the_way_out(
    root: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--method", "prompt", "--model", str(tiny_checkpoint), "--data-dir", str(root), "--device", "cpu"]
    assert train.main(["--task", "nq", *arguments, "--dry-run"]) == 2
    assert "nq: expected more than 1000 training examples" in capsys.readouterr().err
    assert train.main(["--task", "nq", *arguments, "--splits", "official", "--dry-run"]) == 0
    assert "nq: train 1, dev 1, test 1 examples" in capsys.readouterr().out


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    for flag, names in (("--list-tasks", TASKS), ("--list-models", NAMES)):
        with pytest.raises(SystemExit) as stop:
            train.main([flag])
        assert stop.value.code == 0
        printed = capsys.readouterr().out.splitlines()
        if names is TASKS:
            assert "GLUE, SuperGLUE, MRQA, others, extra, sources, targets" in printed.pop()
        assert [line.split()[0] for line in printed if line.strip() and line.split()[0] not in GROUPS] == list_of(names)


def list_of(names: Iterable[str]) -> list[str]:
    return [name for group in GROUPS.values() for name in group] if names is TASKS else [*names]


@pytest.mark.parametrize("name", TASKS)
def test_the_dry_run_shows_an_example_of_the_task(
    name: str, every_task: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--task", name, "--method", "prompt", "--model", str(tiny_checkpoint), "--data-dir", str(every_task)]
    assert train.main([*arguments, "--splits", "official", "--prompt-length", "2", "--device", "cpu", "--dry-run"]) == 0
    source, target = ROWS[name][:2] if name in ROWS else FIRST[name][:2]
    tokenizer = Tokenizer(tiny_checkpoint / "spiece.model")
    source, target = (tokenizer.decode(ids) for ids in tokenizer.encode_batch([source, target]))
    printed = capsys.readouterr().out
    assert f"{name:10} source {source!r} (" in printed and f"\n           target {target!r} (" in printed
    assert name in source and "dry run: nothing was trained" in printed


def test_the_dry_run_shows_each_task_of_several(
    every_task: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--task", "rte", "squad", "multirc", "--method", "prompt", "--model", str(tiny_checkpoint)]
    arguments += ["--data-dir", str(every_task), "--splits", "official", "--device", "cpu", "--dry-run"]
    assert train.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if " source " in line] == ["rte", "squad", "multirc", "source"]


def test_long_texts_are_cut_as_the_paper_says() -> None:
    lengths = {name: task.max_source for name, task in TASKS.items() if task.max_source != 256}
    assert lengths == {"multirc": 348, "squad": 512, **dict.fromkeys(GROUPS["MRQA"], 512)}
