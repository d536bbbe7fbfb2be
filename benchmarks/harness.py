"""What step.py and evaluate.py share: cases from the command line, samples of every row, tables and a file."""

import argparse
import gc
import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from attempt.command.flags import Parser, above_zero, positive, share
from benchmarks.machine import Product, announced, save
from benchmarks.ours import FORMS, METHODS, TASKS, Ours
from benchmarks.peers import PEERED, PEERS, Peer
from benchmarks.shapes import SHAPES, most_bytes, random_state
from benchmarks.timing import Sampler, Work, figure, in_turns, markdown, sampled, seconds, span
from benchmarks.worker import Group, Worker, work
from data.batches import Batch, TokenSet, collate
from data.tasks import Example
from model.config import T5Config
from model.errors import AttemptError, exit_status, meant

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

    def batch(self, device: torch.device, name: str) -> Batch:
        """What a program of this name is given: random ids, of full length or, ragged, of half to all of it.

        For several tasks, rows of each. The peer's lie on the device already, ours go there with each step.
        """
        draw, longest = random.Random(1), self.text_tokens
        least = longest // 2 if self.ragged else longest
        lengths = [longest, *(draw.randint(least, longest) for _ in range(self.batch_size - 1))]
        batch = random_batch(self.config, lengths, [self.target_tokens] * self.batch_size)
        if parts_of(name)[1] == "tasks":
            batch = replace(batch, tasks=torch.arange(self.batch_size) % TASKS)
        return on_device(batch, name, device)

    def programs(self, names: Sequence[str], device: torch.device) -> dict[str, Ours | Peer]:
        """The programs of these names, with the same weights and prompt, and no dropout yet."""
        config, state = self.config, random_state(self.config, device)
        draw = torch.Generator().manual_seed(2)
        prompt = torch.randn(self.prompt_length, config.d_model, generator=draw).to(device)
        made: dict[str, Ours | Peer] = {}
        for name in names:
            program, method = parts_of(name)
            if program in PEERS:
                made[name] = Peer(config, state, prompt, self.precision, program, method)
            else:
                form = program.removeprefix("ours, ")
                made[name] = Ours(config, state, prompt, self.precision, form, method, self.batch_size)
            made[name].set_dropout(0.0)
        return made

    def __str__(self) -> str:
        lengths = f"{self.text_tokens // 2} to {self.text_tokens}" if self.ragged else str(self.text_tokens)
        return (
            f"{self.model}, {lengths} text tokens, batch {self.batch_size}, prompt {self.prompt_length}, "
            f"{self.target_tokens} target tokens, dropout {self.dropout:g}, {self.precision}"
        )


def named(program: str, method: str) -> str:
    """What a table calls a program that trains by this method: "attempt: ours, all"; by prompt tuning "ours, all"."""
    return program if method == "prompt" else f"{method}: {program}"


def parts_of(name: str) -> tuple[str, str]:
    """The program and the method of such a name; of a row's name, the program with what it does."""
    method, _, program = name.partition(": ")
    return (program, method) if method in METHODS else (name, "prompt")


def on_device(batch: Batch, name: str, device: torch.device) -> Batch:
    """The batch where the program of this name wants it."""
    return batch.to(device) if parts_of(name)[0] in PEERS else batch


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
    peers: tuple[str, ...]
    """Those of PEERS that make sense in it."""
    prepare: Callable[[Case, list[str], torch.device, bool], tuple[dict[str, Work], dict[str, str]]]
    """The rows' works, and how far their results agree; False: without asking. Raises AttemptError where they do not.
    """
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
    add("--methods", nargs="+", default=["prompt"], choices=METHODS, metavar="NAME", help=f"{', '.join(METHODS)}")
    add("--programs", nargs="+", metavar="NAME", help=f"a choice of: {'; '.join(PROGRAMS)}")
    add("--rounds", type=positive, default=5, metavar="N", help="samples of each row (default: %(default)s)")
    add("--warmup", type=positive, default=1, metavar="N", help="rounds before them (default: %(default)s)")
    add("--product", type=positive, metavar="N", help="size of the matrix product (default: 4096, on a GPU 8192)")
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add("--threads", type=positive, metavar="N", help="default: PyTorch's")
    add("--out", type=Path, metavar="FILE", help="write every sample, as JSON")
    add("--unchecked", action="store_true", help="take the samples without comparing the programs' results before")
    add("--keep-going", action="store_true", help="leave out a program that fails, and write why in --out's file")
    add("--first-limit", type=above_zero, metavar="S", help="end a program without a first sample after S seconds")
    add("--dry-run", action="store_true", help="say what would be measured, and stop")
    add("--worker", action="store_true", help=argparse.SUPPRESS)  # see worker.py
    return parser


def cases_of(given: argparse.Namespace) -> list[Case]:
    product = itertools.product(given.model, given.precision, given.batch_size, given.text_tokens, given.dropout)
    return [
        Case(model, tokens, batch, dropout, precision, given.prompt_length, given.target_tokens, given.ragged)
        for model, precision, batch, tokens, dropout in product
    ]


def names_of(benchmark: Benchmark, given: argparse.Namespace) -> list[str]:
    """The rows that are asked for: each program with each method, where it has it."""
    programs = given.programs or default_programs(benchmark, torch.device(given.device))
    if odd := [name for name in programs if name not in (*benchmark.peers, *PROGRAMS[len(PEERS) :])]:
        raise AttemptError(
            f"--programs: expected some of {'; '.join(PROGRAMS)}; found {odd[0]!r}{meant(odd[0], PROGRAMS)}"
        )
    return [named(p, method) for method in given.methods for p in programs if p not in PEERS or method in PEERED]


def default_programs(benchmark: Benchmark, device: torch.device) -> list[str]:
    """On a GPU all; elsewhere those that gain something there."""
    gpu = device.type == "cuda"
    peers = [name for name in benchmark.peers if gpu or name == "hugging face"]
    return [*peers, *(f"ours, {form}" for form in FORMS if gpu or not FORMS[form].gpu)]


def groups_of(benchmark: Benchmark, case: Case, names: list[str], device: torch.device) -> list[list[str]]:
    """Which programs are there at once: on a GPU as many as its memory holds, the first one in each group."""
    if device.type != "cuda":
        return [names]
    free, positions = 0.9 * torch.cuda.mem_get_info(device)[0], case.prompt_length + case.text_tokens

    def need(name: str) -> float:
        program, method = parts_of(name)
        trained = benchmark.unit == "step" and method in ("finetune", "adapter")
        most = most_bytes(case.config, case.batch_size, positions, benchmark.unit == "step", trained)
        return most if program in ("hugging face", "ours, plain") else 0.75 * most

    groups: list[list[str]] = [[]]
    for name in names:
        if len(groups[-1]) > 1 and sum(map(need, [*groups[-1], name])) > free:
            groups.append([names[0]])
        groups[-1].append(name)
    return groups


def measure(benchmark: Benchmark, case: Case, given: argparse.Namespace, names: list[str]) -> Iterator[dict[str, Any]]:
    """All rows of a case; after each round what is known so far."""
    device, agreement = torch.device(given.device), dict[str, str]()
    if not given.unchecked:
        together = Worker(benchmark, case, given, names)
        agreement = together.begin()
        together.close()  # so that what the comparison has held is free again
    product = Product(given.product or (8192 if device.type == "cuda" else 4096), case.precision, device)
    failed: dict[str, str] = {}
    result: dict[str, Any] = {"case": asdict(case), "unit": benchmark.unit, "agreement": agreement, "failed": failed}
    result |= {"product": {"size": product.a.size(0), "rate": math.nan}, "rows": []}
    done: list[dict[str, Any]] = []
    for group in groups_of(benchmark, case, names, device):
        workers, new = [Worker(benchmark, case, given, [name]) for name in group], list[dict[str, Any]]()
        there = Group(workers, device.type == "cuda", failed if given.keep_going else None, given.first_limit)
        try:
            for rows, rate in rounds(benchmark, case, given, there, product):
                new = [row for row in rows if row["name"] not in [other["name"] for other in done]]
                yield {**result, "product": {**result["product"], "rate": rate}, "rows": [*done, *new]}
        finally:
            there.kill()
        done += new
    if not done:
        raise AttemptError(f"{case}: expected a program to measure, found that all fail: {failed}")


def rounds(
    benchmark: Benchmark, case: Case, given: argparse.Namespace, group: Group, product: Product
) -> Iterator[tuple[list[dict[str, Any]], float]]:
    """The rows after each round, and the product's rate; the peak memory, and how graphs were made, come last."""
    device = torch.device(given.device)
    samplers: dict[str, Sampler] = {"product": partial(seconds, product, device)}
    samplers |= {row: partial(group.sample, worker, row) for worker in group.workers for row in worker.rows}
    if len(samplers) == 1:
        return
    for found in in_turns(samplers, given.rounds, given.warmup - 1):
        samples = {name: taken for name, taken in found.items() if not any(map(math.isnan, taken))}
        rate = product.operations / statistics.median(samples["product"])
        rows = [row_of(benchmark, case, name, samples, rate) for name in list(samples)[1:]]
        for row in rows:
            row["first_seconds"] = group.first[row["name"]]
        yield rows, rate
    told = group.close()
    yield [{**row, **told.get(row["name"], {})} for row in rows], rate


def row_of(benchmark: Benchmark, case: Case, name: str, samples: dict[str, list[float]], rate: float) -> dict[str, Any]:
    own = named("hugging face", parts_of(name)[1])  # of a method that has no peer, beside the first
    base = own if own in samples else list(samples)[1]
    row = sampled(name, samples[name], samples[base])
    row["examples_per_second"] = case.batch_size / row["median"]
    row["operations_per_second"] = row["examples_per_second"] * benchmark.operations(case, name)
    row["share_of_product_rate"] = row["operations_per_second"] / rate
    row["times"] = {peer: statistics.median(found) / row["median"] for peer, found in beside(name, samples).items()}
    return row


def beside(name: str, samples: dict[str, list[float]]) -> dict[str, list[float]]:
    """The peers' samples of the same work: by the same method, or by prompt tuning where they have no such method."""
    program = next(p for p in sorted(PROGRAMS, key=len, reverse=True) if p in name)  # the longest: "..., compiled"
    rows = {peer: (name.replace(program, peer), peer + name.partition(program)[2]) for peer in PEERS}
    found = {peer: next((row for row in own if row in samples), None) for peer, own in rows.items()}
    return {peer: samples[row] for peer, row in found.items() if row}


def table_of(benchmark: Benchmark, result: dict[str, Any]) -> str:
    head = ["program", f"s a {benchmark.unit} (extremes)", "examples/s", "GFLOP/s", "share of product rate"]
    rows = [[*head, "times as fast", f"first {benchmark.unit}, s", "peak memory, GB"]]
    for row in result["rows"]:
        rate = [figure(row["examples_per_second"]), figure(row["operations_per_second"] / 1e9)]
        rate += [f"{100 * row['share_of_product_rate']:.0f} %", f"{row['speedup']:.2f}", figure(row["first_seconds"])]
        rows.append(
            [row["name"], span(row["seconds"]), *rate, figure(row["peak_bytes"] / 1e9) if "peak_bytes" in row else "-"]
        )
    return markdown(rows)


def measure_all(benchmark: Benchmark, argv: Sequence[str] | None) -> None:
    given = new_parser(benchmark).parse_args(argv)
    cases, device = cases_of(given), torch.device(given.device)
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.worker:
        work(benchmark, cases[0], given)
        return
    names = names_of(benchmark, given)
    about = {} if given.dry_run else announced(benchmark.prog, argv, device)
    results: list[dict[str, Any]] = []
    for case in cases:
        print(f"\n{case}", flush=True)
        if given.dry_run:
            works = {name: benchmark.operations(case, name) * case.batch_size for name in names}
            for name, count in works.items():
                print(f"    {name}: at least {count / 1e9:,.1f} GFLOP a {benchmark.unit}, {given.rounds} samples")
            continue
        for result in measure(benchmark, case, given, names):
            save(given.out, {**about, "cases": [*results, result]})  # a run that is cut keeps what it has
        results.append(result)
        product = result["product"]
        print(f"product of {product['size']} x {product['size']}: {product['rate'] / 1e9:,.0f} GFLOP/s")
        print("; ".join(f"{name} {value}" for name, value in result["agreement"].items()))
        print("".join(f"{name} failed: {error}\n" for name, error in result["failed"].items()), end="")
        print(table_of(benchmark, result), flush=True)
        gc.collect()


def main(benchmark: Benchmark, argv: Sequence[str] | None = None) -> int:
    return exit_status(benchmark.prog, lambda: measure_all(benchmark, argv))
