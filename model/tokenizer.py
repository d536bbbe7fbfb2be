"""Text to token ids and back: SentencePiece's vocabulary with T5's 100 sentinels."""

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from sentencepiece import __version__ as version

from model.errors import AttemptError, briefly
from model.safetensors import check_pointer

SENTINELS = 100


class Tokenizer:
    """A SentencePiece model (`spiece.model`) and, above its last id, the sentinels in falling order.

    With T5's 32,000 pieces <extra_id_0> is 32099 and <extra_id_99> is 32000. pad is 0, eos 1, unk 2. The sentinels are
    built into SentencePiece's model with a space before each, as Google's programs do it: `<extra_id_0>.` is 32099 5,
    and a sentinel right behind a letter is text. (Hugging Face's tokenizers cut the text at each sentinel first.) A
    vocabulary that has sentinels of its own, as mT5's, or 0 extra_ids in its tokenizer_config.json, gets no others.

    Tokens that were added to the vocabulary stand in files beside it; SentencePiece knows none of them, so the file is
    refused, unless `ignore_added`. Raises AttemptError there, and where the file is no model with T5's special ids.
    """

    def __init__(self, path: Path, ignore_added: bool = False) -> None:
        try:
            content = path.read_bytes()  # SentencePiece's own reader aborts at a folder, before 0.2.2
            check_pointer(path, content)
            self.pieces = SentencePieceProcessor()
            self.pieces.load_from_serialized_proto(content)
            self.pieces.id_to_piece(list(range(self.pieces.get_piece_size())))  # each must be text, so must unk
            self.pieces.decode([self.pieces.unk_id()])
        except (OSError, RuntimeError, ValueError, IndexError) as e:
            raise AttemptError(f"{path}: expected a SentencePiece model (spiece.model), found {briefly(e)}") from None
        self.pad, self.eos, self.unk = 0, 1, 2
        found = self.pieces.pad_id(), self.pieces.eos_id(), self.pieces.unk_id()
        if found != (self.pad, self.eos, self.unk):
            raise AttemptError(f"{path}: expected T5's pad, eos, unk at ids (0, 1, 2), found {found}")
        settings = _read(path.parent / "tokenizer_config.json")
        if not (self._has("<extra_id_0>") or self._has("\u2581<extra_id_0>")):
            count = settings.get("extra_ids", SENTINELS)
            content += _sentinels(count if type(count) is int and 0 <= count <= SENTINELS else SENTINELS)
            self.pieces.load_from_serialized_proto(content)
        self.fingerprint = f"{version} {hashlib.sha256(content).hexdigest()}"
        """The same where the same texts get the same ids: the library's version, and the model's SHA-256."""
        self.size = self.pieces.get_piece_size()
        named = dict.fromkeys(_added(path.parent, settings))
        added = [text for text in named if not (self._has(text) or self._has(f"\u2581{text}"))]
        if added and not ignore_added:
            raise AttemptError(
                f"{path.parent}: expected only the tokens of spiece.model, found added ones, which would be read as "
                f"unknown pieces: {', '.join(map(repr, added[:10]))}{' ...' * (len(added) > 10)}; "
                "if your texts have none of them, give --ignore-added-tokens"
            )

    def _has(self, piece: str) -> bool:
        found: int = self.pieces.piece_to_id(piece)
        return found != self.unk or piece == self.pieces.id_to_piece(self.unk)

    def encode(self, text: str) -> list[int]:
        """Token ids without the closing EOS."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without EOS. Batched because SentencePiece then uses all cores."""
        return self.pieces.encode(texts)

    def decode(self, ids: list[int]) -> str:
        """The text up to the first EOS. Padding and the embedding's spare rows beyond the vocabulary are skipped."""
        end = ids.index(self.eos) if self.eos in ids else len(ids)
        return self.pieces.decode([i for i in ids[:end] if i != self.pad and i < self.size])


def _sentinels(count: int) -> bytes:
    """What makes the last pieces of a SentencePiece model sentinels, when it is put behind the model's bytes.

    A model is a protocol buffer, whose repeated fields may stand anywhere: field 1 has a piece, which has a text (field
    1), a score (2) and a type (3); 4 is "user defined".
    """
    made = []
    for i in reversed(range(count)):
        text = f"\u2581<extra_id_{i}>".encode()
        piece = b"\x0a" + bytes([len(text)]) + text + b"\x15" + struct.pack("<f", 0.0) + b"\x18\x04"
        made.append(b"\x0a" + bytes([len(piece)]) + piece)
    return b"".join(made)


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as e:
        raise AttemptError(f"{path}: expected JSON that tells of a vocabulary, found {briefly(e)}") from None
    return found if isinstance(found, dict) else {}


def _added(folder: Path, settings: dict[str, object]) -> Iterator[str]:
    """Every token that the files beside a vocabulary name, special ones too."""
    kinds = ("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens")
    sources = settings, _read(folder / "special_tokens_map.json")
    lists = [list(_read(folder / "added_tokens.json")), _read(folder / "tokenizer.json").get("added_tokens")]
    lists += [source.get(kind) for source in sources for kind in kinds]
    for tokens in lists:
        for token in tokens.values() if isinstance(tokens, dict) else tokens if isinstance(tokens, list) else ():
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str):
                yield text
