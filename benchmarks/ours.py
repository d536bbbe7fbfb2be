"""This program as it is measured: in every form that it can take. To add a row to the tables, add a form."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attempt.machine import DTYPES, Machine, compile_t5, keep_memory
from attempt.plan import Plan
from attempt.prompt import SoftPrompt
from attempt.trainer import Trainer
from benchmarks.peers import CLIP, LR, WEIGHT_DECAY
from benchmarks.shapes import load
from data.batches import Batch
from model.config import T5Config
from model.decoding import generate, label_scores
from model.fast import PLAIN, Forms, quicken


@dataclass(frozen=True)
class Form:
    """How the program computes: train.py's flags for it, and which of its faster forms it takes."""

    what: str
    forms: Forms = PLAIN
    keeps_memory: bool = True
    recompute: bool = False
    compiled: bool = False


FORMS: dict[str, Form] = {
    "plain": Form("model/t5.py as it stands, the C library as it is", keeps_memory=False),
    "memory": Form("plain, with freed memory kept: train.py --plain"),
    "kernel": Form("plain, attention in one kernel", replace(PLAIN, kernel=True)),
    "absorb": Form("plain, cross-attention without keys and values", replace(PLAIN, absorb=True)),
    "fuse": Form("plain, joined matrices with the norms' scales in them", replace(PLAIN, fuse=True)),
    "draws": Form("plain, four random numbers a draw", replace(PLAIN, dropout=True)),
    "all": Form("all of these: train.py", Forms()),
    "sequence": Form("all, dropout drawn once a sequence: --sequence-dropout", Forms(sequence_dropout=True)),
    "recompute": Form("all, blocks computed again on the way back: --recompute", Forms(), recompute=True),
    "compiled": Form("all but the draws, under torch.compile: --compile", Forms(dropout=False), compiled=True),
}
"""Each form between "memory" and "all" differs from "memory" in one thing: it keeps freed memory too."""


class Ours:
    """A run's Trainer on a T5 in one of the forms, with a prompt (L,D)."""

    def __init__(self, config: T5Config, state: dict[str, Tensor], prompt: Tensor, precision: str, form: str) -> None:
        self.t5, chosen = load(config, state), FORMS[form]
        if chosen.keeps_memory and prompt.device.type == "cpu":
            keep_memory()
        quicken(self.t5, chosen.forms, DTYPES["fp32" if chosen.forms == PLAIN else precision])
        self.t5.encoder.recompute = chosen.recompute
        if chosen.compiled:
            compile_t5(self.t5)
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
