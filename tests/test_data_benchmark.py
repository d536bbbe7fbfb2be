"""The benchmark of a large task's data, on a small one: what it writes, and what it finds."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import data as benchmark
from data import token_cache
from data.tasks import TASKS, load_official
from data.user import UserFiles, read_rows
from model.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def demo() -> Path:
    return Path(__file__).parent.parent / "demo/checkpoint/spiece.model"


def test_the_set_has_mnlis_layout_and_lengths_and_is_the_same_twice(demo: Path, tmp_path: Path) -> None:
    words = benchmark.words_of(Tokenizer(demo))
    assert "the" in words and not any("▁" in word or "<" in word for word in words)
    benchmark.write_sets(tmp_path, words, 600)
    official = load_official(TASKS["mnli"], lambda url, *_: tmp_path / url.removeprefix("https://"))
    assert {split: len(examples) for split, examples in official.items()} == {
        "train": 600,
        "dev_matched": 600,
        "dev_mismatched": 600,
    }
    sources = [example.source for example in official["train"]]
    assert len(set(sources)) == 600 and {example.target for example in official["train"]} == {"0", "1", "2"}
    counts = [len(source.split()) - 3 for source in sources]  # without the task's and the fields' names
    assert 25 < np.mean(counts) < 40 and max(counts) > 60  # MNLI: 20 + 10 words
    own = read_rows(str(tmp_path / "train.tsv"), UserFiles("", "", None, ("premise", "hypothesis"), "label"))
    assert [f"mnli premise: {a} hypothesis: {b}" for a, b in (row.fields for row in own)] == sources
    benchmark.write_sets(tmp_path / "again", words, 600)
    assert (tmp_path / "again/train.tsv").read_bytes() == (tmp_path / "train.tsv").read_bytes()


def test_a_later_start_finds_what_the_first_one_did(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "LEAST", 1)
    tokenizer, cache = Tokenizer(demo), tmp_path / "cache"
    benchmark.write_sets(tmp_path, benchmark.words_of(tokenizer), 200)
    for options in benchmark.options_of(tmp_path).values():
        first = benchmark.start(options, tokenizer, cache)
        kept = len(list((cache / "tokens").iterdir()))
        later = benchmark.start(options, tokenizer, cache)
        assert first[:2] == later[:2] and first.examples == 200 and first.tokens > 200 * 20
        assert len(list((cache / "tokens").iterdir())) == kept and kept % 3 == 0
        assert len(first.rates) == len(benchmark.SIZES) and min(*first.rates, first.seconds) > 0
        assert 0 <= first.peak < 200  # MB


@pytest.mark.long
def test_the_table_has_a_row_a_set(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--examples", "100", "--tokenizer", str(demo)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["set", "examples", "tokens", "each"] and "batches/s of 128" in head
    assert [row.split("  ")[0] for row in rows] == ["mnli", "own files"] and all(" 100 " in row for row in rows)
    assert benchmark.main(["--examples", "100", "--tokenizer", "no.model"]) == 2
