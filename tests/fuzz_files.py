"""Damages the small valid files of every reader of data/ at random and reads them: `python tests/fuzz_files.py`.

Each input must be read, or end in one AttemptError of one short line: no other exception, no hang, little memory.
`--count 10000` inputs a reader, `--reader NAME` for one of them, `--seed N` for others, `--keep DIR` to look at them.
tests/test_fuzz_files.py does the same with a few hundred inputs; tests/fuzz_checkpoints.py has the other readers.
"""

import contextlib
import gzip
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

import glue_files
import task_files
from fuzzing import command
from task_files import Files

from data.download import Downloader
from data.tasks import TASKS, load_official
from data.user import UserFiles, user_task
from model.errors import AttemptError

TABLES = ("cola", "qqp", "mnli", "stsb", "mrpc", "scitail", "paws", "yelp", "ag_news")
RECORDS = ("boolq", "cb", "multirc", "wsc", "record", "squad", "nq", "winogrande", "snli", "imdb")
USER = ("user.tsv", "user.csv", "user.jsonl", "user.tsv.gz")
READERS = (*TABLES, *RECORDS, *USER, "checksums")

QA = ("question", "context")
USER_TEXT = {
    "tsv": "question\tcontext\tanswer\n" + "".join(f"Who {i}?\tIt is.\t{'yes' if i % 2 else 'no'}\n" for i in range(9)),
    "csv": 'question,context,answer\n"Who, ""I""?",It is.,yes\n"A\nB",,no\nWhy?,x,yes\nHow?,y,no\nSo?,z,yes\n',
    "jsonl": '{"question": 1.5, "context": "a", "answer": true}\n{"question": "b", "context": "c", "answer": "no"}\n'
    * 4,
}
SUMS = "path\tbytes\tsha256\n" + f"host/a.zip\t12\t{'ab' * 32}\nhost/b.bin\t0\t{'0' * 64}\n"

BAD = [
    *(b"\0", b"\r\n", b"\r", b"\n", b"\t", b'"', b'""', b"\\", b",", b"{", b"}", b"[", b"]", b"null", b"\xef\xbb\xbf"),
    *(
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        "\u2028".encode(),
        "\x85".encode(),
        b"\\ud800",
        b"\\u0000",
        b"\xf4\x90\x80\x80",
    ),
    *(b"-1", b"NaN", b"Infinity", b"1e999", b"9" * 5000, "\u00b2".encode(), "\u0663".encode(), b"-", b" ", b"\x1b[31m"),
]
VALUES = [
    *(b"null", b"true", b"[]", b"{}", b'""', b"-1", b"1e400", b"NaN", b"9" * 5000, b'"\\ud800"', b'" "', b"[[1]]"),
    *(b'"\\n"', b"12345678901234567890", b'{"text": 1}', b"0.5", b'[{"text": "a"}]'),
]
TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.)*"|-?\d+(?:\.\d+)?|true|false|null')


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The content after 1 to 4 random damages."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        content = draw.choice(MUTATIONS)(content, draw)
    return content


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randint(0, len(content))]


def _drop(content: bytes, draw: random.Random) -> bytes:
    start = draw.randint(0, len(content))
    return content[:start] + content[start + draw.choice((1, 2, 8, 64)) :]


def _flip(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 2, 16)) if content else 0):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _set(content: bytes, draw: random.Random) -> bytes:
    """Some bytes all ones, all zeros or random: lengths and offsets become huge."""
    start, size = draw.randint(0, len(content)), draw.choice((1, 2, 4, 8))
    return content[:start] + draw.choice((b"\xff" * size, bytes(size), draw.randbytes(size))) + content[start + size :]


def _insert(content: bytes, draw: random.Random) -> bytes:
    start = draw.choice((0, len(content), draw.randint(0, len(content))))
    return content[:start] + draw.choice(BAD) + content[start:]


def _repeat(content: bytes, draw: random.Random) -> bytes:
    """A piece many times: long fields, long lines, many lines."""
    start = draw.randint(0, len(content))
    piece = content[start : start + draw.choice((1, 3, 40))]
    return content[:start] + piece * draw.choice((2, 50, 5000)) + content[start:]


def _nest(content: bytes, draw: random.Random) -> bytes:
    start, depth = draw.randint(0, len(content)), draw.choice((10, 1000, 100_000))
    opening, closing = draw.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return content[:start] + opening * depth + draw.choice((b"", b"1" + closing * depth)) + content[start:]


def _lines(content: bytes, draw: random.Random) -> bytes:
    """Lines twice, gone, in another order, with other cells, or with other ends."""
    lines = content.split(b"\n")
    i, j = draw.randrange(len(lines)), draw.randrange(len(lines))
    kind = draw.randrange(6)
    if kind == 0:
        lines.insert(i, lines[j])
    elif kind == 1:
        del lines[i]
    elif kind == 2:
        lines[i], lines[j] = lines[j], lines[i]
    elif kind == 3:
        cells = lines[i].split(b"\t")
        cells[draw.randrange(len(cells))] = draw.choice(BAD + VALUES)
        lines[i] = b"\t".join(cells)
    elif kind == 4:
        return content.replace(b"\n", b"\r\n")
    else:
        lines[i] = b""
    return b"\n".join(lines)


def _token(content: bytes, draw: random.Random) -> bytes:
    """Another JSON value in the place of one, or another's."""
    found = list(TOKEN.finditer(content))
    if not found:
        return content
    match, other = draw.choice(found), draw.choice(found)
    return content[: match.start()] + draw.choice((draw.choice(VALUES), other[0])) + content[match.end() :]


def _recode(content: bytes, draw: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(draw.choice(("utf-16", "utf-32", "latin-1", "utf-7", "utf-8-sig")), "replace")


MUTATIONS = (_cut, _drop, _flip, _set, _insert, _insert, _repeat, _nest, _lines, _lines, _token, _token, _recode)


class Reader:
    """One reader, its valid files in a folder, and how to damage one of them."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root = name, root
        self.archives: dict[str, Any] = {}  # path -> text, or members
        if name in USER:
            self.archives = {name: USER_TEXT[name.split(".")[1]]}
        elif name == "checksums":
            self.archives = {"checksums.tsv": SUMS}
        elif name in glue_files.ROWS:
            glue_files.Folder(root).write()
            asked = self._asked(glue_files.Folder(root).fetch)
            glue = {"msr_paraphrase_train.txt": glue_files.MRPC_TRAIN, "mrpc_dev_ids.tsv": glue_files.MRPC_IDS}
            self.archives = {path: {**glue_files.ZIPS, **glue}[Path(path).name] for path in asked}
        else:
            Files(root)
            self.archives = {path: task_files.FILES[path] for path in self._asked(Files(root).fetch)}
        for path in self.archives:
            self._write(path, self.archives[path])

    def _asked(self, fetch: Callable[..., Path]) -> list[str]:
        """The files that the reader fetches."""
        asked: list[str] = []

        def note(url: str, size: int | None = None, sha256: str | None = None) -> Path:
            asked.append(url.partition("://")[2])
            return fetch(url)

        load_official(TASKS[self.name], note)
        return asked

    def _write(self, path: str, content: Any) -> bytes:
        """The content packed as its name says, written into the folder."""
        texts = content if isinstance(content, dict) else {"": content}
        raw = {name: text if isinstance(text, bytes) else text.encode() for name, text in texts.items()}
        if not isinstance(content, dict):
            packed = gzip.compress(raw[""], 1) if path.endswith(".gz") else raw[""]
        elif path.endswith(".zip"):
            packed = glue_files.zipped(raw)
        else:
            packed = task_files.tarred(raw)
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(packed)
        return packed

    def paths(self) -> list[Path]:
        return [self.root / path for path in self.archives]

    def pieces(self) -> dict[str, bytes]:
        """What may be put in another's place: a text by the path of its file, and of its archive's member."""
        found = {}
        for path, content in self.archives.items():
            texts = content if isinstance(content, dict) else {"": content}
            found.update({f"{path}\0{member}": text.encode() for member, text in texts.items()})
        return found

    def put(self, name: str, content: bytes) -> None:
        path, _, member = name.partition("\0")
        whole = self.archives[path]
        self._write(path, {**whole, member: content} if isinstance(whole, dict) else content)

    def restore(self) -> None:
        for path in self.archives:
            self._write(path, self.archives[path])

    def damage(self, draw: random.Random) -> None:
        """One file damaged: its text, or the packed file."""
        self.restore()  # those of the input before
        path = draw.choice(list(self.archives))
        content = self.archives[path]
        if (isinstance(content, dict) or path.endswith(".gz")) and draw.random() < 0.3:
            packed = (self.root / path).read_bytes()
            (self.root / path).write_bytes(mutated(packed, draw))
        elif isinstance(content, dict):
            member = draw.choice(list(content))
            self._write(path, {**content, member: mutated(content[member].encode(), draw)})
        else:
            self._write(path, mutated(content.encode(), draw))

    def read(self) -> None:
        """Reads all; the texts must be ones that a tokenizer takes."""
        if self.name == "checksums":
            with contextlib.suppress(AttemptError):  # the file itself is not there
                Downloader(data_dir=self.root).fetch("https://host/none")
            Downloader(data_dir=self.root)._vouched_sums()
            return
        fetch: Callable[..., Path] = Files.fetch.__get__(self)
        task = TASKS.get(self.name)
        if task is None:
            file = str(self.root / self.name)
            task = user_task("mine", UserFiles(file, file, None, QA, "answer"))
        for examples in load_official(task, fetch).values():
            for example in examples:
                for text in (example.source, example.target, *example.references):
                    text.encode("utf-8")


@contextlib.contextmanager
def subject(name: str) -> Iterator[Reader]:
    with tempfile.TemporaryDirectory() as folder:
        yield Reader(name, Path(folder))


if __name__ == "__main__":
    sys.exit(command(__doc__, READERS, subject))
