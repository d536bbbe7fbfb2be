"""Hugging Face's T5 as the oracle, tiny random models, and the checkpoint folders that Hugging Face would write."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.checkpoint import hugging_face_names
from model.config import T5Config
from model.t5 import T5

COMMON: dict[str, Any] = {
    "model_type": "t5",
    "vocab_size": 101,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    # fields of real files that are of no use here
    "architectures": ["T5ForConditionalGeneration"],
    "is_encoder_decoder": True,
    "n_positions": 512,
}
V10 = {"feed_forward_proj": "relu", "tie_word_embeddings": True}
V11 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
# Every size differs from its neighbours, so that a mixed-up one cannot pass.
CONFIGS: dict[str, dict[str, Any]] = {
    "v1.0": COMMON,  # feed_forward_proj, tie_word_embeddings and num_decoder_layers are absent, as in t5-small's file
    "v1.0-narrow-heads": COMMON
    | V10
    | {"d_model": 48, "d_kv": 4, "num_heads": 3, "num_layers": 1, "num_decoder_layers": 3}
    | {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20},
    "v1.1": COMMON | V11 | {"d_kv": 16, "num_heads": 5, "d_ff": 40, "num_decoder_layers": 1},
    "v1.1-many-buckets": COMMON
    | V11
    | {"d_model": 24, "d_kv": 6, "num_heads": 4, "num_layers": 3, "num_decoder_layers": 2, "layer_norm_epsilon": 1e-2}
    | {"relative_attention_num_buckets": 49, "relative_attention_max_distance": 300},
    "gated-and-tied": COMMON | V11 | {"tie_word_embeddings": True},
    "relu-and-untied": COMMON | V10 | {"tie_word_embeddings": False, "num_decoder_layers": 3},
}


def oracle(fields: dict[str, Any]) -> Any:
    """Hugging Face's T5ForConditionalGeneration with random weights, in evaluation mode."""
    transformers = pytest.importorskip("transformers")
    # "eager" so that dropout on the attention weights draws the same random numbers as a plain softmax and dropout
    fields = {k: v for k, v in fields.items() if k != "model_type"}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**fields, attn_implementation="eager"))
    if fields.get("tie_word_embeddings", True) is False:  # transformers 5 ties the head all the same
        model.lm_head = nn.Linear(fields["d_model"], fields["vocab_size"], bias=False)
        model.config.tie_word_embeddings = False
        model.config.scale_decoder_outputs = False
    return model.eval().requires_grad_(False)


def oracle_of(folder: Path) -> Any:
    """Hugging Face's T5 with the weights of a folder that holds one pytorch_model.bin."""
    model = oracle(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    state = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    missing, unexpected = model.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    assert not unexpected and all("embed_tokens" in name for name in missing)
    return model


@torch.no_grad()
def spread(model: nn.Module, seed: int) -> None:
    """Give every weight a size that shows in the logits: Hugging Face's own initial values are nearly 0 in parts."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if name == "decoder.final_layer_norm.weight":
            weight.copy_(noise)  # signs differ: else a tied head only ever repeats the token that it has just read
        elif weight.dim() == 1:  # a norm
            weight.copy_(1 + 0.3 * noise)
        elif "relative_attention_bias" in name or "shared" in name:
            weight.copy_(2 * noise)
        elif "lm_head" in name:
            weight.copy_(3 * noise * weight.size(1) ** -0.5)
        else:
            weight.copy_(noise * weight.size(1) ** -0.5)


def state_of(model: Any, tied: bool) -> dict[str, Tensor]:
    """The weights under Hugging Face's names, each once."""
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", *(["lm_head.weight"] if tied else []))
    return {k: v.clone() for k, v in model.state_dict().items() if k not in copies}


def random_state(fields: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Random weights under Hugging Face's names, made without Hugging Face."""
    known = {k: v for k, v in fields.items() if k in T5Config.__dataclass_fields__}
    config = T5Config(**known)
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in T5(config).named_parameters()}
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for ours, theirs in hugging_face_names(config).items():
        noise = torch.randn(shapes[ours], generator=generator)
        if noise.dim() == 1:
            state[theirs] = 1 + 0.1 * noise
        elif theirs == "shared.weight" or "relative_attention_bias" in theirs:
            state[theirs] = noise
        else:
            state[theirs] = noise * noise.size(1) ** -0.5
    return state


FORMS = ("safetensors", "torch", "torch-legacy", "safetensors-sharded", "torch-sharded")


def save(folder: Path, fields: dict[str, Any], state: dict[str, Tensor], form: str = "torch") -> Path:
    """A checkpoint folder as Hugging Face lays it out; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    if form == "safetensors":
        _save_file(folder / "model.safetensors", state)
    elif form == "torch":
        torch.save(state, folder / "pytorch_model.bin")
    elif form == "torch-legacy":
        torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    else:
        stem, ending = ("model", "safetensors") if form == "safetensors-sharded" else ("pytorch_model", "bin")
        names = list(state)
        shards = {f"{stem}-0000{i + 1}-of-00003.{ending}": names[i::3] for i in range(3)}
        for file, keys in shards.items():
            part = {key: state[key] for key in keys}
            _save_file(folder / file, part) if ending == "safetensors" else torch.save(part, folder / file)
        weight_map = {key: file for file, keys in shards.items() for key in keys}
        index = {"metadata": {"total_size": sum(t.nbytes for t in state.values())}, "weight_map": weight_map}
        (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def _save_file(path: Path, state: dict[str, Tensor]) -> None:
    pytest.importorskip("safetensors.torch").save_file(state, path, metadata={"format": "pt"})


def random_batch(lengths: tuple[int, ...], vocabulary: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random ids (B,S) of the given lengths, padded on the right, and their mask."""
    ids = torch.randint(2, vocabulary, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(seed))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ids.masked_fill(~mask, 0), mask
