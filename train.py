"""Train soft prompts, and mixtures of them, for a frozen T5: python train.py --task mnli --method attempt

From top to bottom in the order in which things happen: the options, the T5, the data, the prompt, the loop.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from torch import Tensor

from attempt.answering.answers import show_pads
from attempt.answering.backbone import Backbone, new_downloader
from attempt.answering.splits import Split, check_answers, find_task, load_splits
from attempt.baselines import METHODS, TunedWeights
from attempt.checkpoint import PromptConfig, Trained, load_last
from attempt.command.options import Options
from attempt.machine import distributed
from attempt.machine.device import memory_told
from attempt.machine.signals import Signals
from attempt.origin import Origin, check_origin, fingerprint
from attempt.runs.folder import Run
from attempt.runs.parsing import parse
from attempt.runs.plan import Plan
from attempt.training.build import check_given, find_sources, given_prompts, new_prompt
from attempt.training.guards import Guards
from attempt.training.job import Job, training_batches, training_rows
from attempt.training.logs import Logs, check_logs
from attempt.training.series import train_series
from attempt.training.trainer import Trainer, frozen
from data.batches import TokenSet, collate
from data.tasks import describe_tasks, expand
from model.checkpoint import NAMES, check_name
from model.errors import Interrupted, exit_status


@memory_told()
def run(argv: Sequence[str] | None) -> None:
    """What the command line asks for: one run, several, or the demo's."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--demo" in words:
        from demo.show import demo_words  # noqa: PLC0415 - its small world is made only for this flag

        words = distributed.local_first(lambda: demo_words(words))
    command = parse(words, {"tasks": describe_tasks(), "models": "\n".join(NAMES)}, expand)
    check_names(command.options)
    if command.demo and command.options.method == "attempt":
        from demo.show import show  # noqa: PLC0415

        show(command, train_run)
    elif command.several:
        train_series(command, train_run, check_names)
    else:
        train_run(command.options, command.dry_run)


def check_names(options: Options) -> None:
    """Refuse an unknown model or task, or one that cannot be answered as asked, before anything is looked for."""
    check_name(options.model)
    for name in options.task:
        check_answers(find_task(name, options), options)


def train_run(options: Options, dry_run: bool = False) -> None:
    """One run, from its first or its last saved step to its result.json. A Plan is an earlier run's, which goes on."""
    resumed, run = isinstance(options, Plan), Run(options.folder())
    if dry_run:
        job = prepare(options)
        job.summarize()
        job.show_batch()
        return
    with run.held():
        if not resumed:
            distributed.decided(run.check_empty)
        job = prepare(options)
        job.summarize()
        job.begin(resumed)
        with Signals() as signals, job.memory_told(), job.logs.opened(job.options, job.trainer.step):
            train(job, signals)
            job.finish(signals)


def prepare(options: Options) -> Job:
    """Load everything: the T5, the data, and what is trained."""
    check_logs(options)
    run, resumed = Run(options.folder()), isinstance(options, Plan)
    sources, source_names = find_sources(options) if options.method == "attempt" and not resumed else (None, [])
    given = None if resumed else given_prompts(options)  # a run that goes on needs its --init no longer

    # the T5, frozen
    downloader = new_downloader(options)
    backbone = Backbone.load(options, downloader)

    # the data, as ids
    tasks = [find_task(name, options) for name in options.task]
    numbers = [0] * len(tasks) if options.shared_prompt else range(len(tasks))
    splits = [
        load_splits(task.name, number, ("train", "dev", "test"), options, downloader, backbone.tokenizer)
        for number, task in zip(numbers, tasks, strict=True)
    ]
    tokens = TokenSet.join([task["train"].tokens for task in splits])

    # the prompt, or the weights of a baseline
    plan = planned(options, splits, sources if sources is not None else given and given[0])
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
    elif options.method in METHODS:
        trained = TunedWeights(backbone.t5, plan.method, plan.seed)
    else:
        labels = [task.label_texts(plan.labels) for task in tasks]
        embedding = backbone.t5.embedding.weight.cpu()
        trained = new_prompt(plan, embedding, backbone.tokenizer.encode_batch, labels, sources, given)
        check_given(options, used)
    if trained.prompt is not None:
        trained.prompt.to(backbone.machine.device)
    fixed = frozen(backbone.t5)

    # the same functions, computed faster; and what takes the steps
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


def planned(options: Options, splits: list[dict[str, Split]], prompts: Tensor | None) -> Plan:
    """The options with nothing left open: the data's size decides the steps, prompts (...,L,D) the prompt's length."""
    formats = {task["train"].task.name: task["train"].format(options) for task in splits}
    if isinstance(options, Plan):
        return replace(options.going_on(), formats=formats)
    examples = options.epoch_examples([len(task["train"].examples) for task in splits])
    length = None if prompts is None else prompts.size(1)
    kinds = {
        "text" if task["train"].task.free_text else "labels" for task in splits if task["train"].task.split == "given"
    }
    kind = "both" if len(kinds) > 1 else next(iter(kinds), None)
    return replace(Plan.complete(options, examples, length, kind), formats=formats)


def train(job: Job, signals: Signals) -> None:
    """Take all steps that are left, and make the evaluations. Raises Interrupted, with all saved, at a signal."""
    options, trainer, progress = job.options, job.trainer, job.progress()
    batches = training_batches(job.tokens, options, trainer.step, trainer.graphs is not None)
    while True:
        if job.evaluation_is_due():
            job.evaluate(progress, signals)
        if trainer.step == options.steps or job.patience_is_over(progress.bar):
            break
        trainer.t5.train()
        # Trainer.add:    with autocast: loss = t5.loss(batch, prompt); then scaler.scale(loss).backward()
        # Trainer.update: scaler.unscale_(optimizer), clip_grad_norm_, scaler.step(optimizer), scaler.update()
        trainer.train_step(*next(batches))
        progress.bar.update()
        if trainer.step % options.log_every == 0:
            job.log_progress(progress)
        ending, saving = signals.agreed()
        if saving or ending is not None:
            job.guards.check_finite()
            job.save()
            signals.saving = False
        if ending is not None:
            raise Interrupted(ending)
    progress.bar.close()


def main(argv: Sequence[str] | None = None) -> int:
    hint = "interrupted: --resume (of several runs: the same command) goes on from what was saved last"
    advice = "what was saved last is whole: --resume DIR (of several runs: the same command) goes on from it"
    return exit_status("train.py", lambda: distributed.together(lambda: run(argv), advice), hint)


if __name__ == "__main__":
    sys.exit(main())
