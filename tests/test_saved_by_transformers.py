"""Checkpoint folders as transformers 5 writes and reads them: heads, activations, start tokens, names of embeddings."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hugging_face import COMMON, random_batch, random_state, save
from torch import Tensor

from model.checkpoint import load_t5
from model.config import ACTIVATIONS, ALIASES, FIXED, UNUSED, T5Config
from model.decoding import generate
from model.errors import AttemptError
from model.fast import Forms, quicken
from model.t5 import T5

GATED = COMMON | {"feed_forward_proj": "gated-gelu"}
LENGTHS = (9, 4, 7)


@pytest.fixture(autouse=True)
def transformers() -> Any:
    library = pytest.importorskip("transformers")
    library.logging.set_verbosity_error()
    return library


def batch() -> tuple[Tensor, Tensor, Tensor]:
    ids, mask = random_batch(LENGTHS, COMMON["vocab_size"])
    return ids, mask, random_batch((5, 5, 5), COMMON["vocab_size"], seed=1)[0]


@torch.no_grad()
def results(t5: T5) -> tuple[Tensor, Tensor]:
    return t5(*batch()), t5.loss(*batch())


@torch.no_grad()
def check(folder: Path, theirs: Any) -> T5:
    """The folder's T5 computes what theirs does, spelled out and in the faster forms; returns it."""
    ids, mask, labels = batch()
    expected = theirs(input_ids=ids, attention_mask=mask.long(), labels=labels)
    assert expected.logits.std() > 0.1
    for t5 in (load_t5(folder), quicken(load_t5(folder).requires_grad_(False), Forms()).eval()):
        logits, loss = results(t5)
        assert (logits - expected.logits).abs().max() <= 1e-5 * max(1.0, float(expected.logits.abs().max()))
        assert abs(loss - expected.loss) <= 1e-5 * max(1.0, float(expected.loss))
    low = quicken(load_t5(folder, "cpu", torch.bfloat16).requires_grad_(False), Forms(), torch.bfloat16).eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = results(low)[0].float()
    assert (found - expected.logits).norm() < 0.05 * expected.logits.norm()
    return load_t5(folder)


def load(transformers: Any, folder: Path) -> Any:
    return transformers.T5ForConditionalGeneration.from_pretrained(folder, attn_implementation="eager").eval()


@pytest.mark.parametrize("head", ["none", "equal", "other"])
@pytest.mark.parametrize("scale", [True, False, None])
@pytest.mark.parametrize("tie", [True, False, None])
def test_head_and_its_scale(
    tie: bool | None,
    scale: bool | None,
    head: str,
    tmp_path: Path,
    transformers: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keys = {"tie_word_embeddings": tie, "scale_decoder_outputs": scale}
    fields = GATED | {name: value for name, value in keys.items() if value is not None}
    state = random_state(GATED | {"tie_word_embeddings": False})
    state["lm_head.weight"] *= 3
    if head == "equal":
        state["lm_head.weight"] = state["shared.weight"].clone()
    if head == "none":
        del state["lm_head.weight"]
    t5 = check(save(tmp_path, fields, state, "safetensors"), load(transformers, tmp_path))
    assert (t5.head is not None) == (head == "other") and t5.config.tie_word_embeddings == (t5.head is None)
    told = "no lm_head.weight" in capsys.readouterr().err
    assert told == (head == "none" and tie is False)


@pytest.mark.parametrize("size", [101, 117], ids=["as it was", "resized"])
def test_flan_saved_again(size: int, tmp_path: Path, transformers: Any) -> None:
    """Their program writes "tie_word_embeddings": true beside a head of its own."""
    fields = GATED | {"tie_word_embeddings": False}
    theirs = load(transformers, save(tmp_path / "flan", fields, random_state(fields), "safetensors"))
    if size != 101:
        theirs.resize_token_embeddings(size, mean_resizing=False)
    theirs.save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again/config.json").read_text())
    assert written["tie_word_embeddings"] and not written["scale_decoder_outputs"]  # else nothing is tested
    t5 = check(tmp_path / "again", theirs)
    assert t5.config.vocab_size == size


@pytest.mark.parametrize("gated", [True, False, None])
@pytest.mark.parametrize("named", [*ACTIVATIONS, None])
@pytest.mark.parametrize("proj", ["relu", "gated-gelu", "gelu", "gated-silu"])
def test_activation(proj: str, named: str | None, gated: bool | None, tmp_path: Path, transformers: Any) -> None:
    keys = {"feed_forward_proj": proj, "dense_act_fn": named, "is_gated_act": gated}
    fields = COMMON | {name: value for name, value in keys.items() if value is not None}
    state = random_state(fields)
    theirs = load(transformers, save(tmp_path, fields, state, "safetensors"))
    check(tmp_path, theirs)
    kind = type(theirs.encoder.block[0].layer[-1].DenseReluDense).__name__
    assert T5Config.from_json(tmp_path / "config.json").gated == ("Gated" in kind)


@pytest.mark.parametrize("fields", [{"dense_act_fn": "mish"}, {"feed_forward_proj": "gated-tanh"}])
def test_unknown_activation_is_named(fields: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(AttemptError, match=f"silu.*{next(iter(fields.values())).removeprefix('gated-')}"):
        load_t5(save(tmp_path, COMMON | fields, random_state(COMMON)))


def test_every_key_of_theirs_is_known(transformers: Any) -> None:
    """A key that they read and we do not know may change the result without a word."""
    theirs = set(transformers.T5Config.__annotations__) | {"dense_act_fn", "is_gated_act", "scale_decoder_outputs"}
    theirs |= set(transformers.T5Config.attribute_map)
    ours = {*T5Config.__dataclass_fields__, *ALIASES, *FIXED, *UNUSED}
    assert theirs <= ours | {"model_type", "keys_to_ignore_at_inference", "attribute_map"}
    assert transformers.T5Config.attribute_map == ALIASES


def test_sizes_under_their_other_names(tmp_path: Path) -> None:
    fields = {k: v for k, v in COMMON.items() if k not in ("d_model", "num_heads")}
    save(tmp_path, fields | {"hidden_size": 32, "num_attention_heads": 4}, random_state(COMMON))
    assert load_t5(tmp_path).config.d_model == 32
    for wrong in ({"hidden_size": 33}, {"head_dim": 9}, {"is_encoder_decoder": False}):
        with pytest.raises(AttemptError, match=next(iter(wrong))):
            load_t5(save(tmp_path, COMMON | wrong, random_state(COMMON)))


def test_start_token_that_only_the_settings_of_answers_have(tmp_path: Path, transformers: Any) -> None:
    fields = {k: v for k, v in GATED.items() if k != "decoder_start_token_id"}
    folder = save(tmp_path, fields, random_state(fields), "safetensors")
    (folder / "generation_config.json").write_text(
        '{"decoder_start_token_id": 7, "eos_token_id": 1, "pad_token_id": 0}'
    )
    t5, theirs = load_t5(folder), load(transformers, folder)
    ids, mask, _ = batch()
    asked = {"max_new_tokens": 8, "do_sample": False, "num_beams": 1, "attention_mask": mask.long()}
    expected = theirs.generate(input_ids=ids, **asked)
    assert (expected[:, 0] == 7).all() and t5.config.decoder_start_token_id == 7
    assert torch.equal(generate(t5, ids, mask, 8), expected[:, 1:])
    (folder / "config.json").write_text(json.dumps(fields | {"decoder_start_token_id": 0}))
    assert load_t5(folder).config.decoder_start_token_id == 0
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(AttemptError, match=r"generation_config\.json"):
        load_t5(folder)


@pytest.mark.parametrize("head", [True, False], ids=["own head", "tied"])
def test_embedding_that_save_model_keeps_under_another_name(head: bool, tmp_path: Path, transformers: Any) -> None:
    fields = GATED | {"tie_word_embeddings": not head}
    theirs = load(transformers, save(tmp_path, fields, random_state(fields), "safetensors"))
    pytest.importorskip("safetensors.torch").save_model(theirs, tmp_path / "model.safetensors")
    assert b"shared.weight" not in (tmp_path / "model.safetensors").read_bytes().split(b'"__metadata__"')[0]
    check(tmp_path, theirs)


@pytest.mark.parametrize("name", ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"])
def test_embedding_of_one_stack_alone(name: str, tmp_path: Path) -> None:
    state = random_state(COMMON)
    expected = results(load_t5(save(tmp_path / "a", COMMON, state)))[0]
    state[name] = state.pop("shared.weight")
    assert torch.equal(results(load_t5(save(tmp_path / "b", COMMON, state)))[0], expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["shared.weight", "decoder.block.1.layer.2.DenseReluDense.wo.weight"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weight_that_is_no_number_is_named(name: str, value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    state = random_state(COMMON)
    state[name][3, 5] = value
    save(tmp_path, COMMON, state)
    with pytest.raises(AttemptError, match=rf"finite numbers in {name}.*NaN or infinity"):
        load_t5(tmp_path, "cpu", dtype)


def test_large_weights_are_numbers(tmp_path: Path) -> None:
    """A sum of them may overflow."""
    state = random_state(COMMON)
    state["shared.weight"][:4] = 3e38
    load_t5(save(tmp_path, COMMON, state))
