"""How an answer is read from a T5: written token by token, or the most probable of a few."""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.t5 import IGNORED, T5, PromptProvider


@torch.inference_mode()
def generate(
    t5: T5,
    ids: Tensor,
    mask: Tensor,
    max_length: int,
    prompt: PromptProvider | None = None,
    tasks: Tensor | None = None,
) -> Tensor:
    """Greedy answers (B,T), T at most max_length tokens: one that is not cut there ends in EOS, and is padded."""
    memory, memory_mask = t5.encoder(t5.embedding(ids), mask, prompt, tasks)
    caches = t5.decoder.new_caches()
    token = ids.new_full((ids.size(0), 1), t5.config.decoder_start_token_id)
    done = torch.zeros_like(token, dtype=torch.bool)
    answer: list[Tensor] = []
    while len(answer) < max_length and not t5.all_done(done):
        x = t5.decoder(t5.embedding(token), memory, memory_mask, caches, past=len(answer))
        token = t5.logits(x).argmax(-1).masked_fill(done, t5.config.pad_token_id)  # (B,1)
        done = done | (token == t5.config.eos_token_id)
        answer.append(token)
    return torch.cat(answer, dim=1)


@torch.inference_mode()
def label_scores(
    t5: T5,
    ids: Tensor,
    mask: Tensor,
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
