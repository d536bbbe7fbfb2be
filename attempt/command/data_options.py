"""What a training run can be told about its tasks and their examples: one field a flag, as in options.py."""

from dataclasses import dataclass

from attempt.command.flags import flag, positive, seed_number


@dataclass(frozen=True)
class DataOptions:
    """Which tasks, from which files, how many of their examples, and how these become texts."""

    task: list[str] = flag("task", "one or more tasks, e.g. mnli, or: rte mrpc cola", nargs="+", metavar="TASK")
    train_file: str | None = flag(
        "task",
        "training examples of the one task in --task that is not built in: .tsv, .csv or .jsonl, also .gz; needs "
        "--dev-file, --source-field and --target-field",
        None,
        metavar="FILE",
    )
    dev_file: str | None = flag("task", "examples that decide which prompt is the best", None, metavar="FILE")
    test_file: str | None = flag(
        "task", "examples to score at the end (default: --dev-file's, this program's)", None, metavar="FILE"
    )
    source_field: list[str] = flag(
        "task", "columns of the files with the text, in this order", [], nargs="+", metavar="COLUMN"
    )
    target_field: str | None = flag("task", "column of the files with the answer", None, metavar="COLUMN")
    task_field: str | None = flag(
        "task",
        "column of the files that names a row's task, if they have rows of several tasks in --task",
        None,
        metavar="COLUMN",
    )
    answers: str | None = flag(
        "task",
        "the files' answers: labels, or any text (default: labels where the training file has at most 20 different "
        "answers, and fewer than half as many as rows, or, if it is small, where dev repeats them)",
        None,
        choices=["labels", "text"],
    )
    text_scores: str | None = flag(
        "task",
        "how free-text answers of the files are compared: plain, as they are except for case and spaces, gives "
        "plain_f1 and plain_em; squad, also without punctuation and articles, as SQuAD's and MRQA's always are, "
        "gives f1 and em (default: plain, this program's)",
        None,
        choices=["plain", "squad"],
    )
    labels: str = flag(
        "task",
        "how answers are written: digits (Asai et al.) or the words T5 knows",
        "digits",
        choices=["digits", "words"],
    )
    train_examples: int | None = flag(
        "task",
        "train on the first N examples of the permuted training set (default: all)",
        None,
        type=positive,
        metavar="N",
    )
    shots: int | None = flag("task", "train on K examples of each label", None, type=positive, metavar="K")
    eval_examples: int | None = flag(
        "task",
        "score at most N examples of a split, drawn with --data-seed (default: all)",
        None,
        type=positive,
        metavar="N",
    )
    data_seed: int = flag(
        "task", "seed of --train-examples, --shots and --eval-examples", 42, type=seed_number, metavar="N"
    )
    splits: str = flag(
        "task",
        "paper: dev and test cut from the official sets (Asai et al.); official: train, and dev as test too",
        "paper",
        choices=["paper", "official"],
    )
    mixing_cap: int | None = flag(
        "task",
        "with several tasks: at most N examples of each in an epoch, drawn again for each epoch, so that large "
        "tasks do not dominate (default: all; 524288: Vu et al.)",
        None,
        type=positive,
        metavar="N",
    )
    max_source_length: int | None = flag(
        "task",
        "tokens of text, EOS included; longer texts are cut (default: 512 for SQuAD and MRQA, 348 for MultiRC, "
        "else 256: Asai et al.)",
        None,
        type=positive,
        metavar="N",
    )
    max_target_length: int | None = flag(
        "task",
        "tokens of an answer, EOS included (default: the longest label's or training answer's)",
        None,
        type=positive,
        metavar="N",
    )
    task_name: bool = flag(
        "task",
        "leave out the task's name, the first word of the text",
        True,
        action="store_false",
        option="--no-task-name",
    )
