"""A finished run, to be used: attempt.load("runs/mine").answer(["a text"])

Shapes: C labels, N texts, P prompts of a mixture, T tokens of a label.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from torch import Tensor

from attempt.answering.answers import found_by, instance_weights, label_ids, show_pads
from attempt.answering.backbone import Backbone, new_downloader
from attempt.answering.question import Question, Text, new_question, numbered
from attempt.checkpoint import PromptConfig, Trained, load_trained
from attempt.machine import distributed
from attempt.origin import Origin, fingerprint, warn_of_others
from attempt.prompt import SoftPrompt
from attempt.runs.folder import Run
from attempt.runs.plan import Plan, check_value, from_one_place
from data.batches import TokenSet
from data.tasks import Example
from model.errors import AttemptError, meant, note

CHANGES = ("model", "device", "precision", "answer_by", "eval_batch_size", "mirror", "data_dir")  # of `load`


class Answer(NamedTuple):
    text: str | None
    """A label, as the task's data call it, or any text; None where the model wrote none of the labels."""
    probabilities: dict[str, float]
    """Of each label, among the labels; {} of free text, or where nobody asked for them."""
    written: str
    """What the model wrote; "" where a label was chosen."""


class Weights(NamedTuple):
    names: list[str]
    """(P,) the sources', and last "target" where the target's own prompt is mixed too."""
    values: Tensor
    """(N,P): how much of each prompt every text gets; of variant `token` the mean over its positions."""


class Runner:
    """The T5, its tokenizer, and the prompts of a finished run."""

    def __init__(
        self,
        plan: Plan,
        backbone: Backbone,
        prompt: SoftPrompt | None,
        config: PromptConfig,
        numbers: Mapping[str, int],
    ) -> None:
        """numbers: the tasks that it answers, and which of the prompts is whose."""
        self.plan, self.backbone, self.prompt, self.config = plan, backbone, prompt, config
        self.questions = {name: new_question(name, number, plan, backbone) for name, number in numbers.items()}
        self.cut = Counter[int]()
        """How many of the texts so far were cut to a length, by the length in tokens."""

    def __repr__(self) -> str:
        return f"<{self.plan.method} of {', '.join(self.questions)} on {self.plan.model}>"

    @overload
    def answer(
        self, texts: Sequence[Text], task: str | Sequence[str] | None = None, probabilities: Literal[False] = False
    ) -> list[str | None]: ...

    @overload
    def answer(
        self, texts: Sequence[Text], task: str | Sequence[str] | None = None, *, probabilities: Literal[True]
    ) -> list[Answer]: ...

    def answer(
        self, texts: Sequence[Text], task: str | Sequence[str] | None = None, probabilities: bool = False
    ) -> list[str | None] | list[Answer]:
        """The answer to each of N texts: a string, or with `probabilities` an Answer.

        task: whose texts they are, or of each text whose; None where the run has one task. The model writes a label,
        as eval.py does by default, and what it writes may be none of them: None. With --answer-by labels one is chosen.
        """
        found = self.answers(texts, task, probabilities)
        return found if probabilities else [one.text for one in found]

    def answers(
        self, texts: Sequence[Text], task: str | Sequence[str] | None = None, probabilities: bool = False
    ) -> list[Answer]:
        """The same, with all that is known of each answer."""
        asked = self._asked(texts, task)
        labels = list(dict.fromkeys(text for question in asked for text in question.labels))
        choose = self.plan.answer_by == "labels"
        by_labels = [i for i, question in enumerate(asked) if question.labels and (choose or probabilities)]
        written = [i for i, question in enumerate(asked) if not (question.labels and choose)]
        answers, shares = [Answer("", {}, "")] * len(asked), [dict[str, float]() for _ in asked]
        for i, scores in self._found(texts, asked, by_labels, labels):
            own = asked[i].labels
            found = scores[[labels.index(text) for text in own]].softmax(0).tolist()  # (C,), of its task's labels
            shares[i] = dict(zip(own.values(), found, strict=True))
            answers[i] = Answer(max(shares[i], key=lambda label: shares[i][label]), shares[i], "")
        for i, ids in self._found(texts, asked, written, []):
            text = self.backbone.tokenizer.decode(ids[: asked[i].answer_length].tolist())
            own = asked[i].labels
            answers[i] = Answer(own.get(text.strip()) if own else text, shares[i], text)
        return answers

    def weights(self, texts: Sequence[Text], task: str | Sequence[str] | None = None) -> Weights:
        """The mixture that each of N texts gets. Raises AttemptError where the run mixes no prompts."""
        asked = self._asked(texts, task)
        tokens, order = self._tokens(texts, asked, list(range(len(asked))))
        values = instance_weights(self.backbone, self.prompt, tokens).cpu()
        return Weights(self.config.mixed, values[np.argsort(order)])

    def _asked(self, texts: Sequence[Text], task: str | Sequence[str] | None) -> list[Question]:
        """The question of each text."""
        if distributed.size() > 1:  # which would share the batches out
            raise AttemptError(
                f"expected one process to answer texts, found {distributed.size()}; start it without them"
            )
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise AttemptError(f"expected a list of texts, found {type(texts).__name__}")
        if (
            task is not None
            and not isinstance(task, str)
            and (not isinstance(task, Sequence) or len(task) != len(texts))
        ):
            found = len(task) if isinstance(task, Sequence) else repr(task)
            raise AttemptError(f"expected a task, or one for each of {len(texts)} texts, found {found}")
        known = list(self.questions)
        if task is None and len(known) > 1:
            raise AttemptError(f"expected a task, one of {', '.join(known)}, or one for each text, found none")
        given = known[0] if task is None else task
        for name in [given] if isinstance(given, str) else given:
            if name not in self.questions:
                raise AttemptError(
                    f"task {name}: expected one of the run's, {', '.join(known)}{meant(str(name), known)}"
                )
        return [self.questions[name] for name in ([given] * len(texts) if isinstance(given, str) else given)]

    def _tokens(
        self, texts: Sequence[Text], asked: Sequence[Question], rows: Sequence[int]
    ) -> tuple[TokenSet, list[int]]:
        """The texts of some rows as ids, and which row each is of: those of a task come together."""
        tokenizer, sets, order = self.backbone.tokenizer, [], list[int]()
        for name in dict.fromkeys(asked[row].task.name for row in rows):
            own, one = [row for row in rows if asked[row].task.name == name], self.questions[name]
            examples = [Example(one.text_of(texts[row]), "") for row in own]
            sets.append(TokenSet.build(examples, tokenizer.encode_batch, one.most, None, one.number, tokenizer.eos))
            self.cut[one.most] += sets[-1].cut_sources
            order += own
        if not sets:
            sets = [TokenSet.build([], tokenizer.encode_batch, 1, None, 0, tokenizer.eos)]
        return TokenSet.join(sets), order

    def _found(
        self, texts: Sequence[Text], asked: Sequence[Question], rows: Sequence[int], labels: Sequence[str]
    ) -> list[tuple[int, Tensor]]:
        """For each of some rows its log-probabilities (C,) of labels, or where there are none a greedy answer's ids."""
        if not rows:
            return []
        tokens, order = self._tokens(texts, asked, rows)
        length = max(asked[row].answer_length for row in rows)
        ids = label_ids(self.backbone, labels) if labels else None
        found = found_by(self.backbone, self.prompt, tokens, length, self.plan.eval_batch_size, ids)
        return [(order[i], row) for index, rows_of in found for i, row in zip(index, rows_of.cpu(), strict=True)]


def check_trained(
    path: Path, trained: Trained, config: PromptConfig, plan: Plan, backbone: Backbone, used: Origin
) -> None:
    """Raises AttemptError where what was trained is not for this T5 or these labels.

    Warns of another T5, and of a run that is not complete.
    """
    run = Run(path.parent)
    if path in (run.best, run.last) and run.begun and not run.result.exists():
        note(f"{run.folder}: the run is not complete; {path.name} is what it has saved so far")
    D = backbone.t5.config.d_model
    if trained.prompt is not None and trained.prompt.target.size(2) != D:
        raise AttemptError(
            f"{path}: expected a model of width {trained.prompt.target.size(2)}, found {D} in {plan.model}; "
            "give the run's own by --model"
        )
    if plan.method != "finetune":  # whose weights are all in the checkpoint
        warn_of_others([(path, config.origin)], used)
    if config.labels != plan.labels:
        raise AttemptError(
            f"{path}: expected answers that are {plan.labels}, as the run's, found {config.labels}; "
            "name the run that it is of by --run"
        )


def load(run: str | Path, **changes: Any) -> Runner:
    """A finished run of train.py, from its folder, which may have been moved; of one that is not, a note reports so.

    changes: what shall be other than the run has it: model (a name or folder), device, precision, answer_by
    ("generate" or "labels"), eval_batch_size, mirror, data_dir (None: none); each as the flag of eval.py.
    Raises AttemptError where anything in the folder is not whole.
    """
    own = Run(Path(run))
    changes = {name: str(value) if isinstance(value, Path) else value for name, value in changes.items()}
    for name, value in changes.items():
        if name not in CHANGES:
            raise AttemptError(
                f"attempt.load: expected some of {', '.join(CHANGES)}, found {name}{meant(name, CHANGES)}"
            )
        try:
            check_value(name, value)
        except ValueError as e:
            raise AttemptError(f"attempt.load: expected a value as eval.py takes it, found {e}") from None
    # a compiler would not pay for a few texts
    plan = replace(Plan.read(own.config).located().without_data(), device="auto", shard=False, compile=False)
    plan = replace(plan, **from_one_place(changes))
    backbone = Backbone.load(plan, new_downloader(plan))
    used = Origin(plan.model, fingerprint(backbone.t5.embedding.weight))  # before a baseline's weights are put in
    trained, config = load_trained(own.best, plan.method, backbone.t5)
    check_trained(own.best, trained, config, plan, backbone, used)
    return ready(plan, backbone, trained, config, numbered(plan.task, config))


def ready(plan: Plan, backbone: Backbone, trained: Trained, config: PromptConfig, numbers: Mapping[str, int]) -> Runner:
    """A Runner of what was trained, on the T5's machine."""
    if trained.prompt is not None:
        trained.prompt.to(backbone.machine.device)
    show_pads(backbone, trained.prompt, plan)
    backbone.machine.quicken(backbone.t5, plan)
    return Runner(plan, backbone, trained.prompt, config, numbers)
