"""Writes the demo's data sets in the layout of the real ones: python -m demo.data FOLDER

train.py reads them by --data-dir FOLDER. The same seed writes the same bytes.
"""

import functools
import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from data.download import cache_dir
from data.glue import MRPC_DEV_IDS, MRPC_PAIRS, TABLES
from data.questions import SQUAD
from data.tasks import TASKS, source_text
from demo.pairs import mnli, mrpc, qnli, qqp, rte, stsb
from demo.singles import cola, squad, sst2
from demo.world import Made, World
from model.files import write_whole

SEED = 1


class Corpus(NamedTuple):
    """A task's generator, its labels as the files spell them, and how many examples each split has."""

    make: Callable[[World, str], Made | None]
    labels: tuple[str, ...]
    train: int
    dev: int


NLI = ("entailment", "neutral", "contradiction")
ENTAILS = ("entailment", "not_entailment")
BINARY = ("0", "1")
CORPORA = {
    "mnli": Corpus(mnli, NLI, 6000, 600),
    "qqp": Corpus(qqp, BINARY, 5000, 600),
    "qnli": Corpus(qnli, ENTAILS, 5000, 600),
    "sst2": Corpus(sst2, BINARY, 4000, 400),
    "squad": Corpus(squad, ("",), 5000, 600),
    "rte": Corpus(rte, ENTAILS, 1000, 800),
    "mrpc": Corpus(mrpc, BINARY, 1000, 800),
    "cola": Corpus(cola, BINARY, 1000, 800),
    "stsb": Corpus(stsb, tuple("012345"), 1000, 800),
}
SOURCES = ("mnli", "qqp", "qnli", "sst2", "squad")
TARGETS = ("rte", "mrpc", "cola", "stsb")
STREAM = ("mnli", "qnli", "qqp", "sst2")
STREAM_SPLITS = {"train": slice(1500), "dev": slice(150), "test": slice(150, 300)}
"""Of which rows of each kind the stream's files are made; dev and test of its official dev set."""


@functools.cache  # the stream's rows are the sources' first ones
def examples(task: str, split: str, seed: int = SEED) -> list[Made]:
    """The examples of a split, "train", "dev" or MNLI's two dev sets, with as many of each label; none twice."""
    corpus = CORPORA[task]
    world = World(f"{seed} {task} {split}", held_out=split != "train")
    found: dict[tuple[str, ...], Made] = {}
    while len(found) < (corpus.train if split == "train" else corpus.dev):
        made = corpus.make(world, corpus.labels[len(found) % len(corpus.labels)])
        if made and made.fields not in found:
            found[made.fields] = made
    made_list = list(found.values())
    world.rng.shuffle(made_list)
    return made_list


def demo_folder() -> Path:
    """The folder of the demo's data in the cache, written at its first use by this version of the generator."""
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    folder = cache_dir() / f"demo-{hashlib.sha256(sources).hexdigest()[:12]}"
    if not (folder / "checksums.tsv").is_file():
        write_folder(folder)
    return folder


def write_folder(folder: Path, seed: int = SEED) -> None:
    """Every task's files as HOST/PATH, and last the checksums.tsv that vouches for them."""
    files = {key_of(name): content for name, content in contents(seed).items()}
    lines = ["path\tbytes\tsha256"]
    for path, content in sorted(files.items()):
        write_whole(folder / path, content)
        lines.append(f"{path}\t{len(content)}\t{hashlib.sha256(content).hexdigest()}")
    write_whole(folder / "checksums.tsv", ("\n".join(lines) + "\n").encode())


def key_of(url: str) -> str:
    return url.split("://")[1]


def contents(seed: int) -> dict[str, bytes]:
    """address -> content of every file"""
    files = {}
    for task in CORPORA:
        if task in TABLES:
            table = TABLES[task]
            members = {member: lines(task, split, seed) for split, member in table.members.items()}
            files[table.remote.url] = zipped(members)
    files |= mrpc_files(seed) | stream_files(seed)
    for split, remote in SQUAD.items():
        files[remote.url] = squad_file(examples("squad", split, seed))
    return files


def zipped(members: dict[str, str]) -> bytes:
    """A zip whose bytes depend on the members alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, text.encode())
    return buffer.getvalue()


FRONT = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
HEADERS = {
    "mnli": f"{FRONT} sentence1 sentence2 label1 gold_label",
    "qqp": "id qid1 qid2 question1 question2 is_duplicate",
    "qnli": "index question sentence label",
    "sst2": "sentence label",
    "rte": "index sentence1 sentence2 label",
    "stsb": "index genre filename year old_index source1 source2 sentence1 sentence2 score",
}


def lines(task: str, split: str, seed: int) -> str:
    """The TSV file of a split, with all of the official columns; those that nobody reads hold "demo"."""
    made = examples(task, split, seed)
    if task == "cola":  # no header
        return "".join(f"demo\t{m.label}\t{'' if m.label == '1' else '*'}\t{m.fields[0]}\n" for m in made)
    columns = HEADERS[task].split()
    if task == "mnli" and split != "train":  # five annotators
        columns[-2:] = [f"label{i}" for i in range(1, 6)] + ["gold_label"]
    fields = TABLES[task].columns
    rows = ["\t".join(columns)]
    for i, m in enumerate(made):
        values = dict(zip(fields, (*m.fields, m.label), strict=True)) | {"index": str(i), "id": str(i)}
        rows.append("\t".join(values.get(column, "demo") for column in columns))
    return "\n".join(rows) + "\n"


def mrpc_files(seed: int) -> dict[str, bytes]:
    """Microsoft's training file with all pairs, and GLUE's list of those that are dev."""
    rows, ids = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"], []
    for split in ("train", "dev"):
        for m in examples("mrpc", split, seed):
            first, second = str(2 * len(rows)), str(2 * len(rows) + 1)
            rows.append("\t".join([m.label, first, second, *m.fields]))
            ids += [f"{first}\t{second}\n"] if split == "dev" else []
    pairs = "\ufeff" + "\n".join(rows) + "\n"
    return {MRPC_PAIRS.url: pairs.encode(), MRPC_DEV_IDS.url: "".join(ids).encode()}


def stream_files(seed: int) -> dict[str, bytes]:
    """The rows of four sources without their tasks' names, a user's task (demo/stream.py): kind, text, answer."""
    files = {}
    for split, part in STREAM_SPLITS.items():
        rows = ["kind\ttext\tanswer"]
        for task in STREAM:
            own = "train" if split == "train" else "dev_matched" if task == "mnli" else "dev"
            for made in examples(task, own, seed)[part]:
                text = source_text(TASKS[task], made.fields, task_name=False)
                rows.append(f"{task}\t{text}\t{CORPORA[task].labels.index(made.label)}")
        files[f"demo://stream/{split}.tsv"] = ("\n".join(rows) + "\n").encode()
    return files


def squad_file(made: list[Made]) -> bytes:
    """SQuAD v1.1's JSON: a paragraph of one question for every example."""
    paragraphs = []
    for i, m in enumerate(made):
        question, context = m.fields
        answer = {"answer_start": context.index(m.label), "text": m.label}
        asked = {"question": question, "id": str(i), "answers": [answer]}
        paragraphs.append({"context": context, "qas": [asked]})
    return json.dumps({"version": "1.1", "data": [{"title": "demo", "paragraphs": paragraphs}]}).encode()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m demo.data FOLDER")
    write_folder(Path(sys.argv[1]))
