"""Score the prompts of a run, and write its answers: python eval.py --run runs/sst2-prompt-t5-base"""

import argparse
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from attempt import baselines, distributed
from attempt.attention import deviation, entropy
from attempt.checkpoint import (
    PromptConfig,
    Trained,
    change_sources,
    load_prompt,
    load_trained,
    origins,
    save_prompt,
)
from attempt.errors import AttemptError, exit_status, meant, meant_path
from attempt.eval_command import new_parser
from attempt.files import write_whole
from attempt.flags import Parser
from attempt.graphs import Graphs, new_graphs
from attempt.interactive import FREE_TEXT, Model, Question, converse
from attempt.machine import Machine, choose_machine, keep_memory, memory_told
from attempt.options import Options, spelled
from attempt.origin import Origin, fingerprint, warn_of_others
from attempt.pictures import attention_map
from attempt.plan import Plan
from attempt.plots import show
from attempt.prompt import SoftPrompt
from attempt.report import describe
from attempt.run import Run
from attempt.shard import load_shared_out
from attempt.signals import end_together
from data.batches import Batch, TokenSet, bucketed, collate
from data.download import Downloader
from data.metrics import score
from data.splits import official_splits, paper_splits, take, take_questions, take_shots
from data.tasks import TASKS, Example, Task, check_labels, expand, get_task, load_official, source_text
from data.token_cache import tokenized
from data.user import UserFiles, user_task
from model.checkpoint import check_folder, find_checkpoint, load_t5
from model.decoding import generate, label_scores
from model.t5 import IGNORED, T5
from model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Backbone:
    """The T5, its tokenizer, and where they run."""

    t5: T5
    tokenizer: Tokenizer
    machine: Machine
    graphs: Graphs | None = None
    """What starts all kernels of an answer at once, on a GPU."""

    @classmethod
    def load(cls, options: Options, downloader: Downloader) -> "Backbone":
        if options.shard and options.method in baselines.METHODS:
            raise AttemptError(f"--shard: expected a frozen T5 to share out, found --method {options.method}")
        if options.shard and options.compile:
            raise AttemptError("expected --shard or --compile, found both: a shared out T5 is not compiled")
        machine = choose_machine(options.device, options.precision)
        if machine.device.type == "cpu" and not options.shard:  # its parts are to be given back after each block
            keep_memory()
        distributed.check_device(machine.device)
        folder = find_checkpoint(options.model, downloader.fetch)
        check_folder(folder)
        tokenizer = Tokenizer(folder / "spiece.model", options.ignore_added_tokens)
        if options.shard:
            t5 = load_shared_out(folder, machine)
        else:
            t5 = load_t5(folder, machine.device, machine.kept(options)).requires_grad_(False)
        if t5.config.vocab_size < tokenizer.size:
            raise AttemptError(
                f"{folder}: expected an embedding for each of the tokenizer's {tokenizer.size} pieces, "
                f"found {t5.config.vocab_size}; are config.json and spiece.model of the same checkpoint?"
            )
        if t5.config.vocab_size != tokenizer.size and t5.config.vocab_size % 4:  # not rounded up, as T5's 32,128 are
            print(
                f"note: {folder}: {t5.config.vocab_size} embeddings for {tokenizer.size} pieces and sentinels; tokens "
                "that were added to the vocabulary are read as unknown pieces",
                file=sys.stderr,
            )
        if options.dropout is not None:
            t5.set_dropout(options.dropout)
        return cls(t5, tokenizer, machine, new_graphs(machine, options))

    def generate(self, prompt: SoftPrompt | None, batch: Batch, length: int, rows: int) -> Tensor:
        """Greedy answers (B,T) of at most `length` tokens to a batch of at most `rows` texts."""
        if self.graphs:
            return self.graphs.generate(self.machine, self.t5, prompt, batch, rows, length)
        batch = batch.to(self.machine.device)
        with self.machine.autocast():
            return generate(self.t5, batch.ids, batch.seen, length, prompt, batch.tasks)

    def label_scores(self, prompt: SoftPrompt | None, batch: Batch, labels: Tensor, rows: int) -> Tensor:
        """The log-probabilities (B,C) of labels (C,T) after a batch of at most `rows` texts."""
        if self.graphs:
            return self.graphs.label_scores(self.machine, self.t5, prompt, batch, rows, labels)
        batch = batch.to(self.machine.device)
        with self.machine.autocast():
            return label_scores(self.t5, batch.ids, batch.seen, labels.to(self.machine.device), prompt, batch.tasks)


@dataclass(frozen=True)
class Split:
    """A split of a task, tokenised once."""

    task: Task
    name: str
    examples: list[Example]
    tokens: TokenSet
    answer_length: int
    """Tokens that an answer may have, EOS included."""


def check_answers(task: Task, options: Options) -> None:
    """Raises AttemptError where answers are to be chosen among labels, and the task has none."""
    if options.answer_by == "labels" and task.free_text:
        raise AttemptError(
            f"--answer-by labels: expected tasks with labels, found {task.name}, whose answers are free text; leave it "
            "out, or use --answer-by generate"
        )


def find_task(name: str, options: Options) -> Task:
    """The task of that name: a built-in one, or of the user's files, which have those of the names that are not."""
    others = [other for other in options.task if other not in TASKS]
    if options.train_file is not None and options.task_field is None and len(others) > 1:
        raise AttemptError(
            f"--task: expected one name for the task of the given files, found {', '.join(others)}; the "
            "others must be of --list-tasks, or name by --task-field the column that tells a row's task"
        )
    if options.train_file is None or options.dev_file is None or options.target_field is None:
        return get_task(name)
    if not others:
        raise AttemptError(
            f"--task: expected a name of its own for the task of {options.train_file}, found the built-in "
            f"{', '.join(options.task)} alone; add another, e.g. --task mine"
        )
    if name not in others:
        return get_task(name)
    columns = tuple(options.source_field), options.target_field
    paths = options.train_file, options.dev_file, options.test_file
    answers = options.answers or ("counted" if isinstance(options, Plan) else None)  # of a run before plans told it
    own = None if options.task_field is None else (options.task_field, name)
    answers = None if answers == "both" else answers
    return user_task(name, UserFiles(*paths, *columns, answers, options.text_scores or "plain", own))


def load_splits(
    name: str, number: int, names: Sequence[str], options: Options, downloader: Downloader, tokenizer: Tokenizer
) -> dict[str, Split]:
    """Some splits of a task, by name: train, dev, test. `number` says which of the prompts is the task's."""
    task = find_task(name, options)
    check_answers(task, options)
    cut = paper_splits if options.splits == "paper" else official_splits
    splits = cut(task, load_official(task, downloader.fetch, options.labels, options.task_name))
    if task.free_text:  # it has no longest label: its longest training answer is long enough
        texts = list({example.target for example in splits["train"]})
    else:
        texts = task.label_texts(options.labels)
        check_labels(task, texts, tokenizer.encode_batch, tokenizer.decode, options.answer_by == "generate")
    answer_length = options.max_target_length or 1 + max(map(len, tokenizer.encode_batch(texts)), default=0)
    loaded = {}
    for split in names:
        examples = splits[split]
        if split != "train" and options.eval_examples:
            examples = take_questions(examples, options.eval_examples, options.data_seed)
        elif split == "train" and options.shots:
            examples = take_shots(task, examples, options.shots, options.data_seed)
        elif split == "train" and options.train_examples:
            examples = take(examples, options.train_examples, options.data_seed)
        if not examples:
            raise AttemptError(f"--task {name}: expected some {split} examples, found none")
        tokens = tokenized(
            examples,
            tokenizer.encode_batch,
            tokenizer.fingerprint,
            options.max_source_length or task.max_source,
            options.max_target_length,
            number,
            tokenizer.eos,
            downloader.cache / "tokens",
        )
        loaded[split] = Split(task, split, examples, tokens, answer_length)
    return loaded


def evaluation_batches(
    backbone: Backbone, prompt: SoftPrompt | None, tokens: TokenSet, batch_size: int, what: str
) -> Iterator[Batch]:
    """This process's share of the batches, in order of length, under a progress bar on a terminal."""
    before = 0 if prompt is None else prompt.target.size(1)
    index = distributed.share_of(bucketed(tokens.lengths, batch_size, seed=None))
    for rows in tqdm(index, what, unit="batch", leave=False, disable=not sys.stderr.isatty()):
        end_together()
        yield collate(tokens, rows, before=before, ladder=backbone.graphs is not None)


def answer(
    backbone: Backbone,
    prompt: SoftPrompt | None,
    tokens: TokenSet,
    length: int,
    batch_size: int,
    labels: Sequence[str] = (),
) -> list[str]:
    """The greedy answer to each example, at most `length` tokens long; of `labels`, if any, the most probable."""
    backbone.t5.eval()
    answers: dict[int, str] = {}
    rows = label_ids(backbone, labels) if labels else None
    for batch in evaluation_batches(backbone, prompt, tokens, batch_size, "answering"):
        if rows is not None:
            scores = backbone.label_scores(prompt, batch, rows, batch_size)
            texts = [labels[i] for i in scores.argmax(1).tolist()]  # of equal ones the first
        else:
            ids = backbone.generate(prompt, batch, length, batch_size)
            texts = [backbone.tokenizer.decode(row) for row in ids.tolist()]
        answers.update(zip(batch.index.tolist(), texts, strict=True))
    answers = distributed.merged(answers)
    return [answers[i] for i in range(len(tokens))]


def label_ids(backbone: Backbone, labels: Sequence[str]) -> Tensor:
    """(C,T): the labels' tokens with EOS, padded with -100."""
    rows = [torch.tensor([*ids, backbone.tokenizer.eos]) for ids in backbone.tokenizer.encode_batch(list(labels))]
    return pad_sequence(rows, batch_first=True, padding_value=IGNORED)


@torch.inference_mode()
def instance_weights(backbone: Backbone, prompt: SoftPrompt | None, tokens: TokenSet) -> Tensor:
    """The mixture's weights for every example (N,P), the target's the last; of variant `token` the positions' mean."""
    if prompt is None or prompt.sources is None:
        raise AttemptError("expected a mixture of prompts to weigh (--method attempt), found a checkpoint without one")
    P = len(prompt.sources) + prompt.use_target
    weights = torch.zeros(len(tokens), P, device=backbone.machine.device)
    for part in evaluation_batches(backbone, prompt, tokens, 256, "weighing"):
        batch = part.to(backbone.machine.device)
        weights[batch.index] = prompt.weights(backbone.t5.embedding(batch.ids), batch.mask, batch.tasks)
    return distributed.take_largest(weights)  # each row is 0 in the processes that have not weighed it


def mixture_weights(backbone: Backbone, prompt: SoftPrompt | None, tokens: TokenSet) -> tuple[Tensor, dict[str, float]]:
    """The mixture's weights (P,), the target's the last, means over the examples; and what tells how they are spread.

    Their entropy in nats, a mean over the examples, and their deviation over these, a mean over the prompts.
    """
    weights = instance_weights(backbone, prompt, tokens)
    return weights.mean(0).cpu(), {"entropy": entropy(weights).item(), "deviation": deviation(weights).item()}


def show_pads(backbone: Backbone, prompt: SoftPrompt | None, options: Options) -> None:
    """Tell a G that pools padding what that is, and to which length the released program pads all texts of the run."""
    if prompt is not None and prompt.attention is not None and prompt.attention.pool_pads:
        pad = torch.tensor(backbone.t5.config.pad_token_id, device=backbone.machine.device)
        longest = max(TASKS.get(name, Task).max_source for name in options.task)
        prompt.attention.see_pads(backbone.t5.embedding(pad), options.max_source_length or longest)


def score_split(
    backbone: Backbone, prompt: SoftPrompt | None, split: Split, options: Options
) -> tuple[dict[str, Any], list[str]]:
    """The scores of a split, as metrics.jsonl and result.json hold them, and the answers themselves."""
    labels = split.task.label_texts(options.labels) if options.answer_by == "labels" else ()
    answers = answer(backbone, prompt, split.tokens, split.answer_length, options.eval_batch_size, labels)
    metrics = score(split.task, answers, split.examples, options.labels)
    invalid = metrics.pop("invalid")
    common = dict(Counter(answers).most_common(5))
    record = {"task": split.task.name, "split": split.name, "metrics": metrics, "invalid": invalid}
    return {**record, "examples": len(answers), "answers": common, "decoding": options.answer_by}, answers


def options_of(parser: Parser, given: argparse.Namespace) -> Plan:
    """The run's options, with what is asked for otherwise; ends the program where that cannot be."""
    if given.interactive and (given.predictions or given.attention_map or distributed.size() > 1):
        parser.error("expected --interactive in one process, without --predictions and --attention-map")
    if given.save_checkpoint and not (given.add_sources or given.remove_sources):
        parser.error("expected --add-sources or --remove-sources with --save-checkpoint")
    files = ("train_file", "dev_file", "test_file", "text_scores")
    names = (*files, "model", "answer_by", "eval_batch_size", "device", "precision", "mirror", "data_dir")
    changes = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    plan = Plan.read(Run(given.run).config)
    if plan.train_file is None and (moved := [spelled(name) for name in files if name in changes]):
        parser.error(f"{', '.join(moved)}: expected a run on a user's files, found one on {', '.join(plan.task)}")
    return dataclasses.replace(plan, shard=given.shard, compile=False, **changes)  # too short for a compiler


def load_evaluated(parser: Parser, given: argparse.Namespace, options: Plan, t5: T5) -> tuple[Trained, PromptConfig]:
    """What is to be scored: a checkpoint of the run, or its mixture with other sources."""
    run = Run(given.run)
    path = {"best": run.best, "last": run.last}.get(given.checkpoint, Path(given.checkpoint))
    if given.checkpoint not in ("best", "last") and not path.exists():
        near = meant(given.checkpoint, ["best", "last"]) or meant_path(path)
        parser.error(f"--checkpoint {path}: expected best, last or a file, found none{near}")
    used = Origin(options.model, fingerprint(t5.embedding.weight))  # before a baseline's weights are put in
    warn_of_others(origins(given.add_sources), used)
    trained: Trained
    if given.add_sources or given.remove_sources:
        trained, config = change_sources(*load_prompt(path), given.add_sources, given.remove_sources)
        print(f"sources {', '.join(config.sources)}")
        if given.save_checkpoint and distributed.is_main():
            save_prompt(given.save_checkpoint, trained, config)
    else:
        trained, config = load_trained(path, options.method, t5)
    if trained.prompt is not None and trained.prompt.target.size(2) != t5.config.d_model:
        raise AttemptError(
            f"{run.folder}: expected a model of width {trained.prompt.target.size(2)}, found {t5.config.d_model} in "
            f"{options.model}; give the run's own by --model"
        )
    if options.method != "finetune":  # whose weights are all in the checkpoint
        warn_of_others([(path, config.origin)], used)
    if given.attention_map and config.method != "attempt":
        parser.error(f"--attention-map: expected prompts of --method attempt, found {path} of {config.method}")
    if config.labels != options.labels:
        raise AttemptError(
            f"{path}: expected answers that are {options.labels}, as the run's, found {config.labels}; "
            "name the run that it is of by --run"
        )
    return trained, config


@memory_told()
def evaluate(argv: Sequence[str] | None) -> None:
    parser = new_parser()
    given = parser.parse_args(argv)
    options = options_of(parser, given)
    downloader = Downloader(mirror=options.mirror, data_dir=Path(options.data_dir) if options.data_dir else None)
    backbone = Backbone.load(options, downloader)
    trained, config = load_evaluated(parser, given, options, backbone.t5)
    if trained.prompt is not None:
        trained.prompt.to(backbone.machine.device)
    show_pads(backbone, trained.prompt, options)
    backbone.machine.quicken(backbone.t5, options)

    chosen = numbered(expand(given.task or options.task), config)
    if given.interactive:
        model = Model(backbone.t5, backbone.tokenizer, backbone.machine, trained.prompt, config.sources)
        converse([new_question(name, number, options, backbone) for name, number in chosen.items()], model.reply)
        return
    lines: list[str] = []
    instances = {}
    for name, number in chosen.items():
        split = load_splits(name, number, [given.split], options, downloader, backbone.tokenizer)[given.split]
        record, answers = score_split(backbone, trained.prompt, split, options)
        print(describe(record))
        if given.attention_map:
            instances[name] = instance_weights(backbone, trained.prompt, split.tokens).double().cpu().numpy()
        for i, (example, prediction) in enumerate(zip(split.examples, answers, strict=True)):
            row = {"task": name, "split": given.split, "index": i, "source": example.source, "target": example.target}
            more = {"references": example.references} if example.references else {}
            lines.append(json.dumps({**row, **more, "prediction": prediction}, ensure_ascii=False) + "\n")
    if given.predictions and distributed.is_main():
        write_whole(given.predictions, "".join(lines).encode("utf-8"))
        print(f"{len(lines)} answers in {given.predictions}")
    if given.attention_map and distributed.is_main():
        prompts = [*config.sources, *(["target"] if config.use_target else [])]
        show([attention_map(given.split, prompts, instances)], given.attention_map)


def numbered(names: Sequence[str], config: PromptConfig) -> dict[str, int]:
    """The names of tasks to score, each with the number of its prompt in the checkpoint."""
    if len(config.names) == 1:  # one prompt can be tried on any task
        return dict.fromkeys(names, 0)
    for name in names:
        if name not in config.names:
            near = meant(name, config.names)
            raise AttemptError(
                f"--task {name}: expected one of the checkpoint's tasks, {', '.join(config.names)}{near}"
            )
    return {name: config.names.index(name) for name in names}


def new_question(name: str, number: int, options: Options, backbone: Backbone) -> Question:
    """A task to be asked by hand: of its files, only a user's own are needed."""
    task = find_task(name, options)
    check_answers(task, options)
    labels = task.label_texts(options.labels)
    rows = label_ids(backbone, labels).to(backbone.machine.device) if labels else None
    return Question(
        name,
        task.fields,
        lambda values: source_text(task, values, options.task_name),
        number,
        options.max_source_length or task.max_source,
        options.max_target_length or (FREE_TEXT if rows is None else rows.size(1)),
        dict(zip(labels, task.labels or labels, strict=True)),
        rows,
        options.answer_by == "labels",
    )


def main(argv: Sequence[str] | None = None) -> int:
    return exit_status("eval.py", lambda: distributed.together(lambda: evaluate(argv), "give the same command again"))


if __name__ == "__main__":
    sys.exit(main())
