"""Tasks, built-in or of a user's files, as splits of ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attempt.command.options import Options
from attempt.runs.plan import Plan
from data.batches import TokenSet
from data.download import Downloader
from data.splits import official_splits, paper_splits, take, take_questions, take_shots
from data.tasks import TASKS, Example, Task, check_labels, get_task, load_official
from data.token_cache import tokenized
from data.user import SPLITS, UserFiles, user_task
from model.errors import AttemptError
from model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Split:
    """A split of a task, tokenised once."""

    task: Task
    name: str
    examples: list[Example]
    tokens: TokenSet
    answer_length: int
    """Tokens that an answer may have, EOS included."""

    def format(self, options: Options) -> dict[str, Any]:
        """What a finished run needs to know of its task, as its config.json holds it (attempt/runs/plan.py)."""
        return {
            "fields": list(self.task.fields),
            "labels": self.task.label_texts(options.labels),
            "source_tokens": options.max_source_length or self.task.max_source,
            "answer_tokens": self.answer_length,
        }


def check_answers(task: Task, options: Options) -> None:
    """Raises AttemptError where answers are to be chosen among labels, and the task has none."""
    if options.answer_by == "labels" and task.free_text:
        raise AttemptError(
            f"--answer-by labels: expected tasks with labels, found {task.name}, whose answers are free text; leave it "
            "out, or use --answer-by generate"
        )


def known_format(name: str, options: Options) -> dict[str, Any] | None:
    """What a finished run knows of its task (`Split.format`); None of a run that begins, or of before."""
    return options.formats.get(name) if isinstance(options, Plan) else None


def find_task(name: str, options: Options, wanted: Sequence[str] = SPLITS) -> Task:
    """The task of that name: a built-in one, or of the user's files, which have those of the names that are not.

    wanted: the splits of the user's files that are to be read.
    """
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
            f"--task: expected a name of its own for the task of {options.train_file}, found only the "
            f"built-in {', '.join(options.task)}; add another, e.g. --task mine"
        )
    if name not in others:
        return get_task(name)
    columns = tuple(options.source_field), options.target_field
    paths = options.train_file, options.dev_file, options.test_file
    before = "counted" if isinstance(options, Plan) else None  # of a run of before, whose plan does not say
    answers = None if options.answers == "both" else options.answers or before
    own = None if options.task_field is None else (options.task_field, name)
    known = known_format(name, options)
    files = UserFiles(*paths, *columns, answers, options.text_scores or "plain", own)
    return user_task(name, files, None if known is None else known["labels"], wanted)


def load_splits(
    name: str, number: int, names: Sequence[str], options: Options, downloader: Downloader, tokenizer: Tokenizer
) -> dict[str, Split]:
    """Some splits of a task, by name: train, dev, test. `number` says which of the prompts is the task's."""
    known = known_format(name, options)
    task = find_task(name, options, names if known else ("train", *names))
    check_answers(task, options)
    cut = paper_splits if options.splits == "paper" else official_splits
    splits = cut(task, load_official(task, downloader.fetch, options.labels, options.task_name))
    if task.free_text:  # it has no longest label: its longest training answer is long enough
        texts = [] if known else list({example.target for example in splits["train"]})
    else:
        texts = task.label_texts(options.labels)
        check_labels(task, texts, tokenizer.encode_batch, tokenizer.decode, options.answer_by == "generate")
    longest = known["answer_tokens"] if known else 1 + max(map(len, tokenizer.encode_batch(texts)), default=0)
    answer_length = options.max_target_length or longest
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
