"""Large token sets kept on the disk: tokenised once, and shared by the processes that read them.

A file's name is the SHA-256 of all that its ids follow from: the texts, the tokenizer, the limits, the code. So changed
texts never meet old ids, and a file is written once and then only read. It is a .npy of int64, which is mapped:

    4                      SHA-256 of the rest
    6                      N examples, source and target tokens, bytes of an id, cut sources, cut targets
    2 (N + 1)              offsets of the sources, offsets of the targets
    …                      ids of all sources, then of all targets, each filled up to a multiple of 8 bytes
"""

import hashlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.batches import CHUNK, Encode, Ids, TokenSet
from data.cache import locked
from data.tasks import Example
from model.errors import briefly, note
from model.files import ROOT, sum_of

# What the layout is, and what Tokenizer and TokenSet.build make of a text: an edit of one makes new files.
CODE = sum_of({file: ROOT / file for file in ("data/batches.py", "data/token_cache.py", "model/tokenizer.py")})
LEAST = 5_000  # examples; smaller sets are tokenised in a fraction of a second, and leave no file
SUM, COUNTS = 4, 6  # int64 numbers


def tokenized(
    examples: Sequence[Example],
    encode: Encode,
    vocabulary: str,
    max_source: int,
    max_target: int | None,
    task: int,
    eos: int,
    folder: Path,
) -> TokenSet:
    """`TokenSet.build`, or what it once made of the same texts, from the file in `folder`.

    vocabulary: says which tokenizer `encode` is (`Tokenizer.fingerprint`). A folder that cannot be read or written
    costs the time alone. Several processes that want the same set wait for the first of them.
    """
    build = partial(TokenSet.build, examples, encode, max_source, max_target, task, eos)
    if len(examples) < LEAST:
        return build()
    path = folder / f"{name_of(examples, vocabulary, max_source, max_target, eos)}.npy"
    found = None
    try:
        found = read(path, max_source, task)
        if found is None:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(path, "tokenising the same texts for"):
                found = read(path, max_source, task)  # by the process that we waited for
                if found is None:
                    found = build()
                    write(path, found)
    except OSError as error:
        reason = error.strerror or error
        note(f"{folder} cannot be used ({reason}); texts are tokenised at every start")
    return build() if found is None else found


def name_of(examples: Sequence[Example], vocabulary: str, max_source: int, max_target: int | None, eos: int) -> str:
    """The SHA-256 of all that the ids follow from. Texts count with their lengths: "ab", "c" are not "a", "bc"."""
    digest = hashlib.sha256(repr((CODE, vocabulary, max_source, max_target, eos, len(examples))).encode())
    for start in range(0, len(examples), CHUNK):
        texts = [text for e in examples[start : start + CHUNK] for text in (e.source, e.target)]
        digest.update(np.array([len(text) for text in texts], np.int64).data)
        digest.update("".join(texts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def read(path: Path, max_source: int, task: int) -> TokenSet | None:
    """The set in the file, mapped; None where there is none. A damaged file is reported, and removed.

    Raises OSError where the file cannot be read, and may be sound.
    """
    try:
        words: NDArray[np.int64] = np.load(path, mmap_mode="r").view(np.ndarray)  # slices of memmaps are slow
        if words.dtype != np.int64 or words.ndim != 1 or _sum(words) != words[:SUM].tobytes():
            raise ValueError("its sum is wrong")
        return _unpacked(words, max_source, task)
    except FileNotFoundError:
        return None
    except OSError:
        raise
    except Exception as error:  # a damaged header fails in any of a dozen ways, and all mean the same
        print(f"warning: {path} is damaged ({briefly(error):.100}): tokenising again", file=sys.stderr)
        with suppress(OSError):
            path.unlink()
        return None


def _unpacked(words: NDArray[np.int64], max_source: int, task: int) -> TokenSet:
    """The set in the file's numbers. Raises ValueError where they do not agree with each other."""
    n, source_ids, target_ids, size, cut_sources, cut_targets = counts = words[SUM:][:COUNTS].tolist()
    if min(counts) < 0 or size not in (2, 4) or max(n, source_ids, target_ids) > 4 * len(words):
        raise ValueError("its counts are wrong")
    ends = np.cumsum([SUM + COUNTS, n + 1, n + 1, -(-source_ids * size // 8), -(-target_ids * size // 8)]).tolist()
    source_offsets, target_offsets, sources, targets = (words[a:b] for a, b in pairwise(ends))
    offsets = (source_offsets, source_ids), (target_offsets, target_ids)
    if ends[-1] != len(words) or any(o[0] != 0 or o[-1] != ids or (np.diff(o) < 1).any() for o, ids in offsets):
        raise ValueError("its offsets are wrong")
    kind: type[np.uint16 | np.int32] = np.uint16 if size == 2 else np.int32
    return TokenSet(
        sources.view(kind)[:source_ids],
        source_offsets,
        targets.view(kind)[:target_ids],
        target_offsets,
        np.full(n, task, np.int64),
        np.zeros(n, np.int64),
        max_source,
        cut_sources,
        cut_targets,
    )


def write(path: Path, tokens: TokenSet) -> None:
    """Under a temporary name of its own, synced and moved: the file is there whole or not at all.

    What killed writers have left is removed; whoever calls holds the lock, so that none of them is at work.
    """
    kind = np.result_type(tokens.sources, tokens.targets)
    counts = [len(tokens), len(tokens.sources), len(tokens.targets), kind.itemsize]
    counts += [tokens.cut_sources, tokens.cut_targets]
    parts = [np.zeros(SUM, np.int64), np.array(counts, np.int64), tokens.source_offsets, tokens.target_offsets]
    words = np.concatenate([*parts, _words(tokens.sources, kind), _words(tokens.targets, kind)])
    words[:SUM] = np.frombuffer(_sum(words), np.int64)
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            np.save(file, words, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # Ctrl-C too
        with suppress(OSError):
            temporary.unlink()
        raise


def _sum(words: NDArray[np.int64]) -> bytes:
    return hashlib.sha256(words[SUM:].data).digest()


def _words(ids: Ids, kind: np.dtype[Any]) -> NDArray[np.int64]:
    """The ids as int64 numbers, the last one filled up with zeros."""
    per_word = 8 // kind.itemsize
    filled = np.zeros(-(-len(ids) // per_word) * per_word, kind)
    filled[: len(ids)] = ids
    return filled.view(np.int64)
