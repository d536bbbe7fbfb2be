"""eval.py --interactive: piped lines and a terminal's, against eval.py's own answers and weights."""

import io
import json
import os
import pty
import sys
from pathlib import Path

import pytest
import torch
from runs import REPOSITORY, error_of

import eval
import train
from attempt.answering.backbone import Backbone
from attempt.checkpoint import load_prompt
from attempt.runs.plan import Plan
from data.download import Downloader
from model.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def mixture_run(attempt_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mixture") / "run"
    assert train.main([*attempt_flags, "--out", str(out)]) == 0
    return out


def piped(text: str, run: Path, capsys: pytest.CaptureFixture[str], *more: str, status: int = 0) -> str:
    """What the program prints for the lines on its standard input."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))
        assert eval.main(["--run", str(run), "--device", "cpu", "--interactive", *more]) == status
    return "" if status else capsys.readouterr().out


def blocks(printed: str) -> list[list[str]]:
    return [block.splitlines() for block in printed.split("\n\n") if "read  " in block]


def block_of(printed: str, number: int = 0) -> list[str]:
    """The lines of an answer, from "read" on."""
    lines = blocks(printed)[number]
    return lines[next(i for i, line in enumerate(lines) if line.startswith("read  ")) :]


def test_the_answers_are_those_that_eval_scores(
    prompt_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "answers.jsonl"
    for more in ([], ["--answer-by", "labels"]):
        words = ["--run", str(prompt_run), "--predictions", str(file), "--device", "cpu", *more]
        assert eval.main(words) == 0
        rows = [json.loads(line) for line in file.read_text().splitlines()][:4]
        capsys.readouterr()
        typed = [row["source"].removeprefix("cola sentence: ") for row in rows]
        typed[1] = rows[1]["source"]  # the whole text
        printed = piped("\n".join(["", *typed, ""]), prompt_run, capsys, *more)
        assert len(blocks(printed)) == 4
        for i, row in enumerate(rows):
            read, answer, *_ = block_of(printed, i)
            assert read == f"read      {row['source']}"
            known = {"0": "0 (unacceptable)", "1": "1 (acceptable)"}
            wrong = f"{row['prediction']!r}, which is none of the labels"
            assert answer == f"answer    {known.get(row['prediction'].strip(), wrong)}"


def test_the_mixtures_weights_are_those_of_the_task(mixture_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fields on lines of their own or with tabs are one text; :task changes prompt and fields."""
    lines = "A dog sleeps .\nAn animal rests .\n\nA dog sleeps .\tAn animal rests .\n"
    lines += "Half .\n:task cola\nA dog sleeps .\n"  # which begins again
    printed = piped(lines, mixture_run, capsys)
    first, second, third = (block_of(printed, i) for i in range(3))
    assert first == second and first[0] == "read      rte sentence1: A dog sleeps . sentence2: An animal rests ."
    assert third[0] == "read      cola sentence: A dog sleeps ." and "cola: type sentence: a line;" in printed
    prompt, config = load_prompt(mixture_run)
    plan = Plan.read(mixture_run / "config.json")
    backbone = Backbone.load(plan, Downloader(data_dir=Path(plan.data_dir or "")))
    for number, block in ((0, first), (1, third)):
        ids = torch.tensor([[*backbone.tokenizer.encode(block[0].removeprefix("read      ")), 1]])
        E, mask, Q = backbone.t5.embedding(ids), torch.ones_like(ids, dtype=torch.bool), prompt.target[number, None]
        assert prompt.attention is not None and prompt.sources is not None
        expected = prompt.attention(E, mask, prompt.sources, Q)[0, :, 0].tolist()
        shown = [line[10:].split()[:2] for line in block[-3:]]
        assert shown == [[n, f"{w:.3f}"] for n, w in zip([*config.sources, "target"], expected, strict=True)]


def test_labels_have_their_log_probabilities(prompt_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = block_of(piped("A dog sleeps .\n", prompt_run, capsys))
    labels = [line for line in block if "log p" in line]
    shares = torch.tensor([float(line.rpartition("log p ")[2]) for line in labels]).softmax(0).tolist()
    assert len(labels) == 2 and shares == sorted(shares, reverse=True)
    for line, share in zip(labels, shares, strict=True):
        assert float(line[10:].split(")")[1].split()[0]) == pytest.approx(share, abs=2e-3)


def test_long_texts_are_cut_and_it_is_told(
    prompt_run: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = piped("word " * 2000 + "\nshort\n", prompt_run, capsys)
    whole = Tokenizer(tiny_checkpoint / "spiece.model").encode("cola sentence: " + "word " * 2000)
    assert f"cut: the first 256 of {len(whole) + 1:,} tokens" in block_of(printed)[1]
    assert 10 < block_of(printed)[0].count("word") < 100  # what is left of it
    assert not any("cut:" in line for line in block_of(printed, 1))


def test_what_is_typed_wrong_is_told_and_the_rest_answered(
    mixture_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        lines = b"a\tb\tc\n:task colla\n   \na\tb\nlast"
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="utf-8"))
        assert eval.main(["--run", str(mixture_run), "--device", "cpu", "--interactive"]) == 0
    found = capsys.readouterr()
    assert "expected 2 fields (sentence1, sentence2) with tabs between them, found 3" in found.err
    assert "found 'colla' (did you mean cola?)" in found.err
    assert "the last example has no sentence2; it was not answered" in found.err and len(blocks(found.out)) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8"))
        assert eval.main(["--run", str(mixture_run), "--device", "cpu", "--interactive"]) == 2
    assert "line 1: expected UTF-8 text" in error_of(capsys)
    with pytest.raises(SystemExit):
        eval.main(["--run", str(mixture_run), "--interactive", "--predictions", "x"])
    assert "without --answer, --predictions and" in error_of(capsys)


def test_lines_are_read_and_written_as_files_are(prompt_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In UTF-8, in any locale: a mark of the byte order is none of the text, nor is what another encoding has."""
    words = ["--run", str(prompt_run), "--device", "cpu", "--interactive"]
    with pytest.MonkeyPatch.context() as patch:
        out, lines = io.TextIOWrapper(io.BytesIO(), encoding="ascii"), "\ufeffA café .\tB\rC\r\n cola sentence: D\n"
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode()), encoding="ascii"))
        patch.setattr(sys, "stdout", out)
        assert eval.main(words) == 0
    printed = out.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert [block_of(printed, i)[0] for i in range(len(blocks(printed)))] == [
        r"read      cola sentence: A café .\tB\rC",
        "read      cola sentence: D",
    ]
    for stdin in (
        io.TextIOWrapper(io.BytesIO(b"cola sentence: \xff\n"), encoding="utf-8", errors="surrogateescape"),
        None,
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", stdin)
            assert eval.main(words) == 2
        assert ("closed" if stdin is None else "standard input line 1: expected UTF-8") in error_of(capsys)


def test_free_text_has_no_labels_and_no_data_is_needed(
    every_task: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--task", "squad", "--method", "prompt", "--splits", "official", "--model", str(tiny_checkpoint)]
    flags += ["--data-dir", str(every_task), "--device", "cpu", "--steps", "1", "--prompt-length", "4"]
    assert train.main([*flags, "--out", str(tmp_path / "run")]) == 0
    (tmp_path / "empty").mkdir()
    capsys.readouterr()
    printed = piped("Who ?\tA man .\n", tmp_path / "run", capsys, "--data-dir", str(tmp_path / "empty"))
    read, answer, *rest = block_of(printed)
    assert read == "read      squad question: Who ? context: A man ." and answer.startswith("answer    ") and not rest


@pytest.mark.skipif(not hasattr(pty, "fork"), reason="needs a pseudo-terminal")
def test_at_a_terminal_each_field_is_asked_for(mixture_run: Path) -> None:
    """Typed in a pseudo-terminal; Ctrl-D ends the program as it should."""
    words = [sys.executable, "eval.py", "--run", str(mixture_run), "--device", "cpu", "--interactive"]
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(REPOSITORY)
        os.environ.update(PYTHONPATH=str(REPOSITORY), OMP_NUM_THREADS="1", TERM="dumb")
        os.execv(sys.executable, words)
    shown = ""
    for wanted, typed in (
        ("sentence1: ", "A dog sleeps .\n"),
        ("sentence2: ", "An animal rests .\n"),
        ("sentence1: ", ":task cola\n"),
        ("sentence: ", "\x04"),
    ):
        while not shown.endswith(wanted):
            shown += os.read(terminal, 1024).decode()
        os.write(terminal, typed.encode())
        shown += "|"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(terminal)
    assert "read      rte sentence1: A dog sleeps . sentence2: An animal rests ." in shown and "mixes     cola" in shown
    assert "Traceback" not in shown
