"""What a run is about to do, and its first batch as the model will read it, in lines for the terminal."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from attempt.baselines import METHODS
from attempt.machine import distributed
from attempt.runs.plan import Plan
from attempt.training.trainer import Trainer, count

NAME = 11  # width of the column of the lines' names
IDS = 12  # token ids that are shown of a text


class Task(Protocol):
    """What is told of a task (data/tasks.py has it)."""

    @property
    def name(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    def label_texts(self, style: str) -> list[str]: ...


class Split(Protocol):
    """What is told of a split of a task (eval.py has it)."""

    @property
    def task(self) -> Task: ...
    @property
    def examples(self) -> Sequence[Any]: ...
    @property
    def tokens(self) -> Any: ...


class Batch(Protocol):
    """What is shown of a batch (data/batches.py has it)."""

    ids: Tensor  # (B,S)
    mask: Tensor  # (B,S)
    labels: Tensor  # (B,T)
    index: Tensor  # (B,)


def summary(
    options: Plan,
    trainer: Trainer,
    splits: Sequence[Mapping[str, Split]],
    sources: list[str],
    frozen: tuple[int, int],
    cut_answers: int,
) -> str:
    """The run: its tasks, what is trained, where, and how long.

    splits: of each task train, dev and test. frozen: parameters that are not trained, all of them and this process's.
    """
    lines = [("run", str(options.folder()))]
    for task in splits:
        lines += task_lines(options, task)
    if cut_answers:
        lines.append(("", f"{cut_answers:,} answers are cut to {options.max_target_length} tokens"))
    lines += method_lines(options, trainer, sources)
    lines += size_lines(trainer, frozen)
    lines += training_lines(options, [len(task["train"].examples) for task in splits])
    return "\n".join(f"{name:{NAME}}{text}" for name, text in lines)


Lines = list[tuple[str, str]]  # each with its name, or "" where it goes on


def task_lines(options: Plan, splits: Mapping[str, Split]) -> Lines:
    task, train = splits["train"].task, splits["train"]
    sizes = ", ".join(f"{name} {len(split.examples):,}" for name, split in splits.items())
    lines = [("task", f"{task.name}: {sizes} examples")]
    if task.split == "given":
        way = "as SQuAD's are" if options.text_scores == "squad" else "as they are, except for case and spaces"
        kind = f"the labels {', '.join(task.labels)}" if task.labels else f"free text, compared {way}"
        lines.append(("", f"its answers are {kind}"))
    answers = {example.target for example in train.examples}
    labels = task.labels and task.label_texts(options.labels)
    if absent := [label for label in labels if label not in answers]:
        lines.append(("", f"no training example has the label {', '.join(absent)}"))
    if train.tokens.cut_sources:
        lines.append(("", f"{train.tokens.cut_sources:,} training texts are cut to {train.tokens.max_source} tokens"))
    return lines


def method_lines(options: Plan, trainer: Trainer, sources: list[str]) -> Lines:
    method = options.method
    if method not in METHODS:
        method += f", prompt of {options.prompt_length} x {trainer.t5.config.d_model}, first value {options.init}"
    lines = [("method", method)]
    if sources:
        lines.append(("sources", ", ".join(sources)))
    lines += [("model", options.model), ("device", str(trainer.machine))]
    ways = [f"{distributed.size()} processes at once"] * (distributed.size() > 1)
    ways += [f"{options.accumulate} parts one after the other"] * (options.accumulate > 1)
    if ways:
        lines.append(("", f"each batch is computed in {' and '.join(ways)}"))
    return lines


def size_lines(trainer: Trainer, frozen: tuple[int, int]) -> Lines:
    trained, (all_frozen, own) = count(trainer.trained), frozen
    groups = [
        f"{group['name']} {sum(p.numel() for p in group['params']):,} (lr {group['peak_lr']:g})"
        for group in trainer.optimizer.param_groups
    ]
    total = trained + all_frozen
    lines = [("trainable", f"{trained:,} of {total:,} parameters ({trained / total:.2%}): {', '.join(groups)}")]
    if own < all_frozen:
        lines.append(("", f"{all_frozen:,} frozen parameters, {own:,} of them in each process"))
    return lines


def training_lines(options: Plan, sizes: Sequence[int]) -> Lines:
    epochs = options.steps / options.epoch_steps(sizes)
    told = f"{epochs:.2g}" if epochs < 100 else f"{epochs:,.0f}"  # not 1.2e+02
    examples = min(options.batch_size, options.epoch_examples(sizes))
    lines = [
        ("training", f"{options.steps} steps of {examples} examples ({told} epochs)"),
        ("", f"{options.optimizer}, {options.schedule} rate, warm-up {options.warmup} steps"),
    ]
    if options.warmup > options.steps:
        peak = options.lr * options.steps / options.warmup
        lines.append(("", f"the warm-up is longer than the run: the rate rises to {peak:.3g}, not to {options.lr:g}"))
    return [*lines, ("", f"evaluation every {options.eval_every} steps")]


Decode = Callable[[list[int]], str]  # token ids up to the EOS -> their text


def example_lines(task: str, source: list[int], target: list[int], decode: Decode) -> str:
    """An example of a task, as the model reads it and as it is to answer; lengths count the EOS."""
    lines = f"source {decode(source)!r} ({len(source)} tokens)", f"target {decode(target)!r} ({len(target)} tokens)"
    return f"{task:{NAME - 1}} {lines[0]}\n{'':{NAME}}{lines[1]}"


def batch_lines(batch: Batch, names: Sequence[str], prompt: int, loss: Tensor, vocabulary: int, decode: Decode) -> str:
    """The first batch: what stands at the encoder's and the decoder's positions, and where there is padding.

    names: of each row's task. prompt: rows of the prompt, L, that come before the text.
    """
    (B, S), T = batch.ids.shape, batch.labels.size(1)
    lengths = batch.mask.sum(1).tolist()
    tasks = ", ".join(f"{count} of {name}" for name, count in Counter(names).items())
    before = f"{prompt} of the prompt and " * (prompt > 0)
    row, own = batch.ids[0], lengths[0]
    label = batch.labels[0][batch.labels[0] >= 0].tolist()
    some = f"{min(lengths)} to {max(lengths)}" if min(lengths) < max(lengths) else f"{max(lengths)}"
    guess = torch.tensor(vocabulary).log()
    lines: Lines = [
        ("batch", f"{B} examples: {tasks}"),
        ("", f"encoder: {prompt + S} positions, {before}{S} of text, for texts of {some} tokens; of the"),
        ("", f"text's positions {1 - sum(lengths) / (B * S):.1%} are padding on the right, which nothing attends to"),
        ("", f"decoder: {T} positions, the longest target's; the padding of others counts in no loss"),
        ("", f"loss {loss:.4f} nats/token before the first step (guessing among {vocabulary:,} tokens: {guess:.2f})"),
        ("row 1", f"prompt of {names[0]}, {prompt} positions" if prompt else "no prompt"),
        ("", f"source {decode(row.tolist())!r}"),
        ("", f"       {own} ids, EOS (1) the last, {S - own} of padding (0): {shown(row[:own].tolist())}"),
        ("", f"target {decode(label)!r}"),
        ("", f"       {len(label)} ids, EOS (1) the last, {T - len(label)} of padding: {shown(label)}"),
    ]  # fmt: skip
    return "\n".join(f"{name:{NAME}}{text}" for name, text in lines)


def shown(ids: list[int]) -> str:
    if len(ids) > IDS:
        return f"{' '.join(map(str, ids[: IDS - 2]))} … {' '.join(map(str, ids[-2:]))}"
    return " ".join(map(str, ids))
