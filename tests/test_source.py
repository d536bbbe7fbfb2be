"""Which code a result is of: told in result.json, and where a kept or resumed run is of another than today's."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from runs import REPOSITORY, result_of

import attempt
import eval
import train
from attempt.checkpoint import load_prompt, save_prompt
from attempt.command import source
from attempt.compare import compare, similarity
from attempt.exchange import exchange
from attempt.plots import plots
from attempt.report_html import report_html
from attempt.runs.plan import Plan
from data import token_cache
from data.tasks import Example
from model import files

SMALL = ["--task", "cola", "--method", "prompt", "--prompt-length", "4", "--steps", "4", "--eval-every", "2"]
OTHER = "0" * files.DIGITS


def test_a_result_names_the_code_it_is_of(prompt_run: Path) -> None:
    code = result_of(prompt_run)["code"]
    assert code["version"] == attempt.__version__ and code["sums"] == [source.code_sum()]
    assert code.get("commit") == source.commit()
    assert Plan.read(prompt_run / "config.json").code == [source.code_sum()]


def test_the_sum_changes_with_every_source_and_with_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in source.PACKAGES:
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "sources"))
    for name in ("train.py", "eval.py"):
        shutil.copy(REPOSITORY / name, tmp_path)
    for module in (source, files):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    code_sum = source.code_sum.__wrapped__
    first = code_sum()
    assert first == source.code_sum() and re.fullmatch("[0-9a-f]{12}", first)
    (tmp_path / "model/notes.txt").write_text("x")
    (tmp_path / "model/t5.py").write_bytes((tmp_path / "model/t5.py").read_bytes().replace(b"\n", b"\r\n"))
    for room in source.LOOKING:  # at runs
        (tmp_path / f"attempt/{room}/new.py").write_text("# new\n")
    assert code_sum() == first
    seen = {first}
    for name in (
        "model/t5.py",
        "attempt/attention.py",
        "attempt/training/trainer.py",
        "data/metrics.py",
        "demo/pairs.py",
        "train.py",
        "eval.py",
    ):
        with open(tmp_path / name, "a") as file:
            file.write("# edited\n")
        seen.add(code_sum())
    assert len(seen) == 8


def edited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs as they are after an edit of the code."""
    for module in ("attempt.runs.plan", "attempt.training.series"):
        monkeypatch.setattr(sys.modules[module], "code_sum", lambda: OTHER)


@pytest.mark.parametrize("more", [["--seeds", "1"], ["--separately"]])
def test_a_run_that_is_kept_after_an_edit_is_told(
    more: list[str],
    common: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = [*SMALL, *common, *more, "--out", str(tmp_path)]
    assert train.main(flags) == 0
    capsys.readouterr()
    assert train.main(flags) == 0
    (kept,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("kept"))
    assert kept.endswith("it is complete")
    edited(monkeypatch)
    assert train.main(flags) == 0
    folder = tmp_path / ("seed-1" if "--seeds" in more else "cola")
    advice = f"the code changed since; delete {folder}, or give another --out, to train it again"
    assert f"kept       {folder}: it is complete, but {advice}" in capsys.readouterr().out
    shutil.rmtree(folder)
    assert train.main(flags) == 0
    assert "it is complete" not in capsys.readouterr().out and result_of(folder)["code"]["sums"] == [OTHER]


@pytest.mark.parametrize("code", [None, "x", {}, {"sums": None}])
def test_a_result_of_before_is_of_another_code(code: object, prompt_run: Path, tmp_path: Path) -> None:
    from attempt.training.series import code_of  # noqa: PLC0415 - beside the one test that asks it

    assert code_of([{**result_of(prompt_run), "code": code}]) == ["unknown"]


def test_a_run_that_goes_on_after_an_edit_is_of_both(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [*SMALL, *common, "--out", str(tmp_path / "run")]
    assert train.main(flags) == 0
    (tmp_path / "run/result.json").unlink()
    edited(monkeypatch)
    assert train.main(["--resume", str(tmp_path / "run"), "--change", "--steps", "6"]) == 0
    assert "the code has changed since the run was started" in capsys.readouterr().out
    both = [source.code_sum(), OTHER]
    assert result_of(tmp_path / "run")["code"]["sums"] == Plan.read(tmp_path / "run/config.json").code == both
    (tmp_path / "run/result.json").unlink()
    assert train.main(["--resume", str(tmp_path / "run"), "--change", "--steps", "7"]) == 0
    assert "the code has changed" not in capsys.readouterr().out
    assert result_of(tmp_path / "run")["code"]["sums"] == both


def test_a_search_is_of_all_its_candidates_code(
    prompt_run: Path, common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One was kept from before an edit, the others were trained after it: the choice among them is of both."""
    flags = ["--task", "rte", "--method", "spot", "--steps", "2", *common, "--out", str(tmp_path)]
    flags += ["--source-prompts", str(prompt_run), str(prompt_run / "last.safetensors")]
    assert train.main(flags) == 0
    (tmp_path / "result.json").unlink()
    kept, again = sorted(tmp_path.glob("from-*"))
    shutil.rmtree(again)
    edited(monkeypatch)
    assert train.main(flags) == 0
    assert sorted(result_of(tmp_path)["code"]["sums"]) == sorted([source.code_sum(), OTHER])
    assert result_of(kept)["code"]["sums"] == [source.code_sum()]


def test_ids_are_made_anew_after_an_edit_of_what_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    told = ([Example("a", "b")], "vocabulary", 9, None, 1)
    before = token_cache.name_of(*told)
    assert before == token_cache.name_of(*told)
    made_of = [{name: REPOSITORY / name} for name in ("model/tokenizer.py", "data/batches.py")]
    assert files.sum_of(made_of[0]) != files.sum_of(made_of[1])
    monkeypatch.setattr(token_cache, "CODE", OTHER)
    assert token_cache.name_of(*told) != before


@pytest.mark.parametrize("program", [train, eval, compare, plots, report_html, similarity, exchange])
def test_every_program_tells_its_version(program: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        program.main(["--version"])  # type: ignore[attr-defined]
    told = capsys.readouterr().out
    assert told.startswith(f"attempt {attempt.__version__}") and source.code_sum() in told


def test_the_version_is_the_packages() -> None:
    assert f"version: {attempt.__version__}\n" in (REPOSITORY / "CITATION.cff").read_text()
    assert "version = attr: attempt.__version__\n" in (REPOSITORY / "setup.cfg").read_text()


def test_a_commit_is_that_of_the_programs_own_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@x"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    commit = source.commit.__wrapped__
    (tmp_path / "below").mkdir()
    (tmp_path / "below/a.py").write_text("1\n")
    monkeypatch.setattr(source, "ROOT", tmp_path.resolve())
    assert commit() is None
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "x")
    found = commit()
    assert found is not None and re.fullmatch("[0-9a-f]{40}", found)
    (tmp_path / "below/a.py").write_text("2\n")
    assert commit() == f"{found}-dirty"
    monkeypatch.setattr(source, "ROOT", tmp_path.resolve() / "below")  # another project's tree
    assert commit() is None


@pytest.mark.parametrize("method", ["attempt", "spot"])
def test_a_run_whose_sources_were_trained_again_is_told(
    method: str, prompt_run: Path, common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source_run, out = tmp_path / "source", tmp_path / "run"
    shutil.copytree(prompt_run, source_run)
    flags = ["--task", "rte", "--method", method, "--source-prompts", str(source_run), "--steps", "2", *common]
    flags += ["--seeds", "1", "--out", str(out)]
    assert train.main(flags) == train.main(flags) == 0
    assert f"kept       {out / 'seed-1'}: it is complete\n" in capsys.readouterr().out
    prompt, config = load_prompt(source_run)
    prompt.target.data += 1
    save_prompt(source_run / "best.safetensors", prompt, config)
    assert train.main(flags) == 0
    assert f"{out / 'seed-1'}: it is complete, but its source prompts changed since; delete" in capsys.readouterr().out
    shutil.rmtree(source_run)
    (tmp_path / "source.pt").write_bytes(b"")
    assert train.main(flags) == 0  # they are needed no longer
    assert "it is complete\n" in capsys.readouterr().out
