"""What a run trains, before its first step: the sources it mixes and the first values of its prompts."""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from attempt import prompt as initial
from attempt.attention import PromptAttention
from attempt.checkpoint import load_prompts, load_sources, read_attention
from attempt.errors import Advised, AttemptError, meant, meant_path
from attempt.options import Options
from attempt.plan import Plan
from attempt.prompt import SoftPrompt
from attempt.run import Run

SOURCES = ("mnli", "qnli", "qqp", "sst2", "squad", "record")  # Asai et al. 2022, sec. 4.1
AUTHORS_PROMPTS = {"t5-base": "source_prompts", "t5-large": "attempt_large_source", "t5-3b": "attempt_3b_source"}

INITS = ("vocab", "uniform", "labels", "source")  # of --init, besides text: and paths

Encode = Callable[[list[str]], list[list[int]]]  # texts -> their pieces' ids


def find_sources(options: Options) -> tuple[Tensor, list[str]]:
    """The source prompts (P-1,L,D) to mix or to choose from, and their names."""
    paths = [Path(path) for path in options.source_prompts]
    if not paths:
        runs = [Options([task], method="prompt", model=options.model).folder() for task in SOURCES]
        paths = [run for run in runs if Run(run).result.exists()]
        if paths and len(paths) < len(runs):
            missing = ", ".join(str(run) for run in runs if run not in paths)
            print(f"note: sources from {len(paths)} of the paper's six tasks; not there: {missing}", file=sys.stderr)
    if not paths:
        raise missing_sources(options)
    return load_sources(paths)


def missing_sources(options: Options) -> Advised:
    """What to do about it: the command that trains them, and where the authors' own are."""
    model = options.model
    lines = [
        f"    python train.py --task {' '.join(SOURCES)} --separately --method prompt --model {model}",
        "and give this command again, or name prompt files or run folders by --source-prompts PATH ...",
    ]
    if model in AUTHORS_PROMPTS:
        archive = f"https://homes.cs.washington.edu/~akari/models/attempt/{AUTHORS_PROMPTS[model]}.zip"
        lines.append(f"The authors' prompts for {model}: unpack {archive} and give --source-prompts FOLDER/*_prompt.pt")
    first = f"--method {options.method}: expected source prompts, found none under runs/. Train some first:"
    return Advised(first, *lines)


def init_path(init: str | None) -> Path | None:
    """The file or run folder that --init names; None where it is a keyword or a text."""
    if init is None or init in ("", *INITS) or init.startswith("text:"):
        return None
    if not Path(init).exists():
        raise AttemptError(
            f"--init {init}: expected vocab, uniform, labels, source, text:WORDS, or a prompt file or run folder; "
            f"found no such file{meant(init, INITS) or meant_path(Path(init))}"
        )
    return Path(init)


Given = tuple[Tensor, list[str]]  # prompts (K,L,D) and their tasks


def given_prompts(options: Options) -> Given | None:
    """The prompts of the file or run folder that --init names; None where it names none."""
    path = init_path(options.init)
    return None if path is None else load_prompts(path)


def new_prompt(
    options: Plan,
    embedding: Tensor,
    encode: Encode,
    labels: list[list[str]],
    sources: Tensor | None,
    given: Given | None,
) -> SoftPrompt:
    """The prompts of all tasks and, for ATTEMPT, G; `labels` has each task's label texts, embedding is (V,D).

    given: the prompts that --init names, by `given_prompts`.
    """
    generator = torch.Generator().manual_seed(options.seed)
    D = embedding.size(1)
    if sources is not None and sources.size(2) != D:
        raise AttemptError(
            f"--source-prompts: expected prompts of {options.model}'s width {D}, found width {sources.size(2)}; "
            "sources must be trained with the same model"
        )
    if options.shared_prompt:  # one prompt, which begins with the labels of all tasks
        labels = [list(dict.fromkeys(text for texts in labels for text in texts))]
    target = [
        first_value(options, task, embedding, encode, texts, sources, given, generator)
        for task, texts in enumerate(labels)
    ]
    attention = None if sources is None else new_attention(options, D, generator)
    prompt = SoftPrompt(torch.stack(target), sources, attention, options.use_target)
    if not prompt.parameter_groups():
        raise AttemptError(
            "expected something to train, found nothing to train: leave out --no-target, or let G be trained"
        )
    return prompt


def new_attention(options: Plan, width: int, generator: torch.Generator) -> PromptAttention:
    """G at its first values or at those of --load-attention, with the parameters that the options leave it to train."""
    attention = PromptAttention(
        width,
        options.bottleneck,
        options.temperature,
        options.pool_pads,
        not options.freeze_norm,
        options.attention,
        options.learn_temperature,
        options.pool,
    ).reset(generator)
    if options.load_attention is not None:
        load_attention(Path(options.load_attention), attention)
    if options.fix_attention:
        attention.requires_grad_(False)
    return attention


def load_attention(path: Path, attention: PromptAttention) -> None:
    """Give G the values of an earlier run's; a temperature that one of the two does not train stays as it is."""
    found, own = read_attention(path), attention.state_dict()
    if not own:
        raise AttemptError(
            f"--load-attention {path}: expected a G to give values to, found --attention {attention.variant}, "
            "which has none; leave one of them out"
        )
    shapes, expected = ({name: tuple(t.shape) for name, t in g.items() if name != "tau"} for g in (found, own))
    if shapes != expected:
        raise AttemptError(
            f"--load-attention {path}: expected G's tensors {expected}, found {shapes}; "
            "give the --attention, --bottleneck and --pool of that run, and the same model"
        )
    attention.load_state_dict({name: tensor for name, tensor in found.items() if name in own}, strict=False)


def first_value(
    options: Plan,
    task: int,
    embedding: Tensor,
    encode: Encode,
    labels: list[str],
    sources: Tensor | None,
    given: Given | None,
    generator: torch.Generator,
) -> Tensor:
    """The prompt (L,D) that the training of a task starts from."""
    init, L, D = options.init, options.prompt_length, embedding.size(1)
    if init == "uniform":
        return initial.uniform(L, D, generator)
    if init == "vocab":
        return initial.sampled_vocabulary(embedding, L, generator)
    if init == "labels":
        if not labels:
            raise AttemptError(
                f"--init labels: {options.task[task]} has free-text answers, no labels: use --init vocab"
            )
        return initial.class_labels(embedding, encode(labels), L, generator)
    if init.startswith("text:"):
        return initial.text(embedding, encode([init.removeprefix("text:")])[0], L)
    if given is not None:
        prompts, names = given
        found = prompts[names.index(options.task[task]) if options.task[task] in names else 0]
    elif sources is not None:
        found = sources[0]  # a copy of the first source, MNLI in the released configurations
    else:
        raise AttemptError(
            "--init source: expected --method attempt, which mixes sources; give a prompt's file instead"
        )
    if found.shape != (L, D):
        raise AttemptError(
            f"--init {init}: expected a prompt of shape {(L, D)} (--prompt-length, model width), "
            f"found {tuple(found.shape)}"
        )
    return found
