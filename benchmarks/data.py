"""What the data of a large task cost before the first step: python -m benchmarks.data --tokenizer spiece.model

Writes a set of MNLI's size, lengths and layout, once as GLUE's archive and once as a user's own files, and loads train,
dev and test as train.py does, each time in a process of its own: a first start, which reads and tokenises them, and a
later one, which reads them and finds their tokens. Then it makes the batches of an epoch.
"""

import argparse
import dataclasses
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attempt.answering.splits import load_splits
from attempt.command.flags import positive
from attempt.command.options import Options
from attempt.runs.report import table
from data.batches import batches, bucketed
from data.download import Downloader
from data.glue import TABLES
from model.errors import exit_status
from model.files import sha256_of
from model.tokenizer import Tokenizer

MNLI = 392_702  # training pairs
DEV = 9_815  # pairs of each dev set
SPECIAL = 3  # pad, eos, unk
LABELS = ("entailment", "neutral", "contradiction")
HEAD = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\t"
    "sentence1\tsentence2\tlabel1\tgold_label\n"
)
Pair = tuple[list[str], list[str], str]  # words of the premise and the hypothesis, label


class Start(NamedTuple):
    """What a start costs."""

    examples: int
    tokens: int
    """Of the training sources."""
    seconds: float
    peak: float
    """Memory in MB, above that of the process before."""
    order: float
    """Seconds for an epoch's order, at batch size 32."""
    rates: tuple[float, ...]
    """Batches per second, at each of SIZES."""


SIZES = (32, 128)  # examples in a batch


def words_of(tokenizer: Tokenizer) -> list[str]:
    """The pieces that begin a word, but for the sentinels: common ones come first in a vocabulary."""
    pieces = (tokenizer.pieces.id_to_piece(i) for i in range(SPECIAL, tokenizer.pieces.get_piece_size()))
    return [piece[1:] for piece in pieces if piece.startswith("▁") and len(piece) > 1 and "<extra_id_" not in piece]


def pairs(words: list[str], count: int, seed: int) -> Iterator[Pair]:
    """Pairs of about MNLI's lengths, on average 20 and 10 words. P(word) ~ 1 / its rank (Zipf)."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        sizes = np.clip(rng.lognormal((2.8, 2.2), (0.65, 0.4)), 1, 200).astype(int)
        ranks = (len(words) ** rng.random(sizes.sum())).astype(int) - 1
        drawn = [words[rank] for rank in ranks.tolist()]
        yield drawn[: sizes[0]], drawn[sizes[0] :], LABELS[i % 3]


def mnli_row(number: int, pair: Pair) -> str:
    """A line of MNLI's table: the parses, which nobody reads, take most of it."""
    premise, hypothesis, label = pair
    flat = [f"( {' ( '.join(words)} {') ' * len(words)}" for words in (premise, hypothesis)]
    trees = [f"(ROOT (NP (NN {')) (NP (NN '.join(words)})))" for words in (premise, hypothesis)]
    texts = [" ".join(premise) + ".", " ".join(hypothesis) + "."]
    return "\t".join([str(number), str(number), f"{number}x", "fiction", *flat, *trees, *texts, label, label]) + "\n"


def write_sets(folder: Path, words: list[str], examples: int) -> None:
    """The archive, as HOST/PATH, with the checksums.tsv that vouches for it; and the same pairs in three .tsv files."""
    url, dev = TABLES["mnli"].remote.url.removeprefix("https://"), min(DEV, examples)
    path = folder / url
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for seed, (split, count) in enumerate({"train": examples, "dev_matched": dev, "dev_mismatched": dev}.items()):
            with archive.open(f"MNLI/{split}.tsv", "w") as table, open(folder / f"{split}.tsv", "wb") as own:
                table.write(HEAD.encode())
                own.write(b"premise\thypothesis\tlabel\n")
                for number, pair in enumerate(pairs(words, count, seed)):
                    table.write(mnli_row(number, pair).encode())
                    own.write(f"{' '.join(pair[0])}.\t{' '.join(pair[1])}.\t{pair[2]}\n".encode())
    sums = f"{url}\t{path.stat().st_size}\t{sha256_of(path)}"
    (folder / "checksums.tsv").write_text(f"path\tbytes\tsha256\n{sums}\n")


def options_of(folder: Path) -> dict[str, Options]:
    """The same pairs as a built-in task, and as a user's."""
    train, dev, test = (str(folder / f"{name}.tsv") for name in ("train", "dev_mismatched", "dev_matched"))
    own = Options(["own"], data_dir=str(folder), source_field=["premise", "hypothesis"], target_field="label")
    own = dataclasses.replace(own, train_file=train, dev_file=dev, test_file=test)
    return {"mnli": Options(["mnli"], data_dir=str(folder)), "own files": own}


def memory(kind: str) -> float:
    """What this process holds ("VmRSS"), or the most that it has held ("VmHWM"), in MB; without /proc the latter."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(kind)) / 1e3


def start(options: Options, tokenizer: Tokenizer, cache: Path) -> Start:
    """Load the splits of the options' one task, and make batches."""
    before, began = memory("VmRSS"), time.perf_counter()
    downloader = Downloader(cache=cache, data_dir=Path(options.data_dir or ""))
    splits = load_splits(options.task[0], 0, ("train", "dev", "test"), options, downloader, tokenizer)
    seconds, peak = time.perf_counter() - began, memory("VmHWM") - before

    tokens, rates = splits["train"].tokens, []
    began = time.perf_counter()
    bucketed(tokens.lengths, SIZES[0], seed=1)
    order = time.perf_counter() - began
    for size in SIZES:
        began = time.perf_counter()
        count = sum(1 for _ in batches(tokens, size, seed=1))
        rates.append(count / (time.perf_counter() - began))
    return Start(len(tokens), len(tokens.sources), seconds, peak, order, tuple(rates))


def start_anew(options: Options, tokenizer: Path, cache: Path) -> Start:
    """The same in a new process: what it starts with is no other's, and what it ends with is gone."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_in_process, options, tokenizer, cache).result()


def _in_process(options: Options, tokenizer: Path, cache: Path) -> Start:
    return start(options, Tokenizer(tokenizer), cache)


def measure(folder: Path, tokenizer: Path, examples: int) -> dict[str, tuple[Start, Start]]:
    """The first and a later start of each set."""
    write_sets(folder, words_of(Tokenizer(tokenizer)), examples)
    found = {}
    for name, options in options_of(folder).items():
        cache = folder / "cache" / name  # else the second set would find the first one's tokens
        first, later = (start_anew(options, tokenizer, cache) for _ in range(2))
        found[name] = first, later
    return found


def shown(found: dict[str, tuple[Start, Start]]) -> str:
    head = ["set", "examples", "tokens each", "first start s", "later start s", "peak MB", "later MB", "order s"]
    rows = [[*head, *(f"batches/s of {size}" for size in SIZES)]]
    for name, (first, later) in found.items():
        figures = [f"{first.examples:,}", f"{first.tokens / first.examples:.1f}"]
        figures += [f"{first.seconds:.1f}", f"{later.seconds:.1f}", f"{first.peak:.0f}", f"{later.peak:.0f}"]
        rows.append([name, *figures, f"{later.order:.3f}", *(f"{rate:,.0f}" for rate in later.rates)])
    return table(rows)


def run(argv: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description="What a large task's data cost.")
    add = parser.add_argument
    demo = Path(__file__).parent.parent / "demo/checkpoint/spiece.model"
    add("--examples", type=positive, default=MNLI, metavar="N", help="training pairs (default: MNLI's %(default)s)")
    add("--tokenizer", type=Path, default=demo, metavar="FILE", help="a spiece.model (default: the demo's)")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        print(shown(measure(Path(folder), given.tokenizer, given.examples)))


def main(argv: Sequence[str] | None = None) -> int:
    return exit_status("benchmarks.data", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
