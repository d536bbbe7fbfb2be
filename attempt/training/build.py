"""What a run trains, before its first step: the sources it mixes and the first values of its prompts."""

import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from attempt import prompt as initial
from attempt.attention import PromptAttention
from attempt.checkpoint import BEST, load_prompt, load_prompts, load_sources, origins, read_attention
from attempt.command.options import Options, spelled
from attempt.origin import Origin, warn_of_others
from attempt.prompt import SoftPrompt
from attempt.runs.folder import Run
from attempt.runs.plan import Plan
from model.errors import Advised, AttemptError, meant, meant_path, note

SOURCES = ("mnli", "qnli", "qqp", "sst2", "squad", "record")  # Asai et al. 2022, sec. 4.1
AUTHORS_PROMPTS = {"t5-base": "source_prompts", "t5-large": "attempt_large_source", "t5-3b": "attempt_3b_source"}

INITS = ("vocab", "uniform", "labels", "source")  # of --init, besides text: and paths

Encode = Callable[[list[str]], list[list[int]]]  # texts -> their pieces' ids


def find_sources(options: Options) -> tuple[Tensor, list[str]]:
    """The source prompts (P-1,L,D) to mix or to choose from, and their names."""
    paths = source_paths(options)
    if not paths:
        raise missing_sources(options)
    if not options.source_prompts and len(paths) < len(SOURCES):
        missing = ", ".join(str(run) for run in default_sources(options) if run not in paths)
        note(f"sources from {len(paths)} of the paper's six tasks; missing: {missing}")
    return load_sources(paths)


def sources_changed(options: Options, folder: Path) -> bool:
    """Whether the sources of a complete run are others by now than those that lie in its folder."""
    own = sorted((folder / "sources").glob("*.safetensors"))  # of SPoT, what it started from
    if options.method != "attempt" and not own:
        return False
    try:
        now, _ = find_sources(options)
        mixed = [] if own else [load_prompt(folder / BEST)[0].sources]
        started = [load_prompts(path)[0] for path in own]
    except AttemptError:  # they are gone: nothing could be trained from them
        return False
    was = torch.cat([prompts for prompts in (mixed or started) if prompts is not None])  # (N,L,D)
    if not own:
        return not torch.equal(was, now)
    return not all(any(torch.equal(prompt, source) for source in now) for prompt in was)


def default_sources(options: Options) -> list[Path]:
    return [Options([task], method="prompt", model=options.model).folder() for task in SOURCES]


def source_paths(options: Options) -> list[Path]:
    """The sources that are named, else those of the paper's runs that are complete."""
    named = [Path(path) for path in options.source_prompts]
    return named or [run for run in default_sources(options) if Run(run).result.exists()]


def check_given(options: Options, used: Origin) -> None:
    """Warn of files and runs of another T5 that a run is to take prompts or G from."""
    paths = source_paths(options) if options.method == "attempt" else [Path(path) for path in options.source_prompts]
    named = options.load_attention, options.early_prompt, init_path(options.init)
    paths += [Path(path) for path in named if path]
    warn_of_others(origins(list(dict.fromkeys(paths))), used)


def missing_sources(options: Options) -> Advised:
    """What to do about it: the command that trains them, and where the authors' own are."""
    model, given = options.model, shlex.join(shared_flags(options))
    lines = [
        f"    python train.py --task {' '.join(SOURCES)} --separately --method prompt {given}",
        "and give this command again, or name prompt files or run folders by --source-prompts PATH ...",
    ]
    if model in AUTHORS_PROMPTS:
        archive = f"https://homes.cs.washington.edu/~akari/models/attempt/{AUTHORS_PROMPTS[model]}.zip"
        lines.append(f"The authors' prompts for {model}: unpack {archive} and give --source-prompts FOLDER/*_prompt.pt")
    first = f"--method {options.method}: expected source prompts, found none under runs/. Train some first:"
    return Advised(first, *lines)


SHARED = ("model", "labels", "splits", "task_name", "data_dir", "mirror", "device", "precision", "shard")


def shared_flags(options: Options) -> list[str]:
    """The flags of a run that its sources' training needs too: the model, and how and from where their texts come."""
    words = ["--model", options.model]
    for option in dataclasses.fields(Options):
        value = options.stored()[option.name]
        if option.name in SHARED and option.name != "model" and value != option.default:
            words.append(option.metadata.get("option", spelled(option.name)))
            words += [] if isinstance(value, bool) else [str(value)]
    return words


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
