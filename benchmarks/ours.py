"""This program as it is measured: in every form that it can take. To add a row to the tables, add a form."""

from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from attempt.answering.backbone import Backbone
from attempt.attention import PromptAttention
from attempt.baselines import METHODS as BASELINES
from attempt.baselines import TunedWeights
from attempt.machine.device import DTYPES, Machine, keep_memory
from attempt.machine.graphs import new_graphs
from attempt.prompt import SoftPrompt
from attempt.runs.plan import Plan
from attempt.training.trainer import Trainer
from benchmarks.peers import CLIP, LR, WEIGHT_DECAY, taken
from benchmarks.shapes import load
from data.batches import Batch
from model.config import T5Config
from model.fast import PLAIN, Forms, quicken
from model.tokenizer import Tokenizer

SOURCES, TASKS = 6, 8
METHODS = {
    "prompt": "prompt tuning",
    "attempt": f"ATTEMPT, {SOURCES} sources",
    "tasks": f"ATTEMPT, {SOURCES} sources, {TASKS} tasks share G",
    "finetune": "fine-tuning",
    "adapter": "adapters",
}


@dataclass(frozen=True)
class Form:
    """How the program computes."""

    what: str
    flags: dict[str, bool] = field(default_factory=dict)
    """train.py's, as options."""
    single: Forms | None = None
    """One of the faster forms by itself, for which there is no flag."""
    keeps_memory: bool = True
    gpu: bool = False
    """Elsewhere it is the same as another, or gains nothing."""


FORMS: dict[str, Form] = {
    "plain": Form("model/t5.py as it stands, the C library as it is", {"plain": True}, keeps_memory=False),
    "memory": Form("plain, with freed memory kept: train.py --plain", {"plain": True}),
    "kernel": Form("plain, attention in one kernel", single=replace(PLAIN, kernel=True)),
    "absorb": Form("plain, cross-attention without keys and values", single=replace(PLAIN, absorb=True)),
    "fuse": Form("plain, joined matrices with the norms' scales in them", single=replace(PLAIN, fuse=True)),
    "draws": Form("plain, four random numbers a draw", single=replace(PLAIN, dropout=True)),
    "all": Form("all of these, on a GPU in a graph: train.py"),
    "eager": Form("all, without graphs: --no-graphs", {"graphs": False}, gpu=True),
    "sequence": Form("all, dropout drawn once a sequence: --sequence-dropout", {"sequence_dropout": True}),
    "recompute": Form("all, blocks computed again on the way back: --recompute", {"recompute": True}),
    "compiled": Form("all but the draws, under torch.compile: --compile", {"compile": True}, gpu=True),
}
"""Each form between "memory" and "all" differs from "memory" in one thing: it keeps freed memory too."""


class Ours:
    """A run's Trainer on a T5 in one of the forms, for a method and its first prompt (L,D)."""

    def __init__(
        self,
        config: T5Config,
        state: dict[str, Tensor],
        prompt: Tensor,
        precision: str,
        form: str,
        method: str = "prompt",
        batch_size: int = 32,
    ) -> None:
        chosen, baseline = FORMS[form], method in BASELINES
        if baseline:  # a step changes them
            state = {name: weight.clone() for name, weight in state.items()}
        self.t5 = load(config, state)
        if chosen.keeps_memory and prompt.device.type == "cpu":
            keep_memory()
        self.trained = TunedWeights(self.t5, method) if baseline else soft_prompt(prompt, method)
        if isinstance(self.trained, TunedWeights):
            self.parameters = self.trained.weights
        else:
            self.parameters = dict(self.trained.named_parameters())
        flags: dict[str, Any] = chosen.flags if chosen.single is None else {"graphs": False}
        plan = Plan(
            task=["benchmark"],
            method=method if method != "tasks" else "attempt",
            prompt_length=0 if baseline else len(prompt),
            batch_size=batch_size,
            steps=2**40,  # so that the rate is constant
            lr=LR,
            attention_lr=LR,
            schedule="constant",
            weight_decay=WEIGHT_DECAY,
            clip=CLIP,
            **flags,
        )
        machine = Machine(prompt.device, precision, "as asked")
        if chosen.single is None:
            machine.quicken(self.t5, plan)
        else:
            quicken(self.t5, chosen.single, DTYPES[precision])
        graphs = new_graphs(machine, plan)
        self.trainer = Trainer(plan, self.t5, machine, self.trained, graphs)
        self.backbone = Backbone(self.t5, cast(Tokenizer, None), machine, graphs)

    @property
    def prompt(self) -> nn.Parameter:
        """(K,L,D)"""
        return self.parameters["target"]

    def set_dropout(self, rate: float) -> None:
        self.t5.set_dropout(rate)

    def loss(self, batch: Batch) -> Tensor:
        self.t5.train()
        return self.trainer.loss(batch.to(self.trainer.machine.device))

    def gradient(self) -> Tensor:
        """Of what is trained, a sample of it, and forget it."""
        return taken(self.parameters)

    def step(self, batch: Batch) -> None:
        """As train.py takes it: from a batch that lies in the host's memory."""
        self.t5.train()
        self.trainer.train_step(batch)

    def generate(self, batch: Batch, length: int) -> Tensor:
        """Greedy answers (B,T), as eval.py writes them."""
        self.t5.eval()
        return self.backbone.generate(self.trained.prompt, batch, length, self.trainer.options.batch_size)

    @torch.inference_mode()
    def label_scores(self, batch: Batch, labels: Tensor) -> Tensor:
        """The log-probabilities (B,C) of labels (C,T)."""
        self.t5.eval()
        labels = labels.to(self.trainer.machine.device)
        return self.backbone.label_scores(self.trained.prompt, batch, labels, self.trainer.options.batch_size)


def soft_prompt(prompt: Tensor, method: str) -> SoftPrompt:
    """The prompt; of ATTEMPT with random sources and G too; of several tasks, one each, near it."""
    draw = torch.Generator().manual_seed(3)

    def noise(count: int) -> Tensor:
        return torch.randn(count, *prompt.shape, generator=draw).to(prompt.device)

    if method == "prompt":
        return SoftPrompt(prompt[None]).to(prompt.device)
    target = prompt + 0.1 * noise(TASKS) if method == "tasks" else prompt[None]
    attention = PromptAttention(prompt.size(1)).reset(draw)
    return SoftPrompt(target, noise(SOURCES), attention).to(prompt.device)
