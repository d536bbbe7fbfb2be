"""Prompt checkpoints: self-contained, without the backbone's weights; and prompts from other programs' files.

A checkpoint is one safetensors file. Tensors: `target` (K,L,D) and, for a mixture, `sources` (P-1,L,D) and G's
`attention.down.weight`, `attention.up.weight`, `attention.norm.weight`, `attention.norm.bias`; where texts are centred
`attention.centre` (D) and `attention.seen`, the batches that it is the running mean of.
Its metadata has `format` and, as JSON, `config`: a PromptConfig.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from attempt.attention import POOLS, VARIANTS, PromptAttention
from attempt.baselines import FORMAT as WEIGHTS
from attempt.baselines import METHODS, TunedWeights, load_weights, save_weights
from attempt.foreign import (
    ADAPTER_FILES,
    AUTHORS_G,
    is_foreign,
    read_authors_attention,
    read_foreign,
    read_foreign_origin,
)
from attempt.origin import Origin, is_fingerprint, warn_of_others
from attempt.prompt import SoftPrompt
from model.errors import AttemptError, meant, meant_path
from model.files import write_whole
from model.safetensors import read_safetensors, safetensors_bytes
from model.t5 import T5

FORMAT = "attempt-prompt-1"
BEST, LAST = "best.safetensors", "last.safetensors"  # of a run


def unique(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """The names, with -2, -3 … after those that are taken or came before."""
    found, known = list[str](), dict.fromkeys(taken, 1)
    for name in names:
        own = name
        while own in known:
            known[name] += 1
            own = f"{name}-{known[name]}"
        known[own] = 1
        found.append(own)
    return found


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """All that is needed to use what was trained again, besides its tensors."""

    method: str  # as --method has it
    model: str  # name or folder of the frozen backbone that it was trained with
    tasks: list[str]  # a target prompt for each, in this order; with `shared` one for all
    sources: list[str]  # names of the source prompts, in their order in the mixture, each once
    labels: str  # "digits" or "words": how answers are written
    # the mixture's settings; save_prompt fills them in
    temperature: float | None = None
    pool_pads: bool = False
    train_norm: bool = True
    variant: str = "sub"
    learn_temperature: bool = False
    pooling: str = "max"
    use_target: bool = True
    shared: bool = False
    embedding: list[float] | None = None  # the backbone's fingerprint (attempt/origin.py)

    def __post_init__(self) -> None:
        """Each source has a name of its own, under which its weight is reported; `target` is the target's."""
        if isinstance(self.sources, list):
            object.__setattr__(self, "sources", unique(self.sources, ["target"]))

    @property
    def origin(self) -> Origin:
        """The T5 that it was trained with."""
        return Origin(self.model, self.embedding)

    @property
    def mixed(self) -> list[str]:
        """The names of the P prompts that are mixed, in their order."""
        return [*self.sources, *(["target"] if self.use_target else [])]

    @property
    def names(self) -> list[str]:
        """A name for each target prompt."""
        return ["+".join(self.tasks)] if self.shared else self.tasks

    def check(self) -> None:
        """Raises ValueError where a field is not of its kind: the file may be a stranger's."""
        kinds = {
            "method": self.method in ("prompt", "spot", "attempt", *METHODS),
            "model": isinstance(self.model, str),
            "tasks": isinstance(self.tasks, list) and all(isinstance(name, str) for name in self.tasks),
            "sources": isinstance(self.sources, list) and all(isinstance(name, str) for name in self.sources),
            "labels": self.labels in ("digits", "words"),
            "temperature": self.temperature is None
            or (type(self.temperature) in (int, float) and 0 < self.temperature < 1e30),
            "pool_pads": isinstance(self.pool_pads, bool),
            "train_norm": isinstance(self.train_norm, bool),
            "variant": self.variant in VARIANTS,
            "learn_temperature": isinstance(self.learn_temperature, bool),
            "pooling": self.pooling in POOLS,
            "use_target": isinstance(self.use_target, bool),
            "shared": isinstance(self.shared, bool),
            "embedding": self.embedding is None or is_fingerprint(self.embedding),
        }
        for name, good in kinds.items():
            if not good:
                raise ValueError(f"{name}: {getattr(self, name)!r}")


Trained = SoftPrompt | TunedWeights
"""What a method trains: prompts (and G) beside the T5, or parameters of the T5 itself."""


def save_trained(path: Path, trained: Trained, config: PromptConfig) -> None:
    """Write what was trained; the file appears only when it is whole."""
    if isinstance(trained, TunedWeights):
        save_weights(path, trained, dataclasses.asdict(config))
    else:
        save_prompt(path, trained, config)


def load_trained(path: Path, method: str, t5: T5) -> tuple[Trained, PromptConfig]:
    """Read it again; the baselines' weights are put into the T5."""
    if method not in METHODS:
        return load_prompt(path)
    trained = TunedWeights(t5, method)
    try:
        config = PromptConfig(**load_weights(path, trained))
        config.check()
    except (TypeError, ValueError) as e:
        raise AttemptError(f"{path}: expected whole trained weights, found damaged ones ({e})") from None
    return trained, config


def load_last(last: Path, best: Path, method: str, t5: T5) -> tuple[Trained, PromptConfig]:
    """What was saved last; its values come from state.pt, so that a damaged file can be replaced by the best one."""
    try:
        return load_trained(last, method, t5)
    except AttemptError as e:
        if not best.exists():
            raise
        print(f"warning: {e}; taking {best.name} and the state in its place", file=sys.stderr)
        return load_trained(best, method, t5)


def reload_trained(path: Path, trained: Trained) -> None:
    """Give what is trained the values in a file that save_trained wrote of it."""
    if isinstance(trained, TunedWeights):
        load_weights(path, trained)
    else:
        trained.load_state_dict(load_prompt(path)[0].state_dict())


def save_prompt(path: Path, prompt: SoftPrompt, config: PromptConfig) -> None:
    """Write a checkpoint; the file appears only when it is whole."""
    if prompt.attention is not None:
        config = dataclasses.replace(config, **prompt.attention.settings(), use_target=prompt.use_target)
    metadata = {"format": FORMAT, "config": json.dumps(dataclasses.asdict(config))}
    write_whole(path, safetensors_bytes(prompt.state_dict(), metadata))


def load_prompt(path: Path) -> tuple[SoftPrompt, PromptConfig]:
    """Read a checkpoint, or the best one of a run folder."""
    path = path / BEST if path.is_dir() else path
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        kind = "the weights of a baseline" if metadata.get("format") == WEIGHTS else metadata.get("format", "none")
        raise AttemptError(f"{path}: expected a prompt checkpoint ({FORMAT}), found {kind}")
    try:
        config = PromptConfig(**json.loads(metadata["config"]))
        config.check()
        target = tensors["target"]
        if target.ndim != 3 or not target.is_floating_point():
            raise ValueError(f"target of shape {tuple(target.shape)} and {target.dtype}")
        attention = None
        if config.method == "attempt":
            bottleneck = tensors["attention.down.weight"].size(0) if "attention.down.weight" in tensors else 1
            attention = PromptAttention(
                target.size(2),
                bottleneck,
                config.temperature,
                config.pool_pads,
                config.train_norm,
                config.variant,
                config.learn_temperature,
                config.pooling,
            )
        prompt = SoftPrompt(target, tensors.get("sources"), attention, config.use_target)
        prompt.load_state_dict(tensors)
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{name}: NaN or infinity")
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError, RecursionError) as e:
        problem = " ".join(f"{type(e).__name__}: {e}".split())
        raise AttemptError(f"{path}: expected a whole prompt checkpoint, found a damaged one ({problem})") from None
    except AttemptError as e:
        raise AttemptError(f"{path}: {e}") from None
    expected = 1 if config.shared else len(config.tasks), len(config.sources)
    found = prompt.target.size(0), 0 if prompt.sources is None else prompt.sources.size(0)
    if found != expected:
        raise AttemptError(f"{path}: expected prompts for (tasks, sources) = {expected}, found {found}")
    return prompt, config


def load_sources(paths: list[Path]) -> tuple[Tensor, list[str]]:
    """Source prompts (P-1,L,D) and their names, from files or run folders, all of one shape."""
    prompts: list[Tensor] = []
    names: list[str] = []
    for path in paths:
        for name, prompt in _read_source(path):
            if not torch.isfinite(prompt).all():
                raise AttemptError(f"{path}: expected finite numbers in the prompt, found NaN or infinity")
            if prompts and prompt.shape != prompts[0].shape:
                raise AttemptError(
                    f"{path}: expected a source prompt of shape {tuple(prompts[0].shape)} like {paths[0]}, "
                    f"found {tuple(prompt.shape)}; sources must share one model and prompt length"
                )
            prompts.append(prompt)
            names.append(name)
    return torch.stack(prompts), names


def load_prompts(path: Path) -> tuple[Tensor, list[str]]:
    """The target prompts (K,L,D) of a run or file, of a mixture's too, and their tasks."""
    _, target, names = _read_prompts(path)
    return target, names


def origins(paths: list[Path]) -> list[tuple[Path, Origin | None]]:
    """The T5s that prompts, or a run's G, were trained with; None where a file does not say."""
    return [(path, _origin(path)) for path in paths]


def _origin(path: Path) -> Origin | None:
    if path.is_dir() and (path / AUTHORS_G).exists():
        return None
    return read_foreign_origin(path) if is_foreign(path) else load_prompt(path)[1].origin


def warn_of_mixed(paths: list[Path]) -> None:
    """Warn of prompts that are compared with each other though they are of different T5s."""
    known = [(path, origin) for path, origin in origins(paths) if origin is not None]
    if known:
        warn_of_others(known[1:], known[0][1])


def read_attention(path: Path) -> dict[str, Tensor]:
    """The tensors of a run's G, under their names in PromptAttention; also the authors', and the replication's."""
    if not path.exists():
        expected = f"{path}: expected a run folder or a folder with {AUTHORS_G}"
        raise AttemptError(f"{expected}, found no such file{meant_path(path)}")
    if path.is_dir() and (path / AUTHORS_G).exists():
        return read_authors_attention(path)
    if is_foreign(path):
        attention = read_foreign(path).attention
    else:
        network = load_prompt(path)[0].attention
        attention = {} if network is None else network.state_dict()
    if not attention:
        raise AttemptError(f"{path}: expected a run of --method attempt, whose G to start from, found none")
    return attention


def change_sources(
    prompt: SoftPrompt, config: PromptConfig, add: list[Path], remove: list[str]
) -> tuple[SoftPrompt, PromptConfig]:
    """The same mixture with other sources; nothing is trained again: G reads each prompt by itself."""
    if prompt.attention is None or prompt.sources is None:
        raise AttemptError("expected a run of --method attempt, whose sources to change, found one without sources")
    unknown = [name for name in remove if name not in config.sources]
    if unknown:
        found = ", ".join(name + meant(name, config.sources) for name in unknown)
        raise AttemptError(f"expected sources of the run, {', '.join(config.sources)}; found {found}")
    kept = [i for i, name in enumerate(config.sources) if name not in remove]
    sources, names = list(prompt.sources[kept]), [config.sources[i] for i in kept]
    for path in add:
        prompts, added = load_sources([path])
        sources += prompts.unbind()
        names += added
    if not sources:
        raise AttemptError("expected at least one source to be left, found none")
    if any(source.shape != prompt.sources.shape[1:] for source in sources):
        raise AttemptError(
            f"expected sources of shape {tuple(prompt.sources.shape[1:])} like the run's, "
            f"found {', '.join(str(tuple(source.shape)) for source in sources[len(kept) :])}"
        )
    changed = SoftPrompt(prompt.target, torch.stack(sources), prompt.attention, prompt.use_target)
    return changed, dataclasses.replace(config, sources=names)


def _read_source(path: Path) -> list[tuple[str, Tensor]]:
    """The (name, prompt (L,D)) pairs of a file or folder: our checkpoints and runs, or another program's."""
    mixture, target, names = _read_prompts(path)
    if mixture:
        raise AttemptError(
            f"{path}: expected a prompt or a run of --method prompt or spot as a source, found ATTEMPT's, "
            "whose prompt depends on the instance"
        )
    return list(zip(names, target.unbind(), strict=True))


def _read_prompts(path: Path) -> tuple[bool, Tensor, list[str]]:
    """Whether it is a mixture's, the target prompts (K,L,D), and their names."""
    if not path.exists():
        raise AttemptError(f"{path}: expected a run folder or a prompt's file, found no such file{meant_path(path)}")
    if is_foreign(path):
        found = read_foreign(path)
        place = path.parent if path.name in ADAPTER_FILES else path  # an adapter has its folder's name
        name = place.name if place.is_dir() else place.stem.removesuffix("_prompt")
        numbered = [f"{name}-{i}" for i in range(len(found.target))]
        return bool(found.attention), found.target, found.tasks or ([name] if len(found.target) == 1 else numbered)
    prompt, config = load_prompt(path)
    return config.method == "attempt", prompt.target.detach(), config.names
