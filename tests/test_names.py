"""Mistyped names: every place where one is chosen answers with the nearest that there is, on one line."""

import difflib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from runs import error_of

import eval
import train
from attempt.compare import similarity
from attempt.exchange import exchange
from attempt.runs.parsing import OTHER_NAMES, new_parser
from data.tasks import get_task
from model.checkpoint import find_checkpoint
from model.errors import AttemptError, meant, meant_path, nearest

Main = Callable[[Sequence[str]], int]


def told(main: Main, words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a program ends with, whether its parser or its work found the mistake."""
    try:
        status = main(words)
    except SystemExit as stop:
        status = stop.code  # type: ignore[assignment]
    assert status == 2
    return error_of(capsys)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--task mnli --leraning-rate 0.1", "--leraning-rate (did you mean --lr?)"),
        ("--task mnli --learning_rate=0.1", "--learning_rate (did you mean --lr?)"),
        ("--task mnli --batch_size 3 --stpes 4", "--batch_size (did you mean --batch-size?)"),
        ("--taks mnli", "--taks (did you mean --task?)"),
        ("--task mnli --method atempt", "'atempt' (did you mean attempt?)"),
        ("--task mnli --method prompt --optimizer adam", "'adam' (did you mean adamw?)"),
        ("--task mnli --attention liner", "'liner' (did you mean linear?)"),
        ("--task Mlni --method prompt", "'Mlni' (did you mean mnli?)"),
        ("--task SuperGLU --method prompt", "(did you mean SuperGLUE?)"),
        ("--task SST-2 --method prompt", "(did you mean sst2?)"),
        ("--task mnli --zzzzzz", "unrecognized arguments: --zzzzzz (see"),  # nothing is near
        ("@recipes/atempt-single.args", "(did you mean recipes/attempt-single.args?)"),
        ("@atempt-single", "(did you mean recipes/attempt-single.args?)"),
    ],
)
def test_train_names_what_was_meant(words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in told(train.main, words.split(), capsys)


def test_a_flag_in_a_file_of_options_is_named_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.args").write_text("--task mnli\n--prompt-lenght 10 # twice as many\n")
    assert "--prompt-lenght (did you mean --prompt-length?) 10" in told(train.main, [f"@{tmp_path}/x.args"], capsys)


def test_the_other_programs_names_are_of_flags_that_there_are() -> None:
    known = new_parser({})._option_string_actions
    for theirs, ours in OTHER_NAMES.items():
        assert theirs not in known and {word for word in ours.split() if word[0] == "-"} <= known.keys()


def test_eval_names_what_was_meant(
    prompt_run: Path, attempt_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--run", str(prompt_run), "--device", "cpu"]
    for words, expected in (
        (["--rnu", str(prompt_run)], "--rnu (did you mean --run?)"),
        ([*run, "--split", "tst"], "'tst' (did you mean test?)"),
        ([*run, "--checkpoint", "bst"], "(did you mean best?)"),
        ([*run, "--checkpoint", f"{prompt_run}/lats.safetensors"], f"(did you mean {prompt_run}/last.safetensors?)"),
        ([*run[:2], "--device", "cud"], "(did you mean cuda?)"),
        (["--run", f"{prompt_run.parent}/cola-promt"], f"(did you mean {prompt_run}?)"),
    ):
        assert expected in told(eval.main, words, capsys)
    out = tmp_path / "run"
    assert train.main([*attempt_flags, "--out", str(out)]) == 0
    run = ["--run", str(out), "--device", "cpu"]
    assert "colla (did you mean cola?)" in told(eval.main, [*run, "--remove-sources", "colla"], capsys)
    assert "(did you mean rte?)" in told(eval.main, [*run, "--task", "rtee"], capsys)
    assert f"(did you mean {out}?)" in told(train.main, ["--resume", f"{tmp_path}/rnu"], capsys)


def test_paths_are_answered_with_their_neighbours(
    prompt_run: Path, common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(prompt_run, tmp_path / "cola-prompt")
    wrong, right = f"{tmp_path}/cola-promtp/best.safetensors", f"{tmp_path}/cola-prompt/best.safetensors"
    flags = ["--task", "cola", *common]
    for words in (["--source-prompts", wrong], ["--method", "prompt", "--init", wrong], ["--load-attention", wrong]):
        more = ["--source-prompts", right] * (words[0] == "--load-attention")
        assert f"(did you mean {right}?)" in told(train.main, [*flags, *words, *more], capsys)
    words = ["--method", "prompt", "--init", "vocba"]
    assert "(did you mean vocab?)" in told(train.main, [*flags, *words], capsys)
    (tmp_path / "train.tsv").write_text("text\tanswer\na\tb\n")
    files = ["--train-file", f"{tmp_path}/trian.tsv", "--dev-file", f"{tmp_path}/train.tsv", "--target-field", "answer"]
    words = ["--task", "mine", "--method", "prompt", *common, *files, "--source-field", "texts"]
    assert f"(did you mean {tmp_path}/train.tsv?)" in told(train.main, words, capsys)
    files[1] = f"{tmp_path}/train.tsv"
    words = ["--task", "mine", "--method", "prompt", *common, *files, "--source-field", "texts"]
    assert "(did you mean text?)" in told(train.main, words, capsys)


def test_the_other_programs_name_what_was_meant(prompt_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["exprot", "x"], "(did you mean export?)"),
        (["export", str(prompt_run), "--too", "y"], "--too (did you mean --to?)"),
        (["import", f"{prompt_run}x", "--model", "m", "--task", "t", "--out", "o"], f"(did you mean {prompt_run}?)"),
    ):
        assert expected in told(exchange.main, words, capsys)
    assert "'token' (did you mean tokens?)" in told(similarity.main, ["x", "--similarity", "token"], capsys)
    assert f"(did you mean {prompt_run}?)" in told(similarity.main, [f"{prompt_run}x"], capsys)


def test_models_are_named(tmp_path: Path) -> None:
    def fetch(address: str) -> Path:
        raise AssertionError(address)

    (tmp_path / "checkpoint").mkdir()
    near = {"t5-bsae": "t5-base", "Flan-T5-smal": "google/flan-t5-small"}
    for name, expected in {**near, f"{tmp_path}/chekpoint": f"{tmp_path}/checkpoint"}.items():
        with pytest.raises(AttemptError) as error:
            find_checkpoint(name, fetch)
        assert f"(did you mean {expected}?)" in str(error.value)
    with pytest.raises(AttemptError, match="known names: t5-small, t5-base"):
        find_checkpoint("bert", fetch)
    with pytest.raises(AttemptError, match="--train-file"):
        get_task("qqqqqqqq")


def test_the_nearest_name_is_difflibs_and_blind_to_case(tmp_path: Path) -> None:
    known = ["mnli", "qnli", "SuperGLUE"]
    for name in ("mnil", "qnlii", "superglu", "MNLI"):
        best = max(known, key=lambda other: difflib.SequenceMatcher(None, other.lower(), name.lower()).ratio())
        assert nearest(name, known) == best and meant(name, known) == f" (did you mean {best}?)"
    assert nearest("zzz", known) == meant("zzz", known) == meant("x", []) == ""
    assert meant_path(tmp_path / "no" / "such") == "" == meant_path(Path("\0"))


def test_a_model_is_asked_about_before_its_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--task", "rte", "--method", "attempt", "--model", "t5-bse"]) == 2
    assert "did you mean t5-base?" in capsys.readouterr().err


def test_what_the_system_refuses_is_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A name that no file can have: text: was forgotten before a long sentence."""
    sentence = "is this review positive or negative ? " * 9
    assert train.main(["--task", "rte", "--method", "prompt", "--init", sentence, "--out", str(tmp_path / "run")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert meant_path(tmp_path / ("x" * 300)) == ""
