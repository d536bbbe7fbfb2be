"""What step.py and evaluate.py share: cases from the command line, samples of every row, tables and a file."""

import argparse
import contextlib
import gc
import itertools
import json
import random
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import torch

from attempt.errors import AttemptError, exit_status
from attempt.flags import Parser, natural, positive, share
from benchmarks.machine import REPOSITORY, Product, announced, peak_bytes, save
from benchmarks.ours import FORMS, Ours
from benchmarks.peers import Peer
from benchmarks.shapes import SHAPES, random_state
from benchmarks.timing import Work, alternate, figure, markdown, sampled, seconds, span
from data.batches import Batch, TokenSet, collate
from data.tasks import Example
from model.config import T5Config

PEERS = {"hugging face": False, "hugging face, compiled": True}  # name of the program -> whether it is compiled
PROGRAMS = [*PEERS, *(f"ours, {form}" for form in FORMS)]


@dataclass(frozen=True)
class Case:
    """What all programs of a table are given."""

    model: str
    text_tokens: int
    batch_size: int
    dropout: float
    precision: str
    prompt_length: int
    target_tokens: int
    ragged: bool

    @property
    def config(self) -> T5Config:
        return SHAPES[self.model]

    def batch(self, device: torch.device) -> Batch:
        """Random ids, of full length or, ragged, of half to all of it."""
        draw, longest = random.Random(1), self.text_tokens
        least = longest // 2 if self.ragged else longest
        lengths = [longest, *(draw.randint(least, longest) for _ in range(self.batch_size - 1))]
        return random_batch(self.config, lengths, [self.target_tokens] * self.batch_size).to(device)

    def programs(self, names: Sequence[str], device: torch.device) -> dict[str, Ours | Peer]:
        """The programs of these names, with the same weights and prompt, and no dropout yet."""
        config, state = self.config, random_state(self.config, device)
        draw = torch.Generator().manual_seed(2)
        prompt = torch.randn(self.prompt_length, config.d_model, generator=draw).to(device)
        made: dict[str, Ours | Peer] = {}
        for name in names:
            if name in PEERS:
                made[name] = Peer(config, state, prompt, self.precision, PEERS[name])
            else:
                made[name] = Ours(config, state, prompt, self.precision, name.removeprefix("ours, "))
            made[name].set_dropout(0.0)
        return made

    def __str__(self) -> str:
        lengths = f"{self.text_tokens // 2} to {self.text_tokens}" if self.ragged else str(self.text_tokens)
        return (
            f"{self.model}, {lengths} text tokens, batch {self.batch_size}, prompt {self.prompt_length}, "
            f"{self.target_tokens} target tokens, dropout {self.dropout:g}, {self.precision}"
        )


def random_batch(config: T5Config, texts: list[int], targets: list[int]) -> Batch:
    """Texts and targets of these lengths in random tokens, each with EOS at its end."""
    draw = random.Random(0)

    def encode(sizes: list[str]) -> list[list[int]]:
        return [[draw.randrange(2, config.vocab_size) for _ in range(int(size) - 1)] for size in sizes]

    examples = [Example(str(text), str(target)) for text, target in zip(texts, targets, strict=True)]
    tokens = TokenSet.build(examples, encode, max(texts), eos=config.eos_token_id)
    return collate(tokens, range(len(texts)), multiple=1)


@dataclass(frozen=True)
class Benchmark:
    """What differs between the two."""

    prog: str
    description: str
    unit: str
    """What a sample is: "step"."""
    prepare: Callable[[Case, list[str], torch.device], tuple[dict[str, Work], dict[str, Any]]]
    """The rows' works, and how far their results agree. Raises AttemptError where they do not agree."""
    operations: Callable[[Case, str], int]
    """Of an example in a row."""


def new_parser(benchmark: Benchmark) -> Parser:
    parser = Parser(prog=benchmark.prog, description=benchmark.description, allow_abbrev=False)
    add = parser.add_argument
    add("--model", nargs="+", default=["t5-small"], choices=SHAPES, metavar="NAME", help=f"{', '.join(SHAPES)}")
    add("--text-tokens", nargs="+", type=positive, default=[40], metavar="N", help="tokens of each text (default: 40)")
    add("--batch-size", nargs="+", type=positive, default=[32], metavar="N", help="examples (default: 32)")
    add("--dropout", nargs="+", type=share, default=[0.0, 0.1], metavar="P", help="default: 0 0.1")
    add("--precision", nargs="+", default=["fp32"], choices=["fp32", "bf16"], help="default: fp32")
    add("--prompt-length", type=positive, default=100, metavar="N", help="default: %(default)s")
    add("--target-tokens", type=positive, default=2, metavar="N", help="of a label, with EOS (default: %(default)s)")
    add("--ragged", action="store_true", help="texts of half to all of the tokens, padded (default: all of one length)")
    add("--programs", nargs="+", choices=PROGRAMS, metavar="NAME", help=f"a choice of: {'; '.join(PROGRAMS)}")
    add("--rounds", type=positive, default=5, metavar="N", help="samples of each row (default: %(default)s)")
    add("--warmup", type=natural, default=1, metavar="N", help="rounds before them (default: %(default)s)")
    add("--product", type=positive, metavar="N", help="size of the matrix product (default: 4096, on a GPU 8192)")
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add("--threads", type=positive, metavar="N", help="default: PyTorch's")
    add("--out", type=Path, metavar="FILE", help="write every sample, as JSON")
    add("--dry-run", action="store_true", help="say what would be measured, and stop")
    add("--worker", action="store_true", help=argparse.SUPPRESS)  # see Worker
    return parser


def cases_of(given: argparse.Namespace) -> list[Case]:
    product = itertools.product(given.model, given.precision, given.batch_size, given.text_tokens, given.dropout)
    return [
        Case(model, tokens, batch, dropout, precision, given.prompt_length, given.target_tokens, given.ragged)
        for model, precision, batch, tokens, dropout in product
    ]


def measure(benchmark: Benchmark, case: Case, given: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """All rows of a case."""
    device = torch.device(given.device)
    together = Worker(benchmark, case, given, names)
    together.close()  # so that what the comparison has held is free again
    product = Product(given.product or (8192 if device.type == "cuda" else 4096), case.precision, device)
    workers = [Worker(benchmark, case, given, [name]) for name in names]
    samplers = {row: partial(worker.sample, row) for worker in workers for row in worker.rows}
    samples = alternate({"product": partial(seconds, product, device), **samplers}, given.rounds, given.warmup)
    memory = {row: peak for worker in workers for peak in [worker.close()] for row in worker.rows}
    rate = product.operations / statistics.median(samples["product"])
    first, rows = next(iter(samplers)), []
    for name in samplers:
        row = sampled(name, samples[name], samples[first])
        row["examples_per_second"] = case.batch_size / row["median"]
        row["operations_per_second"] = row["examples_per_second"] * benchmark.operations(case, name)
        row["share_of_product_rate"] = row["operations_per_second"] / rate
        row["peak_bytes"] = memory[name]
        rows.append(row)
    large = {"size": product.a.size(0), "rate": rate}
    return {"case": asdict(case), "agreement": together.agreement, "product": large, "rows": rows}


class Worker:
    """Programs in a process that runs nothing else; it compares them, then takes samples of its rows when told to.

    A program that is measured is alone in its process, so that its memory is its own: what it holds at most, and how
    the C library deals with what is freed.
    """

    def __init__(self, benchmark: Benchmark, case: Case, given: argparse.Namespace, names: list[str]) -> None:
        flags: list[str] = []
        for key, value in asdict(case).items():
            flags += ["--" + key.replace("_", "-"), str(value)] if key != "ragged" else ["--ragged"] * value
        flags += ["--device", given.device, "--worker", "--programs", *names]
        flags += ["--threads", str(given.threads)] if given.threads else []
        module = benchmark.prog.removeprefix("python -m ")
        self.command = [sys.executable, "-W", "ignore", "-m", module, *flags]
        self.process = subprocess.Popen(self.command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, cwd=REPOSITORY)
        begun = self.read()
        self.rows: list[str] = begun["rows"]
        self.agreement: dict[str, str] = begun["agreement"]

    def read(self) -> Any:
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        try:
            return json.loads(line)
        except ValueError:
            if line:  # else it has ended
                self.process.kill()
            told = self.process.stderr.read()
            if self.process.wait() == 2:  # it says itself what it expected and found
                raise AttemptError(told.strip().partition("error: ")[2]) from None
            raise AttemptError(f"{shlex.join(self.command)}: expected its figures, found\n{line}{told}") from None

    def ask(self, row: str) -> Any:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # read() tells what it died of
            self.process.stdin.write(row + "\n")
            self.process.stdin.flush()
        return self.read()

    def sample(self, row: str) -> float:
        taken: float = self.ask(row)["seconds"]
        return taken

    def close(self) -> int:
        """End it; the bytes that it has held at most."""
        peak: int = self.ask("")["peak_bytes"]
        self.process.communicate()
        return peak


def work(benchmark: Benchmark, case: Case, given: argparse.Namespace) -> None:
    """The other side of Worker."""
    device = torch.device(given.device)
    works, agreement = benchmark.prepare(case, given.programs, device)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    print(json.dumps({"rows": list(works), "agreement": agreement}), flush=True)
    while row := sys.stdin.readline().strip():
        print(json.dumps({"seconds": seconds(works[row], device)}), flush=True)
    print(json.dumps({"peak_bytes": peak_bytes(device)}), flush=True)


def table_of(benchmark: Benchmark, result: dict[str, Any]) -> str:
    head = ["program", f"s a {benchmark.unit} (extremes)", "examples/s", "GFLOP/s", "share of product rate"]
    rows = [[*head, "times as fast", "peak memory, GB"]]
    for row in result["rows"]:
        rate = [figure(row["examples_per_second"]), figure(row["operations_per_second"] / 1e9)]
        rate += [f"{100 * row['share_of_product_rate']:.0f} %", f"{row['speedup']:.2f}"]
        rows.append([row["name"], span(row["seconds"]), *rate, figure(row["peak_bytes"] / 1e9)])
    return markdown(rows)


def measure_all(benchmark: Benchmark, argv: Sequence[str] | None) -> None:
    given = new_parser(benchmark).parse_args(argv)
    cases, device = cases_of(given), torch.device(given.device)
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.worker:
        work(benchmark, cases[0], given)
        return
    names = given.programs or [name for name in PROGRAMS if device.type == "cuda" or "compiled" not in name]
    about = {} if given.dry_run else announced(benchmark.prog, argv, device)
    results = []
    for case in cases:
        print(f"\n{case}", flush=True)
        if given.dry_run:
            works = {name: benchmark.operations(case, name) * case.batch_size for name in names}
            for name, count in works.items():
                print(f"    {name}: at least {count / 1e9:,.1f} GFLOP a {benchmark.unit}, {given.rounds} samples")
            continue
        results.append(measure(benchmark, case, given, names))
        product = results[-1]["product"]
        print(f"product of {product['size']} x {product['size']}: {product['rate'] / 1e9:,.0f} GFLOP/s")
        print("; ".join(f"{name} {value}" for name, value in results[-1]["agreement"].items()))
        print(table_of(benchmark, results[-1]), flush=True)
        save(given.out, {**about, "cases": results})  # after every case, so that a run that is cut keeps what it has
        gc.collect()


def main(benchmark: Benchmark, argv: Sequence[str] | None = None) -> int:
    return exit_status(benchmark.prog, lambda: measure_all(benchmark, argv))
