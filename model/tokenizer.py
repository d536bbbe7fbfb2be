"""Text to token ids and back: SentencePiece's vocabulary with T5's 100 sentinels."""

import hashlib
import re
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from sentencepiece import __version__ as version

from attempt.errors import AttemptError, briefly

SENTINELS = 100
SENTINEL = re.compile(r"<extra_id_(\d{1,2})>")


class Tokenizer:
    """A SentencePiece model (`spiece.model`) and, above its last id, the sentinels in falling order.

    With T5's 32,000 pieces <extra_id_0> is 32099 and <extra_id_99> is 32000. pad is 0, eos 1, unk 2.
    """

    def __init__(self, path: Path) -> None:
        try:
            content = path.read_bytes()  # SentencePiece's own reader aborts at a folder, before 0.2.2
            self.pieces = SentencePieceProcessor()
            self.pieces.load_from_serialized_proto(content)
            self.pieces.id_to_piece(list(range(self.pieces.get_piece_size())))  # each must be text, so must unk
            self.pieces.decode([self.pieces.unk_id()])
        except (OSError, RuntimeError, ValueError, IndexError) as e:
            raise AttemptError(f"{path}: expected a SentencePiece model (spiece.model), found {briefly(e)}") from None
        self.fingerprint = f"{version} {hashlib.sha256(content).hexdigest()}"
        """The same where the same texts get the same ids: the library's version, and the file's SHA-256."""
        self.pad, self.eos, self.unk = 0, 1, 2
        found = self.pieces.pad_id(), self.pieces.eos_id(), self.pieces.unk_id()
        if found != (self.pad, self.eos, self.unk):
            raise AttemptError(f"{path}: expected T5's pad, eos, unk at ids (0, 1, 2), found {found}")
        self.size = self.pieces.get_piece_size() + SENTINELS

    def encode(self, text: str) -> list[int]:
        """Token ids without the closing EOS."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without EOS. Batched because SentencePiece then uses all cores."""
        if not any("<extra_id_" in text for text in texts):
            return self.pieces.encode(texts)
        return [self._encode_with_sentinels(text) for text in texts]

    def _encode_with_sentinels(self, text: str) -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(SENTINEL.split(text)):  # text, number, text, number, … text
            if i % 2:
                ids.append(self.size - 1 - int(part))
            elif part.strip():
                ids.extend(self.pieces.encode(part))
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text up to the first EOS. Padding and the embedding's spare rows beyond the vocabulary are skipped."""
        text: list[str] = []
        run: list[int] = []
        for i in ids:
            if i == self.eos:
                break
            if i < self.size - SENTINELS:
                if i != self.pad:
                    run.append(i)
            elif i < self.size:
                text += [self.pieces.decode(run), f"<extra_id_{self.size - 1 - i}>"]
                run = []
        return " ".join(part for part in [*text, self.pieces.decode(run)] if part)
