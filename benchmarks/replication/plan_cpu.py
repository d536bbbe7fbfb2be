"""The plan for a CPU: small, and in order of importance, so that it can be cut anywhere.

It departs from the papers in all that costs time: a checkpoint of 77M parameters instead of T5-base's 220M, prompts of
20 instead of 100, batches of 16, 30 to 100 steps instead of thousands, texts of 128 tokens, no dropout, 200 examples of
dev and of test. Answers are chosen among the labels, so that a short run is judged by the task and not by whether it
has learned to spell the label; SQuAD's are written.
"""

from collections.abc import Callable

from benchmarks.replication.cells import Cell, cell, in_order

SOURCES = ("mnli", "qnli", "qqp", "sst2", "squad")
"""The paper's six without ReCoRD; MNLI, the first, is what ATTEMPT's target starts from."""
FULL = ("scitail", "rte", "mrpc", "cb")
"""The targets that every method and every source is tried on."""
OTHERS = ("cola", "stsb", "wnli", "boolq", "multirc", "wic", "wsc", "winogrande_m")
"""The other targets. Of WinoGrande the training set of 2,558: the largest is not at hand."""
LABELLED = ("mnli", "qnli", "qqp", "sst2", *FULL)
SEEDS = (42, 43, 44)
SHOTS = {"boolq": (4, 16, 32), "cb": (4, 16), "scitail": (4, 16, 32)}
"""Examples of each label; CB has 16 of its rarest."""

SHORT = "--labels words --batch-size 16 --dropout 0 --eval-examples 200 --device cpu --log-every 10"
CHOSEN = "--max-source-length 128 --answer-by labels"
WRITTEN = "--max-source-length 192 --max-target-length 12"
TUNED = "--optimizer adafactor --lr 0.3"
PROMPT = f"--method prompt --prompt-length 20 {TUNED}"
MIX = "--source-prompts " + " ".join(f"runs/source-{task}" for task in SOURCES)
ATTEMPT = f"--method attempt {TUNED} {MIX}"
METHODS = {  # a target's methods -> their flags
    "prompt": PROMPT,
    "attempt": ATTEMPT,
    **{f"from-{source}": f"--method spot --prompt-length 20 {TUNED} --init runs/source-{source}" for source in SOURCES},
    "finetune": "--method finetune --lr 3e-4",
    "adapter": "--method adapter --lr 3e-3",
    "bitfit": "--method bitfit --lr 3e-3",
}
BRIEF = ("prompt", "attempt", "from-mnli", "finetune", "adapter", "bitfit")
PROMPTS = ("prompt", "from-mnli", "attempt")
"""From scratch, SPoT, ATTEMPT."""
VARIANTS = {  # a source prompt with one thing changed
    "digits": "--labels digits",
    "adamw": "--optimizer adamw",
    "length100": "--prompt-length 100",
    "uniform": "--init uniform",
    "labels": "--init labels",
    "text": "--init 'text:{asked}'",
}
ASKED = {  # in the manner of flan-t5's own questions
    "sst2": "Is the sentiment of this sentence negative or positive? OPTIONS: - negative - positive",
    "mnli": "Does the premise entail the hypothesis? OPTIONS: - entailment - neutral - contradiction",
    "qnli": "Does the sentence answer the question? OPTIONS: - entailment - not_entailment",
    "qqp": "Do these two questions ask the same? OPTIONS: - not_duplicate - duplicate",
}
PAIRS = ("mnli", "qnli", "qqp")
"""The sources that compare two sentences, which is what a prompt finds hard here."""


def without(source: str) -> str:
    """ATTEMPT with one source fewer."""
    return f"{ATTEMPT} {MIX.replace(f' runs/source-{source}', '')}"


ABLATIONS = {  # name -> what is added to ATTEMPT, or in its place
    "attempt": ATTEMPT,
    "prompt": PROMPT,
    "from-sst2": METHODS["from-sst2"],
    "no-target": f"{ATTEMPT} --no-target",
    "constant": f"{ATTEMPT} --attention constant",
    "without-sst2": without("sst2"),
    "single-sst2": f"{ATTEMPT} --source-prompts runs/source-sst2",
    "single-mnli": f"{ATTEMPT} --source-prompts runs/source-mnli",
    "temperature-2087": f"{ATTEMPT} --temperature 2087",
    "temperature-140": f"{ATTEMPT} --temperature 140",
    "learn-temperature": f"{ATTEMPT} --learn-temperature",
    "freeze-norm": f"{ATTEMPT} --freeze-norm",
    "pool-pads": f"{ATTEMPT} --pool-pads",
    "attention-lr": f"{ATTEMPT} --attention-lr 0.01",
    "fix-attention": f"{ATTEMPT} --fix-attention",
    "token": f"{ATTEMPT} --attention token",
    "early": ATTEMPT.replace("runs/source-", "runs/early-"),
}
ELSEWHERE = {  # the same on SciTail, which has no prompt of its own among the sources; MNLI asks what it asks
    "no-target": ABLATIONS["no-target"],
    "constant": ABLATIONS["constant"],
    "without-mnli": without("mnli"),
    "single-mnli": ABLATIONS["single-mnli"],
    "early": ABLATIONS["early"],
    "vocab-start": f"{ATTEMPT} --init vocab",
    "mnli-start-alone": f"{without('mnli')} --init runs/source-mnli",
}
TOGETHER = {  # one G for all of FULL
    "multi": "",
    "multi-pretrained": "--load-attention runs/pretrain-attention",
    "multi-pretrained-slow": "--load-attention runs/pretrain-attention-slow --attention-lr 0.01",
}
SIZES = (30, 100)
"""Training examples: 60 steps read them 32 and 10 times, and of all of SciTail 960 once."""


def steps(count: int, every: int) -> str:
    return f"--steps {count} --eval-every {every}"


def source(task: str, variant: str = "", name: str = "source", length: str = "") -> Cell:
    """A prompt for a source task, or one with a thing changed."""
    changed = VARIANTS.get(variant, "").format(asked=ASKED.get(task, ""))
    own = f"{steps(50, 25)} {WRITTEN}" if task == "squad" else f"{steps(100, 25)} {CHOSEN}"  # its steps cost fourfold
    base = f"--task {task} {PROMPT} {own} {SHORT} --seed 42"
    return cell("-".join(filter(None, [name, task, variant])), "sources", base, changed, length)


def target(task: str, method: str, seed: int) -> Cell:
    return cell(f"{task}-{method}-{seed}", "targets", sixty(task, METHODS[method], seed))


def sixty(task: str, flags: str, seed: int) -> str:
    """The flags of a run of a target."""
    return f"--task {task} {flags} {steps(60, 30)} {CHOSEN} {SHORT} --seed {seed}"


def targets(tasks: tuple[str, ...], methods: tuple[str, ...], seed: int) -> list[Cell]:
    return [target(task, method, seed) for task in tasks for method in methods]


def zero_shot() -> list[Cell]:
    """The T5 alone: BitFit's biases are 0 at first, and a rate of 0 leaves them there."""
    alone = f"--method bitfit --lr 0 --steps 1 --train-examples 16 {SHORT} --seed 42"
    tasks = {"zero-shot": LABELLED, "zero-shot-others": OTHERS, "zero-shot-squad": ("squad",)}
    return [
        cell(name, "zero-shot", f"--task {' '.join(some)} {alone} {WRITTEN if some == ('squad',) else CHOSEN}")
        for name, some in tasks.items()
    ]


def zero_shot_of(task: str) -> str:
    """The name of the cell that has it."""
    return "zero-shot-squad" if task == "squad" else "zero-shot-others" if task in OTHERS else "zero-shot"


def ablations() -> list[Cell]:
    """SST-2 as a target that has its own prompt among the sources, as in the paper; 30 steps, so that it matters."""
    rest = f"{steps(30, 15)} {CHOSEN} {SHORT} --seed 42"
    return [
        cell(f"ablation-{name}-42", "ablations", f"--task sst2 {flags} {rest}") for name, flags in ABLATIONS.items()
    ]


def elsewhere(seed: int) -> list[Cell]:
    """Ablations of `targets`' SciTail cell."""
    return [cell(f"scitail-{n}-{seed}", "ablations", sixty("scitail", f, seed)) for n, f in ELSEWHERE.items()]


def few_shot(task: str, shots: int, seed: int) -> list[Cell]:
    """k examples of each label, other ones for each seed; 30 steps, as there is little to see."""
    rest = f"--task {task} --shots {shots} {steps(30, 15)} {CHOSEN} {SHORT} --seed {seed} --data-seed {seed}"
    return [cell(f"shots-{task}-{shots}-{m}-{seed}", "few-shot", f"{METHODS[m]} {rest}") for m in PROMPTS]


def few_shots(task: str, seed: int) -> list[Cell]:
    return [one for shots in SHOTS[task] for one in few_shot(task, shots, seed)]


def pretraining() -> list[Cell]:
    """G alone, trained on the source tasks: as the targets are, and for longer at a lower rate."""
    tasks = " ".join(task for task in SOURCES if task != "squad")
    flags = f"--task {tasks} {ATTEMPT} --no-target --mixing-cap 640 {steps(60, 60)} {CHOSEN} {SHORT} --seed 42"
    slow = f"--lr 0.01 {steps(160, 80)}"
    return [cell("pretrain-attention", "multi", flags), cell("pretrain-attention-slow", "multi", flags, slow)]


def multi(seed: int, names: tuple[str, ...]) -> list[Cell]:
    """One G for four targets: from its first values, and from those of `pretraining`."""
    many = f"--task {' '.join(FULL)} {ATTEMPT} {steps(160, 80)} --mixing-cap 640 {CHOSEN} {SHORT} --seed {seed}"
    return [cell(f"{name}-{seed}", "multi", many, TOGETHER[name]) for name in names]


def early_sources() -> list[Cell]:
    """Sources of 10 steps, for the question whether better sources give better targets."""
    return [source(task, name="early", length=steps(10, 10)) for task in SOURCES]


def sizes(examples: int, seed: int) -> list[Cell]:
    """SPoT and ATTEMPT on SciTail cut to so many training examples; the whole is in `targets`."""
    return [
        cell(
            f"size-{examples}-{method}-{seed}",
            "sizes",
            *target("scitail", method, seed).words,
            f"--train-examples {examples}",
        )
        for method in PROMPTS
    ]


def reach() -> list[Cell]:
    """Whether the comparison of two sentences is within reach: by fine-tuning, from a prompt that asks in flan's way,
    by a mixture that has the task's own prompt.
    """
    methods = ("finetune", "attempt")
    tuned = [cell(f"{m}-{task}", "reach", sixty(task, METHODS[m], 42)) for m in methods for task in PAIRS]
    return [*tuned, *(source(task, "text") for task in PAIRS)]


def long_run(task: str) -> Cell:
    """... and by four times the steps."""
    return source(task, name="long", length=steps(400, 100))


def again(cells: Callable[[int], list[Cell]]) -> list[Cell]:
    """The cells of the other seeds."""
    return [one for seed in SEEDS[1:] for one in cells(seed)]


def plan() -> list[Cell]:
    """Every cell once, each after those that it reads.

    Each question is asked once, then again with two more seeds where the first told methods apart, or might have: all
    that is asked of SciTail, and BRIEF's methods on the other three of FULL.
    """
    all_methods = tuple(METHODS)
    cells = [
        *(source(task) for task in ("sst2", "mnli", "squad", "qqp", "qnli")),
        *zero_shot(),
        *early_sources(),
        *ablations(),
        *reach(),
        *(source("sst2", variant) for variant in VARIANTS),
        *targets(FULL, all_methods, 42),
        *targets(OTHERS, PROMPTS, 42),
        *again(lambda seed: targets(("scitail",), BRIEF, seed)),
        *elsewhere(42),
        *again(elsewhere),
        *pretraining(),
        *multi(42, tuple(TOGETHER)),
        *again(lambda seed: targets(FULL, BRIEF, seed)),
        *(one for examples in SIZES for seed in SEEDS for one in sizes(examples, seed)),
        *(one for task in SHOTS for one in few_shots(task, 42)),
        *targets(OTHERS, BRIEF, 42),
        *again(lambda seed: multi(seed, ("multi",))),
        *again(lambda seed: targets(("scitail",), all_methods, seed)),
        *again(lambda seed: few_shots("scitail", seed)),
        long_run("qqp"),
    ]
    return in_order(list(dict.fromkeys(cells)))
