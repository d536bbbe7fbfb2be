"""A run with all that it needs, and what happens in it between the steps: evaluations, records, checkpoints."""

import platform
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from tqdm import tqdm

from attempt.answering.answers import mixture_weights, score_split
from attempt.answering.backbone import Backbone
from attempt.answering.splits import Split
from attempt.attention import deviation
from attempt.checkpoint import PromptConfig, reload_trained, save_trained
from attempt.command.source import described
from attempt.machine import distributed
from attempt.machine.device import memory_told
from attempt.machine.signals import Signals
from attempt.runs.folder import Run
from attempt.runs.plan import Plan
from attempt.runs.report import describe, evaluation_lines, first_metrics, flat_line, mixture_of
from attempt.training.guards import Guards
from attempt.training.logs import Logs
from attempt.training.progress import Progress
from attempt.training.summary import batch_lines, example_lines, summary
from attempt.training.trainer import Trainer, count
from data.batches import Batch, TokenSet, collate, cut, step_rows
from data.metrics import constant_score
from model.errors import Interrupted


def training_batches(tokens: TokenSet, options: Plan, first: int, ladder: bool = False) -> Iterator[list[Batch]]:
    """For each step from `first` on, the parts of its batch that are this process's; `ladder` as in `collate`."""
    own = range(distributed.rank() * options.accumulate, (distributed.rank() + 1) * options.accumulate)
    for rows in training_rows(tokens, options, first):
        yield cut(tokens, rows, own, distributed.size() * options.accumulate, options.prompt_length, ladder)


def training_rows(tokens: TokenSet, options: Plan, first: int) -> Iterator[list[int]]:
    return step_rows(tokens, options.steps, options.batch_size, options.seed, options.mixing_cap, first)


@dataclass
class Job:
    """A run with all that it needs."""

    options: Plan
    backbone: Backbone
    splits: list[dict[str, Split]]
    """For each task its train, dev and test set."""
    tokens: TokenSet
    """The training sets of all tasks."""
    trainer: Trainer
    config: PromptConfig
    run: Run
    frozen: tuple[int, int]
    """How many of the T5's parameters are not trained, and how many of them this process holds."""
    guards: Guards
    logs: Logs
    started: float = 0.0
    """When it would have begun, had it never been interrupted: on the clock of time.monotonic."""

    def summarize(self) -> None:
        """Say what is about to happen."""
        sources, cut_targets = self.config.sources, self.tokens.cut_targets
        print(summary(self.options, self.trainer, self.splits, sources, self.frozen, cut_targets), flush=True)

    def show_batch(self) -> None:
        """The dry run: an example of each task, and the first batch, as the model will read them, and its loss."""
        options, decode = self.options, self.backbone.tokenizer.decode
        for name, task in zip(options.task, self.splits, strict=True):
            tokens = task["train"].tokens
            print(example_lines(name, tokens.source(0).tolist(), tokens.target(0).tolist(), decode))
        rows = next(training_rows(self.tokens, options, 0))
        batch = collate(self.tokens, rows, before=options.prompt_length).to(self.trainer.machine.device)
        with torch.no_grad():
            loss = self.trainer.loss(batch)
        names = [options.task[self.tokens.parts[row]] for row in batch.index.tolist()]
        print(batch_lines(batch, names, options.prompt_length, loss, self.backbone.t5.config.vocab_size, decode))
        print("dry run: nothing was trained, no run folder was written")

    def begin(self, resumed: bool) -> None:
        """Write the run's folder, or go back to the state that was saved last in it."""
        if resumed:
            processes = self.trainer.restore(self.run.load_state())
            self.run.create(self.options)  # which --change may have changed
            print(f"resumed    {self.run.folder} at step {self.trainer.step}")
            if (now := distributed.size()) != processes:
                print(f"           saved by {processes} processes, now {now}: dropout draws other numbers")
        else:
            self.run.create(self.options)
        self.started = time.monotonic() - self.trainer.seconds
        if not resumed:
            self.save()

    def memory_told(self) -> AbstractContextManager[None]:
        """Where the memory does not suffice, say with what, and what is saved."""
        tried = f"--batch-size {self.options.batch_size}, --eval-batch-size {self.options.eval_batch_size}"
        saved = "; what was saved last is still whole: --resume goes on with other --batch-size by --change"
        return memory_told(f"{tried} and texts of up to {self.tokens.lengths.max()} tokens", saved)

    def progress(self) -> Progress:
        """The last batch of an epoch may be smaller than the others: its examples are the mean."""
        sizes = [len(task["train"].examples) for task in self.splits]
        examples = self.options.epoch_examples(sizes) / self.options.epoch_steps(sizes)
        return Progress(self.options, self.trainer.step, examples)

    def evaluation_is_due(self) -> bool:
        step = self.trainer.step
        return step != self.trainer.evaluated and (step % self.options.eval_every == 0 or step == self.options.steps)

    def patience_is_over(self, bar: "tqdm[NoReturn]") -> bool:
        step, patience = self.trainer.step, self.options.patience
        over = patience is not None and step - self.trainer.best_step >= patience * self.options.eval_every
        if over:
            bar.write(f"step {step}: no better score in {patience} evaluations, stopped early")
        return over

    def log_progress(self, progress: Progress) -> None:
        self.guards.check_finite()
        trainer = self.trainer
        loss = trainer.mean_loss(self.options.log_every)
        progress.measure(trainer.step)
        progress.log(trainer.step, loss, trainer.lr)
        figures = {"train/loss": loss, "train/lr": trainer.lr, "train/examples per second": progress.rate}
        self.logs.write(trainer.step, figures)

    def evaluate(self, progress: Progress, signals: Signals) -> None:
        """Score dev, keep the best checkpoint, save what is needed to go on."""
        self.guards.check_finite()
        self.guards.check_progress()
        trainer, loss = self.trainer, self.trainer.mean_loss()
        progress.measure(trainer.step)
        try:
            with signals.may_end_at_once():
                scores = self.score("dev")
                mixture = self.mixture() if self.config.method == "attempt" else {}
        except Interrupted:
            self.save()  # the run goes on with this evaluation
            raise
        trainer.losses.clear()
        trainer.norms.clear()
        trainer.evaluated, trainer.seconds = trainer.step, time.monotonic() - self.started
        selected = first_metrics(scores)  # with several tasks, the mean of their first metrics decides
        record: dict[str, Any] = {"step": trainer.step, "loss": loss, "lr": trainer.lr, "scores": scores}
        record |= {"best": selected > trainer.best, "seconds": round(trainer.seconds, 1), **self.guards.skipped()}
        record |= mixture
        if record["best"]:
            trainer.best, trainer.best_step, trainer.best_scores = selected, trainer.step, scores
            self.save_trained(self.run.best)
        self.run.append_metrics(record)
        self.logs.write_record(record)
        self.save()
        progress.evaluated()
        for line in evaluation_lines(record):
            progress.bar.write(line)
        if skipped := self.guards.skipped_line():
            progress.bar.write(f"    {skipped}, see {self.run.metrics.name}")
        sys.stdout.flush()

    def score(self, split: str) -> list[dict[str, Any]]:
        prompt = self.trainer.trained.prompt
        return [score_split(self.backbone, prompt, task[split], self.options)[0] for task in self.splits]

    def constant_scores(self, task: dict[str, Split], name: str) -> dict[str, Any]:
        """What one answer for all examples has: only a score above it says something."""
        of, examples, labels = task[name].task, task[name].examples, self.options.labels
        metrics = constant_score(of, task["train"].examples, examples, labels)
        return {"task": of.name, "split": name, "metrics": metrics}

    def mixture(self) -> dict[str, Any]:
        """For each task the mean weight of every prompt on dev, the entropy in nats, the deviation over its texts.

        Of several tasks also the deviation of these means between them.
        """
        tasks, means = {}, []
        names = [*self.config.sources, *(["target"] if self.options.use_target else [])]
        for task in self.splits:
            weights, spread = mixture_weights(self.backbone, self.trainer.trained.prompt, task["dev"].tokens)
            tasks[task["dev"].task.name] = {"weights": dict(zip(names, weights.tolist(), strict=True)), **spread}
            means.append(weights)
        between = {"mixture_between_tasks": deviation(torch.stack(means)).item()} if len(means) > 1 else {}
        return {"mixture": tasks, **between}

    def save(self) -> None:
        """What is needed to go on: what was trained so far, and the state around it."""
        self.trainer.seconds = time.monotonic() - self.started
        self.save_trained(self.run.last)
        self.run.save_state(self.trainer.state())

    def save_trained(self, path: Path) -> None:
        if distributed.is_main():
            save_trained(path, self.trainer.trained, self.config)

    def finish(self, signals: Signals) -> None:
        """Score the best checkpoint, as it lies on the disk, and write result.json."""
        trainer, options = self.trainer, self.options
        if distributed.is_main():
            reload_trained(self.run.best, trainer.trained)
        distributed.copy_first(trainer.trained.state_dict().values())
        with signals.may_end_at_once():
            scores = trainer.best_scores + self.score("test")
        result: dict[str, Any] = {
            "task": options.task,
            "method": options.method,
            "model": options.model,
            "scores": scores,
            "constant": [self.constant_scores(task, name) for name in ("dev", "test") for task in self.splits],
            "mean": {split: first_metrics([s for s in scores if s["split"] == split]) for split in ("dev", "test")},
            "best_step": trainer.best_step,
            "steps": trainer.step,
            "trainable_parameters": count(trainer.trained),
            "seconds": round(trainer.seconds, 1),
            "seed": options.seed,
            "device": str(trainer.machine),
            "threads": torch.get_num_threads(),
            "processes": distributed.size(),
            "code": {**described(), "sums": options.code},
            **self.guards.skipped(),
            **mixture_of(self.run.read_metrics(), trainer.best_step),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        }
        self.run.write_json(self.run.result, result)
        self.logs.write_record({"step": trainer.best_step, "scores": scores[len(trainer.best_scores) :]})
        for score in scores:
            print(f"best (step {trainer.best_step}): {describe(score)}")
        if len(options.task) > 1:
            dev, test = result["mean"].values()
            print(f"best (step {trainer.best_step}): mean of the tasks' first metrics: dev {dev:.2f}, test {test:.2f}")
        if options.attention != "constant" and (note := flat_line(result, options.pool, options.use_target)):
            print(note)
        print(
            f"all in {self.run.folder}: {', '.join(sorted(p.name for p in self.run.folder.glob('[!.]*')))}", flush=True
        )
        distributed.wait_for_all()  # the folder is complete for all of them
