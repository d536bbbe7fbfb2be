"""The sizes of a T5, read from a Hugging Face config.json."""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from model.errors import AttemptError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,  # T5 v1.0
    "gelu_new": partial(F.gelu, approximate="tanh"),  # v1.1
    "gelu": F.gelu,
    "silu": F.silu,
}

# Every key of transformers' T5Config. Used, with the meaning that it has there: the fields of T5Config below, and
ALIASES = {"hidden_size": "d_model", "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads",
           "head_dim": "d_kv"}  # fmt: skip
# Must have one value:
FIXED = {"is_encoder_decoder": True}
# Change nothing here: first values, other heads, other programs' settings.
UNUSED = ("initializer_factor", "classifier_dropout", "use_cache", "is_decoder", "n_positions")

MT5 = {"feed_forward_proj": "gated-gelu", "vocab_size": 250112}  # what an mT5's absent keys mean


@dataclass(frozen=True)
class T5Config:
    """Sizes of a T5, under the names of Hugging Face's config.json."""

    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    vocab_size: int = 32128
    num_decoder_layers: int | None = None  # absent in the file: as many as the encoder has
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"  # "relu" is v1.0, "gated-gelu" is v1.1
    dense_act_fn: str | None = None  # these two stand above feed_forward_proj, where the file has them
    is_gated_act: bool | None = None
    tie_word_embeddings: bool = True  # the embedding is the head; of a loaded T5 its files have decided
    scale_decoder_outputs: bool | None = None  # the head's input is scaled by D^-0.5; absent: where the two are tied
    pad_token_id: int = 0
    eos_token_id: int = 1
    decoder_start_token_id: int = 0

    @property
    def gated(self) -> bool:
        return self.feed_forward_proj.startswith("gated-") if self.is_gated_act is None else self.is_gated_act

    @property
    def activation(self) -> str:
        """One of ACTIVATIONS."""
        named = "gelu_new" if self.feed_forward_proj == "gated-gelu" else self.feed_forward_proj.removeprefix("gated-")
        return self.dense_act_fn or named

    @property
    def scaled(self) -> bool:
        return self.tie_word_embeddings if self.scale_decoder_outputs is None else self.scale_decoder_outputs

    @property
    def decoder_layers(self) -> int:
        return self.num_layers if self.num_decoder_layers is None else self.num_decoder_layers

    @classmethod
    def from_json(cls, path: Path) -> "T5Config":
        """Read a Hugging Face config.json. Raises AttemptError on anything that is not a T5's.

        A start token that it lacks is taken from the generation_config.json beside it.
        """
        found = _read_json(path, "the config.json of a T5 checkpoint")
        kind = found.get("model_type", "t5")
        if kind not in ("t5", "mt5"):
            raise AttemptError(f'{path}: expected a T5 configuration ("model_type": "t5"), found {json.dumps(kind)}')
        for alias, name in ALIASES.items():
            if found.setdefault(name, found.get(alias)) != found.get(alias, found[name]):
                raise AttemptError(
                    f'{path}: expected "{alias}" to be "{name}" by another name, found {found[alias]} and {found[name]}'
                )
        for name, value in FIXED.items():
            if found.get(name) not in (None, value):
                raise AttemptError(f'{path}: expected "{name}" to be {json.dumps(value)}, found {found[name]!r:.100}')
        start, generation = "decoder_start_token_id", path.parent / "generation_config.json"
        if found.get(start) is None and generation.is_file():
            found[start] = _read_json(generation, "the settings of a T5's answers").get(start)
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in found.items() if k in known and v is not None}
        if kind == "mt5":
            values = {**MT5, **values, "scale_decoder_outputs": False}
        for name in ("d_model", "d_kv", "d_ff", "num_layers", "num_heads"):
            if name not in values:
                raise AttemptError(f'{path}: expected the field "{name}", which every T5 configuration has')
        for name, value in values.items():
            cls._check_field(path, name, value)
        config = cls(**values)
        if config.activation not in ACTIVATIONS:
            raise AttemptError(
                f'{path}: expected "dense_act_fn" or "feed_forward_proj" to name one of {", ".join(ACTIVATIONS)}, '
                f"which this program computes, found {config.activation!r:.100}"
            )
        buckets, distance = config.relative_attention_num_buckets, config.relative_attention_max_distance
        if buckets < 4 or distance <= buckets // 2:  # half of them are exact distances, the others must lie beyond
            raise AttemptError(
                f"{path}: expected 4 or more relative_attention_num_buckets, half of them below "
                f"relative_attention_max_distance, found {buckets} and {distance}"
            )
        highest = max(config.pad_token_id, config.eos_token_id, config.decoder_start_token_id)
        if highest >= config.vocab_size:
            raise AttemptError(f"{path}: expected token ids below vocab_size {config.vocab_size}, found {highest}")
        return config

    @staticmethod
    def _check_field(path: Path, name: str, value: Any) -> None:
        if name in ("feed_forward_proj", "dense_act_fn"):
            good, expected = isinstance(value, str), 'a name, such as "relu" (T5 v1.0) or "gated-gelu" (v1.1)'
        elif name in ("tie_word_embeddings", "scale_decoder_outputs", "is_gated_act"):
            good, expected = isinstance(value, bool), "true or false"
        elif name in ("dropout_rate", "layer_norm_epsilon"):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            good, expected = number and 0 <= value < 1, "a number from 0 to 1"
        elif name.endswith("_token_id"):
            good, expected = type(value) is int and value >= 0, "a whole number from 0"
        else:
            most = 1000 if name.startswith("num_") else 10_000_000  # a damaged file should not ask for the impossible
            good, expected = type(value) is int and 1 <= value <= most, f"a whole number from 1 to {most}"
        if not good:
            raise AttemptError(f'{path}: expected "{name}" to be {expected}, found {json.dumps(value)}')


def _read_json(path: Path, expected: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise AttemptError(f"{path}: expected {expected}, found {e}") from None
    if not isinstance(found, dict):
        raise AttemptError(f"{path}: expected {expected}, found {type(found).__name__} instead of an object")
    return found


def width_of(model: str) -> int | None:
    """D of a checkpoint whose folder is at hand; None for a name, whose files have yet to be fetched."""
    config = Path(model) / "config.json"
    return T5Config.from_json(config).d_model if config.exists() else None
