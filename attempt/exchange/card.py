"""The model card of an exported prompt, README.md as Hugging Face's Hub shows it: what to give it, and what comes back.

It says what the run's folder says. Of a checkpoint without its run the text format is train.py's usual one.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from attempt.checkpoint import PromptConfig
from attempt.command.source import described
from attempt.runs.folder import Run
from attempt.runs.plan import Plan
from attempt.training.series import read_result
from data.tasks import GRID, TASKS, Task, source_text
from model.errors import one_line

# Values of an example's fields.
SAMPLES = ("The dog sleeps in the garden.", "An animal is outside.", "Nobody saw a cat.")
METHODS = {
    "prompt": "prompt tuning (Lester et al. 2021, https://aclanthology.org/2021.emnlp-main.243/)",
    "spot": "prompt tuning from another task's prompt (SPoT, Vu et al. 2022, https://aclanthology.org/2022.acl-long.346/)",
}
PROJECT = (
    "attempt {version}, an implementation of ATTEMPT (Asai et al. 2022, https://aclanthology.org/2022.emnlp-main.446/)"
    " and of the methods that it is compared with, in plain PyTorch"
)
DECODINGS = {"generate": "written greedily", "labels": "the most probable label"}


@dataclass(frozen=True)
class Known:
    """What is known of a checkpoint: its run's config.json and result.json, as far as they are there."""

    plan: Plan | None
    result: dict[str, Any] | None
    """Of its best checkpoint; None of any other."""
    steps: int | None = None
    """That were taken; None where the run has not ended."""

    @classmethod
    def of(cls, path: Path) -> "Known":
        """Of a run's folder, or of a checkpoint in it. The scores are those of its best one."""
        run = Run(path if path.is_dir() else path.parent)
        of_run = path.is_dir() or path.name in (run.best.name, run.last.name)
        plan = Plan.read(run.config) if of_run and run.config.is_file() else None
        of_best = plan is not None and (path.is_dir() or path.name == run.best.name)
        result = read_result(run) if plan is not None and run.result.is_file() else None
        steps = None if plan is None or result is None else int(result.get("steps", plan.steps))
        return cls(plan, result if of_best else None, steps)

    def task(self, name: str) -> Task | None:
        """Its fields and labels; None where nobody knows them."""
        if name in TASKS:
            return TASKS[name]
        if self.plan is None or name not in self.plan.formats:
            return None
        fields, labels = (tuple(self.plan.formats[name][key]) for key in ("fields", "labels"))
        return Task(name, fields, labels, (), "given", free_text=not labels)

    def tokens(self, name: str, of: str) -> int | None:
        """The most tokens of a text, or answer, EOS included: "source_tokens" or "answer_tokens"."""
        if self.plan is not None and name in self.plan.formats:
            most: int = self.plan.formats[name][of]
            return most
        task = self.task(name)
        if task is None or of == "answer_tokens":
            return None
        return (self.plan and self.plan.max_source_length) or task.max_source

    def text(self, task: Task, values: tuple[str, ...]) -> str:
        """As the model reads it."""
        return source_text(task, values, self.plan is None or self.plan.task_name)

    def example(self, task: Task) -> str:
        return self.text(task, tuple(value for _, value in zip(task.fields, cycle(SAMPLES), strict=False)))


def model_card(known: Known, config: PromptConfig, length: int, width: int) -> str:
    """The card of the prompts, (K,L,D), in a run's folder or a checkpoint."""
    parts = [front_matter(config), *opening(known, config, length, width)]
    for number, name in enumerate(config.tasks):
        numbered = f" (`task_ids` {number})" if len(config.names) > 1 else ""
        parts += [f"## {code(name)}{numbered}", *task_parts(known, config, name)]
    if known.result is not None:
        parts += ["## Scores", score_table(known.result), score_note(known.result, known.plan)]
    return "\n\n".join([*parts, "## How to load it", *loading(known, config)]) + "\n"


def front_matter(config: PromptConfig) -> str:
    """What the Hub reads, in YAML, of which JSON's strings are a part."""
    tags = ["soft-prompt", "prompt-tuning", *["spot"] * (config.method == "spot"), "t5"]
    lines = [f"base_model: {json.dumps(config.model)}", "library_name: peft", "tags:", *(f"- {tag}" for tag in tags)]
    return "\n".join(["---", *lines, "---"])


def opening(known: Known, config: PromptConfig, length: int, width: int) -> Iterator[str]:
    names = ", ".join(map(code, config.tasks))
    several = len(config.names) > 1
    yield f"# {names}: {'soft prompts' if several else 'a soft prompt'} for {code(config.model)}"
    each = f"{len(config.names)} prompts, one for each task," if several else "One prompt"
    yield (
        f"{each} of {length} x {width} numbers, put before the text in the encoder of {code(config.model)}. Only "
        f"{'they were' if several else 'it was'} trained, by {METHODS[config.method]}; the T5 is unchanged."
    )
    if (plan := known.plan) and plan.steps:
        rate = f"{plan.optimizer}, learning rate {plan.lr:g}, {plan.schedule} schedule, seed {plan.seed}"
        steps = known.steps or plan.steps  # fewer with --patience
        more = f", the best on dev at step {known.result['best_step']}" if known.result else ""
        more += "; the run has not ended yet" * (known.steps is None)
        yield f"Training: {steps:,} steps of {plan.batch_size} examples, {rate}{more}."
    yield f"Made with {PROJECT.format(**described())}."
    if os.path.isdir(config.model):
        yield "`base_model` is a folder of the machine that made this: name the T5 on the Hub in its place to share it."


def task_parts(known: Known, config: PromptConfig, name: str) -> Iterator[str]:
    """What the model reads and writes for a task."""
    task = known.task(name)
    if task is None:
        yield "The format of its texts and answers is not known here: the checkpoint was exported without its run."
        return
    if known.plan is None:
        yield "The checkpoint was exported without its run: this is the usual format of the program's runs."
    yield "The model reads"
    yield indented([known.text(task, tuple(f"{{{field}}}" for field in task.fields))])
    yield "for example"
    yield indented([known.example(task)])
    if most := known.tokens(name, "source_tokens"):
        yield f"Texts of more than {most} tokens, EOS included, are cut."
    yield from answer_parts(task, task.label_texts(config.labels))


def answer_parts(task: Task, texts: list[str]) -> Iterator[str]:
    if not texts:
        yield "The model writes an answer in words of its own."
    elif texts == list(GRID):
        yield f"The model writes a score from {GRID[0]} to {GRID[-1]}, in steps of {GRID[1]}."
    else:
        yield f"The model writes one of these{'' if texts == list(task.labels) else ', each before its meaning'}:"
        pairs = zip(texts, task.labels, strict=True)
        yield indented([text if text == label else f"{text}  {label}" for text, label in pairs])


def score_table(result: Mapping[str, Any]) -> str:
    rows = [["task", "split", "metric", "score in percent", "examples", "answers"], ["---"] * 6]
    for score in result["scores"]:
        way = DECODINGS.get(score.get("decoding", "generate"), "")
        more = [str(score.get("examples", "")), way]
        invalid = {"invalid answers": score["invalid"]} if "invalid" in score else {}
        for metric, value in {**score["metrics"], **invalid}.items():
            rows.append([code(score["task"]), score["split"], metric, f"{value:.2f}", *more])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def score_note(result: Mapping[str, Any], plan: Plan | None) -> str:
    """Which examples the splits have, and the scores of one answer for all of them."""
    if plan is None or plan.train_file is not None:
        said = "The splits are the files that the run was given."
    elif plan.data_dir is not None or plan.mirror is not None:  # the demo's world, for one
        said = "The data sets came from the run's own folder or server, and may be others than the official ones."
    elif plan.splits == "paper":
        said = "The splits are cut from the official sets as in Asai et al. 2022."
    else:
        said = "The splits are the official ones; test is dev once more."
    first = [(score, next(iter(score["metrics"].values()))) for score in result.get("constant", []) if score["metrics"]]
    constant = ", ".join(f"{code(score['task'])} {score['split']} {value:.2f}" for score, value in first)
    return said + f" The most common answer, given to all examples, has in the first metric: {constant}." * bool(first)


def loading(known: Known, config: PromptConfig) -> Iterator[str]:
    task = known.task(config.tasks[0])
    text = "…" if task is None else known.example(task)
    several = len(config.names) > 1
    lengths = [known.tokens(name, "answer_tokens") or 0 for name in config.tasks]
    more = f", max_new_tokens={max(lengths)}" * all(lengths) + ", task_ids=torch.tensor([0])" * several
    lines = ["import torch"] * several + [
        "from peft import AutoPeftModelForSeq2SeqLM",
        "from transformers import AutoTokenizer",
        'model = AutoPeftModelForSeq2SeqLM.from_pretrained("FOLDER")  # the one of this file',
        f"tokenizer = AutoTokenizer.from_pretrained({config.model!r})",
        f'batch = tokenizer([{text!r}], return_tensors="pt")',
        f"print(tokenizer.batch_decode(model.generate(**batch{more}), skip_special_tokens=True))",
    ]
    yield "\n".join(["```python", *lines, "```"])


def indented(lines: list[str]) -> str:
    """Literal text: nothing in it is a mark of Markdown's."""
    return "\n".join(f"    {one_line(line)}" for line in lines)


def code(text: str) -> str:
    """A name in Markdown."""
    return f"`{one_line(text).replace('`', chr(39))}`"
