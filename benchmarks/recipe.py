"""The usual recipe of prompt tuning with transformers and peft: pad every text to 256 tokens, generate 10."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.peer_tokenizer import hugging_face_tokenizer
from benchmarks.peers import Peer
from data.tasks import Example
from model.checkpoint import load_t5

PADDED, GENERATED = 256, 10


@dataclass
class Padded:
    """A batch, all texts of PADDED tokens."""

    ids: Tensor  # (B,S)
    mask: Tensor  # (B,S)
    labels: Tensor  # (B,T)


class Recipe:
    """A PEFT model and what is around it, for a checkpoint in a folder and a first prompt (L,D)."""

    def __init__(self, folder: Path, prompt: Tensor, precision: str, lr: float, steps: int) -> None:
        self.tokenizer: Any = hugging_face_tokenizer(folder / "spiece.model")
        t5 = load_t5(folder)
        state = {name: weight.detach().to(prompt.device) for name, weight in t5.named_parameters()}
        self.peer = Peer(t5.config, state, prompt, precision)
        self.peer.optimizer.param_groups[0]["lr"] = lr
        warm: Any = import_module("transformers").get_linear_schedule_with_warmup
        self.schedule = warm(self.peer.optimizer, steps // 10, steps)

    def encode(self, examples: list[Example]) -> list[dict[str, Any]]:
        """Rows of input_ids and attention_mask of PADDED tokens, and of labels with -100 for padding."""
        found = self.tokenizer([e.source for e in examples], padding="max_length", max_length=PADDED, truncation=True)
        targets = self.tokenizer([e.target for e in examples], padding=True)["input_ids"]
        labels = [[i if i != self.tokenizer.pad_token_id else -100 for i in row] for row in targets]
        columns = (found["input_ids"], found["attention_mask"], labels)
        return [{"ids": i, "mask": m, "labels": y} for i, m, y in zip(*columns, strict=True)]

    def batches(self, rows: list[dict[str, Any]], batch_size: int, shuffle: bool) -> Iterator[Padded]:
        def collated(part: list[dict[str, Any]]) -> Padded:
            ids, mask, labels = (torch.tensor([row[name] for row in part]) for name in ("ids", "mask", "labels"))
            return Padded(ids.to(self.peer.device), mask.to(self.peer.device).bool(), labels.to(self.peer.device))

        return iter(DataLoader(rows, batch_size, shuffle=shuffle, collate_fn=collated))  # type: ignore[arg-type]

    def step(self, batch: Padded) -> None:
        self.peer.step(batch)
        self.schedule.step()

    def answer(self, rows: list[dict[str, Any]], batch_size: int) -> list[str]:
        answers: list[str] = []
        for batch in self.batches(rows, batch_size, shuffle=False):
            answers += self.tokenizer.batch_decode(self.peer.generate(batch, GENERATED), skip_special_tokens=True)
        return answers
