"""Tasks from a user's own files: reading them, what they are taken for, and runs from end to end."""

import csv
import dataclasses
import gzip
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import sentences
from runs import error_of, metrics_of, result_of, same_prompt

import eval
import train
from attempt.checkpoint import load_prompt
from attempt.runs.parsing import parse
from attempt.runs.plan import Plan
from data import user
from data.download import Downloader
from data.splits import official_splits, paper_splits
from data.tasks import STYLES, TASKS, Task, check_labels, load_official
from data.user import UserFiles, labels_of, read_rows, user_task
from model.errors import AttemptError
from model.tokenizer import Tokenizer

QA = UserFiles("train", "dev", None, ("question", "context"), "answer")


def write(path: Path, content: str | bytes) -> str:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return str(path)


def rows_of(path: Path, content: str | bytes) -> list[tuple[tuple[str, ...], str]]:
    return [(row.fields, row.label) for row in read_rows(write(path, content), QA)]


TSV = 'id\tanswer\tquestion\tcontext\n1\t"yes\tWho "is"?\t a, b \n2\tno\tÉ\u2028\rtu?\t\n'
CSV = 'id,answer,question,context\n1,"""yes","Who ""is""?"," a, b "\n2,no,"É\u2028tu?\nOr\r\nnot?",\n'
JSONL = (
    '{"id": 1, "answer": true, "question": 1.50, "context": "a\\nb"}\n\n'
    '{"answer": "no", "question": 12345678901234567890123, "context": false, "more": [1]}\n'
)
READ: dict[str, tuple[str, list[tuple[tuple[str, ...], str]]]] = {
    ".tsv": (TSV, [(('Who "is"?', "a, b"), '"yes'), (("É\u2028\rtu?", ""), "no")]),
    ".csv": (CSV, [(('Who "is"?', "a, b"), '"yes'), (("É\u2028tu? Or not?", ""), "no")]),
    ".jsonl": (JSONL, [(("1.50", "a b"), "true"), (("12345678901234567890123", "false"), "no")]),
}


@pytest.mark.parametrize("ending", READ)
def test_each_format_is_read_also_gzipped_with_a_mark_and_with_crlf(tmp_path: Path, ending: str) -> None:
    text, expected = READ[ending]
    crlf = text.replace("\r\n", "\n").replace("\n", "\r\n")
    for i, content in enumerate((text, "\ufeff" + text, crlf, crlf + "\r\n", text.rstrip("\n"), text + "\n\n")):
        for name in (f"{i}{ending}", f"{i}{ending}.gz"):
            assert rows_of(tmp_path / name, content) == expected, (name, content)


@pytest.mark.parametrize("ending", READ)
def test_places_name_the_file_and_the_line(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    last = {".tsv": 3, ".csv": 3, ".jsonl": 3}[ending]
    assert [row.place for row in read_rows(write(path, READ[ending][0]), QA)][-1] == f"{path} line {last}"


def test_a_csv_is_what_python_writes(tmp_path: Path) -> None:
    draw = random.Random(0)
    cells = ["".join(draw.choice("ab\",;\t '|") for _ in range(draw.randint(0, 9))) for _ in range(300)]
    with open(tmp_path / "x.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "context", "answer"])
        rows = [(a, b) for a, b in zip(cells[::2], cells[1::2], strict=True) if a.strip() or b.strip()]
        writer.writerows([a, b, "yes"] for a, b in rows)
    read = [row.fields for row in read_rows(str(tmp_path / "x.csv"), QA)]
    assert read == [(a.strip(), b.strip()) for a, b in rows] and len(read) > 130


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl"])
def test_a_text_may_be_long(tmp_path: Path, ending: str) -> None:
    text, cells = "a long text " * 20_000, ("question", "context", "answer")  # csv's own limit is 131,072 characters
    rows = [cells, (text, "b", "yes")]
    content = json.dumps(dict(zip(*rows, strict=True)))
    if ending != ".jsonl":
        content = "\n".join({".tsv": "\t", ".csv": ","}[ending].join(row) for row in rows)
    assert rows_of(tmp_path / f"x{ending}", content) == [((text.strip(), "b"), "yes")]


HEAD = "question\tcontext\tanswer\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.tsv", HEAD + "a\tb\tc\na\tb\n", "x.tsv line 3: expected 3 cells, found 2"),
        ("x.tsv", HEAD + "a\tb\tc\td\n", "x.tsv line 2: expected 3 cells, found 4"),
        ("x.tsv", HEAD + "a\tb\t \n", "x.tsv line 2: expected an answer in 'answer', found none"),
        (
            "x.tsv",
            "question\tanswer\nb\tc\n",
            "x.tsv line 1: expected one column 'context', found 'question', 'answer'",
        ),
        ("x.tsv", "question\t" + HEAD + "a\ta\tb\tc\n", "line 1: expected one column 'question', found 2; rename the"),
        ("x.tsv", HEAD + 'a\t"b\nb"\tc\n', "line 2: expected 3 cells, found 2; mend the row; quotes hold .* as .csv"),
        ("x.tsv", '"question"\t"context"\t"answer"\n', r"\(did you mean \"question\"\?\).*; quotes hold .* as .csv"),
        ("x.tsv", ("\ufeff" + HEAD).encode("utf-16-le"), "line 1: expected UTF-8 text, found UTF-16 or UTF-32: save"),
        ("x.csv", HEAD.encode("utf-16-be"), "line 1: expected UTF-8 text, found UTF-16 or UTF-32: save it as UTF-8"),
        ("x.jsonl", "{}".encode("utf-32"), "line 1: expected UTF-8 text, found UTF-16 or UTF-32: save it as UTF-8"),
        ("x.csv", "question,context,answer\ra,b,c\r", "line 1: expected lines that end in LF or CRLF, found only CR"),
        ("x.tsv", HEAD.replace("\n", "\r") + "a\tb\tc\r", "line 1: expected lines that end in LF or CRLF, found CR"),
        ("x.jsonl", '{"answer": "a", "answer": "b"}\n', "line 1: expected a JSON object, found the key 'answer' twice"),
        ("x.jsonl", '{\n "question": "a"\n}\n', "line 1: .* found one over several lines; write one object a line"),
        ("x.jsonl", '[\n {"question": "a"}\n]\n', "line 1: .* found one over several lines; write one object a line"),
        ("x.jsonl", '[{"question": "a"},\n', "line 1: expected a JSON object, found .*; write one object a line"),
        ("x.tsv", HEAD, "x.tsv: expected at least 1 example, found none"),
        ("x.tsv", "", "x.tsv: expected a line of column names, found an empty file"),
        ("x.tsv.gz", "", "x.tsv.gz: expected a line of column names, found an empty file"),
        ("x.tsv", HEAD.encode() + b"a\t\xff\tc\n", "x.tsv line 2: expected UTF-8 text, found .*: check the file"),
        ("x.csv", "question,context,answer\na,b\n", "x.csv line 2: expected 3 cells, found 2"),
        ("x.csv", 'question,context,answer\n"a\nb",c,d\n\n"a\nb",c\n', "x.csv line 5: expected 3 cells, found 2"),
        ("x.csv", 'question,context,answer\n"a"b,c,d\n', "x.csv line 2: expected CSV, found"),
        ("x.csv", 'question,context,answer\na,b,c\n"a,b,c\nd\n', "x.csv line 3: expected CSV, found"),
        ("x.csv", "question,context\na,b\n", "x.csv line 1: expected one column 'answer'"),
        ("x.csv", "\n", "x.csv: expected a line of column names"),
        (
            "x.jsonl",
            '{"question": "a", "answer": "b"}\n',
            "x.jsonl line 1: expected the key 'context', found 'question'",
        ),
        ("x.jsonl", '\n{"question": "a", "context": "b", "answer": ""}\n', "x.jsonl line 2: expected an answer"),
        ("x.jsonl", '{"question": ["a"], "context": "b", "answer": "c"}', r"line 1: .* in 'question', found \[\"a\"\]"),
        ("x.jsonl", '{"question": {}, "context": "b", "answer": "c"}', "line 1: .* in 'question', found {}"),
        ("x.jsonl", '{"question": null, "context": "b", "answer": "c"}', "line 1: .* in 'question', found null"),
        ("x.jsonl", '{"question": "\\ud800", "context": "b", "answer": "c"}', "line 1: .* found half a surrogate pair"),
        ("x.jsonl", '{"question": "a", "context": "b", "answer": NaN}', "line 1: .* 'answer', found NaN; fill it in"),
        ("x.jsonl", '\n{"question": Infinity, "context": "b", "answer": "c"}', "line 2: .* 'question', found Infinity"),
        ("x.jsonl", '{"question": "a", "context": -Infinity, "answer": "c"}', "line 1: .* 'context', found -Infinity"),
        ("x.jsonl", '{"question": "", "context": " ", "answer": "c"}', "line 1: expected a text in 'question' or"),
        ("x.csv", "question,context,answer\na,,b\n,,b\n", "x.csv line 3: expected a text in 'question' or 'context'"),
        ("x.tsv", HEAD + "\t \tb\n", "x.tsv line 2: expected a text in 'question' or 'context', found none"),
        ("x.jsonl", "[1]\n", r"x.jsonl line 1: expected a JSON object, found \[1\]; write one object a line"),
        ("x.jsonl", '{"a": \n', "x.jsonl line 1: expected a JSON object, found"),
        ("x.jsonl", "\n", "x.jsonl: expected at least 1 example"),
        ("x.txt", HEAD, "x.txt: expected a file named .tsv, .csv or .jsonl"),
        ("x.gz", HEAD, "x.gz: expected a file named .tsv"),
    ],
)
def test_damage_is_told_on_one_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(AttemptError, match=message) as error:
        rows_of(tmp_path / name, content)
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


def test_a_lone_cr_in_a_csv_is_a_space(tmp_path: Path) -> None:
    with open(tmp_path / "x.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("question", "context", "answer"), ("a\rb", "c\r", "d"), ("a", "b,\rc", "d")])
    assert b"a\rb,c\r,d\n" in (tmp_path / "x.csv").read_bytes()  # without quotes
    read = [(row.fields, row.label) for row in read_rows(str(tmp_path / "x.csv"), QA)]
    assert read == [(("a b", "c"), "d"), (("a", "b, c"), "d")]


def test_quotes_in_a_tsv_and_labels_that_look_alike_are_told_once(tmp_path: Path, capsys: Any) -> None:
    with open(tmp_path / "x.tsv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONNUMERIC)
        file.write(HEAD)
        writer.writerows([("a", 'say ""x""', label) for label in (1, 1.0, "Yes", "yes", "nan")] * 3)
    path = str(tmp_path / "x.tsv")
    task = user_task("mine", UserFiles(path, path, None, ("question", "context"), "answer"))
    for _ in range(2):
        rows = load_official(task, Downloader().fetch)["train"]
    assert rows[2].target == '"Yes"' and rows[2].source.startswith('mine question: "a" context: "say')
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f'note: {path}: the labels "Yes", "yes" differ only in spelling, and are 2 classes'
    assert told[1] == f"note: {path}: the labels 1, 1.0 differ only in spelling, and are 2 classes"
    assert told[2].startswith(f"note: {path} line 2 and 14 more: a cell in double quotes, which are part of it")
    assert len(told) == 3
    plain = write(tmp_path / "plain.tsv", HEAD + 'a "b" c\t"d\tnan\n' * 3)
    files = UserFiles(plain, plain, None, ("question", "context"), "answer")
    load_official(user_task("mine", files), Downloader().fetch)
    assert capsys.readouterr().err == (
        f"note: {plain}: the label nan is a class like any other, although it may mean a missing value\n"
    )
    odd = write(tmp_path / "odd.tsv", HEAD + "a\tb\t\x1b[1mx\na\tb\t\x1b[1mX\n" * 3)
    load_official(user_task("mine", UserFiles(odd, odd, None, ("question",), "answer")), Downloader().fetch)
    assert f"{odd}: the labels \\x1b[1mX, \\x1b[1mx differ only in spelling" in capsys.readouterr().err


def test_a_missing_number_in_a_column_that_is_not_read(tmp_path: Path) -> None:
    row = '{"question": "a", "context": "", "answer": 1, "score": NaN}\n'
    assert rows_of(tmp_path / "x.jsonl", row) == [(("a", ""), "1")]


def test_files_that_are_not_there_or_not_gzipped(tmp_path: Path) -> None:
    with pytest.raises(AttemptError, match=r"no\.tsv: expected a file of examples, found none there"):
        read_rows(str(tmp_path / "no.tsv"), QA)
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(AttemptError, match="expected a file of examples"):
        read_rows(str(tmp_path / "folder.tsv"), QA)
    whole = gzip.compress(TSV.encode())
    for content in (TSV.encode(), whole[:-12]):
        (tmp_path / "x.tsv.gz").write_bytes(content)
        with pytest.raises(AttemptError, match=r"expected a gzip file at .*x\.tsv\.gz, found .*: check the file"):
            read_rows(str(tmp_path / "x.tsv.gz"), QA)


TWENTY, MORE = [str(i) for i in range(20)], [str(i) for i in range(21)]
LONG = [f"answer {i}" for i in range(30)]


@pytest.mark.parametrize(
    ("targets", "dev", "kind"),
    [
        (list("babaa"), LONG, "labels"),
        (TWENTY * 3, LONG, "labels"),
        (MORE * 3, MORE * 3, "text"),
        (LONG, LONG, "text"),
        # small training files
        (list("abab"), list("ab"), "labels"),
        (list("ab"), list("abbab"), "labels"),
        (TWENTY, TWENTY * 2, "labels"),
        (LONG[:10], LONG[10:], "text"),
        (["a"], ["b"], "text"),
        (LONG[:10], LONG[9:], None),  # one of dev's is known
        (list("aab"), list("abc"), None),  # one of dev's is not
        (LONG[:10], LONG[:10], None),  # each of them twice
    ],
)
def test_what_targets_are_taken_for(tmp_path: Path, targets: list[str], dev: list[str], kind: str | None) -> None:
    paths = [
        write(tmp_path / f"{name}.csv", "text,answer\n" + "".join(f"a text,{answer}\n" for answer in answers))
        for name, answers in (("train", targets), ("dev", dev))
    ]
    files = UserFiles(paths[0], paths[1], None, ("text",), "answer")
    if kind is None:
        with pytest.raises(AttemptError, match=r"train.csv: expected answers that are plainly .* say which by --answ"):
            user_task("mine", files)
    else:
        assert user_task("mine", files).free_text == (kind == "text")
    assert not user_task("mine", dataclasses.replace(files, answers="labels")).free_text
    assert user_task("mine", dataclasses.replace(files, answers="text")).free_text


def test_the_order_of_labels() -> None:
    assert labels_of(["b", "a", "b", "a", "a"]) == ("a", "b")
    assert labels_of(TWENTY * 3) == tuple(TWENTY)  # by value: "2" before "10"
    assert labels_of([*TWENTY, "x"][1:] * 3) == tuple(sorted([*TWENTY, "x"][1:]))
    assert labels_of(["9" * 5000, "10"] * 9) == ("10", "9" * 5000)  # too long for int()
    assert labels_of(["01", "1", "2"] * 3) == ("01", "1", "2")


def splits_of(task: Task, style: str = "digits") -> dict[str, list[tuple[str, str]]]:
    official = load_official(task, Downloader().fetch, style)
    assert paper_splits(task, official) == official_splits(task, official)
    return {split: [(e.source, e.target) for e in examples] for split, examples in paper_splits(task, official).items()}


def test_a_task_of_labels(tmp_path: Path) -> None:
    names = [
        write(
            tmp_path / f"{split}.csv", "text,mark\n" + "".join(f"{split} {i},{mark}\n" for i, mark in enumerate(marks))
        )
        for split, marks in (("train", ["ok", "bad", "ok", "ok", "bad"]), ("dev", ["ok"]), ("test", ["bad", "ok"]))
    ]
    task = user_task("mine", UserFiles(names[0], names[1], names[2], ("text",), "mark"))
    assert (task.labels, task.metrics, task.free_text) == (("bad", "ok"), ("accuracy", "macro_f1"), False)
    splits = splits_of(task)
    # the files' labels are written as they are, whatever --labels says: 1, 2, 3 must not become 0, 1, 2
    assert splits["train"][:2] == [("mine text: train 0", "ok"), ("mine text: train 1", "bad")]
    assert splits["dev"] == [("mine text: dev 0", "ok")]
    assert [target for _, target in splits["test"]] == ["bad", "ok"] and splits == splits_of(task, "words")
    without = splits_of(user_task("mine", UserFiles(names[0], names[1], None, ("text",), "mark")))
    assert without["test"] == without["dev"] == splits["dev"]
    write(tmp_path / "dev.csv", "text,mark\na,ok\nb,Bad\n")
    with pytest.raises(AttemptError, match=r"dev\.csv line 3: expected one of the labels of .*train\.csv \(bad, ok\)"):
        load_official(task, Downloader().fetch)


def test_a_task_of_free_text_and_the_order_of_its_fields(tmp_path: Path) -> None:
    train_file, dev = write(tmp_path / "a.tsv", TSV), write(tmp_path / "b.jsonl", JSONL)
    task = user_task("mine", UserFiles(train_file, dev, None, ("context", "question"), "answer", "text"))
    assert (task.labels, task.metrics, task.free_text) == ((), ("plain_f1", "plain_em"), True)
    as_squad = UserFiles(train_file, dev, None, ("context", "question"), "answer", "text", "squad")
    assert user_task("mine", as_squad).metrics == ("f1", "em")
    splits = splits_of(task)
    assert splits["train"][0] == ('mine context: a, b question: Who "is"?', '"yes')
    assert splits["dev"][1] == ("mine context: false question: 12345678901234567890123", "no")
    closed = user_task("mine", UserFiles(train_file, dev, None, ("question",), "answer", "labels"))
    assert closed.labels == ('"yes', "no")


def test_a_task_needs_a_plain_name_and_different_columns(tmp_path: Path) -> None:
    name = write(tmp_path / "a.tsv", TSV)
    for bad in ("../x", "a b", "", "-x"):
        with pytest.raises(AttemptError, match="--task: expected a name of letters"):
            user_task(bad, UserFiles(name, name, None, ("context",), "answer"))
    with pytest.raises(AttemptError, match="expected each column once, found answer"):
        user_task("mine", UserFiles(name, name, None, ("context", "answer"), "answer"))


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Flags for a small task of two labels."""
    draw = random.Random(0)
    flags = []
    for split, n in (("train", 24), ("dev", 10), ("test", 6)):
        rows = [f"{draw.choice(['yes', 'no'])}\t{s}\n" for s in sentences(n, n)[:n]]
        flags += [f"--{split}-file", write(tmp_path / f"{split}.tsv", "label\ttext\n" + "".join(rows))]
    return [*flags, "--source-field", "text", "--target-field", "label"]


@pytest.fixture
def common(tiny_checkpoint: Path) -> list[str]:
    sizes = ["--method", "prompt", "--prompt-length", "4", "--steps", "6", "--batch-size", "4", "--eval-every", "3"]
    return [*sizes, "--model", str(tiny_checkpoint), "--device", "cpu"]


def test_train_eval_and_resume(
    files: list[str], common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run, cut, answers = tmp_path / "run", tmp_path / "cut", tmp_path / "answers.jsonl"
    assert train.main(["--task", "mine", *files, *common, "--out", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "mine: train 24, dev 10, test 6 examples\n           its answers are the labels no, yes\n" in printed
    scores = result_of(run)["scores"]
    assert [(s["split"], list(s["metrics"]), s["examples"]) for s in scores] == [
        ("dev", ["accuracy", "macro_f1"], 10),
        ("test", ["accuracy", "macro_f1"], 6),
    ]
    stored = json.loads((run / "config.json").read_text())
    assert (stored["train_file"], stored["source_field"], stored["target_field"]) == (files[1], ["text"], "label")
    assert load_prompt(run)[1].tasks == ["mine"]

    # eval.py finds the files by itself, or takes others
    assert eval.main(["--run", str(run), "--device", "cpu", "--predictions", str(answers)]) == 0
    assert eval.describe(scores[1]) in capsys.readouterr().out
    assert json.loads(answers.read_text().split("\n")[0])["source"].startswith("mine text: ")
    other = write(tmp_path / "other.jsonl", '{"text": "New.", "label": "no"}\n')
    assert eval.main(["--run", str(run), "--device", "cpu", "--test-file", other]) == 0
    assert "(1 examples)" in capsys.readouterr().out

    # a run that is cut after its first evaluation and goes on, without its flags and with them
    step = train.Trainer.train_step

    def stopped(self: train.Trainer, batch: Any) -> None:
        if self.step == 4:
            raise KeyboardInterrupt
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "train_step", stopped)
        assert train.main(["--task", "mine", *files, *common, "--out", str(cut)]) == 130
    assert train.main(["--resume", str(cut), "--device", "cpu", "--task", "mine", *files]) == 0
    assert metrics_of(cut) == metrics_of(run) and same_prompt(cut, run)
    capsys.readouterr()
    assert train.main(["--resume", str(cut), "--target-field", "text"]) == 2
    assert "--target-field text (was label)" in error_of(capsys)


def test_what_the_answers_are_is_decided_once(common: list[str], tmp_path: Path, capsys: Any) -> None:
    train_file = write(tmp_path / "train.csv", "text,mark\na,A\nb,B\nc,A\nd,B\n")
    dev = write(tmp_path / "dev.csv", "text,mark\ne,A\nf,B\ng,B\n")
    other = write(tmp_path / "other.csv", "text,mark\ne,A\n")
    flags = ["--task", "mine", "--train-file", train_file, "--source-field", "text", "--target-field", "mark", *common]
    run = tmp_path / "run"
    assert train.main([*flags, "--dev-file", dev, "--out", str(run)]) == 0
    assert "its answers are the labels A, B\n" in capsys.readouterr().out
    plan, again = Plan.read(run / "config.json"), parse([*flags, "--dev-file", dev, "--out", str(run)]).options
    assert plan.answers == "labels" and "answers" not in plan.asked and plan.differences(again) == []
    # another dev file asks nothing, and changes nothing of it
    short = write(tmp_path / "short.csv", "text,mark\na,A\nb,B\n")
    assert train.main([*flags[:2], "--train-file", short, *flags[4:], "--dev-file", other, "--dry-run"]) == 2
    assert "--answers labels or --answers text" in error_of(capsys)
    assert eval.main(["--run", str(run), "--device", "cpu", "--dev-file", other, "--split", "dev"]) == 0
    assert "mine dev: accuracy" in capsys.readouterr().out
    # a run of before plans told it goes by its training file alone
    config = json.loads((run / "config.json").read_text())
    del config["text_scores"], config["formats"]
    (run / "config.json").write_text(json.dumps({**config, "answers": None}))
    assert eval.main(["--run", str(run), "--device", "cpu"]) == 0
    assert "mine test: f1 " in capsys.readouterr().out


def test_how_free_text_is_compared(files: list[str], common: list[str], tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    assert train.main(["--task", "mine", *files, *common, "--answers", "text", "--out", str(run)]) == 0
    assert [list(score["metrics"]) for score in result_of(run)["scores"]] == [["plain_f1", "plain_em"]] * 2
    printed = capsys.readouterr().out
    assert re.search(r"best \(step \d\): mine test: plain_f1 [\d.]+, plain_em [\d.]+, invalid", printed)
    assert eval.main(["--run", str(run), "--device", "cpu", "--text-scores", "squad"]) == 0
    assert re.search(r"mine test: f1 [\d.]+, em [\d.]+, invalid", capsys.readouterr().out)
    assert train.main(["--resume", str(run), "--change", "--text-scores", "squad"]) == 2
    assert "--text-scores squad (was plain)" in error_of(capsys)
    # a run of before there was a choice goes on as it began: its free text was compared as SQuAD's
    config = json.loads((run / "config.json").read_text())
    del config["text_scores"]
    again = parse(["--task", "mine", *files, *common, "--out", str(run)]).options
    for answers, way in (("text", "squad"), (None, "squad"), ("labels", "plain")):
        (run / "config.json").write_text(json.dumps({**config, "answers": answers, "asked": []}))
        plan = Plan.read(run / "config.json")
        assert plan.text_scores == way and not [told for told in plan.differences(again) if "--text-scores" in told]
    (run / "config.json").write_text(json.dumps(config))
    assert eval.main(["--run", str(run), "--device", "cpu"]) == 0
    assert " f1 " in capsys.readouterr().out


def test_numbers_of_examples_and_words(files: list[str], common: list[str], capsys: Any) -> None:
    flags = ["--task", "mine", *files, *common, "--dry-run"]
    assert train.main([*flags, "--train-examples", "5", "--eval-examples", "4", "--splits", "official"]) == 0
    assert "mine: train 5, dev 4, test 4 examples" in capsys.readouterr().out
    assert train.main([*flags, "--shots", "3", "--labels", "words", "--init", "labels"]) == 0
    printed = capsys.readouterr().out
    assert "mine: train 6, dev 10" in printed and ("target 'yes'" in printed or "target 'no'" in printed)
    for way, told in (("plain", "as they are, except for case and spaces"), ("squad", "as SQuAD's are")):
        assert train.main([*flags, "--answers", "text", "--text-scores", way]) == 0
        assert f"its answers are free text, compared {told}\n" in capsys.readouterr().out
    assert train.main([*flags, "--answers", "text", "--shots", "3"]) == 2
    assert "mine has no set of labels" in error_of(capsys)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("正面|负面", "tells apart, found '正面' and '负面', which have the same tokens; write other labels"),
        ("m2|m²", "tells apart, found 'm2' and 'm²'"),
        ("no|ça", r"can write, found 'ça', whose tokens read .*, or choose among the labels by --answer-by labels"),
        ("no|not  sure", "can write, found 'not  sure', whose tokens read 'not sure'"),
    ],
)
def test_labels_that_the_vocabulary_cannot_write(
    common: list[str], tmp_path: Path, labels: str, message: str, capsys: Any
) -> None:
    rows = "".join(f"{label}\ta text\n" for label in labels.split("|") * 3)
    path = write(tmp_path / "x.tsv", "label\ttext\n" + rows)
    files = ["--train-file", path, "--dev-file", path, "--source-field", "text", "--target-field", "label"]
    flags = ["--task", "mine", *files, *common, "--dry-run"]
    assert train.main(flags) == 2
    assert re.search(f"--task mine: expected labels that the model's vocabulary {message}", error_of(capsys))
    # to choose among labels they need not be written, but told apart; free text may be anything
    assert train.main([*flags, "--answer-by", "labels"]) == (2 if "tells apart" in message else 0)
    assert train.main([*flags, "--answers", "text"]) == 0


@pytest.mark.parametrize("file", ["tiny_checkpoint", "flan"])
@pytest.mark.parametrize("style", STYLES)
def test_labels_of_built_in_tasks_can_be_written(file: str, style: str, request: pytest.FixtureRequest) -> None:
    tokenizer = Tokenizer(request.getfixturevalue(file) / "spiece.model")
    for task in TASKS.values():
        check_labels(task, task.label_texts(style), tokenizer.encode_batch, tokenizer.decode, written=True)


def test_together_with_a_built_in_task(
    glue: Path,
    files: list[str],
    common: list[str],
    tmp_path: Path,
    capsys: Any,
) -> None:
    run = tmp_path / "run"
    flags = ["--task", "rte", "mine", *files, *common, "--data-dir", str(glue)]
    assert train.main([*flags, "--out", str(run)]) == 0
    scores = [(s["task"], s["split"], s["examples"]) for s in result_of(run)["scores"]]
    assert scores == [("rte", "dev", 8), ("mine", "dev", 10), ("rte", "test", 8), ("mine", "test", 6)]
    capsys.readouterr()
    for task, examples in (("rte", 8), ("mine", 6)):
        assert eval.main(["--run", str(run), "--task", task, "--device", "cpu"]) == 0
        assert f"({examples} examples)" in capsys.readouterr().out
    # with --splits official the built-in task's test set is its dev set, but the user's files stay as they are
    assert train.main([*flags, "--splits", "official", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "rte: train 30, dev 16, test 16" in printed and "mine: train 24, dev 10, test 6" in printed


def test_names_that_are_wrong(files: list[str], common: list[str], tmp_path: Path, capsys: Any) -> None:
    for names, message in (
        (["rte"], "expected a name of its own for the task of"),
        (["rte", "cola"], "found only the built-in rte, cola"),
        (["squadd", "mine"], "expected one name for the task of the given files, found squadd, mine"),
        (["mine", "mine"], "expected each task once, found mine again"),
    ):
        assert train.main(["--task", *names, *files, *common]) == 2
        assert message in error_of(capsys)
    assert train.main(["--task", "mine", *common]) == 2
    assert "unknown task 'mine'" in error_of(capsys)


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        (["--train-file", "a.tsv"], "--dev-file, --source-field, --target-field too, found only --train-file"),
        (
            ["--train-file", "a", "--dev-file", "b", "--source-field", "c"],
            "expected --target-field too, found --train-f",
        ),
        (["--dev-file", "a.tsv"], "expected --train-file, --source-field, --target-field too, found --dev-file"),
        (["--test-file", "a.tsv"], "expected --train-file, --dev-file, --source-field, --target-field too"),
        (["--source-field", "a"], "found only --source-field"),
        (["--answers", "text"], "found only --answers"),
        (["--text-scores", "squad"], "found only --text-scores"),
    ],
)
def test_flags_that_need_others(flags: list[str], missing: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(["--task", "mine", *flags])
    assert stop.value.code == 2
    assert missing in error_of(capsys)


def test_labels_are_read_once_and_again_when_the_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    monkeypatch.setattr(user, "read_rows", lambda name, files: read.append(name) or read_rows(name, files))
    path = tmp_path / "x.tsv"
    files = UserFiles(write(path, HEAD + "a\tb\tyes\n" * 3), str(path), None, ("question",), "answer")
    assert [user_task("mine", files).labels for _ in range(3)] == [("yes",)] * 3
    assert user_task("mine", dataclasses.replace(files, answers="text")).labels == ()
    assert len(read) == 2
    write(path, HEAD + "a\tb\tno!\n" * 3)  # of the same size
    os.utime(path, ns=(1, 1))
    assert user_task("mine", files).labels == ("no!",)
    path.unlink()
    for _ in range(2):  # an error is not remembered
        with pytest.raises(AttemptError, match="found none there"):
            user_task("mine", files)


@pytest.fixture
def mixed(tmp_path: Path) -> list[str]:
    """Flags for files that have the rows of two tasks in turn, each with labels of its own."""
    draw, flags = random.Random(1), []
    for split, n in (("train", 40), ("dev", 20)):
        kinds = [("mood", ["good", "bad"]), ("tense", ["past", "present", "future"])]
        rows = [f"{kinds[i % 2][0]}\t{s}\t{draw.choice(kinds[i % 2][1])}\n" for i, s in enumerate(sentences(n, n)[:n])]
        flags += [f"--{split}-file", write(tmp_path / f"{split}.tsv", "kind\ttext\tlabel\n" + "".join(rows))]
    return [*flags, "--source-field", "text", "--target-field", "label"]


def test_two_tasks_of_ones_own_in_the_same_files(
    mixed: list[str], common: list[str], glue: Path, tmp_path: Path, capsys: Any
) -> None:
    flags = [*mixed, *common, "--data-dir", str(glue)]
    own = ["--task-field", "kind"]
    assert train.main(["--task", "mood", "cola", "tense", *own, *flags, "--out", str(tmp_path / "both")]) == 0
    told = capsys.readouterr().out
    assert "mood: train 20, dev 10, test 10 examples\n           its answers are the labels bad, good\n" in told
    assert "tense: train 20, dev 10, test 10 examples\n           its answers are the labels future, past" in told
    assert [s["task"] for s in result_of(tmp_path / "both")["scores"]] == ["mood", "cola", "tense"] * 2
    assert eval.main(["--run", str(tmp_path / "both"), "--task", "tense", "--device", "cpu"]) == 0
    assert "tense test: accuracy" in capsys.readouterr().out
    assert train.main(["--task", "mood", "tense", "--separately", *own, *flags, "--out", str(tmp_path / "each")]) == 0
    assert result_of(tmp_path / "each/tense")["task"] == ["tense"]
    rows = user_task("mood", UserFiles(mixed[1], mixed[3], None, ("text",), "label", task=("kind", "mood"))).read(
        "mood", None
    )  # type: ignore[arg-type]
    lines = [line.split("\t") for line in Path(mixed[1]).read_text().splitlines()]
    assert [(row.fields[0], row.label) for row in rows["train"]] == [(t, label) for k, t, label in lines if k == "mood"]
    capsys.readouterr()
    for words, message in (
        (["mood", "tense"], "found mood, tense; the others must be of --list-tasks, or name by --task-field"),
        (["mood", "tens", *own], "expected rows of the task tens in the column 'kind', found those of 'mood', 'tense'"),
    ):
        assert train.main(["--task", *words, *flags, "--out", str(tmp_path / "x")]) == 2
        assert message in error_of(capsys)
