"""Runs that are kept as lines: they read as their folders do, in every program, whole or not at all."""

import json
import shutil
from pathlib import Path

import pytest
from runs import error_of

from attempt.compare import compare
from attempt.compare.records import Record, read_all
from attempt.plots import plots
from attempt.report_html import report_html
from attempt.runs.folder import Run
from attempt.runs.kept import is_kept, kept_runs
from benchmarks.replication.cells import cell
from benchmarks.replication.runner import Place, keep
from benchmarks.replication.runner import is_kept as is_made_already
from benchmarks.replication.store import append_cell, kept_cells, packed, unpacked
from model.errors import AttemptError


@pytest.fixture
def kept(prompt_run: Path, tmp_path: Path) -> Path:
    """A file of the same run twice, by two names, and the folders that it is made from."""
    place = Place(tmp_path, tmp_path, tmp_path, tmp_path / "kept")
    for name in ("first", "second"):
        shutil.copytree(prompt_run, tmp_path / "runs" / name)
        keep(cell(name, "part", "--task rte --method prompt"), place)
    return tmp_path / "kept" / "part.jsonl"


def test_a_run_in_a_line_reads_as_its_folder_does(kept: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        stored, own = Record.read(kept / name), Record.read(tmp_path / "runs" / name)
        assert (stored.plan, stored.result) == (own.plan, own.result) and stored.result is not None
        assert repr(stored.evaluations) == repr(own.evaluations) != "[]"  # of NaN losses too
    for given in (kept, kept.parent, kept / "*"):
        assert [record.folder for record in read_all([given])[0]] == [kept / "first", kept / "second"]
    assert [record.folder for record in read_all([kept / "s*"])[0]] == [kept / "second"]


def test_compare_plots_and_the_report_read_them(kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for folder in (kept, tmp_path / "runs"):
        assert compare.main([str(folder)]) == 0
        assert plots.main(["curves", str(folder / "first")]) == 0
        shown.append(capsys.readouterr().out.replace(str(folder), "PLACE").replace("-", "").split())
    assert shown[0] == shown[1] and "PLACE/second" in shown[0]
    assert report_html.main([str(kept)]) == 0
    page = kept.with_suffix(".html").read_text(encoding="utf-8")
    assert "part.jsonl" in page and "second" in page and "2 runs, 2 of them complete" in page


def test_a_line_that_was_cut_goes_and_its_run_is_kept_again(kept: Path) -> None:
    whole = kept.read_bytes()
    first = whole.index(b"\n") + 1
    for end in (first, first + 1, first + 5, len(whole) - 100, len(whole) - 1):
        kept.write_bytes(whole[:end])
        assert [*kept_cells(kept.parent)] == ["first"]
        append_cell(kept.parent, "part", json.loads(whole[first:]))
        assert kept.read_bytes() == whole
    kept.write_bytes(whole[:4])  # the first line, before its name
    assert not is_kept(kept) and kept_cells(kept.parent) == {}
    append_cell(kept.parent, "part", json.loads(whole[:first]))
    assert kept.read_bytes() == whole[:first]


def test_a_damaged_line_and_a_run_that_is_there_twice_are_told(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = kept.read_bytes()
    damages = {
        "line 1": whole.replace(b'"config"', b'"con\x00fig', 1),
        "line 3": whole + whole[: whole.index(b"\n") + 1],
    }
    for line, content in damages.items():
        kept.write_bytes(content)
        for program, words in ((compare, [str(kept)]), (plots, ["curves", str(kept)]), (report_html, [str(kept)])):
            assert program.main(words) == 2
            assert f"{kept}: expected a run in {line}" in error_of(capsys)
    kept.write_bytes(whole)
    (kept.parent / "other.jsonl").write_bytes(whole)
    with pytest.raises(AttemptError, match="found first, second; delete their lines"):
        kept_cells(kept.parent)


def test_a_failed_cell_is_no_run_but_is_not_made_again(kept: Path) -> None:
    append_cell(kept.parent, "part", {"run": "failed", "command": "x", "failed": "no room", "log": packed("ä\n" * 9)})
    records, damaged = read_all([kept])
    assert len(records) == 2 and "expected the config.json of a run, found none" in damaged[kept / "failed"]
    place = Place(kept.parent, kept.parent, kept.parent, kept.parent)
    assert is_made_already(cell("failed", "part", "--task rte"), place)
    assert unpacked(kept_runs(kept).runs["failed"]["log"]) == "ä\n" * 9
    assert compare.complete([kept])[1].folder == kept / "second"  # it has no scores to compare


def test_other_files_of_lines_are_no_runs(tmp_path: Path, prompt_run: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": "b"}\n')
    (tmp_path / "empty.jsonl").write_text("")
    shutil.copytree(prompt_run, tmp_path / "run")
    assert [record.folder for record in read_all([tmp_path])[0]] == [tmp_path / "run"]
    assert Run(tmp_path / "rows.jsonl" / "a").read_metrics() == []
    with pytest.raises(AttemptError, match="found none"):
        compare.complete([tmp_path / "rows.jsonl"])
