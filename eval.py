"""Score the prompts of a run, and write its answers: python eval.py --run runs/sst2-prompt-t5-base"""

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from attempt.attention import entropy
from attempt.checkpoint import load_prompt
from attempt.errors import AttemptError
from attempt.files import write_whole
from attempt.machine import Machine, choose_machine
from attempt.options import Options, Parser, Plan, positive
from attempt.prompt import SoftPrompt
from attempt.run import Run
from data.batches import Batch, TokenSet, bucketed, collate
from data.download import Downloader
from data.metrics import score
from data.splits import paper_splits, take
from data.tasks import Example, get_task, load_official
from model.checkpoint import find_checkpoint, load_t5
from model.t5 import T5
from model.tokenizer import Tokenizer


def load_backbone(options: Options, downloader: Downloader, machine: Machine) -> tuple[T5, Tokenizer]:
    """The frozen T5 and its tokenizer."""
    folder = find_checkpoint(options.model, downloader.fetch)
    tokenizer = Tokenizer(folder / "spiece.model")
    t5 = load_t5(folder).requires_grad_(False).to(machine.device)
    if options.dropout is not None:
        t5.set_dropout(options.dropout)
    if t5.config.vocab_size < tokenizer.size:
        raise AttemptError(
            f"{folder}: expected an embedding for each of the tokenizer's {tokenizer.size} pieces, "
            f"found {t5.config.vocab_size}; are config.json and spiece.model of the same checkpoint?"
        )
    return t5, tokenizer


def load_splits(name: str, options: Options, downloader: Downloader) -> dict[str, list[Example]]:
    """The examples of a task's train, dev and test split."""
    task = get_task(name)
    splits = paper_splits(task, load_official(task, downloader.fetch, options.labels, options.task_name))
    limits = {"train": options.train_examples, "dev": options.eval_examples, "test": options.eval_examples}
    for split, limit in limits.items():
        if limit is not None:
            splits[split] = take(splits[split], limit, options.data_seed)
        if not splits[split]:
            raise AttemptError(f"--task {name}: expected some {split} examples, found none")
    return splits


def tokenize(examples: list[Example], options: Options, tokenizer: Tokenizer, task: int = 0) -> TokenSet:
    return TokenSet.build(
        examples, tokenizer.encode_batch, options.max_source_length, options.max_target_length, task, tokenizer.eos
    )


def evaluation_batches(tokens: TokenSet, batch_size: int, machine: Machine, what: str) -> Iterable[Batch]:
    """All batches in order of length, under a progress bar on a terminal."""
    index = bucketed(tokens.lengths, batch_size, seed=None)
    batches = (collate(tokens, rows).to(machine.device) for rows in index)
    return tqdm(batches, what, len(index), unit="batch", leave=False, disable=not sys.stderr.isatty())


def answer(
    t5: T5, prompt: SoftPrompt, tokens: TokenSet, length: int, tokenizer: Tokenizer, machine: Machine, batch_size: int
) -> list[str]:
    """The greedy answer to each example, at most `length` tokens long."""
    t5.eval()
    answers = [""] * len(tokens)
    for batch in evaluation_batches(tokens, batch_size, machine, "answering"):
        with machine.autocast():
            ids = t5.generate(batch.ids, batch.mask, length, prompt, batch.tasks)
        for i, row in zip(batch.index.tolist(), ids.tolist(), strict=True):
            answers[i] = tokenizer.decode(row)
    return answers


@torch.inference_mode()
def mixture_weights(t5: T5, prompt: SoftPrompt, tokens: TokenSet, machine: Machine) -> tuple[Tensor, float]:
    """The mixture's weights (P,), the target's the last, and their entropy in nats: means over the examples."""
    if prompt.attention is None or prompt.sources is None:
        raise ValueError("plain prompt tuning has no mixture")
    weights = [
        prompt.attention(t5.embedding(batch.ids), batch.mask, prompt.sources, prompt.target[batch.tasks])
        for batch in evaluation_batches(tokens, 256, machine, "weighing")
    ]
    a = torch.cat(weights)  # (examples,P)
    return a.mean(0).cpu(), entropy(a).item()


def score_split(
    t5: T5,
    prompt: SoftPrompt,
    name: str,
    split: str,
    examples: list[Example],
    tokenizer: Tokenizer,
    machine: Machine,
    options: Options,
    task: int = 0,
) -> tuple[dict[str, Any], list[str]]:
    """The scores of a split as a record of metrics.jsonl and result.json, and the answers themselves."""
    tokens = tokenize(examples, options, tokenizer, task)
    labels = get_task(name).label_texts(options.labels)
    longest = 1 + max(len(ids) for ids in tokenizer.encode_batch(labels))  # EOS included
    length = options.max_target_length or longest
    answers = answer(t5, prompt, tokens, length, tokenizer, machine, options.eval_batch_size)
    metrics = score(get_task(name), answers, [example.target for example in examples], options.labels)
    record = {
        "task": name,
        "split": split,
        "metrics": {key: value for key, value in metrics.items() if key != "invalid"},
        "invalid": metrics["invalid"],
        "examples": len(examples),
        "answers": dict(Counter(answers).most_common(5)),
    }
    return record, answers


def describe(record: dict[str, Any]) -> str:
    """A record of score_split on a line; all figures are percentages."""
    metrics = ", ".join(f"{name} {value:.2f}" for name, value in record["metrics"].items())
    note = ""
    if len(record["answers"]) == 1 and record["examples"] > 1:
        note = f"; every answer is {next(iter(record['answers']))!r}: look at --lr, --init and --labels"
    invalid = f"invalid {record['invalid']:.2f}"
    return f"{record['task']} {record['split']}: {metrics}, {invalid} ({record['examples']} examples){note}"


def evaluate(argv: Sequence[str] | None) -> None:
    parser = Parser(prog="eval.py", description="Score the prompts of a run, and write its answers.")
    add = parser.add_argument
    add("--run", required=True, type=Path, metavar="DIR", help="folder that train.py wrote")
    add("--task", nargs="+", metavar="TASK", help="tasks to score (default: the run's)")
    add("--split", default="test", choices=["train", "dev", "test"], help="default: %(default)s")
    add("--checkpoint", default="best", choices=["best", "last"], help="default: %(default)s")
    add("--predictions", type=Path, metavar="FILE", help="write a JSON line for each example: its text and answer")
    add("--model", metavar="NAME", help="the frozen T5, if it has moved since (default: the run's)")
    add("--eval-batch-size", type=positive, metavar="N", help="examples answered at once (default: the run's)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)")
    add("--precision", choices=["auto", "fp32", "bf16", "fp16"], help="default: the run's")
    add("--mirror", metavar="URL", help="server that has the files of all hosts (default: the run's)")
    add("--data-dir", metavar="DIR", help="folder that has them (default: the run's)")
    given = parser.parse_args(argv)

    run = Run(given.run)
    names = ("model", "eval_batch_size", "device", "precision", "mirror", "data_dir")
    changes = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    options = dataclasses.replace(Plan.read(run.config), **changes)
    prompt, config = load_prompt(run.best if given.checkpoint == "best" else run.last)
    machine = choose_machine(options.device, options.precision)
    prompt = prompt.to(machine.device)
    downloader = Downloader(mirror=options.mirror, data_dir=Path(options.data_dir) if options.data_dir else None)
    t5, tokenizer = load_backbone(options, downloader, machine)
    if prompt.target.size(2) != t5.config.d_model:
        raise AttemptError(
            f"{run.folder}: expected a model of width {prompt.target.size(2)}, found {t5.config.d_model} in "
            f"{options.model}; give the run's own by --model"
        )

    lines: list[str] = []
    for name in given.task or config.tasks:
        if name not in config.tasks and len(config.tasks) > 1:
            raise AttemptError(f"--task {name}: expected one of the run's tasks, {', '.join(config.tasks)}")
        task = config.tasks.index(name) if name in config.tasks else 0
        examples = load_splits(name, options, downloader)[given.split]
        record, answers = score_split(t5, prompt, name, given.split, examples, tokenizer, machine, options, task)
        print(describe(record))
        for i, (example, prediction) in enumerate(zip(examples, answers, strict=True)):
            row = {"task": name, "split": given.split, "index": i, "source": example.source, "target": example.target}
            lines.append(json.dumps({**row, "prediction": prediction}, ensure_ascii=False) + "\n")
    if given.predictions:
        write_whole(given.predictions, "".join(lines).encode("utf-8"))
        print(f"{len(lines)} answers in {given.predictions}")


def main(argv: Sequence[str] | None = None) -> int:
    try:
        evaluate(argv)
    except AttemptError as e:
        print(f"eval.py: error: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
