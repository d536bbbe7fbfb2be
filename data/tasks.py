"""The tasks: which fields and labels they have, and how an example becomes two texts.

A source text is the task's name and each field after its own name, in ATTEMPT's order (T5's is mostly by name, and
SQuAD's punctuation has spaces there); a target text is a digit, as in the ATTEMPT papers, or the label's word, as T5's.
To add a task, add an entry to TASKS and its name to a group of GROUPS, which --list-tasks prints; a new file format
needs a function like those of data/others.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from data.files import Fetch, Row, shown
from data.glue import read_glue, read_mrpc
from data.others import read_ag_news, read_imdb, read_snli, read_tables, read_winogrande, read_yelp
from data.questions import read_mrqa, read_squad
from data.superglue import read_superglue
from model.errors import AttemptError, meant

Reader = Callable[[str, Fetch], dict[str, list[Row]]]
STYLES = ("digits", "words")
GRID = tuple(f"{i / 5:.1f}" for i in range(26))
"""STS-B's targets: "0.0", "0.2" ... "5.0" (Raffel et al. 2020, sec. 2.4)."""


@dataclass(frozen=True, slots=True)
class Example:
    """What the model reads and what it should write."""

    source: str
    target: str
    references: tuple[str, ...] = ()
    """Free-text tasks: all right answers; () = the target alone."""
    group: str = ""
    """"PASSAGE/QUESTION" where several examples ask the same question (MultiRC, ReCoRD), else ""."""


@dataclass(frozen=True)
class Task:
    """One task."""

    name: str
    """Also the first word of every source text."""
    fields: tuple[str, ...]
    """The names of the text fields, in the order of the source text."""
    labels: tuple[str, ...]
    """The labels as words; the index is the label as a digit. () = a score from 0 to 5 (STS-B), or free text."""
    metrics: tuple[str, ...]
    """Names of functions of data/metrics.py; the first decides which checkpoint is the best."""
    split: str
    """How the paper's splits are cut: "small", "large", "native", or "given": not at all (data/splits.py)."""
    spelled: tuple[str, ...] = ("0", "1")
    """The labels as the task's files spell them, in the order of `labels`."""
    read: Reader = read_glue
    """Reads the official files: (name, fetch) -> rows per official split."""
    free_text: bool = False
    """The answer is any text, judged against all right ones."""
    max_source: int = 256
    """Tokens of a source text, EOS included (Asai et al. 2022, appendix)."""

    def label_texts(self, style: str) -> list[str]:
        """Every possible target text, in the order of the labels; style: "digits" or "words"; free text: [].

        The labels of a user's files are written as they are there.
        """
        if style not in STYLES:
            raise AttemptError(f"--labels: expected one of {', '.join(STYLES)}, found {style!r}")
        if not self.labels:
            return [] if self.free_text else list(GRID)
        if style == "words" or self.split == "given":
            return list(self.labels)
        return [str(i) for i in range(len(self.labels))]


NLI = ("entailment", "neutral", "contradiction")
ENTAILS = ("entailment", "not_entailment")
PAIR = ("sentence1", "sentence2")
NLI_FIELDS = ("premise", "hypothesis")
CB = ("entailment", "contradiction", "neutral")
BOOL = ("False", "True")
TOPICS = ("World", "Sports", "Business", "Sci/Tech")


def _super(name: str, fields: tuple[str, ...], labels: tuple[str, ...], *metrics: str, **more: Any) -> Task:
    """A SuperGLUE task with a closed set of labels."""
    return Task(name, fields, labels, metrics or ("accuracy",), "small", read=read_superglue, **more)


def _questions(
    name: str, read: Reader, fields: tuple[str, ...] = ("question", "context"), max_source: int = 512
) -> Task:
    return Task(name, fields, (), ("f1", "em"), "large", read=read, free_text=True, max_source=max_source)


def _winogrande(name: str, split: str) -> Task:
    options = ("option0", "option1")
    return Task(name, ("sentence", *options), options, ("accuracy",), split, ("1", "2"), read_winogrande)


TASKS: dict[str, Task] = {
    "mnli": Task("mnli", NLI_FIELDS, NLI, ("accuracy",), "native", spelled=NLI),
    "qqp": Task("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1"), "large"),
    "qnli": Task("qnli", ("question", "sentence"), ENTAILS, ("accuracy",), "large", spelled=ENTAILS),
    "sst2": Task("sst2", ("sentence",), ("negative", "positive"), ("accuracy",), "large"),
    "stsb": Task("stsb", PAIR, (), ("pearson", "spearman"), "small"),
    "mrpc": Task("mrpc", PAIR, ("not_equivalent", "equivalent"), ("accuracy", "f1"), "small", read=read_mrpc),
    "rte": Task("rte", PAIR, ENTAILS, ("accuracy",), "small", spelled=ENTAILS),
    "cola": Task("cola", ("sentence",), ("unacceptable", "acceptable"), ("matthews",), "small"),
    "wnli": Task("wnli", PAIR, ("not_entailment", "entailment"), ("accuracy",), "small"),
    "boolq": _super("boolq", ("question", "passage"), BOOL, spelled=BOOL),
    "cb": _super("cb", NLI_FIELDS, CB, "macro_f1", "accuracy", spelled=CB),
    "copa": _super("copa", ("premise", "choice1", "choice2", "question"), ("choice1", "choice2")),
    "multirc": _super("multirc", ("question", "answer", "paragraph"), BOOL, "f1", "question_em", max_source=348),
    "super_rte": _super("super_rte", NLI_FIELDS, ENTAILS, spelled=ENTAILS),
    "wic": _super("wic", (*PAIR, "word"), BOOL, spelled=BOOL),
    "wsc": _super("wsc", ("text",), BOOL, spelled=BOOL),
    "record": _questions("record", read_superglue, ("query", "entities", "passage"), max_source=256),
    "squad": _questions("squad", read_squad),
    "nq": _questions("nq", read_mrqa),
    "hotpotqa": _questions("hotpotqa", read_mrqa),
    "searchqa": _questions("searchqa", read_mrqa),
    "newsqa": _questions("newsqa", read_mrqa),
    "triviaqa": _questions("triviaqa", read_mrqa),
    # training sets of 160, 640, 2,558, 10,234 and 40,398 examples: the first three are small ones
    "winogrande": _winogrande("winogrande", "large"),
    "winogrande_xs": _winogrande("winogrande_xs", "small"),
    "winogrande_s": _winogrande("winogrande_s", "small"),
    "winogrande_m": _winogrande("winogrande_m", "small"),
    "winogrande_l": _winogrande("winogrande_l", "large"),
    "scitail": Task(
        "scitail", NLI_FIELDS, ("entails", "neutral"), ("accuracy",), "native", ("entails", "neutral"), read_tables
    ),
    "paws": Task("paws", PAIR, ("not_paraphrase", "paraphrase"), ("accuracy",), "native", read=read_tables),
    "yelp": Task("yelp", ("sentence",), ("negative", "positive"), ("accuracy",), "large", ("1", "2"), read_yelp),
    "snli": Task("snli", NLI_FIELDS, NLI, ("accuracy",), "large", NLI, read_snli),
    "imdb": Task("imdb", ("sentence",), ("negative", "positive"), ("accuracy",), "large", ("neg", "pos"), read_imdb),
    "ag_news": Task("ag_news", ("text",), TOPICS, ("accuracy",), "large", ("1", "2", "3", "4"), read_ag_news),
}

GROUPS: dict[str, tuple[str, ...]] = {
    "GLUE": ("mnli", "qqp", "qnli", "sst2", "stsb", "mrpc", "rte", "cola", "wnli"),
    "SuperGLUE": ("boolq", "cb", "copa", "multirc", "super_rte", "wic", "wsc", "record"),
    "MRQA": ("nq", "hotpotqa", "searchqa", "newsqa", "triviaqa"),
    "others": ("winogrande", "scitail", "paws", "yelp"),
    "extra": ("squad", "snli", "imdb", "ag_news", "winogrande_xs", "winogrande_s", "winogrande_m", "winogrande_l"),
}
"""Every task once, as the benchmarks and papers group them; a group's score is the mean of the first metrics."""

SOURCES = ("mnli", "qnli", "qqp", "sst2", "squad", "record")
"""The tasks whose prompts ATTEMPT mixes (Asai et al. 2022, sec. 4.1)."""
TARGETS = (
    *("mnli", "qqp", "qnli", "sst2", "stsb", "mrpc", "rte", "cola"),
    *("boolq", "cb", "multirc", "wic", "wsc"),
    *("nq", "hotpotqa", "searchqa", "newsqa"),
    *("winogrande", "yelp", "scitail", "paws"),
)
"""The tasks it is judged on (Asai et al. 2022, sec. 4.1)."""


FAMILIES: dict[str, tuple[str, ...]] = {**GROUPS, "sources": SOURCES, "targets": TARGETS}
"""What a name in --task can stand for besides a task."""


def expand(names: list[str]) -> list[str]:
    """The names with every group's (`GLUE`, `targets`, … in any case) replaced by its tasks, in order.

    Raises AttemptError naming the tasks that are then there more than once. Other names stay as they are.
    """
    families = {family.lower(): tasks for family, tasks in FAMILIES.items()}
    tasks = [task for name in names for task in families.get(name.lower(), (name,))]
    repeated = sorted({task for task in tasks if tasks.count(task) > 1})
    if repeated:
        raise AttemptError(f"--task: expected each task once, found {', '.join(repeated)} again")
    return tasks


def get_task(name: str) -> Task:
    """The task of that name; AttemptError with the nearest name where there is none."""
    if name in TASKS:
        return TASKS[name]
    raise AttemptError(
        f"unknown task {name!r}{meant(name, [*TASKS, *FAMILIES])}: expected one of {', '.join(TASKS)}; a task of your "
        "own comes with --train-file"
    )


def describe_tasks() -> str:
    """Every task on a line, by group: its name, metrics, split, fields and labels; last, the groups' names."""
    lines = []
    for group, names in GROUPS.items():
        lines.append(group)
        for task in (TASKS[name] for name in names):
            labels = ", ".join(task.labels) or (
                "free text" if task.free_text else f"{GRID[0]}, {GRID[1]} ... {GRID[-1]}"
            )
            lines.append(
                f"  {task.name:14} {', '.join(task.metrics):18} {task.split:7} {', '.join(task.fields)} -> {labels}"
            )
    lines.append(
        f"--task also takes {', '.join(FAMILIES)}: all tasks of a group, ATTEMPT's 6 sources or its 21 targets"
    )
    return "\n".join(lines)


def load_official(task: Task, fetch: Fetch, style: str = "digits", task_name: bool = True) -> dict[str, list[Example]]:
    """The labelled official splits as texts: "train" and "dev" (MNLI: "dev_matched", "dev_mismatched"; Yelp, IMDb
    and AG News have "test" in its place; SciTail, PAWS and SNLI have "test" too).

    fetch: `Downloader.fetch`. style: target texts as "digits" or "words". task_name: begin with the name.
    Raises AttemptError naming file, member and line of a bad row.
    """
    texts = dict(zip(task.spelled, task.label_texts(style), strict=False))  # spelling in the file -> target

    def example(row: Row) -> Example:
        source = source_text(task, row.fields, task_name)
        return Example(source, _target(task, row, texts), row.references, row.group)

    official = {}
    for split, rows in task.read(task.name, fetch).items():
        rows.reverse()  # each row goes as its example comes: a large set is in memory once
        official[split] = [example(rows.pop()) for _ in range(len(rows))]
    return official


def check_labels(
    task: Task,
    labels: list[str],
    encode: Callable[[list[str]], list[list[int]]],
    decode: Callable[[list[int]], str],
    written: bool,
) -> None:
    """Raises AttemptError at two labels of the same tokens and, if answers are `written`, at one that reads otherwise.

    T5's vocabulary has no pieces for "<", "~" or Chinese, which all become one unknown token; "m²" becomes "m2".
    """
    mend = "write other labels in its files" if task.split == "given" else "use --labels digits, or another model"
    rows, known = encode(labels), dict[tuple[int, ...], str]()
    for label, ids in zip(labels, rows, strict=True):
        if (other := known.setdefault(tuple(ids), label)) != label:
            raise AttemptError(
                f"--task {task.name}: expected labels that the model's vocabulary tells apart, found {shown(other)} "
                f"and {shown(label)}, which have the same tokens; {mend}"
            )
    for label, ids in zip(labels, rows, strict=True) if written else ():
        if (read := decode(ids)) != label:
            raise AttemptError(
                f"--task {task.name}: expected labels that the model's vocabulary can write, found {shown(label)}, "
                f"whose tokens read {shown(read)}; {mend}, or choose among the labels by --answer-by labels"
            )


def source_text(task: Task, values: tuple[str, ...], task_name: bool = True) -> str:
    """`name field1: value1 field2: value2`; without `task_name` the fields alone."""
    parts = [f"{field}: {value}" for field, value in zip(task.fields, values, strict=True)]
    return " ".join([task.name, *parts] if task_name else parts)


def _target(task: Task, row: Row, texts: dict[str, str]) -> str:
    if task.free_text:
        return row.label
    if not task.labels:
        return _grid_text(row)
    if row.label not in texts:
        raise AttemptError(
            f"{row.place}: expected a label of {', '.join(texts)}, found {shown(row.label)}: get the file again"
        )
    return texts[row.label]


def _grid_text(row: Row) -> str:
    """STS-B's score on T5's grid: round(5 score) / 5, halves to the even neighbour, one decimal."""
    try:
        score = float(row.label)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 5:
        raise AttemptError(f"{row.place}: expected a score from 0 to 5, found {shown(row.label)}: get the file again")
    return GRID[round(score * 5)]
