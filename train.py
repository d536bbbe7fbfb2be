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
from attempt.command import parse
from attempt.errors import AttemptError
from attempt.optimizer import Adafactor, learning_rate_factor
from attempt.options import Options, Plan
from attempt.prompt import SoftPrompt
from attempt.run import Run
from data.batches import Batch, TokenSet, bucketed, collate, epoch_rows
from data.download import Downloader
from data.tasks import Task, describe_tasks
from eval import Backbone, Split, describe, find_task, load_splits, mixture_weights, score_split
from model.checkpoint import NAMES


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
        rows = epoch_rows(tokens.tasks, options.mixing_cap, options.seed, epoch)
        for batch in bucketed(tokens.lengths[rows], options.batch_size, options.seed, epoch):
            if step == options.steps:
                return
            if step >= first:
                yield collate(tokens, rows[batch].tolist())
            step += 1
        epoch += 1


class Trainer:
    """The training loop: steps, evaluations, and the state between them."""

    def __init__(
        self,
        options: Plan,
        backbone: Backbone,
        prompt: SoftPrompt,
        config: PromptConfig,
        splits: list[dict[str, Split]],
    ) -> None:
        self.options, self.backbone, self.t5, self.machine = options, backbone, backbone.t5, backbone.machine
        self.prompt, self.config, self.splits = prompt.to(backbone.machine.device), config, splits
        self.run = Run(options.folder())
        self.optimizer = new_optimizer(options, prompt)
        self.scaler = backbone.machine.scaler()
        self.tokens = TokenSet.join([task["train"].tokens for task in splits])
        self.losses: list[Tensor] = []
        self.step, self.seconds = 0, 0.0
        self.best, self.best_step = -math.inf, 0
        self.best_scores: list[dict[str, Any]] = []

    def train(self) -> None:
        """Run all steps that are left."""
        options, started = self.options, time.monotonic() - self.seconds
        bar = tqdm(total=options.steps, initial=self.step, unit="step", disable=not sys.stderr.isatty())
        self.t5.train()
        for batch in training_batches(self.tokens, options, self.step):
            if options.patience and self.step - self.best_step >= options.patience * options.eval_every:
                bar.write(f"step {self.step}: no better score in {options.patience} evaluations, stopped early")
                break
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
        loss = self.loss(batch)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if options.clip:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.prompt.parameters(), options.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.losses.append(loss.detach())  # read later: .item() here would make the GPU wait at every step
        self.step += 1

    def loss(self, batch: Batch) -> Tensor:
        with self.machine.autocast():
            return self.t5.loss(batch.ids, batch.mask, batch.labels, self.prompt, batch.tasks)

    def mean_loss(self, last: int | None = None) -> float:
        """Mean of the last losses, in nats per target token. Raises AttemptError if one is not finite."""
        losses = torch.stack(self.losses[-last:] if last else self.losses)
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            step = self.step - len(losses) + 1 + int(bad[0])
            raise AttemptError(
                f"step {step}: expected a finite loss, found {losses[bad[0]].item()}; try a smaller --lr or "
                f"--precision fp32; the prompts up to the last evaluation are in {self.run.folder}"
            )
        return losses.mean().item()

    def log_progress(self, bar: "tqdm[NoReturn]") -> None:
        loss, lr = self.mean_loss(self.options.log_every), self.optimizer.param_groups[0]["lr"]
        bar.set_postfix(loss=f"{loss:.3f}", lr=f"{lr:.3g}")
        if bar.disable:
            print(f"step {self.step}/{self.options.steps}: loss {loss:.4f} nats/token, lr {lr:.3g}", flush=True)

    def evaluate(self, bar: "tqdm[NoReturn]") -> None:
        """Score dev, keep the best prompt, save what is needed to go on."""
        loss, lr = self.mean_loss(), self.optimizer.param_groups[0]["lr"]
        self.losses.clear()
        scores = self.score("dev")
        # with several tasks, the best prompts are those with the best mean of the tasks' first metrics
        selected = sum(next(iter(score["metrics"].values())) for score in scores) / len(scores)
        record = {"step": self.step, "loss": loss, "lr": lr, "scores": scores, "best": selected > self.best}
        record["seconds"] = round(self.seconds, 1)
        if self.prompt.attention is not None:
            record["mixture"] = self.mixture()
        if record["best"]:
            self.best, self.best_step, self.best_scores = selected, self.step, scores
            save_prompt(self.run.best, self.prompt, self.config)
        self.run.append_metrics(record)
        self.save()
        for score in scores:
            bar.write(f"step {self.step}: loss {loss:.4f} nats/token; {describe(score)}{' *' * record['best']}")
        for name, mixture in record.get("mixture", {}).items():
            weights = ", ".join(f"{source} {weight:.3f}" for source, weight in mixture["weights"].items())
            bar.write(f"    {name} mixes {weights} (entropy {mixture['entropy']:.3f} nats)")
        sys.stdout.flush()

    def score(self, split: str) -> list[dict[str, Any]]:
        return [score_split(self.backbone, self.prompt, task[split], self.options)[0] for task in self.splits]

    def mixture(self) -> dict[str, dict[str, Any]]:
        """For each task the mean weight of every prompt on dev, and the mean entropy in nats."""
        report = {}
        for task in self.splits:
            weights, nats = mixture_weights(self.backbone, self.prompt, task["dev"].tokens)
            names = [*self.config.sources, *(["target"] if self.prompt.use_target else [])]
            report[task["dev"].task.name] = {
                "weights": dict(zip(names, weights.tolist(), strict=True)),
                "entropy": nats,
            }
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
                "best_scores": self.best_scores,
                "seconds": self.seconds,
            }
        )

    def restore(self, state: dict[str, Any]) -> None:
        try:
            self.prompt.load_state_dict(state["prompt"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            torch.set_rng_state(state["rng"])
            if len(state["cuda_rng"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(state["cuda_rng"])
            self.step, self.seconds = state["step"], state["seconds"]
            self.best, self.best_step, self.best_scores = state["best"], state["best_step"], state["best_scores"]
        except (KeyError, ValueError, RuntimeError, TypeError) as e:
            problem = " ".join(f"{type(e).__name__}: {e}".split())
            raise AttemptError(f"{self.run.state}: expected the state of this run, found another ({problem})") from None

    def finish(self) -> None:
        """Score the best prompt, as it lies on the disk, and write result.json."""
        self.prompt.load_state_dict(load_prompt(self.run.best)[0].state_dict())
        scores = self.best_scores + self.score("test")
        result = {
            "task": self.options.task,
            "method": self.options.method,
            "model": self.options.model,
            "scores": scores,
            "best_step": self.best_step,
            "steps": self.step,
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


def summarize(trainer: Trainer) -> None:
    """What is about to happen."""
    options, config, tokens = trainer.options, trainer.t5.config, trainer.tokens
    lines = []
    for task in trainer.splits:
        sizes = ", ".join(f"{split} {len(task[split].examples):,}" for split in task)
        lines.append(f"task       {task['train'].task.name}: {sizes} examples")
        if task["train"].task.split == "given":
            answers = ", ".join(task["train"].task.labels)
            lines.append(f"           its answers are {f'the labels {answers}' if answers else 'free text'}")
    if tokens.cut_sources:
        lines.append(f"           {tokens.cut_sources:,} training texts are cut to {options.max_source_length} tokens")
    if tokens.cut_targets:
        lines.append(f"           {tokens.cut_targets:,} answers are cut to {options.max_target_length} tokens")
    length = f"prompt of {options.prompt_length} x {config.d_model}"
    lines.append(f"method     {options.method}, {length}, first value {options.init}")
    if trainer.config.sources:
        lines.append(f"sources    {', '.join(trainer.config.sources)}")
    frozen = sum(p.numel() for p in trainer.t5.parameters())
    lines.append(f"model      {options.model}, {frozen:,} frozen parameters")
    groups = [
        f"{group['name']} {sum(p.numel() for p in group['params']):,} (lr {group['peak_lr']:g})"
        for group in trainer.optimizer.param_groups
    ]
    lines.append(f"trainable  {count(trainer.prompt):,} parameters: {', '.join(groups)}")
    epochs = options.steps * options.batch_size / options.epoch_examples(np.bincount(tokens.tasks).tolist())
    lines.append(f"training   {options.steps} steps of {options.batch_size} examples ({epochs:.2g} epochs)")
    lines.append(f"           {options.optimizer}, {options.schedule} rate, warm-up {options.warmup} steps")
    lines.append(f"           evaluation every {options.eval_every} steps")
    lines.append(f"device     {trainer.machine}")
    print("\n".join(lines), flush=True)


def show_batch(trainer: Trainer) -> None:
    """The dry run: the first batch as the model will read it, and its loss."""
    batch = next(training_batches(trainer.tokens, trainer.options, 0)).to(trainer.machine.device)
    with torch.no_grad():
        loss = trainer.loss(batch)
    decode = trainer.backbone.tokenizer.decode
    print(f"batch      ids {tuple(batch.ids.shape)}, labels {tuple(batch.labels.shape)}, loss {loss:.4f} nats/token")
    print(f"           source {decode(batch.ids[0][batch.mask[0]].tolist())!r}")
    print(f"           target {decode(batch.labels[0][batch.labels[0] >= 0].tolist())!r}")
    print("dry run: nothing was trained, no run folder was written")


def start(argv: Sequence[str] | None) -> None:
    options, dry_run = parse(argv, {"tasks": describe_tasks(), "models": "\n".join(NAMES)})
    tasks = distinct_tasks(options)
    run = Run(options.folder())
    resumed = isinstance(options, Plan)
    if not (resumed or dry_run):
        run.check_empty()
    sources, source_names = (None, []) if resumed else find_sources(options)

    # the frozen model, and the data as ids
    downloader = Downloader(mirror=options.mirror, data_dir=Path(options.data_dir) if options.data_dir else None)
    backbone = Backbone.load(options, downloader)
    splits = [
        load_splits(task.name, number, ("train", "dev", "test"), options, downloader, backbone.tokenizer)
        for number, task in enumerate(tasks)
    ]

    # what is trained
    torch.manual_seed(options.seed)  # of dropout; first values and the data's order have generators of their own
    if isinstance(options, Plan):  # resumed: the prompt has its sources with it, wherever their files are by now
        plan = options
        prompt, config = load_prompt(run.last)
    else:
        examples = options.epoch_examples([len(task["train"].examples) for task in splits])
        plan = Plan.complete(options, examples, None if sources is None else sources.size(1))
        labels = [task.label_texts(options.labels) for task in tasks]
        embedding = backbone.t5.embedding.weight.cpu()
        prompt = new_prompt(plan, embedding, backbone.tokenizer.encode_batch, labels, sources)
        config = PromptConfig(plan.method, plan.model, plan.task, source_names, plan.labels)

    # all together
    trainer = Trainer(plan, backbone, prompt, config, splits)
    summarize(trainer)
    if dry_run:
        show_batch(trainer)
        return
    if resumed:
        trainer.restore(run.load_state())
        print(f"resumed    {run.folder} at step {trainer.step}")
    else:
        run.create(dataclasses.asdict(plan))
        trainer.save()
    trainer.train()
    trainer.finish()


def distinct_tasks(options: Options) -> list[Task]:
    repeated = sorted({name for name in options.task if options.task.count(name) > 1})
    if repeated:
        raise AttemptError(f"--task: expected each task once, found {', '.join(repeated)} again")
    return [find_task(name, options) for name in options.task]


def main(argv: Sequence[str] | None = None) -> int:
    try:
        start(argv)
    except AttemptError as e:
        print(f"train.py: error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: --resume goes on from the last evaluation", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
