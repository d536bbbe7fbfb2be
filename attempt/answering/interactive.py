"""Answers to lines that are typed by hand, or piped in: python eval.py --run runs/rte-attempt-t5-base --interactive

Shapes: C labels, T target positions, S source positions, P prompts in a mixture.
"""

import contextlib
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attempt.machine.device import Machine
from attempt.prompt import SoftPrompt
from attempt.runs.report import bars
from model.decoding import generate, label_scores
from model.errors import AttemptError, meant, one_line
from model.t5 import T5
from model.tokenizer import Tokenizer

FREE_TEXT = 64  # tokens of an answer that is any text
MOST_LABELS = 5  # that are shown, the most probable first
SWITCH = ":task"


@dataclass(frozen=True)
class Question:
    """A task, as one asks it."""

    task: str
    fields: tuple[str, ...]
    text_of: Callable[[tuple[str, ...]], str]
    """The fields' values -> the text that the model reads."""
    number: int
    """Whose prompt it is."""
    most: int
    """Tokens of a text, EOS included; of a longer one the end is cut off."""
    answer_length: int
    labels: dict[str, str] = field(default_factory=dict)
    """The answers, and what they mean; none where any text is one."""
    label_ids: Tensor | None = None
    """(C,T): the answers' tokens with EOS, padded with -100."""
    choose: bool = False
    """Answer with the most probable label, instead of writing one."""

    @property
    def start(self) -> str:
        """What a text begins with that is typed whole."""
        return self.text_of(("",) * len(self.fields)).partition(":")[0] + ":"


@dataclass(frozen=True)
class Model:
    """What answers."""

    t5: T5
    tokenizer: Tokenizer
    machine: Machine
    prompt: SoftPrompt | None
    sources: Sequence[str]

    @torch.inference_mode()
    def reply(self, question: Question, text: str) -> str:
        """What is read, the answer, the labels' log-probabilities in nats, and the mixture's weights, in lines."""
        whole = [*self.tokenizer.encode(text), self.tokenizer.eos]
        read = whole if len(whole) <= question.most else [*whole[: question.most - 1], self.tokenizer.eos]
        ids = torch.tensor([read], device=self.machine.device)  # (1,S)
        mask, tasks = torch.ones_like(ids, dtype=torch.bool), torch.tensor([question.number], device=ids.device)
        lines = [f"read      {one_line(text)}"]
        if len(read) < len(whole):
            lines = [
                f"read      {one_line(self.tokenizer.decode(read))}",
                f"          cut: the first {len(read):,} of {len(whole):,} tokens, EOS included",
            ]
        with self.machine.autocast():
            scores = {}
            if question.label_ids is not None:
                found = label_scores(self.t5, ids, mask, question.label_ids, self.prompt, tasks)[0]  # (C,)
                scores = dict(zip(question.labels, found.tolist(), strict=True))
            if question.choose:
                answer = max(scores, key=lambda label: scores[label])
            else:
                written = generate(self.t5, ids, mask, question.answer_length, self.prompt, tasks)
                answer = self.tokenizer.decode(written[0].tolist())
        lines.append(f"answer    {meaning(question, answer)}")
        if scores:
            lines += under("labels", label_lines(question, scores))
        if (shares := self.weights(ids, mask, question.number)) is not None:
            lines += under("mixes", bars(shares).split("\n"))
        return "\n".join(lines)

    def weights(self, ids: Tensor, mask: Tensor, number: int) -> dict[str, float] | None:
        """How much of each prompt the text gets; of a weight for each position the mean. None without a mixture."""
        if self.prompt is None or self.prompt.sources is None:
            return None
        a = self.prompt.weights(self.t5.embedding(ids), mask, ids.new_tensor([number]))  # (1,P)
        names = [*self.sources, *(["target"] if self.prompt.use_target else [])]
        return dict(zip(names, a[0].tolist(), strict=True))


def meaning(question: Question, answer: str) -> str:
    if not question.labels:
        return one_line(answer)
    known = question.labels.get(answer.strip())
    if known is None:
        return f"{one_line(answer)!r}, which is none of the labels"
    return answer if known == answer else f"{answer} ({known})"


def label_lines(question: Question, scores: dict[str, float]) -> list[str]:
    """Each label's log-probability in nats, and its share among the labels as a bar."""
    shares = torch.tensor(list(scores.values())).softmax(0).tolist()
    order = sorted(zip(scores, shares, strict=True), key=lambda pair: -pair[1])[:MOST_LABELS]
    shown = bars({meaning(question, label): share for label, share in order}).split("\n")
    width = max(map(len, shown))
    lines = [f"{line:{width}}  log p {scores[label]:.3f}" for line, (label, _) in zip(shown, order, strict=True)]
    left = len(scores) - len(order)
    return [*lines, *([f"and {left} less probable ones"] if left else [])]


def under(name: str, lines: list[str]) -> list[str]:
    return [f"{name if not i else '':10}{line}" for i, line in enumerate(lines)]


def converse(questions: Sequence[Question], reply: Callable[[Question, str], str]) -> None:
    """Read lines to the end of the input, and answer each example as it is complete."""
    typed, question = sys.stdin.isatty(), questions[0]
    if typed:
        with contextlib.suppress(ImportError):  # its import alone gives input() a history and the arrow keys
            importlib.import_module("readline")
    print(introduction(questions), flush=True)
    while True:
        values: list[str] = []
        try:
            text = None
            while text is None:
                line = read_line(f"{question.fields[len(values)]}: " if typed else "")
                if not values and line.split()[:1] == [SWITCH]:
                    question = switched(questions, question, line)
                elif not line.strip():
                    values = []  # the example begins again
                elif not values and (line.startswith(question.start) or "\t" in line):
                    text = whole_example(question, line)
                else:
                    values.append(line.strip())
                    text = question.text_of(tuple(values)) if len(values) == len(question.fields) else None
        except EOFError:
            print(end="\n" * typed)
            if values:
                missing = ", ".join(question.fields[len(values) :])
                print(f"note: the last example has no {missing}; it was not answered", file=sys.stderr)
            return
        print(f"{reply(question, text)}\n", flush=True)


def read_line(prompt: str) -> str:
    try:
        return input(prompt)
    except UnicodeDecodeError as e:
        raise AttemptError(f"--interactive: expected lines in UTF-8, found {e}") from None


def whole_example(question: Question, line: str) -> str | None:
    """The text of a line that has all fields; None, and a note, where it has not."""
    if line.startswith(question.start):
        return line.strip()
    values = tuple(value.strip() for value in line.split("\t"))
    if len(values) != len(question.fields):
        expected = f"expected {len(question.fields)} fields ({', '.join(question.fields)})"
        print(f"note: {expected} with tabs between them, found {len(values)}; not answered", file=sys.stderr)
        return None
    return question.text_of(values)


def switched(questions: Sequence[Question], question: Question, line: str) -> Question:
    """The task that a line names, or the present one."""
    name, known = line.strip().removeprefix(SWITCH).strip(), {other.task: other for other in questions}
    if name not in known:
        print(f"note: expected one of {', '.join(known)}, found {name!r}{meant(name, known)}", file=sys.stderr)
    else:
        print(introduction([known[name]]), flush=True)
    return known.get(name, question)


def introduction(questions: Sequence[Question]) -> str:
    question = questions[0]
    fields = ", ".join(question.fields)
    ways = "a line each, or on one line with tabs between them" if len(question.fields) > 1 else "a line"
    lines = [f"{question.task}: type {fields}: {ways}; or the whole text, beginning with {question.start!r}"]
    if len(questions) > 1:
        lines.append(f"{SWITCH} NAME goes to another task: {', '.join(other.task for other in questions[1:])}")
    return "\n".join([*lines, "an empty line begins again, Ctrl-D ends"])
