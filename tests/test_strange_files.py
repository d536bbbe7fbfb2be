"""Files that are whole, but something else than a T5's weights or a prompt: the message says what they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hugging_face import CONFIGS, oracle, random_state, save
from test_exchange import compare
from test_weights import entry, raw

from attempt.checkpoint import load_sources
from attempt.foreign import read_foreign
from model.checkpoint import load_t5
from model.errors import AttemptError
from model.safetensors import OTHERS, read_safetensors
from model.tokenizer import Tokenizer

V11 = CONFIGS["v1.1"]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 242\n"


@pytest.mark.parametrize("dtype", OTHERS)
def test_dtype_that_is_not_supported_is_not_damage(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw({"a": entry(dtype)}, b"\0" * 8))
    with pytest.raises(AttemptError, match=f"a of {dtype}, which is not supported"):
        read_safetensors(path)


def test_the_format_has_no_other_dtypes() -> None:
    library = pytest.importorskip("safetensors.torch")
    ours = {name for name in library._TYPES if name not in OTHERS}
    assert all(name in read_safetensors.__globals__["DTYPES"] for name in ours)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int32, torch.complex64])
def test_weights_of_another_dtype_are_named(dtype: torch.dtype, tmp_path: Path) -> None:
    state = random_state(V11)
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    state[name] = state[name].to(dtype)
    with pytest.raises(AttemptError, match=rf"{name}.* of floats \(fp32, bf16, fp16\).* of {dtype}"):
        load_t5(save(tmp_path, V11, state))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "spiece.model", "a.pt", "b.npy"])
def test_pointer_of_git_lfs_is_recognised(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(V11))
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(AttemptError, match=rf"{name}: .*git-lfs pointer.*git lfs pull"):
        if name == "spiece.model":
            Tokenizer(tmp_path / name)
        elif name[0] in "ab":
            read_foreign(tmp_path / name)
        else:
            load_t5(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"state_dict": {"a": torch.ones(2)}, "epoch": 3}, "with 'state_dict', 'epoch'; save its 'state_dict'"),
        ({"model": {"a": torch.ones(2)}}, "a dictionary with 'model'; save its 'model' by itself"),
        ([torch.ones(2)], "found list"),
        (torch.ones(2, 3, 4), r"found \(2, 3, 4\) of torch.float32"),
        (torch.nn.Linear(2, 3), r"an object of torch.nn.modules.linear.Linear; save its state_dict\(\)"),
    ],
)  # fmt: skip
def test_what_a_pytorch_file_holds_is_said(content: object, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(V11))
    for name in ("pytorch_model.bin", "prompt.pt"):
        torch.save(content, tmp_path / name)
    with pytest.raises(AttemptError, match=said):
        load_t5(tmp_path)
    with pytest.raises(AttemptError, match=said):
        load_sources([tmp_path / "prompt.pt"])


@pytest.mark.parametrize("ending", ["npz", "npy"])
def test_archive_of_arrays_is_said(ending: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", weights=np.ones(3), bias=np.ones(2))
    path = (tmp_path / "a.npz").rename(tmp_path / f"b.{ending}")
    with pytest.raises(AttemptError, match=r"an archive \(.npz\) of weights, bias; save one of them as .npy"):
        read_foreign(path)


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "P_TUNING"])
@pytest.mark.parametrize("stacks", [1, 2])
@pytest.mark.parametrize("embedding", [False, True])
def test_peft_adapter_with_more_than_a_prompt(kind: str, stacks: int, embedding: bool, tmp_path: Path) -> None:
    """The T5's embedding saved beside the prompt, and P-tuning's prompt: the same logits and answers there and here."""
    peft: Any = pytest.importorskip("peft")
    settings = {"task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 5, "num_transformer_submodules": stacks}
    config = peft.PromptTuningConfig(**settings) if kind == "PROMPT_TUNING" else None
    config = config or peft.PromptEncoderConfig(**settings, encoder_hidden_size=16)
    state = random_state(V11)
    theirs = oracle(V11)
    theirs.load_state_dict(state, strict=False)
    peft.get_peft_model(theirs, config).save_pretrained(tmp_path, save_embedding_layers=embedding)
    fresh = oracle(V11)
    fresh.load_state_dict(state, strict=False)
    found = read_foreign(tmp_path)
    assert bool(found.notes) == embedding
    compare(
        load_t5(save(tmp_path / "t5", V11, state)), peft.PeftModel.from_pretrained(fresh, tmp_path).eval(), found.target
    )
