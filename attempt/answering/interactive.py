"""Answers to lines that are typed by hand, or piped in: python eval.py --run runs/rte-attempt-t5-base --interactive

Shapes: C labels, T target positions, S source positions, P prompts in a mixture.
"""

import contextlib
import importlib
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from attempt.answering.answers import label_ids
from attempt.answering.question import Question
from attempt.answering.runner import Runner
from attempt.runs.report import bars
from data.files import standard_lines
from model.decoding import generate, label_scores
from model.errors import AttemptError, meant, one_line

MOST_LABELS = 5  # that are shown, the most probable first
SWITCH = ":task"


@torch.inference_mode()
def reply(runner: Runner, question: Question, text: str) -> str:
    """What is read, the answer, the labels' log-probabilities in nats, and the mixture's weights, in lines."""
    t5, tokenizer, prompt = runner.backbone.t5, runner.backbone.tokenizer, runner.prompt
    whole = [*tokenizer.encode(text), tokenizer.eos]
    read = whole if len(whole) <= question.most else [*whole[: question.most - 1], tokenizer.eos]
    ids = torch.tensor([read], device=runner.backbone.machine.device)  # (1,S)
    mask, tasks = torch.ones_like(ids, dtype=torch.bool), torch.tensor([question.number], device=ids.device)
    lines = [f"read      {one_line(text)}"]
    if len(read) < len(whole):
        lines = [
            f"read      {one_line(tokenizer.decode(read))}",
            f"          cut: the first {len(read):,} of {len(whole):,} tokens, EOS included",
        ]
    with runner.backbone.machine.autocast():
        scores = {}
        if question.labels:
            rows = label_ids(runner.backbone, list(question.labels)).to(ids.device)  # (C,T)
            found = label_scores(t5, ids, mask, rows, prompt, tasks)[0]  # (C,)
            scores = dict(zip(question.labels, found.tolist(), strict=True))
        if scores and runner.plan.answer_by == "labels":
            answer = max(scores, key=lambda label: scores[label])
        else:
            answer = tokenizer.decode(generate(t5, ids, mask, question.answer_length, prompt, tasks)[0].tolist())
    lines.append(f"answer    {meaning(question, answer)}")
    if scores:
        lines += under("labels", label_lines(question, scores))
    if (shares := weights(runner, ids, mask, question.number)) is not None:
        lines += under("mixes", bars(shares).split("\n"))
    return "\n".join(lines)


def weights(runner: Runner, ids: Tensor, mask: Tensor, number: int) -> dict[str, float] | None:
    """How much of each prompt the text gets; of a weight for each position the mean. None without a mixture."""
    if runner.prompt is None or runner.prompt.sources is None:
        return None
    a = runner.prompt.weights(runner.backbone.t5.embedding(ids), mask, ids.new_tensor([number]))  # (1,P)
    return dict(zip(runner.config.mixed, a[0].tolist(), strict=True))


def start_of(question: Question) -> str:
    """What a text begins with that is typed whole."""
    return question.text_of(("",) * len(question.task.fields)).partition(":")[0] + ":"


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


def converse(runner: Runner) -> None:
    """Read lines to the end of the input, and answer each example as it is complete."""
    questions = list(runner.questions.values())
    typed, question = sys.stdin is not None and sys.stdin.isatty(), questions[0]
    piped = iter(()) if typed else standard_lines()
    if typed:
        with contextlib.suppress(ImportError):  # its import alone gives input() a history and the arrow keys
            importlib.import_module("readline")
    print(introduction(questions), flush=True)
    while True:
        values: list[str] = []
        try:
            text = None
            while text is None:
                line = input(f"{question.task.fields[len(values)]}: ") if typed else next(piped)[1]
                if line.split()[:1] == [SWITCH]:
                    question, values = switched(questions, question, line), []
                elif not line.strip():
                    values = []  # the example begins again
                elif not values and (line.strip().startswith(start_of(question)) or "\t" in line):
                    text = whole_example(question, line)
                else:
                    values.append(line.strip())
                    text = question.text_of(tuple(values)) if len(values) == len(question.task.fields) else None
        except UnicodeDecodeError as e:
            raise AttemptError(f"--interactive: expected lines in UTF-8, found {e}") from None
        except (EOFError, StopIteration):
            print(end="\n" * typed)
            if values:
                missing = ", ".join(question.task.fields[len(values) :])
                print(f"note: the last example has no {missing}; it was not answered", file=sys.stderr)
            return
        print(f"{reply(runner, question, text)}\n", flush=True)


def whole_example(question: Question, line: str) -> str | None:
    """The text of a line that has all fields; None, and a note, where it has not."""
    if line.strip().startswith(start_of(question)):
        return line.strip()
    try:
        return question.text_of(question.values_of(line))
    except AttemptError as e:
        print(f"note: {e}; not answered", file=sys.stderr)
        return None


def switched(questions: Sequence[Question], question: Question, line: str) -> Question:
    """The task that a line names, or the present one."""
    name, known = line.strip().removeprefix(SWITCH).strip(), {other.task.name: other for other in questions}
    if name not in known:
        print(f"note: expected one of {', '.join(known)}, found {name!r}{meant(name, known)}", file=sys.stderr)
    else:
        print(introduction([known[name]]), flush=True)
    return known.get(name, question)


def introduction(questions: Sequence[Question]) -> str:
    question = questions[0]
    fields = ", ".join(question.task.fields)
    ways = "a line each, or on one line with tabs between them" if len(question.task.fields) > 1 else "a line"
    lines = [f"{question.task.name}: type {fields}: {ways}; or the whole text, beginning with {start_of(question)!r}"]
    if len(questions) > 1:
        lines.append(f"{SWITCH} NAME goes to another task: {', '.join(other.task.name for other in questions[1:])}")
    return "\n".join([*lines, "an empty line begins again, Ctrl-D ends"])
