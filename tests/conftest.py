"""What all tests share: the real files beside the repository, and a tiny checkpoint that needs none of them."""

import os
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import BODY, without_waiting
from glue_files import HOST, Folder, Server, serving, write_checksums
from hugging_face import COMMON, V11, random_state, save
from task_files import Files

import train
from model import errors

REPOSITORY = Path(__file__).parent.parent


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("PYTEST_XDIST_WORKER"):  # two threads in each of two processes are several times slower than one
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"


def pytest_report_header(config: pytest.Config) -> str | None:
    if config.option.markexpr == "not long":
        return "left out: the tests that take long by their nature; python -m pytest -n 2 -m long runs them"
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each process begins with whole files, so that most of what a file shares is made once."""
    if config.getvalue("dist") != "load":
        return None  # chosen on the command line
    from xdist.scheduler import WorkStealingScheduling  # noqa: PLC0415 - there is none without pytest-xdist

    return WorkStealingScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    """Each test is a program of its own, which tells its notes anew."""
    errors._told.clear()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """The pauses that downloads would have made."""
    return without_waiting(monkeypatch, tmp_path)


@pytest.fixture
def server(waits: list[float]) -> Iterator[Server]:
    """One file on a loopback server, for tests that have no server of their own."""
    with serving({"/file.bin": BODY}) as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of real files (its README.md says what they are); tests that need it are skipped without it."""
    folder = Path(os.environ.get("ATTEMPT_FIXTURES") or REPOSITORY.parent / "shared" / "fixtures")
    if not folder.is_dir():
        pytest.skip(f"no real files in {folder}; set ATTEMPT_FIXTURES to their folder")
    return folder


@pytest.fixture(scope="session")
def flan(fixtures: Path) -> Path:
    """A real T5 v1.1 checkpoint: 77M weights, fp16, pytorch_model.bin."""
    folder = fixtures / "flan-t5-small-title"
    if not folder.is_dir():
        pytest.skip(f"no real checkpoint in {folder}")
    return folder


def sentences(count: int, seed: int = 0) -> list[str]:
    """English-like sentences, different ones for each seed; together they hold every printable ASCII character."""
    draw = random.Random(seed)
    people = "the teacher|a young doctor|my neighbour|the old captain|an actress|the committee|Maria|John Smith"
    verbs = "watched|did not enjoy|wrote about|remembered|sold|has seen|wants to buy|laughed at|described"
    things = "a charming film|this boring movie|the long report|two books|an excellent story|the bridge|a question"
    places = "in Warsaw|at home|near the river|before the war|on Monday|in 1984|with great care|for 25 dollars"
    after = "and it was wonderful|but nobody cared|because it is true|so the answer is no|which is false"
    parts = [part.split("|") for part in (people, verbs, things, places, after)]
    texts = []
    for _ in range(count):
        text = " ".join(draw.choice(part) for part in parts)
        texts.append(text[0].upper() + text[1:] + draw.choice([".", "!", "?", " ."]))
    labels = (
        "positive negative entailment not_entailment equivalent acceptable sentence1: sentence2: question: context:"
    )
    return [*texts, labels, "".join(chr(i) for i in range(33, 127))]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def make_tiny_checkpoint(folder: Path) -> Path:
    """A random T5 v1.1 of two layers in Hugging Face's layout, with a real SentencePiece model of its own."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer  # noqa: PLC0415

    # every character is made a piece of its own, so that hardly anything is unknown
    SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(400)),
        model_prefix=str(folder / "spiece"),
        vocab_size=400,
        hard_vocab_limit=False,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    pieces = SentencePieceProcessor(model_file=str(folder / "spiece.model")).get_piece_size()
    # spare rows at the end, as in the real files (32,000 pieces, 100 sentinels, 32,128 rows)
    fields = COMMON | V11 | {"vocab_size": (pieces + 100) // 32 * 32 + 32}
    return save(folder, fields, random_state(fields))


@pytest.fixture(scope="session")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_glue(tmp_path_factory.mktemp("glue"))


def make_glue(root: Path) -> Path:
    """A --data-dir with a small CoLA and a small RTE, and the checksums.tsv that vouches for them."""
    draw = random.Random(1)
    cola = {split: "".join(f"x\t{draw.randint(0, 1)}\t\t{s}\n" for s in sentences(n, n)[:n]) for split, n in
            (("train", 40), ("dev", 24))}  # fmt: skip
    header = "index\tsentence1\tsentence2\tlabel\n"
    rte = {
        split: header
        + "".join(
            f"{i}\t{a}\t{b}\t{draw.choice(['entailment', 'not_entailment'])}\n"
            for i, (a, b) in enumerate(zip(sentences(n, n)[:n], sentences(n, n + 1)[:n], strict=True))
        )
        for split, n in (("train", 30), ("dev", 16))
    }
    for name, members in (("CoLA", cola), ("RTE", rte)):
        path = root / HOST / "glue/data" / f"{name}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for split, text in members.items():
                archive.writestr(f"{name}/{split}.tsv", text)
    write_checksums(root)
    return root


@pytest.fixture(scope="session")
def common(glue: Path, tiny_checkpoint: Path) -> list[str]:
    return ["--model", str(tiny_checkpoint), "--data-dir", str(glue), "--batch-size", "8", "--device", "cpu"]


@pytest.fixture(scope="session")
def prompt_run(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of prompt tuning on CoLA: 12 steps, an evaluation every 5."""
    out = tmp_path_factory.mktemp("runs") / "cola-prompt"
    flags = ["--prompt-length", "6", "--steps", "12", "--eval-every", "5", "--out", str(out)]
    assert train.main(["--task", "cola", "--method", "prompt", *flags, *common]) == 0
    return out


@pytest.fixture(scope="session")
def attempt_flags(common: list[str], prompt_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A two-task run of ATTEMPT with two sources; its --out is still to be given."""
    other = tmp_path_factory.mktemp("runs") / "rte-prompt"
    flags = ["--prompt-length", "6", "--steps", "4", "--init", "uniform", "--out", str(other)]
    assert train.main(["--task", "rte", "--method", "prompt", *flags, *common]) == 0
    sources = ["--source-prompts", str(prompt_run), str(other / "best.safetensors")]
    return ["--task", "rte", "cola", "--steps", "9", "--eval-every", "3", *sources, *common]


@pytest.fixture(scope="session")
def every_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A --data-dir with a few rows of every task."""
    root = tmp_path_factory.mktemp("every")
    Files(root)
    Folder(root).write()
    write_checksums(root)
    return root
