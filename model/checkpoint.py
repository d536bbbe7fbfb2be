"""Pretrained T5 checkpoints in Hugging Face's layout: where they are, and how their tensors become ours."""

import json
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from model.config import T5Config
from model.errors import AttemptError, NotFound, briefly, meant, meant_path
from model.safetensors import check_pointer, read_safetensors
from model.t5 import T5

SIZES = ("small", "base", "large", "xl", "xxl")
NAMES = (
    *(f"t5-{size}" for size in ("small", "base", "large", "3b", "11b")),
    *(f"google/t5-v1_1-{size}" for size in SIZES),
    *(f"google/t5-{size}-lm-adapt" for size in SIZES),
    *(f"google/flan-t5-{size}" for size in SIZES),
)
WEIGHT_FILES = (  # in the order in which they are tried
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


HUB = "google-t5/"  # where t5-small … t5-11b are kept today; NAMES has their former names, which lead there
OTHERS = ("mt5", "byt5", "umt5", "long-t5", "ul2", "t5gemma", "switch")  # families of names that are near to a T5's


def known_name(name: str) -> str:
    """A checkpoint's name as NAMES has it."""
    short = name.removeprefix(HUB)
    return short if short in NAMES and "/" not in short else name


def check_name(name: str) -> None:
    """Raises AttemptError where a checkpoint of this name is neither a folder nor known."""
    if not Path(name).is_dir() and known_name(name) not in NAMES:
        if Path(name).name.lower().startswith(OTHERS):
            raise AttemptError(
                f"--model {name}: expected a T5's name, found another family's, which this program does not fetch; "
                "an mT5 is read from a folder"
            )
        near = meant(name, NAMES) or meant_path(Path(name)) or f"; known names: {', '.join(NAMES)}"
        raise AttemptError(f"--model {name}: expected a folder with a T5 checkpoint or a known name{near}")


def find_checkpoint(name: str, fetch: Callable[[str], Path]) -> Path:
    """The local folder of a checkpoint: a folder as it is, a known name after fetching its files.

    `fetch` maps an address to a local file and raises NotFound where the server has no such file.
    """
    check_name(name)
    if Path(name).is_dir():
        return Path(name)
    address = f"https://huggingface.co/{known_name(name)}/resolve/main"
    try:
        folder = fetch(f"{address}/config.json").parent
    except NotFound:
        raise
    except AttemptError as e:
        raise AttemptError(f"{e}, or --model FOLDER (a checkpoint that is on this machine)") from None
    fetch(f"{address}/spiece.model")
    for file in WEIGHT_FILES:
        try:
            path = fetch(f"{address}/{file}")
        except NotFound:
            continue
        for shard in _shards(path) if file.endswith(".index.json") else ():
            fetch(f"{address}/{shard.name}")
        return folder
    raise NotFound(f"--model {name}: expected one of {', '.join(WEIGHT_FILES)} at {address}, found none")


def check_folder(folder: Path) -> None:
    """Raises AttemptError where a folder holds no T5 and its vocabulary: says what it holds, and what is to be done."""
    if not (folder / "config.json").is_file():
        adapter, inner = folder / "adapter_config.json", sorted(p.parent.name for p in folder.glob("*/config.json"))
        if adapter.is_file():
            advice = f"an adapter's folder; give the T5 that {adapter.name} names as its base"
        elif inner:
            advice = f"a folder of folders; give one of {', '.join(inner[:5])}"
        else:
            advice = "none"
        raise AttemptError(f"--model {folder}: expected a T5 checkpoint with its config.json, found {advice}")
    if (folder / "metrics.jsonl").exists() or (folder / "best.safetensors").exists():
        raise AttemptError(
            f"--model {folder}: expected a T5 checkpoint, found a run of this program; give the run's T5"
        )
    if not (folder / "spiece.model").is_file():
        names = {name: (folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")}
        settings = (folder / "tokenizer_config.json").read_bytes() if names["tokenizer_config.json"] else b""
        kind = "none"
        if b"ByT5" in settings:
            raise AttemptError(f"--model {folder}: expected a T5 with spiece.model, found a ByT5, which reads bytes")
        if names["tokenizer.json"]:
            kind = "only tokenizer.json, as transformers 5 saves it"
        place = f"{folder.parent} or " if (folder.parent / "spiece.model").is_file() else ""
        raise AttemptError(
            f"--model {folder}: expected its vocabulary, spiece.model, beside config.json, found {kind}; copy it there "
            f"from {place}the checkpoint that it was made from (https://huggingface.co/google-t5/t5-base has T5's)"
        )


def load_t5(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> T5:
    """The T5 in a folder, on a device, in fp32, in evaluation mode. Raises AttemptError as `open_t5` does.

    dtype: what `quicken` (model/fast.py) will cast the matrices to. Where it is not fp32 they are left as the files
    have them, mapped, until then: no fp32 copy of them all is ever made, and nothing can be computed before.
    """
    model, tensors = open_t5(folder)
    state = {}
    for name, tensor in tensors.items():
        check_finite(folder, model, name, tensor)
        matrix = isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Linear)
        left = matrix and dtype != torch.float32 and tensor.itemsize <= 4
        state[name] = tensor if left else moved(tensor, device, torch.float32)
    model.load_state_dict(state, assign=True)
    return model.eval()


def moved(tensor: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """A copy of a tensor on a device, in a dtype: sent as it is, cast there."""
    sent = tensor.detach().to(device)
    return sent.to(dtype, copy=sent.data_ptr() == tensor.data_ptr())


def open_t5(folder: Path) -> tuple[T5, dict[str, Tensor]]:
    """A T5 of the shapes in a folder, which takes no memory, and each parameter's tensor there: read when touched.

    The head is lm_head.weight where the files have one that differs from the embedding, else the embedding, as in
    transformers 5. Raises AttemptError where the files do not have exactly this T5's tensors.
    """
    config, found = T5Config.from_json(folder / "config.json"), _tensors(folder)
    shared = next((name for name in EMBEDDINGS if name in found), EMBEDDINGS[0])
    head = found.get(HEAD)
    tied = head is None or (shared in found and _equal(head, found[shared]))
    if head is None and not config.tie_word_embeddings:
        print(f"note: {folder}: no {HEAD}, which config.json names: the embedding serves as the head", file=sys.stderr)
    config = replace(config, tie_word_embeddings=tied, scale_decoder_outputs=config.scaled)
    model = empty_t5(config)
    wanted = {**hugging_face_names(config), "embedding.weight": shared}
    missing = [theirs for theirs in wanted.values() if theirs not in found]
    unknown = [name for name in found if name not in {*wanted.values(), *EMBEDDINGS, HEAD, UNUSED}]
    if unknown:
        raise AttemptError(
            f"{folder}: expected the tensors of a T5 with this config.json, found another: {unknown[0]!r:.200}"
        )
    if missing:
        raise AttemptError(f"{folder}: expected {len(wanted)} tensors, {len(missing)} are missing: {_some(missing)}")
    for name, parameter in model.named_parameters():
        tensor = found[wanted[name]]
        if tensor.shape != parameter.shape or tensor.dtype not in FLOATS:
            raise AttemptError(
                f"{folder}: expected {wanted[name]} to have shape {tuple(parameter.shape)} of floats (fp32, bf16, "
                f"fp16) as config.json says, found {tuple(tensor.shape)} of {tensor.dtype}"
            )
    for name in EMBEDDINGS:
        if name in found and name != shared and not _equal(found[name], found[shared]):
            raise AttemptError(f"{folder}: expected {name} to equal {shared}, found another tensor")
    return model, {name: found[theirs] for name, theirs in wanted.items()}


class _WithoutDraws(TorchFunctionMode):
    """Leaves out normal initial values: for a tensor without memory PyTorch would import its compiler, for 1.2 s."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return None if function is nn.init.normal_ else function(*args, **(kwargs or {}))


def empty_t5(config: T5Config) -> T5:
    """A T5 of these shapes: no memory, no time for initial values that are thrown away."""
    with torch.device("meta"), _WithoutDraws():
        return T5(config)


def check_finite(folder: Path, model: T5, name: str, tensor: Tensor) -> None:
    """Raises AttemptError, with the file's name of the parameter, at a tensor or a part of it with NaN or infinity."""
    # one pass over memory, without a tensor of truths; a sum may overflow where no number is infinite
    if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
        theirs = hugging_face_names(model.config)[name]
        raise AttemptError(f"{folder}: expected finite numbers in {theirs}, found NaN or infinity; fetch it again")


def hugging_face_names(config: T5Config) -> dict[str, str]:
    """Our parameters' names -> the names in Hugging Face's files."""
    feed_forward = ("wi_0", "wi_1", "wo") if config.gated else ("wi", "wo")
    names = {"embedding.weight": "shared.weight"}
    if not config.tie_word_embeddings:
        names["head.weight"] = "lm_head.weight"
    for stack, layers, last in (("encoder", config.num_layers, 1), ("decoder", config.decoder_layers, 2)):
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"  # owned by layer 0
        names[f"{stack}.relative_bias.table.weight"] = bias
        names[f"{stack}.norm.weight"] = f"{stack}.final_layer_norm.weight"
        for i in range(layers):
            ours, theirs = f"{stack}.blocks.{i}", f"{stack}.block.{i}.layer"
            attentions = [("attention", "0.SelfAttention")]
            if stack == "decoder":
                attentions.append(("cross_attention", "1.EncDecAttention"))
            for our, their in attentions:
                names[f"{ours}.{our}_norm.weight"] = f"{theirs}.{their[0]}.layer_norm.weight"
                for matrix in "qkvo":
                    names[f"{ours}.{our}.{matrix}.weight"] = f"{theirs}.{their}.{matrix}.weight"
            names[f"{ours}.feed_forward_norm.weight"] = f"{theirs}.{last}.layer_norm.weight"
            for matrix in feed_forward:
                names[f"{ours}.feed_forward.{matrix}.weight"] = f"{theirs}.{last}.DenseReluDense.{matrix}.weight"
    return names


FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# The shared embedding, and the copies of it that some programs save too, or instead.
EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
HEAD = "lm_head.weight"
# T5 v1.0's files hold a bias table for cross-attention. No T5 adds one there.
UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


def read_torch(path: Path) -> object:
    """A torch.save file, without executing anything in it. Raises AttemptError if it holds more than tensors."""
    if path.is_file():
        with open(path, "rb") as file:
            check_pointer(path, file.read(100))
    try:
        mapped = zipfile.is_zipfile(path)  # files of PyTorch before 1.6 are no zips and cannot be mapped
        if mapped:
            _check_members(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged file gets its one line below
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        for tensor in _tensors_in(content):
            _check_plain(tensor)
        return content
    except Exception as e:  # a damaged file fails in any of a dozen ways, and all mean the same
        problem = str(e).strip().split("\n", maxsplit=1)[0] or type(e).__name__
        if "weights_only" in str(e) or "Weights only" in str(e):  # PyTorch goes on to say how to run the file's code
            named = re.search(r"GLOBAL ([\w.]+)", str(e))
            what = f"an object of {named[1]:.100}; save its state_dict()" if named else "none of PyTorch's"
            problem = f"it holds more than tensors, {what}"
    raise AttemptError(f"{path}: expected a PyTorch file of tensors, found one that cannot be read: {problem}")


def described(content: object) -> str:
    """What a file holds that is not what was expected."""
    if isinstance(content, Tensor):
        return f"{tuple(content.shape)} of {content.dtype}"
    if isinstance(content, dict):
        inner = next((f"; save its {k!r} by itself" for k in ("state_dict", "model") if k in content), "")
        return f"a dictionary with {_some([f'{k!r:.100}' for k in content]) or 'nothing'}{inner}"
    return type(content).__name__


def _check_members(path: Path) -> None:
    """Raises ValueError at a packed member: PyTorch packs none, and a few bytes could become as many gigabytes."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise ValueError(f"its member {member.filename!r:.100} is packed")


def _tensors_in(content: object) -> Iterator[Tensor]:
    """Every tensor in dictionaries, lists and tuples, which may hold themselves."""
    left, seen = [content], set()
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            left += value.values() if isinstance(value, dict) else value


def _check_plain(tensor: Tensor) -> None:
    """Raises ValueError at a tensor that is not stored as its numbers: sparse, quantized, without any, or repeated.

    A view that repeats its storage may claim any size, and a copy of it would have that size.
    """
    if getattr(tensor, "_backward_hooks", None):  # an empty dictionary in every honest file
        raise ValueError("a tensor with hooks")
    plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_nested)
    if not plain or tensor.device.type != "cpu" or tensor.nbytes > tensor.untyped_storage().nbytes():
        raise ValueError(f"a tensor of {tensor.dtype} that is not stored as its numbers")


def _tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of the folder's weights, under the files' names: mapped, read when they are touched."""
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise AttemptError(f"{folder}: expected one of {', '.join(WEIGHT_FILES)} beside config.json, found none")
    found: dict[str, Tensor] = {}
    for file in _shards(path) if path.name.endswith(".index.json") else [path]:
        content = read_safetensors(file)[0] if file.suffix == ".safetensors" else read_torch(file)
        if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
            raise AttemptError(f"{file}: expected a dictionary of tensors, found {described(content)}")
        if not all(isinstance(key, str) for key in content):
            raise AttemptError(f"{file}: expected tensors with names, found keys that are no texts")
        for name in content:
            if name in found:
                raise AttemptError(f"{file}: expected each tensor once, found {name:.200} again")
        found |= content
    return found


LONGEST_NAME = 255  # of a file, on the usual systems; a longer one would fill every message


def _shards(index: Path) -> list[Path]:
    try:
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        beside = (Path(file).name == file and file.strip(".") and file.isprintable() for file in files)
        if not files or not all(beside) or max(map(len, files)) > LONGEST_NAME:
            raise ValueError("names of files that are not beside it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        problem = f"{type(e).__name__}: {briefly(e)}"
        raise AttemptError(f"{index}: expected a weight_map from tensors to files beside it, found {problem}") from None
    return [index.parent / file for file in files]


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(*((a, b) if a.dtype == b.dtype else (a.float(), b.float())))


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
