"""Prompts in other programs' files: which layout a path has, and how its tensors become ours.

Layouts: a bare tensor (.pt: ATTEMPT's released prompts; .npy: Google's), a folder that the authors' program saved,
and adapters (adapter_model.bin or .safetensors, with adapter_config.json) of Hugging Face's PEFT or of a replication
of ATTEMPT that is built like it.

Shapes: K tasks, S sources, L prompt length, D model width, R bottleneck, N rows that an adapter has allocated.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attempt.origin import Origin, is_fingerprint
from model.checkpoint import EMBEDDINGS, HEAD, described, read_torch
from model.errors import AttemptError, meant_path
from model.safetensors import check_pointer, read_safetensors

TASKS = "attempt.tasks"  # our own entries in an adapter's metadata, as JSON: the tasks' names,
EMBEDDING = "attempt.embedding"  # and the fingerprint of the T5's embedding
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")  # in the order in which PEFT tries them
SHARED = ("prefix_task_cols", "prefix_task_rows")
G_NAMES = {  # ours -> the replication's, the authors'
    "down.weight": ("attn_W_down.weight", "attn_W_down.pt"),
    "up.weight": ("attn_W_up.weight", "attn_W_up.pt"),
    "norm.weight": ("layer_norm.weight", "layer_norm_weight.pt"),
    "norm.bias": ("layer_norm.bias", "layer_norm_bias.pt"),
}
AUTHORS_G = G_NAMES["down.weight"][1]
KINDS = {  # peft_type -> an adapter's tensors
    "PROMPT_TUNING": ("prompt_embeddings",),
    "P_TUNING": ("prompt_embeddings",),  # what its network has made of its own embeddings
    "MULTITASK_PROMPT_TUNING": ("prompt_embeddings", *SHARED),
    "ATTEMPT": ("prompt_embeddings", "mul_prefix_emb", *(theirs for theirs, _ in G_NAMES.values())),  # the replication
}


@dataclass(frozen=True)
class Foreign:
    """What a file or folder of another program holds, as fp32 tensors of their own."""

    target: Tensor  # (K,L,D)
    tasks: list[str] = field(default_factory=list)  # the K names, where the files have them
    sources: Tensor | None = None  # (S,L,D), where they are stored with the target
    attention: dict[str, Tensor] = field(default_factory=dict)  # G's, under our names; empty for plain prompts
    temperature: float | None = None  # of the softmax, where it is stored
    notes: list[str] = field(default_factory=list)  # what the user should know


def is_foreign(path: Path) -> bool:
    """Is this another program's? A folder with nothing of theirs and other .safetensors are taken for ours."""
    if path.is_dir():
        names = (ADAPTER_CONFIG, *ADAPTER_FILES)
        return any((path / name).exists() for name in names) or any(path.glob("prefix_embeddings*.pt"))
    return path.suffix != ".safetensors" or path.name in ADAPTER_FILES


def read_foreign(path: Path, rows: int | None = None) -> Foreign:
    """Read a file or folder in any of the layouts above.

    rows: the prompt length L, for adapters that do not say which of their rows were used; else it must agree.
    Raises AttemptError, on one line that names the file, for whatever is missing, misshapen or not finite.
    """
    if not path.exists():
        expected = f"{path}: expected a prompt's file or an adapter's folder"
        raise AttemptError(f"{expected}, found no such file{meant_path(path)}")
    if path.suffix in (".safetensors", ".bin") and not path.is_dir():
        return _adapter(path, path.parent / ADAPTER_CONFIG, rows)
    if path.is_dir():
        found = _folder(path, rows)
    else:
        found = Foreign(_bare(path)[None])
    if rows not in (None, found.target.size(1)):
        raise AttemptError(f"{path}: expected a prompt of length {rows} as asked, found {found.target.size(1)}")
    return found


def _folder(path: Path, rows: int | None) -> Foreign:
    if any(path.glob("prefix_embeddings*.pt")):
        return _authors_run(path)
    files = [path / name for name in ADAPTER_FILES if (path / name).exists()]
    if not files:
        names = ", ".join((*ADAPTER_FILES, "prefix_embeddings.pt"))
        raise AttemptError(f"{path}: expected a folder with one of {names}, found none")
    return _adapter(files[0], path / ADAPTER_CONFIG, rows)


def read_foreign_origin(path: Path) -> Origin | None:
    """The T5 that an adapter names as its base; None where nothing names one."""
    folder = path if path.is_dir() else path.parent
    try:
        name = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
        file = folder / ADAPTER_FILES[0]
        numbers = json.loads(read_safetensors(file)[1].get(EMBEDDING, "null")) if file.exists() else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # what is wrong is told where it is read
        return None
    return Origin(name, numbers if is_fingerprint(numbers) else None) if isinstance(name, str) and name else None


def _checked(path: Path, what: str, found: object, *shape: int | str) -> Tensor:
    """A finite float tensor of this shape, as an fp32 copy; a side given in words may have any length."""
    fits = (
        isinstance(found, Tensor)
        and found.is_floating_point()
        and found.layout == torch.strided
        and found.ndim == len(shape)
        and all(n == side or (isinstance(side, str) and n) for n, side in zip(found.shape, shape, strict=True))
    )
    if not fits or not isinstance(found, Tensor):
        sides = ", ".join(map(str, shape))
        raise AttemptError(f"{path}: expected {what} to be a float tensor ({sides}), found {described(found)}")
    # copied: it may be a view on a larger storage or on the file, and may be a Parameter
    tensor = found.detach().to(torch.float32, copy=True).contiguous()
    if not torch.isfinite(tensor).all():
        raise AttemptError(f"{path}: expected finite numbers in {what}, found NaN or infinity")
    return tensor


# ---- bare tensors ----


def _bare(path: Path) -> Tensor:
    """The prompt (L,D) in a .npy or torch.save file."""
    if path.suffix in (".npy", ".npz"):
        try:
            with open(path, "rb") as file:
                check_pointer(path, file.read(100))
            array = np.load(path, allow_pickle=False)
            if not isinstance(array, np.ndarray):
                raise ValueError(f"an archive (.npz) of {', '.join(array)}; save one of them as .npy")
            found: object = torch.from_numpy(array)
        except AttemptError:
            raise
        except Exception as e:  # NumPy parses the header as Python text: a damaged one fails in many ways
            problem = " ".join(str(e).split())
            raise AttemptError(f"{path}: expected a NumPy array of a prompt, found {problem}") from None
    else:
        found = read_torch(path)
    return _checked(path, "the prompt", found, "prompt length", "model width")


# ---- what the authors' program saves ----


def _authors_run(path: Path) -> Foreign:
    """prefix_embeddings.pt, or prefix_embeddings_TASK.pt for several tasks, and G's tensors a file each."""
    files = {
        file.stem.removeprefix("prefix_embeddings").lstrip("_"): file for file in path.glob("prefix_embeddings*.pt")
    }
    if "" in files and len(files) > 1:
        raise AttemptError(f"{path}: expected prefix_embeddings.pt or prefix_embeddings_TASK.pt, found both")
    numbered = sorted(files) == sorted(str(i) for i in range(len(files)))  # its checkpoints number the tasks
    names = sorted(files, key=int) if numbered else sorted(files)
    first = _bare(files[names[0]])
    L, D = first.shape
    target = [first, *(_checked(files[name], "the prompt", read_torch(files[name]), L, D) for name in names[1:])]
    attention = _authors_attention(path, D)
    return Foreign(torch.stack(target), [] if numbered or names == [""] else names, attention=attention)


def read_authors_attention(folder: Path) -> dict[str, Tensor]:
    """G alone, as attn_pretrain_nlu.zip has it: pre-trained on the source tasks, without prompts."""
    file = folder / G_NAMES["up.weight"][1]
    up = _checked(file, "G's W_up", read_torch(file), "model width", "bottleneck")
    return _authors_attention(folder, up.size(0))


def _authors_attention(path: Path, D: int) -> dict[str, Tensor]:
    """G, if there is one. The program froze the LayerNorm: where its files are absent, it is at 1/0."""
    if (path / "attn_Wa_weights.pt").exists():
        raise AttemptError(
            f"{path}: expected G's attn_W_down.pt and attn_W_up.pt, found a linear G, attn_Wa_weights.pt"
        )
    files = {ours: path / theirs for ours, (_, theirs) in G_NAMES.items()}
    if not any(file.exists() for file in files.values()):
        return {}
    found: dict[str, object] = {"norm.weight": torch.ones(D), "norm.bias": torch.zeros(D)}
    has_norm = any(files[name].exists() for name in found)
    found |= {name: read_torch(file) for name, file in files.items() if has_norm or name not in found}
    return _attention(files, found, D)


def _attention(files: Mapping[str, Path], found: Mapping[str, object], D: int) -> dict[str, Tensor]:
    """G's tensors, checked against each other and against the prompts' width D."""
    down = _checked(files["down.weight"], "G's W_down", found["down.weight"], "bottleneck", D)
    return {
        "down.weight": down,
        "up.weight": _checked(files["up.weight"], "G's W_up", found["up.weight"], D, down.size(0)),
        "norm.weight": _checked(files["norm.weight"], "G's LayerNorm weight", found["norm.weight"], D),
        "norm.bias": _checked(files["norm.bias"], "G's LayerNorm bias", found["norm.bias"], D),
    }


# ---- adapters: PEFT's, and the replication's ----


def _adapter(path: Path, config_path: Path, rows: int | None) -> Foreign:
    """The prompts that an adapter prepends: of its N rows the first num_virtual_tokens, L."""
    config = _adapter_config(config_path) if config_path.exists() else {}
    found, metadata = _adapter_tensors(path)
    beside = [name for name in found if name.endswith((*EMBEDDINGS, HEAD))]  # PEFT's save_embedding_layers
    for name in beside:
        del found[name]
    kind = config.get("peft_type") or _kind_of(found)
    missing, unknown = [n for n in KINDS[kind] if n not in found], [n for n in found if n not in KINDS[kind]]
    if missing or unknown:
        raise AttemptError(
            f"{path}: expected the tensors of {kind}, {', '.join(KINDS[kind])}; "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
        )
    prompts = found["prompt_embeddings"]
    three = isinstance(prompts, Tensor) and prompts.ndim == 3 and kind != "MULTITASK_PROMPT_TUNING"
    many = ("tasks",) if three else ()
    E = _checked(path, "prompt_embeddings", prompts, *many, "rows", "model width")  # (N,D) or (K,N,D)
    N, D = E.shape[-2:]
    L = _used_rows(path, config, kind == "ATTEMPT" or bool(many), N, rows)
    if kind == "MULTITASK_PROMPT_TUNING":
        E = _multitask(path, E, found)
    target = E.reshape(-1, N, D)[:, :L].clone()  # (K,L,D)
    tasks = _task_names(path, metadata, len(target))
    if kind != "ATTEMPT":
        notes = []
        if kind == "MULTITASK_PROMPT_TUNING" and N > L:
            notes = [f"{path}: the decoder's prompt, which PEFT trains but never generates with, is left out"]
        if beside:
            notes.append(f"{path}: the T5's own {', '.join(beside)} are left out: only the prompt is read")
        return Foreign(target, tasks, notes=notes)
    sources = _checked(path, "mul_prefix_emb", found["mul_prefix_emb"], "sources", N, D)
    theirs = {ours: found[name] for ours, (name, _) in G_NAMES.items()}
    attention = _attention(dict.fromkeys(theirs, path), theirs, D)
    notes = [
        f"{path}: that program's G also looked at {N - L} rows that it never prepended; weights may differ a little"
    ]
    return Foreign(target, tasks, sources[:, :L].clone(), attention, config.get("temperature"), notes if N > L else [])


def _adapter_config(path: Path) -> dict[str, Any]:
    """The fields that are of use here, those that are not null; the types in capitals, as PEFT writes them."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"{type(config).__name__} instead of an object")
    except (OSError, ValueError, RecursionError) as e:
        raise AttemptError(f"{path}: expected the JSON of an adapter's configuration, found {e}") from None
    expected = {
        "peft_type": f"one of {', '.join(KINDS)}",
        "task_type": "SEQ_2_SEQ_LM, T5's",
        "temperature": "a number above 0",
        "num_virtual_tokens": "a whole number from 1",
        "num_transformer_submodules": "a whole number from 1",
    }
    found = {name: config[name] for name in expected if config.get(name) is not None}
    for name, value in found.items():
        if name.endswith("_type"):
            found[name] = str(value).upper()  # the replication writes small letters
            good = found[name] in (KINDS if name == "peft_type" else ("SEQ_2_SEQ_LM",))
        elif name == "temperature":
            good = type(value) in (int, float) and 0 < value < 1e30
        else:
            good = type(value) is int and value > 0
        if not good:
            raise AttemptError(f"{path}: expected {name} to be {expected[name]}, found {json.dumps(config[name])}")
    return found


def _adapter_tensors(path: Path) -> tuple[dict[str, object], dict[str, str]]:
    """The tensors by their last names, and the file's metadata.

    The replication's G stands in a dictionary of its own, or under its name: attention_module.peft.attn_W_up.weight.
    """
    content, metadata = read_safetensors(path) if path.suffix == ".safetensors" else (read_torch(path), {})
    if not isinstance(content, Mapping) or not content:
        raise AttemptError(f"{path}: expected an adapter's dictionary of tensors, found {type(content).__name__}")
    found: dict[str, object] = {}
    for name, value in content.items():
        inner = value if name == "attention_module" and isinstance(value, Mapping) else {name: value}
        for full, tensor in inner.items():
            last = str(full).removeprefix("attention_module.").removeprefix("peft.")
            if last in found:
                raise AttemptError(f"{path}: expected each tensor once, found {last} again")
            found[last] = tensor
    return found, metadata


def _kind_of(found: Mapping[str, object]) -> str:
    """The peft_type of an adapter without a configuration, from its tensors."""
    if any(name in found for name in SHARED):
        return "MULTITASK_PROMPT_TUNING"
    return "PROMPT_TUNING" if found.keys() == {"prompt_embeddings"} else "ATTEMPT"


def _used_rows(path: Path, config: Mapping[str, Any], replication: bool, N: int, rows: int | None) -> int:
    """L, the rows that were prepended.

    PEFT allocates num_virtual_tokens for the encoder and as many for the decoder, and prepends the first ones alone.
    A file by itself cannot tell 50 of 100 rows from 100 of 100, and a wrong guess would only show in the scores.
    """
    L = config.get("num_virtual_tokens")
    if L is not None and rows not in (None, L):
        raise AttemptError(f"{path}: expected a prompt of length {rows} as asked, found num_virtual_tokens {L}")
    L = L or rows or (N if N % 2 else None)
    if L is None:
        raise AttemptError(
            f"{path}: expected {ADAPTER_CONFIG} beside it, which says how many of the {N} rows were used, found none; "
            f"import it with --prompt-length {N}, or {N // 2} if half of the rows were never used"
        )
    stacks = config.get("num_transformer_submodules") or (2 if config.get("task_type") else 1)
    stated = "num_virtual_tokens" in config and (not replication or "num_transformer_submodules" in config)
    if N < L or (stated and L * stacks != N):
        expected = f"{L * stacks} rows (num_virtual_tokens {L} x num_transformer_submodules {stacks})"
        raise AttemptError(f"{path}: expected {expected if stated else f'{L} rows or more'}, found {N}")
    return L


def _multitask(path: Path, E: Tensor, found: Mapping[str, object]) -> Tensor:
    """What PEFT makes of its factors, (K,N,D)."""
    columns = _checked(path, SHARED[0], found[SHARED[0]], "tasks", len(E), "ranks")  # (K,N,R)
    rows = _checked(path, SHARED[1], found[SHARED[1]], len(columns), columns.size(2), E.size(1))  # (K,R,D)
    # target_k = E * (columns_k rows_k)
    target = E * (columns @ rows)
    return _checked(path, "the product of its tensors", target, *target.shape)


def _task_names(path: Path, metadata: Mapping[str, str], K: int) -> list[str]:
    """The names that our own export left in the file, if any."""
    if TASKS not in metadata:
        return []
    try:
        names = json.loads(metadata[TASKS])
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or len(names) != K or not all(isinstance(name, str) for name in names):
        raise AttemptError(f"{path}: expected {K} names in the metadata's {TASKS}, found {metadata[TASKS][:100]!r}")
    return names
