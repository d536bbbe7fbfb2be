"""Text to ids and back: SentencePiece's own answers, the sentinels, and files that are something else."""

from pathlib import Path

import pytest
from conftest import sentences
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from attempt.errors import AttemptError
from model.config import T5Config
from model.tokenizer import Tokenizer

TEXTS = [
    *sentences(30, seed=1),
    "",
    " ",
    "  two  spaces   and a tail  ",
    "tab\tand\nlines\r\n",
    "unknown: \u732b \U0001f40c",  # a cat, a snail
    "ﬁne Ünïcode ½ …",
    "</s> <pad> <unk> are text",
]


@pytest.fixture(scope="module", params=["tiny", "real"])
def file(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue({"tiny": "tiny_checkpoint", "real": "flan"}[request.param])
    return folder / "spiece.model"


def test_ids_are_those_of_sentencepiece(file: Path) -> None:
    tokenizer, pieces = Tokenizer(file), SentencePieceProcessor(model_file=str(file))
    expected = [pieces.encode(text) for text in TEXTS]
    assert tokenizer.encode_batch(TEXTS) == expected
    assert [tokenizer.encode(text) for text in TEXTS] == expected
    assert tokenizer.encode_batch([]) == []


def test_special_ids(file: Path) -> None:
    tokenizer = Tokenizer(file)
    assert (tokenizer.pad, tokenizer.eos, tokenizer.unk) == (0, 1, 2)
    assert tokenizer.encode("\U0001f40c")[-1] == 2


def test_text_survives(file: Path) -> None:
    tokenizer = Tokenizer(file)
    for text in sentences(30, seed=1)[:30]:  # T5's vocabulary lacks some characters of the last one
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_real_sentinels(flan: Path) -> None:
    tokenizer = Tokenizer(flan / "spiece.model")
    assert [tokenizer.encode(f"<extra_id_{i}>") for i in range(100)] == [[i] for i in range(32099, 31999, -1)]
    assert tokenizer.decode([32099, 32000]) == "<extra_id_0> <extra_id_99>"
    assert tokenizer.size == 32100 <= T5Config.from_json(flan / "config.json").vocab_size


def test_sentinels_within_text(file: Path) -> None:
    tokenizer = Tokenizer(file)
    first, second = tokenizer.size - 1, tokenizer.size - 2
    left, right = tokenizer.encode("the old"), tokenizer.encode("saw the")
    text = "the old <extra_id_0> saw the <extra_id_1>"
    assert tokenizer.encode(text) == [*left, first, *right, second]
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", ["<extra_id_100>", "<extra_id_>", "<extra_id_-1>", "<extra_id_0", "< extra_id_0>"])
def test_what_looks_like_a_sentinel_is_text(file: Path, text: str) -> None:
    tokenizer = Tokenizer(file)
    assert tokenizer.encode(text) == tokenizer.pieces.encode(text)


def test_sentinels_change_nothing_in_other_texts(file: Path) -> None:
    tokenizer = Tokenizer(file)
    assert tokenizer.encode_batch(["<extra_id_0>", *TEXTS])[1:] == tokenizer.encode_batch(TEXTS)


def test_decoding_stops_at_eos(file: Path) -> None:
    tokenizer = Tokenizer(file)
    ids = tokenizer.encode("the bridge")
    assert tokenizer.decode([*ids, 1, *tokenizer.encode("and more"), 1]) == "the bridge"
    assert tokenizer.decode([1, *ids]) == "" and tokenizer.decode([]) == ""


def test_decoding_skips_padding(file: Path) -> None:
    tokenizer = Tokenizer(file)
    ids = tokenizer.encode("the bridge")
    assert tokenizer.decode([0, *ids[:1], 0, *ids[1:], 0, 0]) == "the bridge"  # the decoder starts with a pad


def test_decoding_skips_spare_rows(file: Path) -> None:
    tokenizer = Tokenizer(file)
    rows = T5Config.from_json(file.parent / "config.json").vocab_size
    spare = list(range(tokenizer.size, rows))
    assert spare  # these files have such rows
    ids = tokenizer.encode("the bridge")
    assert tokenizer.decode([*spare, *ids[:1], *spare, *ids[1:], *spare]) == "the bridge"


def test_every_row_of_the_embedding_can_be_decoded(file: Path) -> None:
    tokenizer = Tokenizer(file)
    rows = T5Config.from_json(file.parent / "config.json").vocab_size
    assert all(isinstance(tokenizer.decode([i]), str) for i in range(rows))


@pytest.mark.parametrize("content", [b"", b"\0", b"hello, world", b"{}", b"PK\x03\x04" + b"\0" * 50, b"\xff" * 1000])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "spiece.model"
    path.write_bytes(content)
    with pytest.raises(AttemptError, match=r"spiece\.model"):
        Tokenizer(path)


def test_a_cut_file_is_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    whole = (tiny_checkpoint / "spiece.model").read_bytes()
    path = tmp_path / "spiece.model"
    path.write_bytes(whole[: len(whole) // 2 + 1])
    with pytest.raises(AttemptError, match=r"spiece\.model"):
        Tokenizer(path)


def test_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "spiece.model", tmp_path):
        with pytest.raises(AttemptError, match=path.name):
            Tokenizer(path)


def test_vocabulary_of_another_model_is_refused(tmp_path: Path) -> None:
    # SentencePiece's own defaults (unk 0, bos 1, eos 2, no pad) are those of other models
    SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(100)),
        model_prefix=str(tmp_path / "other"),
        vocab_size=200,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    with pytest.raises(AttemptError, match=r"other\.model.*\(0, 1, 2\)"):
        Tokenizer(tmp_path / "other.model")
