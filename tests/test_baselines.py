"""Fine-tuning, adapters and BitFit: what they train, what they leave alone, and that they are saved whole."""

import copy
import dataclasses
from pathlib import Path

import naive
import numpy as np
import pytest
import torch
from hugging_face import CONFIGS
from torch import nn
from torch.nn import functional as F

from attempt.baselines import METHODS, Adapter, TunedWeights
from attempt.checkpoint import PromptConfig, load_trained, reload_trained, save_trained
from attempt.prompt import SoftPrompt
from attempt.training.trainer import count
from model.config import T5Config
from model.errors import AttemptError
from model.t5 import T5

T5_BASE = T5Config(vocab_size=32128, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)
LENGTHS = [5, 2, 7, 3]


def model_of(name: str) -> T5:
    known = {k: v for k, v in CONFIGS[name].items() if k in T5Config.__dataclass_fields__}
    torch.manual_seed(0)
    return T5(T5Config(**known)).eval()


def config_of(method: str) -> PromptConfig:
    return PromptConfig(method, "t5-base", ["cola"], [], "digits")


@pytest.mark.parametrize(
    ("method", "expected"), [("adapter", 1_855_104), ("bitfit", 280_960), ("finetune", 222_903_552)]
)
def test_counts_at_t5_base_shapes(method: str, expected: int) -> None:
    """The counts of Asai et al. 2022, table 1."""
    with torch.device("meta"):
        t5 = T5(T5_BASE)
    assert count(TunedWeights(t5, method)) == expected


@pytest.mark.parametrize("name", ["v1.0", "v1.1", "gated-and-tied", "relu-and-untied"])
@pytest.mark.parametrize("method", METHODS)
def test_a_model_whose_added_parameters_are_zero_is_the_frozen_one(method: str, name: str) -> None:
    t5, batch = model_of(name), naive.batch(LENGTHS)
    before = t5(*batch)
    plain = {name for name, _ in t5.named_parameters()}
    trained = TunedWeights(t5, method)
    with torch.no_grad():
        for key, weight in trained.weights.items():
            if key not in plain:
                weight.zero_()
    assert torch.equal(t5(*batch), before)


@pytest.mark.parametrize("name", ["v1.0", "v1.1"])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_changes_what_the_method_trains_and_nothing_else(method: str, name: str) -> None:
    t5, batch = model_of(name), naive.batch(LENGTHS)
    trained = TunedWeights(t5, method)
    before = copy.deepcopy(t5.state_dict())
    frozen = {key for key in before if key not in trained.weights}
    assert bool(frozen) == (method != "finetune")
    # plain gradient descent with a large step: every parameter with a gradient moves
    optimizer = torch.optim.SGD(trained.parameter_groups()["weights"], lr=10.0)
    t5.loss(*batch).backward()
    optimizer.step()
    unchanged = {key for key, value in t5.state_dict().items() if torch.equal(value, before[key])}
    assert frozen <= unchanged
    # a self-attention's keys all get the same bias: the softmax does not see it
    assert all(".k.bias" in key for key in unchanged - frozen)


def test_bitfit_trains_a_bias_of_every_matrix_and_norm_but_the_final_norms() -> None:
    t5 = model_of("v1.0")
    places = {name for name, m in t5.named_modules() if isinstance(m, nn.Linear) or type(m).__name__ == "RMSNorm"}
    expected = {f"{name}.bias" for name in places - {"encoder.norm", "decoder.norm"}} | {"head_bias"}
    assert set(TunedWeights(t5, "bitfit").weights) == expected


def test_biases_enter_where_they_should() -> None:
    """A norm's bias is added after its scale, the head's to the scores."""
    t5, (ids, mask, labels) = model_of("v1.1"), naive.batch(LENGTHS)
    before = t5(ids, mask, labels)
    trained = TunedWeights(t5, "bitfit")
    with torch.no_grad():
        trained.weights["head_bias"].copy_(torch.arange(101.0))
    torch.testing.assert_close(t5(ids, mask, labels), before + torch.arange(101.0))
    norm = t5.encoder.blocks[0].attention_norm
    x = torch.randn(2, 3, 32)
    plain = norm(x)
    with torch.no_grad():
        norm.bias.copy_(torch.arange(32.0))
    torch.testing.assert_close(norm(x), plain + torch.arange(32.0))


def test_the_adapter_follows_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    adapter = Adapter(6, 3).double()
    with torch.no_grad():
        for p in adapter.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    x = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    W_down, b_down, W_up, b_up = (naive.float64(p) for p in adapter.parameters())
    z = naive.float64(x) @ W_down.T + b_down
    gelu = 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    expected = naive.float64(x) + gelu @ W_up.T + b_up
    np.testing.assert_allclose(naive.float64(adapter(x)), expected, atol=1e-12)


def test_adapters_stand_after_self_attention_and_feed_forward_before_the_sum() -> None:
    """A block by hand: x + A1(attention(norm x)), then x + A2(ff(norm x)); none after cross-attention."""
    t5 = model_of("v1.0")
    TunedWeights(t5, "adapter", seed=1)
    block = t5.decoder.blocks[0]
    with torch.no_grad():
        for p in (*block.attention_adapter.parameters(), *block.feed_forward_adapter.parameters()):
            p.copy_(torch.randn(p.shape))
    x, memory, none = torch.randn(2, 3, 32), torch.randn(2, 4, 32), torch.zeros(1, 1, 1, 1)
    h = block.attention_norm(x)
    y = x + block.attention_adapter(block.attention(h, h, none))
    y = y + block.cross_attention(block.cross_attention_norm(y), memory, none)
    y = y + block.feed_forward_adapter(block.feed_forward(block.feed_forward_norm(y)))
    torch.testing.assert_close(block(x, none, memory, none), y)
    assert F.mse_loss(block(x, none, memory, none), x) > 0


@pytest.mark.parametrize("name", ["v1.0", "v1.1"])
@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded_into_a_new_model_it_gives_identical_logits(method: str, name: str, tmp_path: Path) -> None:
    t5, batch = model_of(name), naive.batch(LENGTHS)
    trained = TunedWeights(t5, method)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in trained.weights.values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    expected = t5(*batch)
    assert not torch.equal(expected, model_of(name)(*batch))
    save_trained(tmp_path / "w.safetensors", trained, config_of(method))

    fresh = model_of(name)
    loaded, config = load_trained(tmp_path / "w.safetensors", method, fresh)
    assert torch.equal(fresh(*batch), expected) and config == config_of(method)
    with torch.no_grad():
        for weight in trained.weights.values():
            weight.zero_()
    reload_trained(tmp_path / "w.safetensors", trained)
    assert torch.equal(t5(*batch), expected) and isinstance(loaded, TunedWeights)


def test_a_checkpoint_of_another_method_or_model_is_told(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_trained(path, TunedWeights(model_of("v1.0"), "bitfit"), config_of("bitfit"))
    with pytest.raises(AttemptError, match=r"w\.safetensors: expected weights of --method adapter, found 'bitfit'"):
        load_trained(path, "adapter", model_of("v1.0"))
    with pytest.raises(AttemptError, match=r"expected \d+ tensors, found \d+; only one has .*is --model the one"):
        load_trained(path, "bitfit", model_of("v1.1"))
    wider = T5(dataclasses.replace(model_of("v1.0").config, d_ff=80))
    with pytest.raises(AttemptError, match=r"wi\.bias: expected shape \(80,\), found \(64,\)"):
        load_trained(path, "bitfit", wider)
    prompt = tmp_path / "p.safetensors"
    save_trained(prompt, SoftPrompt(torch.zeros(1, 2, 32)), config_of("prompt"))
    with pytest.raises(AttemptError, match=r"expected trained weights \(attempt-weights-1\), found attempt-prompt-1"):
        load_trained(prompt, "bitfit", model_of("v1.0"))
    with pytest.raises(AttemptError, match=r"expected a prompt checkpoint .*, found the weights of a baseline"):
        load_trained(path, "prompt", model_of("v1.0"))
