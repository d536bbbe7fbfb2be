"""This program as it is measured: in every form that it can take. To add a row to the tables, add a form."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attempt.machine import DTYPES, Machine
from attempt.plan import Plan
from attempt.prompt import SoftPrompt
from attempt.trainer import Trainer
from benchmarks.peers import CLIP, LR, WEIGHT_DECAY
from benchmarks.shapes import load
from data.batches import Batch
from model.config import T5Config
from model.decoding import generate, label_scores
from model.t5 import T5


@dataclass(frozen=True)
class Form:
    """How a T5 that was just loaded is changed before it is measured."""

    what: str
    change: Callable[[T5, torch.dtype], object]
    """Is given the T5 and the dtype of its matrix products."""


FORMS: dict[str, Form] = {
    "plain": Form("the modules of model/t5.py as they stand", lambda t5, dtype: None),
    "compiled": Form("the same under torch.compile", lambda t5, dtype: t5.compile()),
}


class Ours:
    """A run's Trainer on a T5 in one of the forms, with a prompt (L,D)."""

    def __init__(self, config: T5Config, state: dict[str, Tensor], prompt: Tensor, precision: str, form: str) -> None:
        self.t5 = load(config, state)
        FORMS[form].change(self.t5, DTYPES[precision])
        self.soft = SoftPrompt(prompt[None]).to(prompt.device)
        plan = Plan(
            task=["benchmark"],
            method="prompt",
            prompt_length=len(prompt),
            steps=2**40,  # so that the rate is constant
            lr=LR,
            schedule="constant",
            weight_decay=WEIGHT_DECAY,
            clip=CLIP,
        )
        self.trainer = Trainer(plan, self.t5, Machine(prompt.device, precision, "as asked"), self.soft)

    def set_dropout(self, rate: float) -> None:
        self.t5.set_dropout(rate)

    def loss(self, batch: Batch) -> Tensor:
        self.t5.train()
        return self.trainer.loss(batch)

    def gradient(self) -> Tensor:
        """Of the prompt (L,D), and forget it."""
        found, self.soft.target.grad = self.soft.target.grad, None
        assert found is not None
        return found[0]

    def step(self, batch: Batch) -> None:
        self.t5.train()
        self.trainer.train_step(batch)

    def generate(self, batch: Batch, length: int) -> Tensor:
        """Greedy answers (B,T)."""
        self.t5.eval()
        with self.trainer.machine.autocast():
            return generate(self.t5, batch.ids, batch.mask, length, self.soft, batch.tasks)

    @torch.inference_mode()
    def label_scores(self, batch: Batch, labels: Tensor) -> Tensor:
        """The log-probabilities (B,C) of labels (C,T)."""
        self.t5.eval()
        with self.trainer.machine.autocast():
            return label_scores(self.t5, batch.ids, batch.mask, labels, self.soft, batch.tasks)
