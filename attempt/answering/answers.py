"""Answers to examples, their scores, and the weights of the mixture that each example got.

Shapes: B batch, C labels, N examples, P prompts, T tokens of a label.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from attempt.answering.backbone import Backbone
from attempt.answering.splits import Split
from attempt.attention import deviation, entropy
from attempt.command.options import Options
from attempt.machine import distributed
from attempt.machine.signals import end_together
from attempt.prompt import SoftPrompt
from data.batches import Batch, TokenSet, bucketed, collate
from data.metrics import score
from data.tasks import TASKS, Task
from model.errors import AttemptError
from model.t5 import IGNORED


def evaluation_batches(
    backbone: Backbone, prompt: SoftPrompt | None, tokens: TokenSet, batch_size: int, what: str
) -> Iterator[Batch]:
    """This process's share of the batches, in order of length, under a progress bar on a terminal."""
    before = 0 if prompt is None else prompt.target.size(1)
    index = distributed.share_of(bucketed(tokens.lengths, batch_size, seed=None))
    for rows in tqdm(index, what, unit="batch", leave=False, disable=not sys.stderr.isatty()):
        end_together()
        yield collate(tokens, rows, before=before, ladder=backbone.graphs is not None)


def answer(
    backbone: Backbone,
    prompt: SoftPrompt | None,
    tokens: TokenSet,
    length: int,
    batch_size: int,
    labels: Sequence[str] = (),
) -> list[str]:
    """The greedy answer to each example, at most `length` tokens long; of `labels`, if any, the most probable."""
    answers: dict[int, str] = {}
    rows = label_ids(backbone, labels) if labels else None
    for index, found in found_by(backbone, prompt, tokens, length, batch_size, rows):
        if labels:
            texts = [labels[i] for i in found.argmax(1).tolist()]  # of equal ones the first
        else:
            texts = [backbone.tokenizer.decode(row) for row in found.tolist()]
        answers.update(zip(index, texts, strict=True))
    answers = distributed.merged(answers)
    return [answers[i] for i in range(len(tokens))]


def found_by(
    backbone: Backbone, prompt: SoftPrompt | None, tokens: TokenSet, length: int, batch_size: int, labels: Tensor | None
) -> Iterator[tuple[list[int], Tensor]]:
    """For each batch the examples' positions, and the log-probabilities (B,C) of `labels` (C,T).

    Without labels, greedy answers (B,T) of at most `length` tokens.
    """
    backbone.t5.eval()
    for batch in evaluation_batches(backbone, prompt, tokens, batch_size, "answering"):
        if labels is None:
            yield batch.index.tolist(), backbone.generate(prompt, batch, length, batch_size)
        else:
            yield batch.index.tolist(), backbone.label_scores(prompt, batch, labels, batch_size)


def label_ids(backbone: Backbone, labels: Sequence[str]) -> Tensor:
    """(C,T): the labels' tokens with EOS, padded with -100."""
    rows = [torch.tensor([*ids, backbone.tokenizer.eos]) for ids in backbone.tokenizer.encode_batch(list(labels))]
    return pad_sequence(rows, batch_first=True, padding_value=IGNORED)


@torch.inference_mode()
def instance_weights(backbone: Backbone, prompt: SoftPrompt | None, tokens: TokenSet) -> Tensor:
    """The mixture's weights for every example (N,P), the target's the last; of variant `token` the positions' mean."""
    if prompt is None or prompt.sources is None:
        raise AttemptError("expected a mixture of prompts to weigh (--method attempt), found a checkpoint without one")
    P = len(prompt.sources) + prompt.use_target
    weights = torch.zeros(len(tokens), P, device=backbone.machine.device)
    for part in evaluation_batches(backbone, prompt, tokens, 256, "weighing"):
        batch = part.to(backbone.machine.device)
        weights[batch.index] = prompt.weights(backbone.t5.embedding(batch.ids), batch.mask, batch.tasks)
    return distributed.take_largest(weights)  # each row is 0 in the processes that have not weighed it


def mixture_weights(backbone: Backbone, prompt: SoftPrompt | None, tokens: TokenSet) -> tuple[Tensor, dict[str, float]]:
    """The mixture's weights (P,), the target's the last, means over the examples; and what tells how they are spread.

    Their entropy in nats, a mean over the examples, and their deviation over these, a mean over the prompts.
    """
    weights = instance_weights(backbone, prompt, tokens)
    return weights.mean(0).cpu(), {"entropy": entropy(weights).item(), "deviation": deviation(weights).item()}


def show_pads(backbone: Backbone, prompt: SoftPrompt | None, options: Options) -> None:
    """Tell a G that pools padding what that is, and to which length the released program pads all texts of the run."""
    if prompt is not None and prompt.attention is not None and prompt.attention.pool_pads:
        pad = torch.tensor(backbone.t5.config.pad_token_id, device=backbone.machine.device)
        longest = max(TASKS.get(name, Task).max_source for name in options.task)
        prompt.attention.see_pads(backbone.t5.embedding(pad), options.max_source_length or longest)


def score_split(
    backbone: Backbone, prompt: SoftPrompt | None, split: Split, options: Options
) -> tuple[dict[str, Any], list[str]]:
    """The scores of a split, as metrics.jsonl and result.json hold them, and the answers themselves."""
    labels = split.task.label_texts(options.labels) if options.answer_by == "labels" else ()
    answers = answer(backbone, prompt, split.tokens, split.answer_length, options.eval_batch_size, labels)
    metrics = score(split.task, answers, split.examples, options.labels)
    invalid = metrics.pop("invalid")
    common = dict(Counter(answers).most_common(5))
    record = {"task": split.task.name, "split": split.name, "metrics": metrics, "invalid": invalid}
    return {**record, "examples": len(answers), "answers": common, "decoding": options.answer_by}, answers
