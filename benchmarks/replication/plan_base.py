"""For users with a GPU: the commands for the published T5-base tables, and how long they may take.

The times are predicted from two steps of T5-base that were measured on an H200 (docs/performance.md): prompt tuning in
bf16, prompts of 100, texts of 40 tokens, with graphs. Both lie on seconds = STEP + operations / RATE.
"""

import shlex
from dataclasses import dataclass

from attempt import baselines
from attempt.command.options import Options
from attempt.runs.parsing import Command, parse
from attempt.runs.plan import Plan
from benchmarks.shapes import SHAPES, operations
from data.tasks import expand
from model.errors import AttemptError

MEASURED = {32: 0.01504, 128: 0.04028}  # seconds of a step of so many examples, medians of 5
OPERATIONS = {batch: batch * operations(SHAPES["t5-base"], 100, 40, 2, backward=True) for batch in MEASURED}
RATE = (OPERATIONS[128] - OPERATIONS[32]) / (MEASURED[128] - MEASURED[32])  # operations a second: 223e12
STEP = MEASURED[32] - OPERATIONS[32] / RATE  # seconds of every step: 0.0066
START = 20.0  # seconds a run, assumed: Python, the checkpoint, the texts


@dataclass(frozen=True)
class Size:
    """A task's training set, as published, cut as the paper does; tokens of text, its name included, and of answers."""

    train: int
    dev: int
    tokens: int
    answer: int = 3


SIZES = {  # means over 400 training texts where those are at hand, others (MRQA, PAWS, Yelp) estimated
    "mnli": Size(392_702, 9_832, 52),
    "qqp": Size(362_846, 1_000, 40),
    "qnli": Size(103_743, 1_000, 62),
    "sst2": Size(66_349, 1_000, 22),
    "stsb": Size(5_749, 750, 40, 4),
    "mrpc": Size(3_668, 204, 72),
    "rte": Size(2_490, 138, 88),
    "cola": Size(8_551, 521, 16),
    "boolq": Size(9_427, 1_635, 147),
    "cb": Size(250, 28, 96),
    "multirc": Size(27_243, 2_424, 311),
    "wic": Size(5_428, 319, 33),
    "wsc": Size(554, 52, 41),
    "record": Size(138_000, 1_000, 255, 5),
    "squad": Size(86_599, 1_000, 197, 6),
    "nq": Size(103_071, 1_000, 250, 6),
    "hotpotqa": Size(71_928, 1_000, 350, 6),
    "searchqa": Size(116_384, 1_000, 512, 6),
    "newsqa": Size(73_160, 1_000, 512, 6),
    "winogrande": Size(39_398, 1_000, 42),
    "yelp": Size(559_000, 1_000, 180),
    "scitail": Size(23_596, 1_304, 49),
    "paws": Size(49_401, 8_000, 60),
}
SMALL = "--task stsb mrpc rte cola boolq cb wic wsc --separately --seeds 42 43 44"
MEDIUM = "--task multirc scitail winogrande paws --separately --seeds 42 43 44 --epochs 10"
LARGE = "--task mnli qqp qnli sst2 yelp --separately --seeds 42 --epochs 10"
MRQA = "--task nq hotpotqa searchqa newsqa --separately --seeds 42 --epochs 10 --train-examples 100000"
EVERY = {"small": SMALL, "medium": MEDIUM, "large": LARGE, "mrqa": MRQA}
RECIPES = ("finetune", "adapter", "bitfit", "prompt-single", "spot-mnli", "attempt-single")
TOGETHER = ("glue", "superglue", "mrqa", "others")


def commands() -> list[tuple[str, str]]:
    """(what it is for, train.py's words), in the order in which they can be run."""
    found = [("the six source prompts", "@recipes/source-prompts.args")]
    for name in RECIPES:
        for size, tasks in EVERY.items():
            found.append((f"{name}: {size} sets", f"@recipes/{name}.args {tasks} --out runs/{name}-{size}"))
    found.append(("G, pre-trained on the sources", "@recipes/pretrain-attention.args"))
    for group in TOGETHER:
        recipe = f"@recipes/attempt-{group}.args --seeds 42 43 44"
        found.append(
            (f"ATTEMPT-m: {group}", f"{recipe} --load-attention runs/attention-t5-base --out runs/multi-{group}")
        )
        found.append((f"ATTEMPT-m: {group}, G not pre-trained", f"{recipe} --out runs/multi-{group}-new"))
    for shots in (4, 16, 32):
        tasks = "boolq cb scitail" if shots < 32 else "boolq scitail"
        found.append(
            (
                f"few-shot, k = {shots}",
                f"@recipes/few-shot.args --task {tasks} --shots {shots} --out runs/shots-{shots}",
            )
        )
    ablated = "@recipes/attempt-single.args --task boolq mrpc rte --separately --seeds 42 43 44"
    for name, flags in ABLATIONS.items():
        found.append((f"ablation: {name}", f"{ablated} {flags} --out runs/ablation-{name}"))
    found.append(("SPoT by retrieval", SPOT))
    found.append(("the replication's ATTEMPT", f"@recipes/attempt-replication.args {SMALL} --out runs/replication"))
    squad = "@recipes/squad-replication.args"
    found.append(("prompt tuning on SQuAD", f"{squad} --out runs/squad-0.3"))
    found.append(("the same, lower rate", f"{squad} --lr 1e-3 --out runs/squad-0.001"))
    found.append(("the same, AdamW", f"{squad} --lr 1e-3 --optimizer adamw --out runs/squad-adamw"))
    found.append(("fine-tuning on SQuAD", "@recipes/squad-finetune.args --out runs/squad-finetune"))
    return found


SPOT = (
    "--task mrpc rte cola boolq cb --separately --seeds 42 43 44 --method spot --model t5-base --transfer best "
    "--top-k 3 --early-steps 500 --optimizer adamw --lr 0.3 --warmup 500 --batch-size 32 --epochs 20 "
    "--out runs/spot-retrieval"
)
ABLATIONS = {
    "no-target": "--no-target",
    "constant": "--attention constant",
    "freeze-norm": "--freeze-norm",
    "pool-pads": "--pool-pads",
    "learn-temperature": "--learn-temperature",
    "single": "--source-prompts runs/mnli-prompt-t5-base",
    "attention-lr": "--attention-lr 0.1",
}


def hours(words: str, rate: float = RATE) -> tuple[int, float]:
    """How many runs a command makes, and how long they take together."""
    command = parse(shlex.split(words), expand=expand)
    runs = max(1, len(command.seeds)) * (3 if command.several and "--top-k" in words else 1)
    parts = [[name] for name in command.options.task] if command.separately else [command.options.task]
    return runs * len(parts), runs * sum(run_hours(command, tasks, rate) for tasks in parts)


def run_hours(command: Command, tasks: list[str], rate: float) -> float:
    """A run of these tasks: its start, its steps, dev after each epoch, and test (taken to be as large) once."""
    options, sizes = command.options, [SIZES[name] for name in tasks]
    examples = [trained(options, size) for size in sizes]
    plan = Plan.complete(options, options.epoch_examples(examples), 100)
    step = sum(n * forward(options, size) for n, size in zip(examples, sizes, strict=True)) / sum(examples)
    times = 3 if options.method in baselines.METHODS else 2  # a frozen T5's gradients cost a forward pass, not two
    seconds = plan.steps * (STEP + times * options.batch_size * step / rate)
    evaluations = plan.steps / plan.eval_every + 1
    scored = sum(size.dev * forward(options, size) for size in sizes) / rate
    return (START + seconds + evaluations * scored) / 3600


def trained(options: Options, size: Size) -> int:
    if options.shots:
        return options.shots * 2
    return min(size.train, options.train_examples or size.train)


def forward(options: Options, size: Size) -> float:
    """Operations of an example's forward pass, its text padded to a multiple of 8."""
    name = options.model.rpartition("/")[2]
    config = SHAPES.get("t5-v1_1-base" if "v1_1" in name or "lm-adapt" in name else name)
    if config is None:
        raise AttemptError(f"--model {name}: expected a size of benchmarks/shapes.py")
    length = 0 if options.method in baselines.METHODS else options.prompt_length or 100
    return operations(config, length, -(-size.tokens // 8) * 8, size.answer, backward=False)


def script() -> str:
    """A shell script of all commands, each with its number of runs and the hours that are expected."""
    lines, total = [], 0.0
    for text, words in commands():
        runs, time = hours(words)
        total += time
        lines.append(f"\n# {text}: {runs} run{'s' * (runs > 1)}, {time:.1f} h\npython train.py {words}")
    steps = ", ".join(f"{1e3 * seconds:.1f} ms of {batch} examples" for batch, seconds in MEASURED.items())
    head = [
        "#!/bin/sh",
        "# The commands for the published tables with T5-base, from the repository's root, in an order that works.",
        f"# All together {total:.0f} hours on one H200: predicted, from two measured steps ({steps}) and 20 s a start.",
        "# A command that was cut goes on when it is given again; a single run with --resume FOLDER.",
        "# Made by python -m benchmarks.replication tables",
    ]
    return "\n".join([*head, *lines]) + "\n"
