"""The plan for nine minutes of one GPU: the papers' questions at real lengths, in order of importance.

It asks with the CPU's checkpoint of 77M parameters what plan_cpu.py asks, but with prompts of 100, batches of 32 and
thousands of steps. It can be cut anywhere: the first cells answer a question, the later ones more of them. DEMO asks
the same of the demo's world, with 1,000 steps, in some two and a half hours of a CPU core.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from attempt import baselines
from attempt.command.options import Options
from attempt.runs.parsing import parse
from benchmarks.replication.cells import Cell, cell, in_order
from benchmarks.replication.plan_base import SIZES
from benchmarks.shapes import SHAPES, operations

SOURCES = ("mnli", "sst2", "qnli", "qqp", "squad")
FIRST = ("rte", "mrpc", "cb", "scitail")
OTHERS = ("boolq", "cola", "stsb", "wic")
STREAM = ("sst2", "qnli", "mnli", "qqp")
"""Four tasks whose rows do not say which they are of."""
SEEDS = (42, 43, 44)
SHOTS = 16
"""Examples of each label."""
POOL = "centred"
"""Beside the paper's maximum: the pooling that tells texts apart with a target too (docs/replication.md)."""


@dataclass(frozen=True)
class Setting:
    """What the runs have in common, and what decides how long they take; the first is the GPU's."""

    source: int = 3000
    """Steps of a source prompt."""
    target: int = 1000
    tuned: int = 500
    """Steps where the whole T5 is trained, or few examples are there."""
    prompt: int = 100
    batch: int = 32
    examples: int = 400
    """Of dev and of test; the small test sets have no more."""
    text: int = 256
    """Tokens."""
    machine: str = "--log-every 100"
    labels: str = "words"
    first: tuple[str, ...] = FIRST
    others: tuple[str, ...] = OTHERS
    few: tuple[str, ...] = ("scitail", "boolq", "cb")
    """Targets of which few examples are taken."""


TINY = Setting(2, 2, 2, 5, 2, 4, 32, "--device cpu --log-every 1")
"""To see on a CPU that every cell runs."""
PAIR = ("mrpc", "rte")  # the demo's two targets that are learned
DEMO = Setting(1000, 1000, 1000, 16, 32, 400, 64, "--device cpu --log-every 250", "digits", PAIR, (), PAIR)

# On an H200 31 cells, predicted to take 325 s, took 306 s, 4 to 12 at a time (docs/replication/gpu).
STEP = 0.005  # seconds: t5-small, 32 texts of 40 tokens, prompts of 100, with graphs
START = 3.0  # seconds a run: checkpoint, texts, some 20 graphs, in a process that has PyTorch already
EARLY = 5  # SPoT's early prompt has a fifth of the steps
CUT = 10  # sources that are worse were cut at a tenth of theirs


class GpuPlan:
    """The cells, in this setting."""

    def __init__(self, setting: Setting = Setting()) -> None:
        self.setting = setting
        tuned = "--optimizer adamw --lr 0.3 --schedule linear"
        self.prompt = f"--method prompt --prompt-length {setting.prompt} {tuned}"
        self.sources = "--source-prompts " + " ".join(f"runs/source-{task}" for task in SOURCES)
        self.attempt = f"--method attempt {tuned} {self.sources}"
        early = max(1, setting.target // EARLY)
        search = f"--transfer best --top-k 1 --early-steps {early} --prompt-length {setting.prompt}"
        self.methods = {  # a target's methods -> their flags
            "prompt": self.prompt,
            "from-mnli": f"{self.prompt} --method spot --init runs/source-mnli",
            "attempt-max": f"{self.attempt} --pool max",
            f"attempt-{POOL}": f"{self.attempt} --pool {POOL}",
            "finetune": "--method finetune --lr 3e-4",
            "adapter": "--method adapter --lr 3e-3",
            "spot": f"--method spot {tuned} {self.sources} {search}",
            "attempt-cut": f"{self.attempt} --pool max".replace("runs/source-", "runs/cut-"),
        }

    def cells(self) -> list[Cell]:
        """Every cell once, each after those that it reads."""
        return in_order(list(dict.fromkeys(self._in_order_of_importance())))

    def _in_order_of_importance(self) -> Iterator[Cell]:
        first, others = self.setting.first, self.setting.others
        prompts, tuned = ("attempt-max", "prompt", "from-mnli", f"attempt-{POOL}"), ("finetune", "adapter", "spot")
        yield from (self.source(task) for task in ("squad", *SOURCES))  # the longest first: ATTEMPT waits for it
        yield from self.targets(first, prompts, SEEDS)  # does ATTEMPT beat prompt tuning and SPoT
        yield from self.targets(first, tuned, SEEDS[:1])
        yield from self.targets(others, prompts, SEEDS[:1])
        yield from self.multi(SEEDS[:1])
        yield from self.stream(SEEDS[:1])
        yield from (self.cut(task) for task in SOURCES)
        yield from self.targets(first, ("attempt-cut",), SEEDS)  # do better sources give better targets
        yield from (self.source(task, "adafactor") for task in ("mnli", "sst2"))
        yield from self.few_shot(SEEDS)
        yield from self.targets(first, tuned, SEEDS)
        yield from self.targets(others, (*prompts, *tuned), SEEDS)
        yield from self.multi(SEEDS)
        yield from self.stream(SEEDS)

    def source(self, task: str, optimizer: str = "") -> Cell:
        changed = f"--optimizer {optimizer} --schedule constant" if optimizer else ""
        name = "-".join(filter(None, ["source", task, optimizer]))
        return self._cell(name, "sources", (task,), f"{self.prompt} {changed}", self.setting.source, SEEDS[0])

    def cut(self, task: str) -> Cell:
        """A source prompt of fewer steps."""
        steps = -(-self.setting.source // CUT)
        return self._cell(f"cut-{task}", "sources", (task,), self.prompt, steps, SEEDS[0])

    def targets(self, tasks: tuple[str, ...], methods: tuple[str, ...], seeds: tuple[int, ...]) -> list[Cell]:
        return [self.target(task, method, seed) for seed in seeds for task in tasks for method in methods]

    def target(self, task: str, method: str, seed: int) -> Cell:
        steps = self.setting.tuned if method == "finetune" else self.setting.target
        return self._cell(f"{task}-{method}-{seed}", "targets", (task,), self.methods[method], steps, seed)

    def multi(self, seeds: tuple[int, ...]) -> Iterator[Cell]:
        """One G for all targets, as many steps each as alone: at the prompts' rate, at its own, pre-trained."""
        steps, own = len(self.setting.first) * self.setting.target, "--attention-lr 0.01"
        alone = f"{self.attempt} --pool max --no-target {own} --mixing-cap 10000"
        labelled = tuple(task for task in SOURCES if task != "squad")
        yield self._cell("source-attention", "sources", labelled, alone, self.setting.target, SEEDS[0])
        ways = {"multi": "", "multi-own-rate": own, "multi-pretrained": f"{own} --load-attention runs/source-attention"}
        for seed in seeds:
            for name, flags in ways.items():
                words = f"{self.attempt} --pool max {flags}"
                yield self._cell(f"{name}-{seed}", "multi", self.setting.first, words, steps, seed)

    def few_shot(self, seeds: tuple[int, ...]) -> Iterator[Cell]:
        """Other examples for each seed."""
        for seed in seeds:
            for task in self.setting.few:
                for method in ("prompt", "from-mnli", "attempt-max"):
                    flags = f"{self.methods[method]} --shots {SHOTS} --data-seed {seed}"
                    name = f"shots-{task}-{method}-{seed}"
                    yield self._cell(name, "few-shot", (task,), flags, self.setting.tuned, seed)

    def stream(self, seeds: tuple[int, ...]) -> Iterator[Cell]:
        """Four tasks' rows without their names, one prompt for all: what is a mixture for each row worth?"""
        rest = "--no-task-name --mixing-cap 10000"
        ways = {
            "prompt": f"{self.prompt} --shared-prompt",
            **{f"attempt-{pool}": f"{self.attempt} --pool {pool} --shared-prompt" for pool in ("max", POOL)},
            **{f"no-target-{pool}": f"{self.attempt} --pool {pool} --no-target" for pool in ("max", POOL)},
        }
        for seed in seeds:
            for name, flags in ways.items():
                words = f"{flags} {rest}"
                yield self._cell(f"stream-{name}-{seed}", "stream", STREAM, words, self.setting.target, seed)

    def _cell(self, name: str, part: str, tasks: tuple[str, ...], flags: str, steps: int, seed: int) -> Cell:
        at = self.setting
        answers = "--max-target-length 12" if tasks == ("squad",) else "--answer-by labels"
        if tasks == ("stsb",):
            answers = ""  # its answers are numbers, which are written
        return cell(
            name,
            part,
            f"--task {' '.join(tasks)} {flags} --steps {steps} --eval-every {-(-steps // 4)} --labels {at.labels}",
            f"{answers} --batch-size {at.batch} --dropout 0 --max-source-length {at.text}",
            f"--eval-examples {at.examples} {at.machine} --seed {seed}",
        )


@cache
def steps_of(one: Cell) -> int:
    """Of all its runs: a search of SPoT makes an early prompt, and one from the source that is nearest to it."""
    options = parse(list(one.words)).options
    return (options.steps or 0) + (options.early_steps or 0)


@cache
def predicted(one: Cell) -> float:
    """Seconds: the start, the steps, and dev at every evaluation and test once, by the operations that they need."""
    options = parse(list(one.words)).options
    evaluations = steps_of(one) / (options.eval_every or 1) + 1
    examples = evaluations * (options.eval_examples or 0) * len(options.task)
    return START + steps_of(one) * step_seconds(one) + examples * STEP / 32 * share(options, backward=False)


@cache
def step_seconds(one: Cell) -> float:
    options = parse(list(one.words)).options
    whole = 1.5 if options.method in baselines.METHODS else 1  # the weights' gradients too
    return STEP * whole * options.batch_size / 32 * share(options, backward=True)


def share(options: Options, backward: bool) -> float:
    """An example's operations, the mean over the tasks, in those of a step's example in STEP."""
    t5, length = SHAPES["t5-small"], 0 if options.method in baselines.METHODS else 100
    sizes = [SIZES[name] for name in options.task]
    texts = [(min(size.tokens, options.max_source_length or size.tokens), size.answer) for size in sizes]
    needed = [operations(t5, length, -(-tokens // 8) * 8, answer, backward) for tokens, answer in texts]
    return sum(needed) / len(needed) / operations(t5, 100, 40, 2, backward=True)


def parts(cells: list[Cell]) -> list[list[str]]:
    """A table: the cells of each part and the seconds that they take, one after another."""
    rows = [["part", "cells", "predicted, s"]]
    for part in dict.fromkeys(one.part for one in cells):
        own = [one for one in cells if one.part == part]
        rows.append([part, str(len(own)), f"{sum(map(predicted, own)):.0f}"])
    return [*rows, ["all", str(len(cells)), f"{sum(map(predicted, cells)):.0f}"]]
