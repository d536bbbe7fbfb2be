"""The sizes that are measured, random weights for them, and how many floating-point operations they need."""

from typing import Any

import torch
from torch import Tensor

from model.checkpoint import hugging_face_names
from model.config import T5Config
from model.t5 import T5

V11: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
SHAPES: dict[str, T5Config] = {
    "tiny": T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=101),  # for the tests
    "tiny-v1_1": T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=3, vocab_size=101, **V11),
    "short": T5Config(d_model=512, d_kv=64, d_ff=2048, num_layers=2, num_heads=8),  # t5-small's widths, for forms.py
    "short-v1_1": T5Config(d_model=512, d_kv=64, d_ff=1024, num_layers=2, num_heads=6, **V11),
    "t5-small": T5Config(d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8),
    "t5-base": T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12),
    "t5-large": T5Config(d_model=1024, d_kv=64, d_ff=4096, num_layers=24, num_heads=16),
    "t5-3b": T5Config(d_model=1024, d_kv=128, d_ff=16384, num_layers=24, num_heads=32),
    "t5-v1_1-base": T5Config(d_model=768, d_kv=64, d_ff=2048, num_layers=12, num_heads=12, **V11),
}


def random_state(config: T5Config, device: torch.device, seed: int = 0) -> dict[str, Tensor]:
    """Random fp32 weights under our names, of sizes that keep the activations near 1."""
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in T5(config).named_parameters()}
    generator = torch.Generator(device).manual_seed(seed)
    state = {}
    for name in hugging_face_names(config):
        noise = torch.randn(shapes[name], generator=generator, device=device)
        if name == "decoder.norm.weight":
            state[name] = noise  # signs differ: else a tied head only ever repeats the token that it has just read
        elif noise.dim() == 1:
            state[name] = 1 + 0.1 * noise
        elif name == "embedding.weight" or "relative_bias" in name:
            state[name] = noise
        else:
            state[name] = noise.mul_(noise.size(1) ** -0.5)
        if name.endswith(".q.weight"):  # as T5 begins: scores are not divided by the root of d
            state[name].mul_(config.d_kv**-0.5)
    return state


def load(config: T5Config, state: dict[str, Tensor]) -> T5:
    """Our T5 with these weights: the very tensors, not copies of them."""
    with torch.device("meta"):
        t5 = T5(config)
    t5.load_state_dict(state, assign=True)
    return t5.requires_grad_(False)


def operations(config: T5Config, L: int, S: int, T: int, backward: bool, trained: bool = False) -> int:
    """Floating-point operations for an example of S text tokens, L prompt tokens and T decoder positions.

    A product of matrices counts twice its multiplications; norms, softmax and the like count nothing. The backward pass
    of a frozen T5 needs the gradients of the activations alone: for a weight's product as much as forward, and twice
    as much for the two products of attention. Where the T5 is trained, the gradient of each weight comes on top.
    """
    D, F, V, inner = config.d_model, config.d_ff, config.vocab_size, config.num_heads * config.d_kv
    m, N = 3 if config.gated else 2, L + S
    encoder = N * 2 * (4 * D * inner + m * D * F)
    decoder = N * 4 * D * inner + T * 2 * (6 * D * inner + m * D * F)  # the first term: cross-attention's keys, values
    weights = config.num_layers * encoder + config.decoder_layers * decoder + T * 2 * D * V
    attention = config.num_layers * 4 * N * N * inner + config.decoder_layers * 4 * T * N * inner
    return (3 if trained else 2) * weights + 3 * attention if backward else weights + attention


def most_bytes(config: T5Config, examples: int, positions: int, backward: bool, trained: bool) -> int:
    """Memory that a plain program on a GPU may come to need: a guess, above what was seen, to place programs by."""
    with torch.device("meta"):
        parameters = sum(p.numel() for p in T5(config).parameters())
    weights = parameters * (16 if trained else 6)  # with gradients and two moments; or fp32 while they are cast to bf16
    a_position = 75 * config.d_model + 6 * config.num_heads * positions
    layers = config.num_layers + 1 if backward else 2
    return 10**9 + weights + layers * examples * positions * a_position
