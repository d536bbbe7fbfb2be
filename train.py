"""Train soft prompts, and mixtures of them, for a frozen T5: python train.py --task mnli --method attempt"""

import dataclasses
import math
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from attempt.build import find_sources, new_prompt
from attempt.checkpoint import PromptConfig, load_prompt, save_prompt
from attempt.errors import AttemptError
from attempt.machine import Machine, choose_machine
from attempt.optimizer import Adafactor, learning_rate_factor
from attempt.options import Options, Plan, parse
from attempt.prompt import SoftPrompt
from attempt.run import Run
from data.batches import Batch, TokenSet, bucketed, collate
from data.download import Downloader
from data.tasks import Example, Task, get_task
from eval import describe, load_backbone, load_splits, mixture_weights, score_split, tokenize
from model.t5 import T5
from model.tokenizer import Tokenizer


def new_optimizer(options: Plan, prompt: SoftPrompt) -> torch.optim.Optimizer:
    rates = {"prompt": options.lr, "attention": options.attention_lr}
    groups = [
        {"params": parameters, "name": name, "lr": rates[name], "peak_lr": rates[name]}
        for name, parameters in prompt.parameter_groups().items()
    ]
    if options.optimizer == "adafactor":
        return Adafactor(groups, lr=options.lr, weight_decay=options.weight_decay)
    return torch.optim.AdamW(groups, lr=options.lr, weight_decay=options.weight_decay)


def training_batches(tokens: TokenSet, options: Plan, first: int) -> Iterator[Batch]:
    """The batches of steps first, first+1, … steps-1: the same ones whether or not the run was interrupted."""
    step, epoch = 0, 0
    while True:
        for rows in bucketed(tokens.lengths, options.batch_size, options.seed, epoch):
            if step == options.steps:
                return
            if step >= first:
                yield collate(tokens, rows)
            step += 1
        epoch += 1


class Trainer:
    """The training loop: steps, evaluations, and the state between them."""

    def __init__(
        self,
        options: Plan,
        machine: Machine,
        t5: T5,
        tokenizer: Tokenizer,
        prompt: SoftPrompt,
        config: PromptConfig,
        splits: dict[str, dict[str, list[Example]]],
        run: Run,
    ) -> None:
        self.options, self.machine, self.run = options, machine, run
        self.t5, self.tokenizer, self.prompt, self.config, self.splits = t5, tokenizer, prompt, config, splits
        self.optimizer = new_optimizer(options, prompt)
        self.scaler = machine.scaler()
        self.step, self.best, self.best_step, self.seconds = 0, -math.inf, 0, 0.0
        self.losses: list[Tensor] = []

    def train(self, tokens: TokenSet) -> None:
        """Run all steps that are left."""
        options, started = self.options, time.monotonic() - self.seconds
        bar = tqdm(total=options.steps, initial=self.step, unit="step", disable=not sys.stderr.isatty())
        self.t5.train()
        for batch in training_batches(tokens, options, self.step):
            self.train_step(batch.to(self.machine.device))
            bar.update()
            if self.step % options.log_every == 0:
                self.log_progress(bar)
            if self.step % options.eval_every == 0 or self.step == options.steps:
                self.seconds = time.monotonic() - started
                self.evaluate(bar)
                self.t5.train()
        bar.close()

    def train_step(self, batch: Batch) -> None:
        options = self.options
        factor = learning_rate_factor(self.step, options.steps, options.warmup, options.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        with self.machine.autocast():
            loss = self.t5.loss(batch.ids, batch.mask, batch.labels, self.prompt, batch.tasks)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if options.clip:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.prompt.parameters(), options.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.losses.append(loss.detach())  # read later: .item() here would make the GPU wait at every step
        self.step += 1

    def mean_loss(self, last: int | None = None) -> float:
        """Mean of the last losses, in nats per target token. Raises AttemptError if one is not finite."""
        losses = torch.stack(self.losses[-last:] if last else self.losses)
        if not losses.isfinite().all():
            raise AttemptError(
                f"the loss stopped being finite before step {self.step}: expected a number; "
                "try a smaller --lr, or --precision fp32; the last good prompt is in " + str(self.run.folder)
            )
        return losses.mean().item()

    def log_progress(self, bar: "tqdm[NoReturn]") -> None:
        loss, lr = self.mean_loss(self.options.log_every), self.optimizer.param_groups[0]["lr"]
        bar.set_postfix(loss=f"{loss:.3f}", lr=f"{lr:.3g}")
        if bar.disable:
            print(f"step {self.step}/{self.options.steps}: loss {loss:.4f} nats/token, lr {lr:.3g}", flush=True)

    def evaluate(self, bar: "tqdm[NoReturn]") -> None:
        """Score dev, keep the best prompt, save what is needed to go on."""
        loss = self.mean_loss()
        self.losses.clear()
        record: dict[str, Any] = {"step": self.step, "loss": loss, "lr": self.optimizer.param_groups[0]["lr"]}
        record["scores"] = self.score("dev")
        record["seconds"] = round(self.seconds, 1)
        selected = sum(next(iter(score["metrics"].values())) for score in record["scores"]) / len(record["scores"])
        record["best"] = selected > self.best
        if self.prompt.attention is not None:
            record["mixture"] = self.mixture()
        if record["best"]:
            self.best, self.best_step = selected, self.step
            save_prompt(self.run.best, self.prompt, self.config)
        self.run.append_metrics(record)
        self.save()
        for score in record["scores"]:
            star = " *" if record["best"] else ""
            bar.write(f"step {self.step}: loss {loss:.4f} nats/token; {describe(score)}{star}")
        for name, mixture in record.get("mixture", {}).items():
            weights = ", ".join(f"{source} {weight:.3f}" for source, weight in mixture["weights"].items())
            bar.write(f"    {name} mixes {weights} (entropy {mixture['entropy']:.3f} nats)")

    def score(self, split: str) -> list[dict[str, Any]]:
        return [
            score_split(
                self.t5,
                self.prompt,
                name,
                split,
                self.splits[name][split],
                self.tokenizer,
                self.machine,
                self.options,
                i,
            )[0]
            for i, name in enumerate(self.options.task)
        ]

    def mixture(self) -> dict[str, dict[str, Any]]:
        """For each task the mean weight of every prompt on dev, and the mean entropy in nats."""
        report = {}
        for i, name in enumerate(self.options.task):
            tokens = tokenize(self.splits[name]["dev"], self.options, self.tokenizer, i)
            weights, entropy = mixture_weights(self.t5, self.prompt, tokens, self.machine)
            names = [*self.config.sources, "target"]
            report[name] = {"weights": dict(zip(names, weights.tolist(), strict=True)), "entropy": entropy}
        return report

    def save(self) -> None:
        """What is needed to go on: the last prompt and the state around it."""
        save_prompt(self.run.last, self.prompt, self.config)
        self.run.save_state(
            {
                "step": self.step,
                "prompt": self.prompt.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state_all(),
                "best": self.best,
                "best_step": self.best_step,
                "seconds": self.seconds,
            }
        )

    def restore(self, state: dict[str, Any]) -> None:
        self.prompt.load_state_dict(state["prompt"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if len(state["cuda_rng"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        self.step, self.best, self.best_step = state["step"], state["best"], state["best_step"]
        self.seconds = state["seconds"]

    def finish(self) -> None:
        """Score the best prompt, as it lies on the disk, and write result.json."""
        self.prompt.load_state_dict(load_prompt(self.run.best)[0].state_dict())
        scores = self.score("dev") + self.score("test")
        result = {
            "task": self.options.task,
            "method": self.options.method,
            "model": self.options.model,
            "scores": scores,
            "best_step": self.best_step,
            "steps": self.options.steps,
            "trainable_parameters": count(self.prompt),
            "seconds": round(self.seconds, 1),
            "seed": self.options.seed,
            "device": str(self.machine),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        }
        self.run.write_json(self.run.result, result)
        for score in scores:
            print(f"best prompt (step {self.best_step}): {describe(score)}")
        print(f"all in {self.run.folder}: {', '.join(sorted(p.name for p in self.run.folder.iterdir()))}")


def count(prompt: SoftPrompt) -> int:
    return sum(p.numel() for group in prompt.parameter_groups().values() for p in group)


def summarize(trainer: Trainer, tokens: TokenSet) -> None:
    """What is about to happen."""
    options, config = trainer.options, trainer.t5.config
    for name, splits in trainer.splits.items():
        sizes = ", ".join(f"{split} {len(examples):,}" for split, examples in splits.items())
        print(f"task       {name}: {sizes} examples")
    if tokens.cut_sources or tokens.cut_targets:
        print(f"           cut: {tokens.cut_sources} texts to {options.max_source_length} tokens, "
              f"{tokens.cut_targets} answers to {options.max_target_length}")  # fmt: skip
    print(
        f"method     {options.method}, prompt of {options.prompt_length} x {config.d_model}, first value {options.init}"
    )
    if trainer.config.sources:
        print(f"sources    {', '.join(trainer.config.sources)}")
    print(f"model      {options.model}, {sum(p.numel() for p in trainer.t5.parameters()):,} frozen parameters")
    groups = [
        f"{group['name']} {sum(p.numel() for p in group['params']):,} (lr {group['peak_lr']:g})"
        for group in trainer.optimizer.param_groups
    ]
    print(f"trainable  {count(trainer.prompt):,} parameters: {', '.join(groups)}")
    epochs = options.steps * options.batch_size / len(tokens)
    print(f"training   {options.steps} steps of {options.batch_size} ({epochs:.1f} epochs), {options.optimizer}, "
          f"{options.schedule}, warm-up {options.warmup} steps, evaluation every {options.eval_every}")  # fmt: skip
    print(f"device     {trainer.machine}", flush=True)


def show_batch(trainer: Trainer, tokens: TokenSet) -> None:
    """The dry run: the first batch as the model will read it, and its loss."""
    batch = next(training_batches(tokens, trainer.options, 0)).to(trainer.machine.device)
    ids, labels = batch.ids[0][batch.mask[0]].tolist(), batch.labels[0][batch.labels[0] >= 0].tolist()
    with torch.no_grad(), trainer.machine.autocast():
        loss = trainer.t5.loss(batch.ids, batch.mask, batch.labels, trainer.prompt, batch.tasks)
    print(f"batch      ids {tuple(batch.ids.shape)}, labels {tuple(batch.labels.shape)}, loss {loss:.4f} nats/token")
    print(
        f"           source {trainer.tokenizer.decode(ids)!r}\n           target {trainer.tokenizer.decode(labels)!r}"
    )
    print("dry run: nothing was written")


def start(argv: Sequence[str] | None) -> None:
    options, resumed, dry_run = parse(argv)
    tasks = distinct_tasks(options)
    machine = choose_machine(options.device, options.precision)
    run = Run(options.folder())
    if resumed is None and not dry_run:
        run.check_empty()
    sources, source_names = (None, []) if resumed else find_sources(options)

    # model and data: strings -> ids
    downloader = Downloader(mirror=options.mirror, data_dir=Path(options.data_dir) if options.data_dir else None)
    t5, tokenizer = load_backbone(options, downloader, machine)
    splits = {task.name: load_splits(task.name, options, downloader) for task in tasks}
    tokens = TokenSet.join([tokenize(splits[t.name]["train"], options, tokenizer, i) for i, t in enumerate(tasks)])

    # attempt: what is trained
    torch.manual_seed(options.seed)  # of dropout; first values and the data's order have generators of their own
    if isinstance(options, Plan):  # resumed: the prompt has its sources with it, wherever their files are by now
        plan = options
        prompt, config = load_prompt(run.last)
    else:
        plan = Plan.complete(options, len(tokens), None if sources is None else sources.size(1))
        labels = [task.label_texts(options.labels) for task in tasks]
        prompt = new_prompt(plan, t5.embedding.weight.cpu(), tokenizer.encode_batch, labels, sources)
        temperature = prompt.attention.temperature if prompt.attention else None
        config = PromptConfig(plan.method, plan.model, plan.task, source_names, plan.labels, temperature)
    trainer = Trainer(plan, machine, t5, tokenizer, prompt.to(machine.device), config, splits, run)
    summarize(trainer, tokens)
    if dry_run:
        show_batch(trainer, tokens)
        return

    # all together
    if resumed:
        trainer.restore(run.load_state())
        print(f"resumed    {run.folder} at step {trainer.step}")
    else:
        run.create(dataclasses.asdict(plan))
        trainer.save()
    trainer.train(tokens)
    trainer.finish()


def distinct_tasks(options: Options) -> list[Task]:
    repeated = sorted({name for name in options.task if options.task.count(name) > 1})
    if repeated:
        raise AttemptError(f"--task: expected each task once, found {', '.join(repeated)} again")
    return [get_task(name) for name in options.task]


def main(argv: Sequence[str] | None = None) -> int:
    try:
        start(argv)
    except AttemptError as e:
        print(f"train.py: error: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
