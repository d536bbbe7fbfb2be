"""Token ids and batches. Shapes: B examples, S source positions, T target positions."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.tasks import Example
from model.errors import AttemptError

Encode = Callable[[list[str]], list[list[int]]]
"""Texts -> their token ids, without the closing eos."""
Ids = NDArray[Any]
"""Token ids: uint16 where all of them are below 65,536, as T5's 32,128 are, else int32."""

PAD = 0
IGNORED = -100  # the label of a padded target position, which cross_entropy leaves out of the mean
CHUNK = 4096  # texts encoded at a time, so that Python's lists of ids never hold the whole set


@dataclass
class TokenSet:
    """N examples tokenised once. Example i is sources[source_offsets[i] : source_offsets[i + 1]], etc."""

    sources: Ids
    source_offsets: NDArray[np.int64]
    targets: Ids
    target_offsets: NDArray[np.int64]
    tasks: NDArray[np.int64]
    """(N,) whose prompt an example gets: its task's number, or 0 where the tasks share one."""
    parts: NDArray[np.int64]
    """(N,) which of the joined sets an example comes from."""
    max_source: int
    """Longest source allowed, in tokens with the eos."""
    cut_sources: int = 0
    """How many sources were longer than allowed, and lost their end."""
    cut_targets: int = 0

    @staticmethod
    def build(
        examples: Sequence[Example],
        encode: Encode,
        max_source: int,
        max_target: int | None = None,
        task: int = 0,
        eos: int = 1,
    ) -> "TokenSet":
        """Tokenises `examples`, cutting sources (targets) to max_source (max_target) tokens with the eos.

        The eos is always the last token, also of a cut text. max_target None: targets are never cut.
        """
        if max_source < 1 or (max_target is not None and max_target < 1):
            raise AttemptError(f"expected lengths of at least 1 token, found {max_source} and {max_target}")
        source = _flat([e.source for e in examples], encode, max_source, eos)
        target = _flat([e.target for e in examples], encode, max_target, eos)
        tasks = np.full(len(examples), task, np.int64)
        parts = np.zeros(len(examples), np.int64)
        return TokenSet(*source[:2], *target[:2], tasks, parts, max_source, source[2], target[2])

    @staticmethod
    def join(sets: Sequence["TokenSet"]) -> "TokenSet":
        """One set of all examples, in order, each keeping its task id; a set alone as it is, maybe a mapped file."""
        if len(sets) == 1:
            return sets[0]
        return TokenSet(
            np.concatenate([s.sources for s in sets]),
            _join_offsets([s.source_offsets for s in sets]),
            np.concatenate([s.targets for s in sets]),
            _join_offsets([s.target_offsets for s in sets]),
            np.concatenate([s.tasks for s in sets]),
            np.repeat(np.arange(len(sets)), [len(s) for s in sets]),
            max(s.max_source for s in sets),
            sum(s.cut_sources for s in sets),
            sum(s.cut_targets for s in sets),
        )

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) tokens of every source, with the eos."""
        return np.diff(self.source_offsets)

    def source(self, i: int) -> Ids:
        return self.sources[self.source_offsets[i] : self.source_offsets[i + 1]]

    def target(self, i: int) -> Ids:
        return self.targets[self.target_offsets[i] : self.target_offsets[i + 1]]


@dataclass
class Batch:
    """B examples, padded on the right."""

    ids: torch.Tensor  # (B, S) int64, padded with 0
    mask: torch.Tensor  # (B, S) bool, True = a token, False = padding
    labels: torch.Tensor  # (B, T) int64, padded with -100
    tasks: torch.Tensor  # (B,) int64
    index: torch.Tensor  # (B,) int64, positions in the TokenSet
    tokens: int | torch.Tensor
    """Target tokens of the whole batch that this one is, or is a part of."""
    full: bool = False
    """Whether no source is padded, so that none needs a mask: known here without a question to a GPU."""

    @property
    def seen(self) -> torch.Tensor | None:
        """The mask, where one is needed."""
        return None if self.full else self.mask

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """What a step computes with, but for `index`."""
        return self.ids, self.mask, self.labels, self.tasks, torch.as_tensor(self.tokens)

    def of(self, *tensors: torch.Tensor) -> "Batch":
        """The same with other `tensors` of these shapes."""
        ids, mask, labels, tasks, tokens = tensors
        return replace(self, ids=ids, mask=mask, labels=labels, tasks=tasks, tokens=tokens)

    def filled(self, rows: int) -> "Batch":
        """The same in one of a few shapes: filled up to `rows` by copies of the first row in which no label counts,
        targets padded to 1, 2, 4, 8, 16, 32, 48, … tokens.
        """
        B, T = self.labels.shape
        length, more = 1 << (T - 1).bit_length() if T <= 16 else -(-T // 16) * 16, max(0, rows - B)
        ids, mask, tasks, index = (
            torch.cat([t, t[:1].expand(more, *t.shape[1:])]) for t in (self.ids, self.mask, self.tasks, self.index)
        )
        labels = torch.nn.functional.pad(self.labels, (0, length - T, 0, more), value=IGNORED)
        return Batch(ids, mask, labels, tasks, index, self.tokens, self.full)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device. A GPU fetches it from pinned memory, and nobody waits for it."""
        cuda = torch.device(device).type == "cuda"

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            return (tensor.pin_memory() if cuda else tensor).to(device, non_blocking=True)

        ids, mask, labels, tasks, index = map(moved, (self.ids, self.mask, self.labels, self.tasks, self.index))
        return Batch(ids, mask, labels, tasks, index, self.tokens, self.full)


def batches(
    data: TokenSet, batch_size: int, seed: int | None, epoch: int = 0, window: int = 50, multiple: int = 8
) -> Iterator[Batch]:
    """One epoch: `bucketed` and then `collate`."""
    for index in bucketed(data.lengths, batch_size, seed, epoch, window):
        yield collate(data, index, multiple)


def bucketed(
    lengths: Sequence[int] | NDArray[np.int64],
    batch_size: int,
    seed: int | None,
    epoch: int = 0,
    window: int = 50,
) -> list[list[int]]:
    """One epoch's batches as positions, every position once: examples of like length share a batch.

    seed int: shuffle, sort by length inside windows of `window` batches, cut, shuffle the batches of each
    window: nearly no padding, and still a random order. seed None (evaluation): sort all, longest first,
    so that too little memory shows at once. The order depends on the arguments alone, so a resumed run can
    skip to batch k.
    """
    if batch_size < 1 or window < 1:
        raise AttemptError(f"expected a batch size of at least 1, found {batch_size} (window {window})")
    length = np.asarray(lengths, np.int64)
    if seed is None:
        return _cut(np.argsort(-length, kind="stable"), batch_size)
    rng = np.random.default_rng([seed % 2**64, epoch])
    order = rng.permutation(len(length))
    result: list[list[int]] = []
    for start in range(0, len(order), window * batch_size):
        part = order[start : start + window * batch_size]
        part = part[np.argsort(length[part], kind="stable")]
        cut = _cut(part, batch_size)
        result += [cut[i] for i in rng.permutation(len(cut))]
    return result


def epoch_rows(parts: NDArray[np.int64], cap: int | None, seed: int, epoch: int) -> NDArray[np.int64]:
    """The positions of an epoch's examples, in order: all, or at most `cap` of each task, drawn anew each epoch.

    parts: (N,) the number of an example's task. A task of n examples so has min(n, cap) of sum_k min(n_k, cap):
    examples-proportional mixing with an artificial size limit (Raffel et al. 2020, sec. 3.5.2; Vu et al. 2022).
    The draw depends on the seed, the epoch and the task alone, so a resumed run sees the same examples.
    """
    if cap is None:
        return np.arange(len(parts))
    rows = []
    for part in np.unique(parts):
        own = np.flatnonzero(parts == part)
        # 1 + part: NumPy takes [seed, epoch, 0] for [seed, epoch], the generator of the batches' order
        rng = np.random.default_rng([seed % 2**64, epoch, 1 + int(part)])
        rows.append(own if len(own) <= cap else np.sort(rng.choice(own, cap, replace=False)))
    return np.concatenate([np.empty(0, np.int64), *rows])


def step_rows(
    tokens: TokenSet, steps: int, batch_size: int, seed: int, cap: int | None = None, first: int = 0
) -> Iterator[list[int]]:
    """The examples of steps first, first+1, … steps-1: the same ones whether or not the run was interrupted."""
    step, epoch = 0, 0
    while True:
        rows = epoch_rows(tokens.parts, cap, seed, epoch)
        for batch in bucketed(tokens.lengths[rows], batch_size, seed, epoch):
            if step == steps:
                return
            if step >= first:
                yield rows[batch].tolist()
            step += 1
        epoch += 1


def collate(
    data: TokenSet,
    index: Sequence[int],
    multiple: int = 8,
    before: int = 0,
    ladder: bool = False,
    whole: Sequence[int] | None = None,
) -> Batch:
    """Pads the examples at `index`: sources to a multiple of `multiple` tokens, targets to the longest.

    Few distinct shapes suit compilers and tensor cores; the length never exceeds `data.max_source`.
    before: positions that stand before the text in the encoder, a prompt's: the sum is the multiple then.
    ladder: where each shape costs time to prepare, fewer of them: twice the multiple above 192 positions, four times
    above 256, eight times above 384.
    whole: the positions of the batch of which they are a part: it is padded as the whole is.
    """
    rows = np.asarray(index if whole is None else whole)
    longest = int((data.source_offsets[rows + 1] - data.source_offsets[rows]).max())
    targets = data.target_offsets[rows + 1] - data.target_offsets[rows]
    if ladder:
        multiple *= 1 << sum(before + longest > size for size in (192, 256, 384))
    rounded = math.ceil((before + longest) / multiple) * multiple - before
    S = min(rounded, max(longest, data.max_source))
    sources = [data.source(i) for i in index]
    lengths = torch.tensor([len(s) for s in sources])
    return Batch(
        ids=_pad(sources, S, PAD),
        mask=torch.arange(S)[None, :] < lengths[:, None],  # not ids != 0: a real token might have id 0
        labels=_pad([data.target(i) for i in index], int(targets.max()), IGNORED),
        tasks=torch.from_numpy(data.tasks[np.asarray(index)]),
        index=torch.tensor(list(index)),
        tokens=int(targets.sum()),
        full=bool((lengths == S).all()),
    )


def cut(
    data: TokenSet, index: Sequence[int], numbers: Sequence[int], of: int, before: int = 0, ladder: bool = False
) -> list[Batch]:
    """The parts of these numbers of the batch at `index`, which is cut into `of` parts of like size and one shape.

    A part that no example is left for has the batch's first one, with no label that would count: who computes it
    keeps step with the others.
    """
    result = []
    for number in numbers:
        rows = index[number::of]
        part = collate(data, rows or index[:1], before=before, ladder=ladder, whole=index)
        if not rows:
            part.labels.fill_(IGNORED)
        result.append(part)
    return result


def _cut(order: NDArray[np.int64], batch_size: int) -> list[list[int]]:
    return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]


def _pad(rows: list[Ids], length: int, value: int) -> torch.Tensor:
    """(B, length) int64"""
    out = np.full((len(rows), length), value, np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out)


def _flat(texts: list[str], encode: Encode, limit: int | None, eos: int) -> tuple[Ids, NDArray[np.int64], int]:
    """(all ids in a row, N + 1 offsets, how many texts were cut to `limit` tokens with the eos)"""
    chunks: list[Ids] = [np.empty(0, np.uint16)]
    lengths, cut = [0], 0
    for start in range(0, len(texts), CHUNK):
        flat: list[int] = []
        for ids in encode(texts[start : start + CHUNK]):
            kept = ids if limit is None else ids[: limit - 1]
            cut += len(kept) < len(ids)
            flat += kept
            flat.append(eos)
            lengths.append(len(kept) + 1)
        chunks.append(np.array(flat, np.uint16 if max(flat) < 1 << 16 else np.int32))
    return np.concatenate(chunks), np.cumsum(lengths, dtype=np.int64), cut


def _join_offsets(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Each set's offsets, moved behind the tokens of the sets before it."""
    return np.concatenate([[0], np.cumsum(np.concatenate([np.diff(p) for p in parts]))]).astype(np.int64)
