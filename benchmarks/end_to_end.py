"""Training and scoring on a real task, ours and the usual recipe's: python -m benchmarks.end_to_end --model FOLDER

Ours is train.py's own path, with any of its flags: texts in buckets of like length, answers of as many tokens as a
label has. The other is benchmarks/recipe.py's. Both start from the same prompt, with the same dropout, precision and
batch size. Before anything is timed, both must give the same answers to some examples.
"""

import argparse
import dataclasses
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from attempt.answering.answers import score_split
from attempt.command.flags import Parser, positive
from attempt.command.options import spelled
from attempt.runs.parsing import parse
from attempt.training.job import Job, training_batches
from benchmarks.evaluate import equal_share
from benchmarks.machine import announced, save
from benchmarks.recipe import GENERATED, PADDED, Recipe
from benchmarks.timing import alternate, figure, markdown, sampled, seconds, span
from data.batches import collate
from model.errors import AttemptError, exit_status
from train import prepare

COMPARED = 64  # examples whose answers are compared before
LIMITS = {"fp32": 0.95, "bf16": 0.5}  # least shares of equal tokens: the two tokenizers differ for a few texts


def new_parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.end_to_end",
        description="Training and scoring on a real task. Flags that are not listed here are train.py's.",
        allow_abbrev=False,
    )
    parser.hands_on = True
    add = parser.add_argument
    add("--model", required=True, metavar="FOLDER", help="a T5 checkpoint in Hugging Face's layout")
    add("--task", default="sst2", help="a task with labels (default: %(default)s)")
    add("--labels", default="words", choices=["digits", "words"], help="default: %(default)s")
    add("--data-dir", metavar="DIR", help="folder that has the task's files, at DIR/HOST/PATH")
    add("--mirror", metavar="URL", help="server that has them")
    add("--examples", type=positive, default=512, metavar="N", help="trained on, in all rounds (default: 512)")
    add("--eval-examples", type=positive, default=128, metavar="N", help="scored in each round (default: 128)")
    add("--batch-size", type=positive, default=32, metavar="N", help="default: 32")
    add("--prompt-length", type=positive, default=100, metavar="N", help="default: 100")
    add("--precision", default="fp32", choices=["fp32", "bf16"], help="default: fp32")
    add("--rounds", type=positive, default=4, metavar="N", help="parts of the training that take turns (default: 4)")
    add("--device", default="cpu", help="default: cpu")
    add("--threads", type=positive, metavar="N", help="default: PyTorch's")
    add("--out", type=Path, metavar="FILE", help="write every sample, as JSON")
    add("--dry-run", action="store_true", help="say what would be measured, and stop")
    return parser


def our_job(given: argparse.Namespace, more: list[str], steps: int) -> Job:
    """What train.py would train."""
    names = ("task", "model", "labels", "data_dir", "mirror", "eval_examples", "batch_size", "prompt_length")
    flags = {name: getattr(given, name) for name in (*names, "precision", "device")}
    flags |= {"method": "prompt", "steps": steps, "eval_batch_size": given.batch_size}
    words = [word for name, value in flags.items() if value is not None for word in (spelled(name), str(value))]
    return prepare(parse([*words, *more]).options)


def compare_answers(job: Job, recipe: Recipe) -> float:
    """Share of equal tokens in the answers to the first of the dev set, before any training, each after its own ids."""
    split, machine = job.splits[0]["dev"], job.trainer.machine
    job.backbone.t5.eval()
    first = range(min(COMPARED, len(split.examples)))
    batch = collate(split.tokens, first)
    ours = job.backbone.generate(job.trainer.trained.prompt, batch, GENERATED, len(first))
    rows = recipe.encode([split.examples[i] for i in first])
    theirs = recipe.peer.generate(next(recipe.batches(rows, len(rows), shuffle=False)), GENERATED)
    same = equal_share(ours, theirs)
    if same < LIMITS[machine.precision]:
        raise AttemptError(
            f"expected both programs to give the same answers, found {100 * same:.0f} % of the tokens equal"
        )
    return same


def turns(job: Job, recipe: Recipe, steps: int) -> dict[str, dict[str, Callable[[], object]]]:
    """What takes turns: the next `steps` of training, and scoring the dev set."""
    trainer, split, size = job.trainer, job.splits[0]["dev"], job.options.batch_size
    by_labels = dataclasses.replace(job.options, answer_by="labels")
    ours = training_batches(job.tokens, job.options, 0)
    examples = job.splits[0]["train"].examples
    some = random.Random(0).sample(examples, min(len(examples), job.options.steps * size))
    rows, dev = recipe.encode(some), recipe.encode(split.examples)
    theirs = recipe.batches(rows, size, shuffle=True)

    def train_ours() -> None:
        trainer.t5.train()
        for batch in islice(ours, steps):
            trainer.train_step(*batch)

    def train_theirs() -> None:
        for batch in islice(theirs, steps):
            recipe.step(batch)

    return {
        "train": {"usual recipe": train_theirs, "ours": train_ours},
        "score": {
            "usual recipe": lambda: recipe.answer(dev, size),
            "ours": lambda: score_split(job.backbone, trainer.trained.prompt, split, job.options),
            "ours, --answer-by labels": lambda: score_split(job.backbone, trainer.trained.prompt, split, by_labels),
        },
    }


def measure(given: argparse.Namespace, more: list[str]) -> dict[str, Any]:
    steps = given.examples // (given.batch_size * given.rounds)
    job = our_job(given, more, steps * given.rounds)
    trainer = job.trainer
    assert trainer.trained.prompt is not None
    prompt = trainer.trained.prompt.target.detach()[0]
    recipe = Recipe(Path(given.model), prompt, given.precision, job.options.lr, job.options.steps)
    dropout = job.options.dropout if job.options.dropout is not None else job.backbone.t5.config.dropout_rate
    recipe.peer.set_dropout(dropout)
    agreement = compare_answers(job, recipe)
    examples = {"train": steps * given.batch_size, "score": len(job.splits[0]["dev"].examples)}
    whole = {"train": len(job.splits[0]["train"].examples)}
    rows = []
    for what, works in turns(job, recipe, steps).items():
        samplers = {name: partial(seconds, work, trainer.machine.device) for name, work in works.items()}
        samples = alternate(samplers, given.rounds if what == "train" else 2, 0)
        for name in works:
            row = sampled(f"{what}: {name}", samples[name], samples["usual recipe"])
            rate = examples[what] / row["median"]
            rows.append({**row, "examples_per_second": rate, "epoch_examples": whole.get(what)})
    lengths = job.tokens.lengths
    return {
        "dropout": dropout,
        "equal_answers": agreement,
        "text_tokens": {"mean": statistics.fmean(lengths.tolist()), "longest": int(lengths.max()), "padded": PADDED},
        "rows": rows,
    }


def table_of(result: dict[str, Any]) -> str:
    head = ["what: program", "s a part (extremes)", "examples/s", "times as fast", "so the training set takes, s"]
    rows = [head]
    for row in result["rows"]:
        rate, whole = row["examples_per_second"], row["epoch_examples"]
        cells = [row["name"], span(row["seconds"]), figure(rate), f"{row['speedup']:.2f}"]
        rows.append([*cells, figure(whole / rate) if whole else "-"])
    return markdown(rows)


def measure_all(argv: Sequence[str] | None) -> None:
    parser = new_parser()
    given, more = parser.parse_known_args(argv)
    if given.examples < given.batch_size * given.rounds:
        parser.error(f"expected --examples for a batch a round, {given.batch_size * given.rounds} or more")
    if given.threads:
        torch.set_num_threads(given.threads)
    steps = given.examples // (given.batch_size * given.rounds)
    if given.dry_run:
        print(f"{given.task}, {given.model}: {given.rounds} rounds of {steps} steps and 2 scores, for each program")
        return
    about = announced(parser.prog, argv, torch.device(given.device))
    result = measure(given, more)
    tokens = result["text_tokens"]
    print(
        f"{given.task}: texts of {tokens['mean']:.0f} tokens in the mean, at most {tokens['longest']}, by the recipe "
        f"padded to {PADDED}; {given.precision}, dropout {result['dropout']}; "
        f"{100 * result['equal_answers']:.0f} % of the first answers' tokens equal"
    )
    print(table_of(result))
    save(given.out, {**about, **result})


def main(argv: Sequence[str] | None = None) -> int:
    return exit_status("python -m benchmarks.end_to_end", lambda: measure_all(argv))


if __name__ == "__main__":
    sys.exit(main())
