"""Train soft prompts, and mixtures of them, for a frozen T5: python train.py --task mnli --method attempt"""

import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from tqdm import tqdm

from attempt import distributed
from attempt.attention import deviation
from attempt.baselines import METHODS, TunedWeights
from attempt.build import check_given, find_sources, given_prompts, new_prompt
from attempt.checkpoint import PromptConfig, Trained, load_last, reload_trained, save_trained
from attempt.command import parse
from attempt.errors import Interrupted, exit_status
from attempt.guards import Guards
from attempt.logs import Logs, check_logs
from attempt.machine import memory_told
from attempt.options import Options
from attempt.origin import Origin, check_origin, fingerprint
from attempt.plan import Plan
from attempt.progress import Progress
from attempt.report import describe, evaluation_lines, first_metrics, flat_line, mixture_of
from attempt.run import Run
from attempt.series import train_series
from attempt.shard import frozen
from attempt.signals import Signals
from attempt.source import described
from attempt.summary import batch_lines, example_lines, summary
from attempt.trainer import Trainer, count
from data.batches import Batch, TokenSet, collate, cut, step_rows
from data.download import Downloader
from data.metrics import constant_score
from data.tasks import describe_tasks, expand
from demo.show import demo_words, show
from eval import Backbone, Split, check_answers, find_task, load_splits, mixture_weights, score_split, show_pads
from model.checkpoint import NAMES, check_name


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

    def train(self, signals: Signals) -> None:
        """Run all steps that are left, and the evaluations. Raises Interrupted, with all saved, at a signal."""
        options, trainer = self.options, self.trainer
        self.started = time.monotonic() - trainer.seconds
        progress = Progress(options, trainer.step, self.examples_a_step())
        batches = training_batches(self.tokens, options, trainer.step, trainer.graphs is not None)
        while True:
            if self.evaluation_is_due():
                self.evaluate(progress, signals)
            if trainer.step == options.steps or self.patience_is_over(progress.bar):
                break
            trainer.t5.train()
            trainer.train_step(*next(batches))
            progress.bar.update()
            if trainer.step % options.log_every == 0:
                self.log_progress(progress)
            ending, saving = signals.agreed()
            if saving or ending is not None:
                self.guards.check_finite()
                self.save()
                signals.saving = False
            if ending is not None:
                raise Interrupted(ending)
        progress.bar.close()

    def evaluation_is_due(self) -> bool:
        step = self.trainer.step
        return step != self.trainer.evaluated and (step % self.options.eval_every == 0 or step == self.options.steps)

    def patience_is_over(self, bar: "tqdm[NoReturn]") -> bool:
        step, patience = self.trainer.step, self.options.patience
        over = patience is not None and step - self.trainer.best_step >= patience * self.options.eval_every
        if over:
            bar.write(f"step {step}: no better score in {patience} evaluations, stopped early")
        return over

    def examples_a_step(self) -> float:
        """The last batch of an epoch may be smaller than the others."""
        sizes = [len(task["train"].examples) for task in self.splits]
        return self.options.epoch_examples(sizes) / self.options.epoch_steps(sizes)

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


def summarize(job: Job) -> None:
    """What is about to happen."""
    sources, cut_targets = job.config.sources, job.tokens.cut_targets
    print(summary(job.options, job.trainer, job.splits, sources, job.frozen, cut_targets), flush=True)


def show_batch(job: Job) -> None:
    """The dry run: an example of each task, and the first batch, as the model will read them, and its loss."""
    options, decode = job.options, job.backbone.tokenizer.decode
    for name, task in zip(options.task, job.splits, strict=True):
        tokens = task["train"].tokens
        print(example_lines(name, tokens.source(0).tolist(), tokens.target(0).tolist(), decode))
    rows = next(training_rows(job.tokens, options, 0))
    batch = collate(job.tokens, rows, before=options.prompt_length).to(job.trainer.machine.device)
    with torch.no_grad():
        loss = job.trainer.loss(batch)
    names = [options.task[job.tokens.parts[row]] for row in batch.index.tolist()]
    print(batch_lines(batch, names, options.prompt_length, loss, job.backbone.t5.config.vocab_size, decode))
    print("dry run: nothing was trained, no run folder was written")


def prepare(options: Options) -> Job:
    """Load everything; a Plan is an earlier run's, which goes on."""
    check_logs(options)
    run, resumed, baseline = Run(options.folder()), isinstance(options, Plan), options.method in METHODS
    tasks = [find_task(name, options) for name in options.task]
    sources, source_names = find_sources(options) if options.method == "attempt" and not resumed else (None, [])

    # the T5, and the data as ids
    downloader = Downloader(mirror=options.mirror, data_dir=Path(options.data_dir) if options.data_dir else None)
    backbone = Backbone.load(options, downloader)
    numbers = [0] * len(tasks) if options.shared_prompt else range(len(tasks))
    splits = [
        load_splits(task.name, number, ("train", "dev", "test"), options, downloader, backbone.tokenizer)
        for number, task in zip(numbers, tasks, strict=True)
    ]
    tokens = TokenSet.join([task["train"].tokens for task in splits])
    given = None if resumed else given_prompts(options)  # a run that goes on needs its --init no longer
    prompts = sources if sources is not None else given and given[0]  # (…,L,D)
    length = None if prompts is None else prompts.size(1)
    examples = options.epoch_examples([len(task["train"].examples) for task in splits])
    kinds = {"labels" if task.labels else "text" for task in tasks if task.split == "given"}
    kind = "both" if len(kinds) > 1 else next(iter(kinds), None)
    plan = options.going_on() if isinstance(options, Plan) else Plan.complete(options, examples, length, kind)

    # what is trained
    distributed.seed(plan.seed)  # of dropout; first values and the data's order have generators of their own
    used = Origin(plan.model, fingerprint(backbone.t5.embedding.weight))
    asked = plan.method, plan.model, plan.task, source_names, plan.labels
    config = PromptConfig(*asked, shared=plan.shared_prompt, embedding=used.embedding)
    trained: Trained
    if resumed:  # the checkpoint has its sources with it, wherever their files are by now
        trained, config = load_last(run.last, run.best, plan.method, backbone.t5)
        check_origin(run.folder, config.origin, used)
        if plan.fix_attention and trained.prompt is not None and trained.prompt.attention is not None:
            trained.prompt.attention.requires_grad_(False)
    elif baseline:
        trained = TunedWeights(backbone.t5, plan.method, plan.seed)
    else:
        labels = [task.label_texts(plan.labels) for task in tasks]
        embedding = backbone.t5.embedding.weight.cpu()
        trained = new_prompt(plan, embedding, backbone.tokenizer.encode_batch, labels, sources, given)
        check_given(options, used)
    if trained.prompt is not None:
        trained.prompt.to(backbone.machine.device)
    fixed = frozen(backbone.t5)
    backbone.machine.quicken(backbone.t5, plan)
    trainer = Trainer(plan, backbone.t5, backbone.machine, trained, backbone.graphs)
    if backbone.graphs:  # the longest text, in as many rows as a part has
        longest = collate(tokens, [int(tokens.lengths.argmax())], before=plan.prompt_length, ladder=True)
        backbone.graphs.widest = replace(longest.filled(trainer.rows), full=False)
    show_pads(backbone, trained.prompt, plan)
    distributed.wait_for_all()  # however long another machine downloads
    distributed.copy_first(trainer.parameters)
    guards = Guards(trainer, plan, tokens.parts, cache(lambda step: next(training_rows(tokens, plan, step - 1))))
    return Job(plan, backbone, splits, tokens, trainer, config, run, fixed, guards, Logs())


def train_run(options: Options, dry_run: bool = False) -> None:
    """One run, from its first or its last saved step to its result.json."""
    if dry_run:
        job = prepare(options)
        summarize(job)
        show_batch(job)
        return
    run = Run(options.folder())
    with run.held():
        if not isinstance(options, Plan):
            distributed.decided(run.check_empty)
        job = prepare(options)
        summarize(job)
        work(job, resumed=isinstance(options, Plan))


def work(job: Job, *, resumed: bool) -> None:
    if resumed:
        processes = job.trainer.restore(job.run.load_state())
        job.run.create(job.options)  # which --change may have changed
        print(f"resumed    {job.run.folder} at step {job.trainer.step}")
        if processes != distributed.size():
            print(f"           saved by {processes} processes, now {distributed.size()}: dropout draws other numbers")
    else:
        job.run.create(job.options)
        job.started = time.monotonic()
        job.save()
    tried = f"--batch-size {job.options.batch_size}, --eval-batch-size {job.options.eval_batch_size}"
    saved = "; what was saved last is still whole: --resume goes on with other --batch-size by --change"
    memory = memory_told(f"{tried} and texts of up to {job.tokens.lengths.max()} tokens", saved)
    with Signals() as signals, memory, job.logs.opened(job.options, job.trainer.step):
        job.train(signals)
        job.finish(signals)


def check_names(options: Options) -> None:
    """Tell an unknown model or task, or one that cannot be answered as asked, before anything is looked for."""
    check_name(options.model)
    for name in options.task:
        check_answers(find_task(name, options), options)


@memory_told()
def run(argv: Sequence[str] | None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    words = distributed.local_first(lambda: demo_words(words)) if "--demo" in words else words
    command = parse(words, {"tasks": describe_tasks(), "models": "\n".join(NAMES)}, expand)
    check_names(command.options)
    if command.demo and command.options.method == "attempt":
        show(command, train_run)
    elif command.several:
        train_series(command, train_run, check_names)
    else:
        train_run(command.options, command.dry_run)


def main(argv: Sequence[str] | None = None) -> int:
    hint = "interrupted: --resume (of several runs: the same command) goes on from what was saved last"
    advice = "what was saved last is whole: --resume DIR (of several runs: the same command) goes on from it"
    return exit_status("train.py", lambda: distributed.together(lambda: run(argv), advice), hint)


if __name__ == "__main__":
    sys.exit(main())
