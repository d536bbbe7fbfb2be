"""How an answer is read from a T5: written token by token, or the most probable of a few."""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.t5 import IGNORED, T5, PromptProvider


class Writer:
    """Greedy answers to B texts, written a token at a time in tensors that stay where they are.

    position (1,) of the next token; token (B,1) the last ones; done (B,1) whether an answer has ended; answers
    (B,max_length), padded.
    """

    def __init__(
        self,
        t5: T5,
        ids: Tensor,
        mask: Tensor | None,
        max_length: int,
        prompt: PromptProvider | None = None,
        tasks: Tensor | None = None,
    ) -> None:
        self.t5, config = t5, t5.config
        self.memory, self.memory_mask = t5.encoder(t5.embedding(ids), mask, prompt, tasks)
        self.position = ids.new_zeros(1)
        self.caches = t5.decoder.new_caches(max_length, self.position)
        self.token = ids.new_full((ids.size(0), 1), config.decoder_start_token_id)
        self.done = torch.zeros_like(self.token, dtype=torch.bool)
        self.answers = ids.new_full((ids.size(0), max_length), config.pad_token_id)

    def write(self) -> None:
        """One more token of each answer."""
        t5 = self.t5
        x = t5.decoder(t5.embedding(self.token), self.memory, self.memory_mask, self.caches)
        self.token.copy_(t5.logits(x).argmax(-1).masked_fill_(self.done, t5.config.pad_token_id))
        self.answers.index_copy_(1, self.position, self.token)
        self.done |= self.token == t5.config.eos_token_id
        self.position += 1


@torch.inference_mode()
def generate(
    t5: T5,
    ids: Tensor,
    mask: Tensor | None,
    max_length: int,
    prompt: PromptProvider | None = None,
    tasks: Tensor | None = None,
) -> Tensor:
    """Greedy answers (B,T), T at most max_length tokens: one that is not cut there ends in EOS, and is padded."""
    writer, written = Writer(t5, ids, mask, max_length, prompt, tasks), 0
    while written < max_length and not t5.all_done(writer.done):
        writer.write()
        written += 1
    return writer.answers[:, :written]


@torch.inference_mode()
def label_scores(
    t5: T5,
    ids: Tensor,
    mask: Tensor | None,
    labels: Tensor,
    prompt: PromptProvider | None = None,
    tasks: Tensor | None = None,
) -> Tensor:
    """The log-probability of each label after each text, (B,C) in nats; ids, mask and tasks as in T5.forward.

    labels (C,T): their tokens with EOS, padded with -100. The encoder and the decoder run once: a text's labels stand
    in one row before the decoder, so that they share the encoder's states and what cross-attention makes of them.
    """
    memory, memory_mask = t5.encoder(t5.embedding(ids), mask, prompt, tasks)
    E = t5.embedding(t5.shift_right(labels)).flatten(0, 1).expand(len(ids), -1, -1)  # (B,C*T,D)
    x = t5.decoder(E, memory, memory_mask, answers=len(labels)).unflatten(1, labels.shape)  # (B,C,T,D)
    scores = []
    for c, label in enumerate(labels):  # the head for one after the other: (B,C,T,V) would be large
        # log p(label) = sum_t log p(label_t | label_1 ... label_t-1, text)
        logits = t5.logits(x[:, c]).float().transpose(1, 2)  # (B,V,T)
        losses = F.cross_entropy(logits, label.expand(len(ids), -1), ignore_index=IGNORED, reduction="none")
        scores.append(-losses.sum(1))
    return torch.stack(scores, dim=1)
