"""Text to ids and back: SentencePiece's own answers, the sentinels, and files that are something else."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import sentences
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from model.config import T5Config
from model.errors import AttemptError
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


@pytest.fixture(scope="module")
def built_in(file: Path) -> SentencePieceProcessor:
    """The sentinels built into the vocabulary by SentencePiece's own classes, as T5's own programs do it."""
    pytest.importorskip("google.protobuf")
    from sentencepiece import sentencepiece_model_pb2  # noqa: PLC0415

    model = sentencepiece_model_pb2.ModelProto.FromString(file.read_bytes())
    for i in reversed(range(100)):
        model.pieces.add(piece=f"\u2581<extra_id_{i}>", score=0.0, type=4)  # USER_DEFINED
    return SentencePieceProcessor(model_proto=model.SerializeToString())


WITH_SENTINELS = [
    "<extra_id_0>.", "<extra_id_0> .", "the old <extra_id_0>, saw <extra_id_1>!", "the<extra_id_0>bridge",
    "<extra_id_1><extra_id_2>", "  <extra_id_99>  ", "(<extra_id_7>)", "<extra_id_3>\n<extra_id_4>\tthe",
    "<extra_id_100>", "<extra_id_>", "<extra_id_-1>", "<extra_id_0", "< extra_id_0>", "<extra_id_01>",
]  # fmt: skip


def test_sentinels_are_those_of_sentencepiece(file: Path, built_in: SentencePieceProcessor) -> None:
    tokenizer = Tokenizer(file)
    for text in [*WITH_SENTINELS, *TEXTS]:
        ids = built_in.encode(text)
        assert tokenizer.encode(text) == tokenizer.encode_batch([text, "other"])[0] == ids
        assert tokenizer.decode(ids) == built_in.decode(ids)
    first, stop = tokenizer.size - 1, tokenizer.pieces.piece_to_id(".")
    assert tokenizer.encode("<extra_id_0>.") == [first, stop] and tokenizer.decode([first, stop]) == "<extra_id_0>."


@pytest.mark.parametrize("piece", ["<extra_id_{}>", "\u2581<extra_id_{}>"])
def test_vocabulary_with_sentinels_of_its_own_gets_no_others(piece: str, file: Path, tmp_path: Path) -> None:
    pytest.importorskip("google.protobuf")
    from sentencepiece import sentencepiece_model_pb2  # noqa: PLC0415

    model = sentencepiece_model_pb2.ModelProto.FromString(file.read_bytes())
    for i in reversed(range(100)):
        model.pieces.add(piece=piece.format(i), score=0.0, type=4)
    (tmp_path / "spiece.model").write_bytes(model.SerializeToString())
    tokenizer, pieces = (
        Tokenizer(tmp_path / "spiece.model"),
        SentencePieceProcessor(model_file=str(tmp_path / "spiece.model")),
    )
    assert tokenizer.size == pieces.get_piece_size() == Tokenizer(file).size
    for text in WITH_SENTINELS:
        assert tokenizer.encode(text) == pieces.encode(text)


@pytest.mark.parametrize("count", [0, 3, 100])
def test_number_of_sentinels_is_the_settings(count: int, file: Path, tmp_path: Path) -> None:
    shutil.copy(file, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"extra_ids": count}))
    own, plain = Tokenizer(tmp_path / "spiece.model"), SentencePieceProcessor(model_file=str(file))
    assert own.size == plain.get_piece_size() + count
    assert (own.fingerprint == Tokenizer(file).fingerprint) == (count == 100)
    assert own.encode("<extra_id_0>") == ([own.size - 1] if count else plain.encode("<extra_id_0>"))


T5S = ["<pad>", "</s>", "<unk>", *(f"<extra_id_{i}>" for i in range(100))]
ADDED: dict[str, tuple[str, Any]] = {
    "tokenizer.json": ("tokenizer.json", {"added_tokens": [{"id": 9, "content": t} for t in (*T5S, "<sep>")]}),
    "added_tokens.json": ("added_tokens.json", {"<sep>": 32100, "<extra_id_0>": 32099}),
    "decoder": ("tokenizer_config.json", {"added_tokens_decoder": {"9": {"content": "<sep>"}}}),
    "special": ("tokenizer_config.json", {"additional_special_tokens": [*T5S, "<sep>"]}),
    "special of 5": ("tokenizer_config.json", {"extra_special_tokens": {"sep_token": "<sep>"}}),
    "map": ("special_tokens_map.json", {"additional_special_tokens": [{"content": "<sep>"}, "<extra_id_1>"]}),
}  # fmt: skip


@pytest.mark.parametrize("kind", ADDED)
def test_added_tokens_are_named_and_refused(kind: str, file: Path, tmp_path: Path) -> None:
    name, content = ADDED[kind]
    shutil.copy(file, tmp_path)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(AttemptError, match=r"found added ones.*: '<sep>'; .*--ignore-added-tokens"):
        Tokenizer(tmp_path / "spiece.model")
    asked = Tokenizer(tmp_path / "spiece.model", ignore_added=True)
    assert asked.encode("the old") == Tokenizer(file).encode("the old")
    text = json.dumps(content).replace('"<sep>"', '"<extra_id_5>"')  # T5's own tokens alone
    (tmp_path / name).write_text(text)
    Tokenizer(tmp_path / "spiece.model")
    (tmp_path / name).write_text("{")
    with pytest.raises(AttemptError, match=name):
        Tokenizer(tmp_path / "spiece.model")


def test_tokens_that_transformers_adds_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shutil.copy(tiny_checkpoint / "spiece.model", tmp_path)
    theirs = transformers.T5Tokenizer.from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    Tokenizer(tmp_path / "spiece.model")  # as it was: T5's tokens alone
    theirs.add_tokens(["<sep>"])
    theirs.save_pretrained(tmp_path)
    with pytest.raises(AttemptError, match="'<sep>'"):
        Tokenizer(tmp_path / "spiece.model")


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
