"""A task, as one asks it: which text the model reads, whose prompt it gets, what its answers mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from attempt.answering.answers import label_ids
from attempt.answering.backbone import Backbone
from attempt.answering.splits import check_answers, find_task
from attempt.checkpoint import PromptConfig
from attempt.runs.plan import Plan
from data.files import is_unicode
from data.tasks import Task, source_text
from model.errors import AttemptError, meant

FREE_TEXT = 64  # tokens of an answer that is any text, of a run that does not say how long its own are
Text = str | Sequence[str] | Mapping[str, str]
"""A task's one field, or its fields in their order or by their names."""


@dataclass(frozen=True)
class Question:
    """A task, as one asks it."""

    task: Task
    number: int
    """Whose prompt it is."""
    most: int
    """Tokens of a text, EOS included; of a longer one the end is cut off."""
    answer_length: int
    labels: dict[str, str] = field(default_factory=dict)
    """The answers as they are written, and what they mean; none where any text is one."""
    task_name: bool = True
    """Whether a text begins with the task's name."""

    def values_of(self, line: str, where: str = "") -> list[str]:
        """The fields of a line, with tabs between them. Raises AttemptError, which begins with `where`.

        Of a task of one field the line may be whole, with the text's begin that the model reads.
        """
        fields, values = self.task.fields, [value.strip() for value in line.split("\t")]
        if len(fields) == 1:
            return [line.strip().removeprefix(self.text_of([""])).strip()]
        if len(values) != len(fields):
            names = ", ".join(fields)
            raise AttemptError(
                f"{where}expected {len(fields)} fields ({names}) with tabs between them, found {len(values)}"
            )
        return values

    def text_of(self, values: Text) -> str:
        """The fields' values -> the text that the model reads. Raises AttemptError where some are missing."""
        fields = self.task.fields
        if isinstance(values, Mapping):
            if not values.keys() >= set(fields):
                keys = ", ".join(map(ascii, values)) or "none"
                raise AttemptError(f"{self.task.name}: expected texts for {', '.join(fields)}, found the keys {keys}")
            values = [values[name] for name in fields]
        found = tuple(values) if isinstance(values, Sequence) and not isinstance(values, str) else (values,)
        if len(found) != len(fields) or not all(isinstance(value, str) and is_unicode(value) for value in found):
            names, told = ", ".join(fields), ", ".join(map(ascii, found))
            several = f"; give a tuple of {len(fields)}, or a dict" * (len(fields) > 1)
            raise AttemptError(f"{self.task.name}: expected texts for {names}, found {told[:200] or 'none'}{several}")
        return source_text(self.task, found, self.task_name)


def new_question(name: str, number: int, plan: Plan, backbone: Backbone) -> Question:
    """A task to be asked: of its files only a user's own are needed, and not those where the run knows enough."""
    task = find_task(name, plan)
    check_answers(task, plan)
    labels, known = task.label_texts(plan.labels), plan.formats.get(name)
    meanings = dict(zip(labels, task.labels or labels, strict=True))
    if known is None:  # of a run of before, or a task that it was not trained on
        longest = label_ids(backbone, labels).size(1) if labels else FREE_TEXT
        longest = plan.max_target_length or longest
        known = {"source_tokens": plan.max_source_length or task.max_source, "answer_tokens": longest}
    return Question(task, number, known["source_tokens"], known["answer_tokens"], meanings, plan.task_name)


def numbered(names: Sequence[str], config: PromptConfig) -> dict[str, int]:
    """The names of tasks, each with the number of its prompt in the checkpoint."""
    if len(config.names) == 1:  # one prompt can be tried on any task
        return dict.fromkeys(names, 0)
    for name in names:
        if name not in config.names:
            near = meant(name, config.names)
            raise AttemptError(
                f"--task {name}: expected one of the checkpoint's tasks, {', '.join(config.names)}{near}"
            )
    return {name: config.names.index(name) for name in names}
