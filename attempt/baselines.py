"""What prompts are compared with: training parameters of the T5 itself, all of them or a few added ones.

Fine-tuning; adapters (Houlsby et al. 2019), with the T5's norms trained too; BitFit (Ben Zaken et al. 2022).
Shapes: D model width, R width inside an adapter.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.errors import AttemptError, briefly
from model.files import write_whole
from model.safetensors import read_safetensors, safetensors_bytes
from model.t5 import T5, RMSNorm

METHODS = ("finetune", "adapter", "bitfit")
FORMAT = "attempt-weights-1"
REDUCTION = 32  # D -> D/32 -> D, as Asai et al.'s adapter baseline


class Adapter(nn.Module):
    """A narrow network after a sublayer: nothing is changed as long as `up` is zero."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)  # W_down (R,D), b_down (R)
        self.up = nn.Linear(bottleneck, width)  # W_up (D,R), b_up (D)

    def forward(self, x: Tensor) -> Tensor:
        # x + W_up gelu(W_down x + b_down) + b_up
        return x + self.up(F.gelu(self.down(x), approximate="tanh"))

    def reset(self, generator: torch.Generator) -> "Adapter":
        """Draw the matrices from N(0, 0.01^2), the biases are 0: the T5 starts nearly as it was."""
        for linear in (self.down, self.up):
            nn.init.normal_(linear.weight, std=0.01, generator=generator)
            nn.init.zeros_(linear.bias)
        return self


class TunedWeights:
    """The parameters of a T5 that a baseline trains, as SoftPrompt is what prompt methods train.

    Building it changes the T5: the parameters are put in, and all others are frozen.
    """

    prompt = None  # the encoder is given none

    def __init__(self, t5: T5, method: str, seed: int = 0) -> None:
        t5.requires_grad_(method == "finetune")
        if method == "adapter":
            add_adapters(t5, torch.Generator().manual_seed(seed))
        if method == "bitfit":
            add_biases(t5)
        self.method = method
        self.weights = {name: weight for name, weight in t5.named_parameters() if weight.requires_grad}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"weights": list(self.weights.values())}

    def state_dict(self) -> dict[str, Tensor]:
        return {name: weight.detach() for name, weight in self.weights.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Raises ValueError where the tensors are not those of this method and T5."""
        if state.keys() != self.weights.keys():
            odd = sorted(state.keys() ^ self.weights.keys())
            raise ValueError(f"expected {len(self.weights)} tensors, found {len(state)}; only one has {odd[0]:.100}")
        for name, weight in self.weights.items():
            if state[name].shape != weight.shape:
                raise ValueError(f"{name}: expected shape {tuple(weight.shape)}, found {tuple(state[name].shape)}")
            weight.copy_(state[name])


def add_adapters(t5: T5, generator: torch.Generator) -> None:
    """A trained adapter after each self-attention and feed-forward of both stacks; the T5's norms are trained too.

    1,855,104 parameters at T5-base's shapes.
    """
    width, like = t5.config.d_model, t5.embedding.weight
    for block in (*t5.encoder.blocks, *t5.decoder.blocks):
        for place in ("attention_adapter", "feed_forward_adapter"):
            setattr(block, place, Adapter(width, max(1, width // REDUCTION)).reset(generator).to(like))
    for module in t5.modules():
        if isinstance(module, RMSNorm):
            module.requires_grad_(True)


def add_biases(t5: T5) -> None:
    """A trained bias, 0 at first, on every matrix and norm except the stacks' final norms, and on the head's scores.

    280,960 parameters at T5-base's shapes.
    """
    for block in (*t5.encoder.blocks, *t5.decoder.blocks):
        for module in block.modules():
            if isinstance(module, nn.Linear | RMSNorm):
                module.bias = nn.Parameter(module.weight.new_zeros(module.weight.size(0)))
    t5.head_bias = nn.Parameter(t5.embedding.weight.new_zeros(t5.config.vocab_size))


def save_weights(path: Path, trained: TunedWeights, config: dict[str, Any]) -> None:
    """Write the trained parameters, under this T5's names; the file appears only when it is whole."""
    metadata = {"format": FORMAT, "config": json.dumps(config)}
    write_whole(path, safetensors_bytes(trained.state_dict(), metadata))


def load_weights(path: Path, trained: TunedWeights) -> dict[str, Any]:
    """Read what save_weights wrote into a T5 that was prepared for the same method; returns the file's config."""
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise AttemptError(f"{path}: expected trained weights ({FORMAT}), found {metadata.get('format', 'none')}")
    try:
        config: dict[str, Any] = json.loads(metadata["config"])
        if config["method"] != trained.method:
            raise ValueError(f"expected weights of --method {trained.method}, found {config['method']!r}")
        trained.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        problem = briefly(e) if "expected" in str(e) else f"expected trained weights, found damaged ones ({briefly(e)})"
        raise AttemptError(f"{path}: {problem}; is --model the one that they were trained with?") from None
    return config
