"""transformers' T5 tokenizer from a spiece.model: by itself it would need protobuf to read one."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

NORMALIZER, CHARACTERS = 3, 2  # fields of SentencePiece's ModelProto and of its NormalizerSpec


def hugging_face_tokenizer(path: Path) -> Any:
    """A T5Tokenizer (of the Rust library `tokenizers`) with the pieces, scores and normalization of the file."""
    transformers: Any = import_module("transformers")
    pieces = SentencePieceProcessor(model_file=str(path))
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.get_piece_size())]
    vocabulary += [(f"<extra_id_{i}>", 0.0) for i in range(99, -1, -1)]
    characters = dict(fields(dict(fields(path.read_bytes()))[NORMALIZER])).get(CHARACTERS)
    return transformers.T5Tokenizer(vocab=vocabulary, _spm_precompiled_charsmap=characters or None)


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a Protocol Buffers message that have a length: number and content. Numbers are passed over."""
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        if key & 7 == 0:
            _, at = varint(message, at)
        elif key & 7 == 2:
            size, at = varint(message, at)
            yield key >> 3, message[at : at + size]
            at += size
        else:
            at += {1: 8, 5: 4}[key & 7]


def varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte, at = message[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
