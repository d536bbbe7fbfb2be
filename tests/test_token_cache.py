"""Token sets kept on the disk: what is found again, what is not, damage, and folders that cannot be written."""

import dataclasses
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from glue_files import HOST, MNLI_DEV, MNLI_TRAIN, write_checksums, zipped

from attempt.answering.splits import load_splits
from attempt.command.options import Options
from data import token_cache
from data.batches import TokenSet, batches
from data.download import Downloader
from data.tasks import Example
from data.token_cache import name_of, tokenized, write
from model.tokenizer import Tokenizer

EXAMPLES = [Example(f"premise {'x' * (i % 50)}: {i}", str(i % 3)) for i in range(300)]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small sets are kept too."""
    monkeypatch.setattr(token_cache, "LEAST", 1)


class Encoder:
    """A token per character, moved by `shift`; counts its calls."""

    def __init__(self, shift: int = 0) -> None:
        self.shift, self.calls = shift, 0

    def __call__(self, texts: list[str]) -> list[list[int]]:
        self.calls += 1
        return [[ord(c) + self.shift for c in text] for text in texts]


def get(
    folder: Path, encode: Encoder, examples: list[Example] | None = None, limit: int | None = None, task: int = 0
) -> TokenSet:
    return tokenized(EXAMPLES if examples is None else examples, encode, "v", 40, limit, task, 1, folder)


def same(a: TokenSet, b: TokenSet) -> bool:
    return all(np.array_equal(value, getattr(b, name)) for name, value in vars(a).items())


@pytest.mark.parametrize("shift", [0, 100_000])
def test_a_set_is_tokenised_once_and_found_again_with_the_same_ids(tmp_path: Path, shift: int) -> None:
    encode = Encoder(shift)
    first = get(tmp_path / "new", encode, limit=1)
    calls = encode.calls
    again = get(tmp_path / "new", encode, limit=1)
    plain = TokenSet.build(EXAMPLES, encode, 40, 1)
    assert calls == 2 and encode.calls == 4  # sources and targets: twice, not three times
    assert same(first, plain) and same(again, plain) and plain.cut_sources > 0 < plain.cut_targets
    assert again.sources.dtype == (np.int32 if shift else np.uint16)
    # what is trained on: the same batches; the task's number is not the file's
    for one, other in zip(batches(again, 16, 1), batches(plain, 16, 1), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))
    assert get(tmp_path / "new", encode, limit=1, task=3).tasks.tolist() == [3] * 300
    # mapped, also as the only set of a run, and no memmap, whose slices are slow
    assert not again.sources.flags.owndata and not again.sources.flags.writeable
    assert TokenSet.join([again]).sources is again.sources and type(again.source(0)) is np.ndarray
    assert sorted(path.suffix for path in (tmp_path / "new").iterdir()) == [".npy"]


def test_ids_of_two_widths_and_an_empty_set_are_kept(tmp_path: Path) -> None:
    wide = [Example(chr(70_000), "a"), Example("b", "ccc")]
    for examples in (wide, []):
        found = [get(tmp_path, Encoder(), examples) for _ in range(2)]
        for tokens in found:
            assert len(tokens) == len(examples)
            assert [tokens.source(i).tolist() for i in range(len(tokens))] == [[ord(e.source), 1] for e in examples]
            assert [tokens.target(i).tolist() for i in range(len(tokens))] == [
                [*map(ord, e.target), 1] for e in examples
            ]


def test_whatever_changes_the_ids_changes_the_name() -> None:
    examples = [Example("ab", "c"), Example("d", "e")]
    base = name_of(examples, "v", 40, None, 1)
    assert name_of([dataclasses.replace(e) for e in examples], "v", 40, None, 1) == base
    changed = [
        name_of(texts, "v", 40, None, 1)
        for texts in (
            [Example("a", "bc"), Example("d", "e")],
            [Example("ab", "cd"), Example("", "e")],
            [Example("ab", "C"), Example("d", "e")],
            examples[::-1],
            examples[:1],
            [*examples, Example("", "")],
            [Example("ab", "c"), Example("d", "\ud800")],
        )
    ]
    changed += [name_of(examples, *other) for other in (("w", 40, None, 1), ("v", 41, None, 1), ("v", 40, 3, 1))]
    changed += [name_of(examples, "v", 40, None, 2)]
    assert len({base, *changed}) == 1 + len(changed)


def test_another_tokenizer_has_another_fingerprint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    whole = (tiny_checkpoint / "spiece.model").read_bytes()
    prints = []
    for i, content in enumerate((whole, whole, whole + b"\x50\x00")):  # a field that SentencePiece does not know
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "spiece.model").write_bytes(content)
        prints.append(Tokenizer(tmp_path / str(i) / "spiece.model").fingerprint)
    assert prints[0] == prints[1] != prints[2]


def flip(place: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda content: content[: len(content) // 2],
    "cut in the header": lambda content: content[:50],
    "magic": flip(0),
    "version": flip(6),
    "header's length": flip(8),
    "header": flip(20),
    "type": lambda content: content.replace(b"'<i8'", b"'<f8'"),
    "pickled": lambda content: content.replace(b"'<i8'", b"'|O' "),
    "shape": lambda content: content.replace(b"'shape': (", b"'shape': (9"),
    "shorter shape": lambda content: content.replace(b"'shape': (", b"'shape': (1,#"),
    "sum": flip(128),
    "count": flip(128 + 32),
    "offset": flip(128 + 80 + 17),
    "id": flip(-9),
    "another file": lambda _: b"PK\x03\x04" + b"\0" * 100,
    "zeros": lambda content: b"\0" * len(content),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_and_mended(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    encode = Encoder()
    whole = get(tmp_path, encode)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(DAMAGE[kind](content))
    assert path.read_bytes() != content
    assert same(get(tmp_path, encode), whole) and encode.calls == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {path} is damaged (") and line.endswith("tokenising again")
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]
    get(tmp_path, encode)
    assert encode.calls == 4 and capsys.readouterr().err == ""


@pytest.mark.parametrize("place", ["data.token_cache.os.fsync", "data.token_cache.os.replace", "data.cache.os.open"])
def test_a_folder_that_cannot_be_written_costs_only_time(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        encode = Encoder()
        tokens = get(tmp_path, encode)
    assert same(tokens, TokenSet.build(EXAMPLES, Encoder(), 40)) and encode.calls == 2
    assert list(tmp_path.iterdir()) == []
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (f"note: {tmp_path} cannot be used (No space left on device); texts are tokenised at every start")


def test_a_file_in_the_place_of_the_folder_and_a_folder_in_that_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert len(get(tmp_path / "file", Encoder())) == 300
    (tmp_path / "x" / f"{name_of(EXAMPLES, 'v', 40, None, 1)}.npy").mkdir(parents=True)
    assert len(get(tmp_path / "x", Encoder())) == 300
    assert capsys.readouterr().err.count("cannot be used") == 2


def test_a_sound_file_that_cannot_be_read_now_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    encode = Encoder()
    whole = get(tmp_path, encode)
    (path,) = tmp_path.iterdir()
    before = path.stat()
    with monkeypatch.context() as patch:
        patch.setattr("data.token_cache.np.load", refused)
        assert same(get(tmp_path, encode), whole) and encode.calls == 4
    assert f"note: {tmp_path} cannot be used (Too many open files); texts" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path] and os.path.samestat(path.stat(), before)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encode = Encoder()
    get(tmp_path, encode)
    tmp_path.chmod(0o500)
    get(tmp_path, encode)
    assert encode.calls == 2 and capsys.readouterr().err == ""
    get(tmp_path, encode, EXAMPLES[1:])
    tmp_path.chmod(0o700)
    assert "cannot be used" in capsys.readouterr().err


def test_what_is_there_needs_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get(tmp_path, Encoder())
    monkeypatch.setattr(token_cache, "locked", None)
    get(tmp_path, Encoder())


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(token_cache.os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path, Encoder())
    assert list(tmp_path.iterdir()) == []


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    name = f"{name_of(EXAMPLES, 'v', 40, None, 1)}.npy"
    for process in (7, 12345):
        (tmp_path / f".{name}.{process}.tmp").write_bytes(b"half a set")
    other = tmp_path / ".other.npy.7.tmp"  # of another set, which may be written at this moment
    other.write_bytes(b"half a set")
    get(tmp_path, Encoder())
    assert {*tmp_path.iterdir()} == {tmp_path / name, other}


SCRIPT = """
import sys
from pathlib import Path
from data import token_cache
from data.tasks import Example
token_cache.LEAST = 1
def encode(texts):
    print("encoding", flush=True)
    sys.stdin.readline()
    return [[ord(c) for c in text] for text in texts]
sys.stdin.readline()
examples = [Example(f"text {i}", "a") for i in range(100)]
tokens = token_cache.tokenized(examples, encode, "v", 40, None, 0, 1, Path(sys.argv[1]))
print(tokens.sources.sum(), tokens.source(99).tolist())
"""


def test_of_two_processes_one_tokenises(tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command, folder = [sys.executable, "-c", SCRIPT, str(tmp_path)], Path(__file__).parent.parent
    first, second = (subprocess.Popen(command, cwd=folder, bufsize=1, **pipes) for _ in range(2))
    first.stdin.write("go\n")
    assert first.stdout.readline() == "encoding\n"
    second.stdin.write("go\n")
    said = second.stderr.readline()
    assert said.startswith("waiting for another process that is tokenising the same texts for ")
    mine, _ = first.communicate("\n\n", timeout=60)
    other, rest = second.communicate(timeout=60)
    assert other == mine.replace("encoding\n", "") != "" and "encoding" not in other and rest == ""
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


def test_two_processes_without_locks_write_the_same_file(tmp_path: Path) -> None:
    tokens = TokenSet.build(EXAMPLES, Encoder(), 40)
    pid, path = os.getpid(), tmp_path / "x.npy"
    try:
        for i in range(3):
            os.getpid = lambda i=i: pid + i
            write(path, tokens)
            assert same(token_cache.read(path, 40, 0), tokens)
    finally:
        os.getpid = lambda: pid
    assert list(tmp_path.iterdir()) == [path]


def test_small_sets_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "LEAST", 301)
    assert len(get(tmp_path / "none", Encoder())) == 300 and not (tmp_path / "none").exists()


def mnli(root: Path, count: int) -> Options:
    """A --data-dir with MNLI of so many training pairs, of about its own length."""
    row = "{i}\t1\t1e\tslate\t\t\t\t\t{a} {i}.\tA hypothesis of a few words.\tneutral\t{label}\n"
    labels, words = ("neutral", "entailment", "contradiction"), "a long premise " * 8
    train = "".join(row.format(i=i, a=words, label=labels[i % 3]) for i in range(count))
    dev = MNLI_DEV + "0\t1\t1e\toup\t\t\t\t\tR.\tS.\tneutral\t\t\t\t\tentailment\n"
    members = {"train": MNLI_TRAIN + train, "dev_matched": dev, "dev_mismatched": dev}
    path = root / HOST / "glue/data/MNLI.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(zipped({f"MNLI/{name}.tsv": text.encode() for name, text in members.items()}))
    write_checksums(root)
    return Options(["mnli"], data_dir=str(root))


def test_the_splits_of_a_large_task_are_kept_and_small_in_memory(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "LEAST", 10_000)
    options = mnli(tmp_path / "mnli", 12_000)
    downloader = Downloader(cache=tmp_path / "cache", data_dir=tmp_path / "mnli")
    tokenizer = Tokenizer(tiny_checkpoint / "spiece.model")
    loads = []
    for most in (12_000 * 1000 + (8 << 20), 12_000 * 900):  # bytes; lists of a chunk's ids are there the first time
        tracemalloc.start()
        loads.append(load_splits("mnli", 0, ("train", "dev", "test"), options, downloader, tokenizer))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print("PEAK", peak)
        assert peak < most
        monkeypatch.setattr(Tokenizer, "encode_batch", only_small(Tokenizer.encode_batch))
    assert same(loads[0]["train"].tokens, loads[1]["train"].tokens)
    assert loads[0]["train"].examples == loads[1]["train"].examples
    assert len(list((tmp_path / "cache/tokens").iterdir())) == 1  # train's; dev has a single pair


def only_small(encode: Callable[[Tokenizer, list[str]], list[list[int]]]) -> Callable[..., list[list[int]]]:
    def checked(self: Tokenizer, texts: list[str]) -> list[list[int]]:
        assert len(texts) < 10
        return encode(self, texts)

    return checked
