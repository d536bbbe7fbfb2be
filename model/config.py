"""The sizes of a T5, read from a Hugging Face config.json."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from attempt.errors import AttemptError


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
    tie_word_embeddings: bool = True
    pad_token_id: int = 0
    eos_token_id: int = 1
    decoder_start_token_id: int = 0

    @property
    def gated(self) -> bool:
        return self.feed_forward_proj == "gated-gelu"

    @property
    def decoder_layers(self) -> int:
        return self.num_layers if self.num_decoder_layers is None else self.num_decoder_layers

    @classmethod
    def from_json(cls, path: Path) -> "T5Config":
        """Read a Hugging Face config.json. Raises AttemptError on anything that is not a T5's."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as e:
            raise AttemptError(f"{path}: expected the config.json of a T5 checkpoint, found {e}") from None
        if not isinstance(found, dict) or found.get("model_type", "t5") not in ("t5", "mt5"):
            raise AttemptError(f'{path}: expected a T5 configuration ("model_type": "t5"), found another')
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in found.items() if k in known and v is not None}
        for name in ("d_model", "d_kv", "d_ff", "num_layers", "num_heads"):
            if name not in values:
                raise AttemptError(f'{path}: expected the field "{name}", which every T5 configuration has')
        for name, value in values.items():
            cls._check_field(path, name, value)
        config = cls(**values)
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
        if name == "feed_forward_proj":
            good, expected = value in ("relu", "gated-gelu"), '"relu" (T5 v1.0) or "gated-gelu" (v1.1)'
        elif name == "tie_word_embeddings":
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


def width_of(model: str) -> int | None:
    """D of a checkpoint whose folder is at hand; None for a name, whose files have yet to be fetched."""
    config = Path(model) / "config.json"
    return T5Config.from_json(config).d_model if config.exists() else None
